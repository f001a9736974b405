//! `holdline cert`: with nobody running, and with a certificate on disk.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{Running, ended, run};

fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("h.toml"), config).unwrap();
    folder
}

const ACME: &str = "[tls]\ncertificate = \"acme\"\n[listen]\nhttps = [\"0.0.0.0:443\"]\n\
    [acme]\ndomains = [\"a.example\", \"b.example www.b.example\"]\nstate_dir = \"state\"\nimport = []\n\
    [admin]\nlisten = \"127.0.0.1:1\"\n";

/// Puts a certificate for `a.example` where holdline keeps it; the folder of it.
fn kept_certificate(folder: &TempDir) -> PathBuf {
    let kept = folder.path().join("state/acme/certificates/a.example");
    std::fs::create_dir_all(&kept).unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let pem = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
    std::fs::write(kept.join("certificate.pem"), pem).unwrap();
    kept
}

#[tokio::test]
async fn the_list_needs_no_running_holdline_and_changes_nothing() {
    let folder = folder(ACME);
    let kept = kept_certificate(&folder);
    let damaged = "{\"attempts\": [";
    std::fs::write(kept.join("history.json"), damaged).unwrap();
    let list = ended(&folder, &["cert", "list", "--config", "h.toml"]).await;
    assert_eq!(list.code, Some(0), "{}", list.err);
    assert!(
        list.out
            .starts_with("a.example\n  valid until 4096-01-01T00:00:00Z, by "),
        "{}",
        list.out
    );
    assert!(
        list.out
            .contains("b.example www.b.example\n  there is none yet\n  is ordered in a moment\n"),
        "{}",
        list.out
    );
    let note =
        "holdline is not running (nothing answers on 127.0.0.1:1): this is what lies on disk\n";
    assert!(list.out.ends_with(note), "{}", list.out);
    assert_eq!(
        std::fs::read_to_string(kept.join("history.json")).unwrap(),
        damaged
    );
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 2);

    let json = ended(&folder, &["cert", "list", "--json", "--config", "h.toml"]).await;
    let all: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&all[0]["state"], &all[1]["state"]),
        (&"served".into(), &"awaited".into())
    );
}

#[tokio::test]
async fn the_list_says_from_which_ca_a_certificate_came() {
    let folder = folder(ACME);
    let kept = kept_certificate(&folder);
    let said = |ca: &str| {
        let history = format!("{{\"version\": 1, \"issuer\": \"{ca}\"}}");
        std::fs::write(kept.join("history.json"), history).unwrap();
        ended(&folder, &["cert", "list", "--config", "h.toml"])
    };
    for (ca, named) in [
        (
            "https://acme-v02.api.letsencrypt.org/directory",
            "letsencrypt",
        ),
        (
            "https://ca.example/not/ours/any/more",
            "https://ca.example/not/ours/any/more",
        ),
    ] {
        let list = said(ca).await.out;
        let first = list.lines().nth(1).unwrap();
        assert!(first.ends_with(&format!(" ({named})")), "{list}");
    }
}

#[tokio::test]
async fn what_is_damaged_broken_off_or_to_be_taken_over_is_told_before_the_start() {
    let other = tempfile::tempdir().unwrap();
    let live = other.path().join("live/b.example");
    std::fs::create_dir_all(&live).unwrap();
    let names = ["b.example".to_owned(), "www.b.example".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(live.join("privkey.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(live.join("fullchain.pem"), made.cert.pem()).unwrap();
    let import = format!("import = [{:?}]", other.path());
    let folder = folder(&ACME.replace("import = []", &import));
    let kept = folder.path().join("state/acme/certificates/a.example");
    std::fs::create_dir_all(&kept).unwrap();
    let list = async || ended(&folder, &["cert", "list", "--config", "h.toml"]).await;
    let attempt = "{\"version\": 1, \"attempts\": [{\"ca\": \"https://acme-v02.api.letsencrypt.org/directory\", \
        \"at\": \"2026-01-02T03:04:05Z\", \"outcome\": {\"result\": \"started\"}}]}";
    std::fs::write(kept.join("history.json"), attempt).unwrap();
    let told = list().await.out;
    let from = live.join("fullchain.pem");
    let next = format!("is taken over from {} at the start\n", from.display());
    assert!(told.contains(&next), "{told}");
    let broken = "failed on 2026-01-02T03:04:05Z at letsencrypt: the process ended in the middle of the last order";
    assert!(told.contains(broken), "{told}");

    let pem = made.cert.pem();
    std::fs::write(kept.join("certificate.pem"), &pem[..pem.len() / 2]).unwrap();
    let told = list().await.out;
    let damaged = "certificate.pem is damaged: it ends in the middle";
    assert!(
        told.contains(damaged) && !told.contains("MissingSection"),
        "{told}"
    );
    assert!(kept.join("certificate.pem").exists(), "only looked at");
}

#[tokio::test]
async fn nobody_but_us_renews_the_development_certificate() {
    let folder = folder("[admin]\nlisten = \"127.0.0.1:1\"\n");
    let made = ended(&folder, &["cert", "dev", "--config", "h.toml"]).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
    let list = ended(&folder, &["cert", "list", "--config", "h.toml"]).await;
    let next = "is made anew at the first start or reload in its last 14 days\n";
    assert!(list.out.contains(next), "{}", list.out);
}

/// As for another user, whom the rights keep out.
#[tokio::test]
async fn what_cannot_be_read_is_not_told_as_absent() {
    let folder = folder(ACME);
    let kept = folder.path().join("state/acme/certificates/a.example");
    std::fs::create_dir_all(kept.join("certificate.pem")).unwrap();
    let list = ended(&folder, &["cert", "list", "--config", "h.toml"]).await;
    assert_eq!(list.code, Some(1), "{}", list.out);
    assert!(
        list.out
            .starts_with("a.example\n  cannot tell: cannot read ")
            && list
                .out
                .contains("b.example www.b.example\n  there is none yet\n"),
        "{}",
        list.out
    );
    let doctor = ended(&folder, &["doctor", "--json", "--config", "h.toml"]).await;
    assert!(doctor.out.contains("cannot read "), "{}", doctor.out);
    assert!(
        !doctor.out.contains("cannot tell: cannot read"),
        "{}",
        doctor.out
    );
}

/// A pipe that nobody writes to is what a disk that is gone looks like.
#[tokio::test]
async fn a_disk_that_hangs_is_told_and_not_waited_for() {
    let folder = folder(ACME);
    let kept = folder.path().join("state/acme/certificates/a.example");
    std::fs::create_dir_all(&kept).unwrap();
    let pipe = kept.join("history.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let list = ended(&folder, &["cert", "list", "--config", "h.toml"]).await;
    assert_eq!(list.code, Some(1));
    assert!(
        list.err.contains("does not answer within 5 s") && list.err.contains("state_dir"),
        "{}",
        list.err
    );
}

#[tokio::test]
async fn renewing_needs_a_running_holdline_and_says_so() {
    let folder = folder(ACME);
    let renew = ended(
        &folder,
        &["cert", "renew", "a.example", "--config", "h.toml"],
    )
    .await;
    assert_eq!(renew.code, Some(1));
    assert!(
        renew
            .err
            .contains("nothing answers on 127.0.0.1:1: holdline is not running"),
        "{}",
        renew.err
    );
    let keys = ended(&folder, &["cert", "account-key", "--config", "h.toml"]).await;
    assert!(
        keys.code == Some(1) && keys.err.contains("letsencrypt: there is no account yet"),
        "{}",
        keys.err
    );
}

#[tokio::test]
async fn the_development_certificate_is_made_and_listed() {
    let folder = folder("");
    let none = ended(&folder, &["cert", "list", "--admin", "off"]).await;
    assert!(
        none.out
            .ends_with("cert.pem\n  there is none yet\n  is made at the first start\n"),
        "{}",
        none.out
    );
    let made = ended(&folder, &["cert", "dev"]).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert!(
        made.out.contains("certs-dev/cert.pem\n  for localhost"),
        "{}",
        made.out
    );
    assert!(folder.path().join("certs-dev/cert.pem").exists());
    let list = ended(&folder, &["cert", "list", "--admin", "off"]).await;
    assert!(
        list.out
            .starts_with("localhost *.localhost 127.0.0.1 ::1\n  valid until"),
        "{}",
        list.out
    );
}

#[tokio::test]
async fn the_list_is_that_of_the_holdline_that_runs() {
    let running = Running::start("").await;
    // Started elsewhere, with nothing on disk.
    let list = run(&["cert", "list", "--admin", &running.address("admin")]).await;
    assert_eq!((list.code, list.err.as_str()), (Some(0), ""));
    assert!(
        list.out
            .starts_with("localhost *.localhost 127.0.0.1 ::1\n  valid until 20"),
        "{}",
        list.out
    );
}
