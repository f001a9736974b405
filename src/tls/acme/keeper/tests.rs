//! What is served and told while a disk hangs: here a pipe that nobody writes into.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::config::CertificateSource;
use crate::tls::acme::stand_in;

/// Certificates for two names, of which that for `b.example` cannot be read.
struct Machine {
    disk: TempDir,
    pipe: PathBuf,
    tls: Tls,
}

impl Machine {
    fn new() -> Self {
        let disk = tempfile::tempdir().unwrap();
        let folder = |name| disk.path().join("acme/certificates").join(name);
        for name in ["a.example", "b.example"] {
            std::fs::create_dir_all(folder(name)).unwrap();
            let pem = stand_in::pem(&[name.to_owned()]).unwrap();
            std::fs::write(folder(name).join("certificate.pem"), pem).unwrap();
        }
        let pipe = folder("b.example").join("history.json");
        make_pipe(&pipe);
        let tls = Tls::new(&config(disk.path()).tls).unwrap();
        Self { disk, pipe, tls }
    }

    async fn start(&self) -> AcmeKeeper {
        AcmeKeeper::start(config(self.disk.path()).acme, &self.tls).await
    }

    fn serves(&self, name: &str, real: bool) -> bool {
        let served = self.tls.certificates();
        let mut of_name = served.iter().filter(|it| it.names == [name]);
        of_name
            .next()
            .is_some_and(|it| (it.source != stand_in::SOURCE) == real)
    }

    /// The disk answers, for as long as it is kept.
    fn answer(&self) -> File {
        // Whoever opens the path from now on finds nothing.
        let open = OpenOptions::new().read(true).write(true).open(&self.pipe);
        std::fs::remove_file(&self.pipe).unwrap();
        open.unwrap()
    }
}

fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

fn config(disk: &Path) -> crate::config::Config {
    let text = format!(
        "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example\", \"b.example\"]\n\
         import = []\ndirectories = [\"https://ca.example/dir\"]\nstate_dir = {disk:?}"
    );
    crate::config::parse(&text, "t").unwrap().config
}

#[tokio::test]
async fn a_disk_that_hangs_at_the_start_keeps_back_only_what_is_on_it() {
    let machine = Machine::new();
    let keeper = machine.start().await;
    assert!(machine.serves("a.example", true), "it has been read");
    assert!(machine.serves("b.example", false), "it is awaited");
    let told = keeper.status();
    assert!(
        told[1]
            .next
            .contains("is looked for in the state directory"),
        "{told:?}"
    );
    let why = keeper.looked(Duration::from_millis(50)).await.unwrap_err();
    assert!(why.contains("[acme] state_dir"), "{why}");
    drop(machine.answer());
    keeper.looked(Duration::from_secs(20)).await.unwrap();
    assert!(machine.serves("b.example", true));
}

/// Files have been turned on while a look at the disk hangs.
#[tokio::test]
async fn what_comes_late_from_a_disk_replaces_nothing_that_was_turned_on_since() {
    let machine = Machine::new();
    let keeper = machine.start().await;
    let dir = machine.disk.path().join("dev");
    keeper.reconfigure(None).await;
    let mut files = config(machine.disk.path()).tls;
    files.certificate = CertificateSource::Dev { dir };
    let prepared = machine.tls.prepare(&files).unwrap();
    machine.tls.apply(prepared);
    let turned_on = machine.tls.certificates();
    assert_eq!(turned_on[0].names[0], "localhost");
    drop(machine.answer());
    keeper.looked(Duration::from_secs(20)).await.unwrap();
    assert_eq!(machine.tls.certificates(), turned_on);
}
