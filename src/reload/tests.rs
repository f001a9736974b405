//! Broken configs for a running proxy: each is refused, and the old one goes on.

use std::sync::{Arc, Mutex};

use tokio::net::TcpStream;

use super::{HANGING, LIMIT, ReloadError, Source};
use crate::Holdline;
use crate::config::tests::broken;
use crate::config::{self, Loaded};

fn running(folder: &tempfile::TempDir) -> String {
    let dev = folder.path().join("certs-dev");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::create_dir(&dev).unwrap();
    let (cert, key) = (dev.join("cert.pem"), dev.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"off\"\n[tls]\n\
         certificate = \"files\"\nfiles = [{{ cert = {cert:?}, key = {key:?} }}]\n\
         [limits]\nsessions = 1234\n"
    )
}

#[tokio::test]
async fn every_broken_config_is_refused_and_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let text = Arc::new(Mutex::new(running(&folder)));
    let read = {
        let text = Arc::clone(&text);
        move || config::parse(&text.lock().unwrap(), "holdline.toml")
    };
    let first: Loaded = read().unwrap();
    let load = Box::new(read);
    let proxy = Holdline::start_from(first, Source { load, log: None });
    let proxy = proxy.await.unwrap();
    let address = proxy.https_addrs()[0];
    let good = text.lock().unwrap().clone();
    let mut refused = 0;
    for (name, bad) in broken::ALL.iter().copied().flatten() {
        *text.lock().unwrap() = (*bad).to_owned();
        let told = proxy.reload().await.expect_err(name);
        assert!(matches!(told, ReloadError::Config(_)), "{name}: {told}");
        assert!(told.to_string().contains("the old one is in force"));
        assert_eq!(proxy.https_addrs(), [address], "{name}");
        refused += 1;
    }
    assert!(refused >= 50, "{refused}");
    // Nothing of them was taken: by the comparison with the first, nothing has changed.
    *text.lock().unwrap() = good;
    assert_eq!(proxy.reload().await.unwrap().changes, []);
    TcpStream::connect(address).await.unwrap();
}

/// A certificate's disk goes away as soon as the config is read: a pipe that nobody writes to is as
/// slow.
#[tokio::test(start_paused = true)]
async fn what_hangs_is_given_up_and_never_taken_later() {
    let folder = tempfile::tempdir().unwrap();
    let good = running(&folder);
    let text = Arc::new(Mutex::new(good.clone()));
    let (cert, slow) = (
        folder.path().join("certs-dev/cert.pem"),
        folder.path().join("slow.pem"),
    );
    let chain = std::fs::read(&cert).unwrap();
    let pipe = |turn: usize| folder.path().join(format!("pipe{turn}"));
    let read = {
        let (text, slow) = (Arc::clone(&text), slow.clone());
        let pipes: Vec<_> = (0..HANGING).map(pipe).collect();
        move || {
            let loaded = config::parse(&text.lock().unwrap(), "holdline.toml");
            if let Some(pipe) = pipes.iter().find(|pipe| pipe.exists()) {
                std::fs::rename(pipe, &slow).unwrap();
            }
            // Nothing is looked at by itself.
            loaded.map(|loaded| Loaded {
                files: Vec::new(),
                ..loaded
            })
        }
    };
    let first: Loaded = read().unwrap();
    let load = Box::new(read);
    let proxy = Holdline::start_from(first, Source { load, log: None });
    let proxy = Arc::new(proxy.await.unwrap());
    let addresses = proxy.https_addrs();

    let bad = good.replace(&format!("{cert:?}"), &format!("{slow:?}"));
    let bad = bad.replace("127.0.0.1:0\"", "127.0.0.1:0\", \"127.0.0.2:0\"");
    let mut writers = Vec::new();
    for turn in 0..HANGING {
        let _ = std::fs::remove_file(&slow);
        std::fs::write(&slow, &chain).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(pipe(turn))
            .status();
        assert!(made.unwrap().success());
        bad.clone_into(&mut text.lock().unwrap());
        let reload = tokio::spawn({
            let proxy = Arc::clone(&proxy);
            async move { proxy.reload().await }
        });
        writers.push(writer(&slow).await);
        tokio::time::advance(LIMIT).await;
        let told = reload.await.unwrap().unwrap_err();
        assert!(matches!(told, ReloadError::SlowFiles), "{told}");
        if writers.len() < HANGING {
            // Another config is not held up by it.
            *text.lock().unwrap() = good.replace("1234", &format!("{}", 1000 + turn));
            let taken = proxy.reload().await.unwrap();
            assert_eq!(taken.changes.len(), 1, "{taken:?}");
            assert_eq!(taken.changes[0].key, "limits.sessions");
        }
    }
    let told = proxy.reload().await.unwrap_err();
    assert!(matches!(told, ReloadError::Hanging), "{told}");

    // The disk is back: what was given up comes to its end, and to nothing.
    for mut writer in writers {
        std::io::Write::write_all(&mut writer, &chain).unwrap();
    }
    good.clone_into(&mut text.lock().unwrap());
    let taken = loop {
        match proxy.reload().await {
            Err(ReloadError::Hanging) => tokio::task::yield_now().await,
            done => break done.unwrap(),
        }
    };
    assert_eq!(taken.changes.len(), 1, "{taken:?}");
    assert_eq!(proxy.https_addrs(), addresses);
}

/// The other end, as soon as somebody reads.
async fn writer(pipe: &std::path::Path) -> std::fs::File {
    use std::os::unix::fs::OpenOptionsExt as _;
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    loop {
        let mut options = std::fs::OpenOptions::new();
        match options.write(true).custom_flags(nonblocking).open(pipe) {
            Ok(writer) if is_pipe(&writer) => return writer,
            // A file that is not a pipe yet, or one without a reader.
            Ok(_) | Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn is_pipe(file: &std::fs::File) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    file.metadata().unwrap().file_type().is_fifo()
}
