//! The whole proxy, in this process, with a config that makes it quick.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use holdline::config::{self, Config};
use holdline::{Holdline, Source};
use tempfile::TempDir;
use toml::{Table, Value};

use super::gateway::ScriptedGateway;
use super::http;
use super::net::Target;
use super::wait::{ms, within};

/// What differs from the defaults, so that tests are quick and share no port, file or address
/// budget.
const QUICK: &str = r#"
[listen]
https = ["127.0.0.1:0"]
[gateway]
probe_interval = "50ms"
probe_interval_ready = "200ms"
[hold]
notice_after = "50ms"
notice_every = "500ms"
resume_rate = 1000
[http]
page_after = "200ms"
[limits]
handshakes_per_ip = "100000/s"
sessions_per_ip = 8000
[admin]
listen = "127.0.0.1:0"
[log]
level = "off"
"#;

/// A running proxy.
pub struct Proxy {
    pub holdline: Holdline,
    _certificate: TempDir,
}

impl Proxy {
    /// In front of this gateway.
    pub async fn start(gateway: &ScriptedGateway) -> Self {
        Self::with(gateway, "").await
    }

    /// The same with these TOML settings on top.
    pub async fn with(gateway: &ScriptedGateway, settings: &str) -> Self {
        Self::in_front_of(&gateway.url(), settings).await
    }

    /// In front of any URL.
    pub async fn in_front_of(url: &str, settings: &str) -> Self {
        let certificate = self_signed();
        let config = config(url, certificate.path(), settings);
        let holdline = within("the proxy's start", Holdline::start(config)).await;
        Self {
            holdline: holdline.expect("it starts"),
            _certificate: certificate,
        }
    }

    /// The same with settings that can change: read anew by a reload.
    pub async fn reloadable(gateway: &ScriptedGateway, settings: &Arc<Mutex<String>>) -> Self {
        let certificate = self_signed();
        let (url, dir) = (gateway.url(), certificate.path().to_owned());
        let settings = Arc::clone(settings);
        let read = move || {
            let text = text(&url, &dir, &settings.lock().unwrap());
            config::parse(&text, "test")
        };
        let first = read().expect("a good config");
        let source = Source {
            load: Box::new(read),
            log: None,
        };
        let start = Holdline::start_from(first, source);
        let holdline = within("the proxy's start", start).await;
        Self {
            holdline: holdline.expect("it starts"),
            _certificate: certificate,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.holdline.https_addrs()[0]
    }

    /// Where an operator asks.
    pub fn admin(&self) -> Target {
        Target::plain(self.holdline.admin_addr().expect("an admin listener"))
    }

    /// What `/status` says.
    pub async fn status(&self) -> serde_json::Value {
        http::get(&self.admin(), "/status", &[]).await.json()
    }

    /// Waits until the default route's gateway is seen in this state.
    pub async fn gateway_is(&self, state: &str) {
        let seen = |status: &serde_json::Value| {
            let gateways = status["gateways"].as_array().expect("a list");
            gateways[gateways.len() - 1]["state"] == state
        };
        within(&format!("the gateway is {state}"), self.status_until(seen)).await;
    }

    /// Waits until it is on its way out.
    pub async fn is_draining(&self) {
        let draining = |status: &serde_json::Value| status["draining"] == true;
        within("the beginning of the drain", self.status_until(draining)).await;
    }

    /// Waits until so many bytes of clients are kept.
    pub async fn keeps(&self, bytes: usize) {
        let seen = |status: &serde_json::Value| status["sessions"]["keptBytes"] == bytes;
        within(&format!("{bytes} bytes kept"), self.status_until(seen)).await;
    }

    /// Waits until so many upgrades wait for the gateway.
    pub async fn waiting(&self, count: usize) {
        self.sessions_are("waiting", count).await;
    }

    /// Waits until so many open sessions are held.
    pub async fn holds(&self, count: usize) {
        self.sessions_are("held", count).await;
    }

    async fn sessions_are(&self, state: &str, count: usize) {
        let line = format!("{{state=\"{state}\"}} {count}");
        within(&format!("{count} sessions {state}"), async {
            loop {
                let metrics = http::get(&self.admin(), "/metrics", &[]).await.text();
                if metrics.lines().any(|seen| seen.ends_with(&line)) {
                    return;
                }
                tokio::time::sleep(ms(20)).await;
            }
        })
        .await;
    }

    /// Waits until no session is left, nor anything kept for one.
    pub async fn is_empty(&self) {
        let empty = |status: &serde_json::Value| {
            status["sessions"]["open"] == 0 && status["sessions"]["keptBytes"] == 0
        };
        within("the end of all sessions", self.status_until(empty)).await;
    }

    /// Status is asked for, it does not come by itself.
    async fn status_until(&self, found: impl Fn(&serde_json::Value) -> bool) {
        while !found(&self.status().await) {
            tokio::time::sleep(ms(20)).await;
        }
    }

    /// Where clients dial to.
    pub fn target(&self) -> Target {
        Target::tls(self.addr())
    }
}

fn config(url: &str, certificate: &Path, settings: &str) -> Config {
    match config::parse(&text(url, certificate, settings), "test") {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors:?}"),
    }
}

fn text(url: &str, certificate: &Path, settings: &str) -> String {
    let mut table: Table = QUICK.parse().unwrap();
    let (cert, key) = (certificate.join("cert.pem"), certificate.join("key.pem"));
    let fixed = format!(
        "[gateway]\nurl = \"{url}\"\n[tls]\ncertificate = \"files\"\n\
         files = [{{ cert = {cert:?}, key = {key:?} }}]\n"
    );
    merge(&mut table, fixed.parse().unwrap());
    merge(&mut table, settings.parse().expect("TOML"));
    toml::to_string(&table).unwrap()
}

/// Puts `over` on top of `under`, section by section.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

fn self_signed() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    dir
}
