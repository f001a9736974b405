//! Broken configs for a running proxy: each is refused, and the old one goes on.

use std::sync::{Arc, Mutex};

use tokio::net::TcpStream;

use super::{ReloadError, Source};
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
