//! Pebble and its DNS server as processes of their own, on free ports of this machine.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::kit::{ms, within};

/// How it is to behave.
#[derive(Default)]
pub(crate) struct Options {
    /// kid and key of a customer.
    pub(crate) eab: Option<(String, String)>,
    /// Names that it does not issue for.
    pub(crate) blocked: Vec<String>,
    /// The port of the name server that it asks; none: of one of its own, `dns_port`.
    pub(crate) resolver: Option<u16>,
}

pub(crate) struct Pebble {
    pub(crate) dir: TempDir,
    pub(crate) directory: String,
    pub(crate) http_port: u16,
    pub(crate) tls_port: u16,
    pub(crate) dns_port: u16,
    pub(crate) dns_management: u16,
    management: u16,
    resolver: u16,
    dns: Child,
    ca: Option<Child>,
}

/// A port that nobody has, nor gets by chance: the kernel gives out those from 32768 on.
pub(crate) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_000, "no port is left");
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Pebble {
    pub(crate) async fn start(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_tls(dir.path());
        let [
            listen,
            management,
            http_port,
            tls_port,
            dns_port,
            dns_management,
        ] = [(); 6].map(|()| port());
        let mut config = serde_json::json!({
            "listenAddress": format!("127.0.0.1:{listen}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": dir.path().join("server.pem"),
            "privateKey": dir.path().join("server.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "domainBlocklist": options.blocked,
            "externalAccountBindingRequired": options.eab.is_some(),
        });
        if let Some((kid, key)) = options.eab {
            config["externalAccountMACKeys"] = serde_json::json!({ kid: key });
        }
        let config = serde_json::json!({ "pebble": config });
        std::fs::write(dir.path().join("pebble.json"), config.to_string()).unwrap();
        let dns = Command::new("pebble-challtestsrv")
            .args(["-dns01", &format!("127.0.0.1:{dns_port}")])
            .args(["-management", &format!("127.0.0.1:{dns_management}")])
            .args([
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-defaultIPv6",
                "",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("pebble-challtestsrv; tests/acme/run installs it");
        let mut pebble = Self {
            directory: format!("https://localhost:{listen}/dir"),
            dir,
            http_port,
            tls_port,
            dns_port,
            dns_management,
            management,
            resolver: options.resolver.unwrap_or(dns_port),
            dns,
            ca: None,
        };
        pebble.up().await;
        pebble
    }

    /// Starts the CA, with a memory as new.
    pub(crate) async fn up(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("pebble.log")).unwrap();
        let ca = Command::new("pebble")
            .arg("-strict")
            .arg("-config")
            .arg(self.dir.path().join("pebble.json"))
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.resolver)])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("pebble; tests/acme/run installs it");
        self.ca = Some(ca);
        let ports = [self.management, self.dns_management];
        within("Pebble's start", async {
            for port in ports {
                while tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .is_err()
                {
                    tokio::time::sleep(ms(20)).await;
                }
            }
        })
        .await;
    }

    pub(crate) async fn down(&mut self) {
        if let Some(mut ca) = self.ca.take() {
            ca.kill().await.unwrap();
        }
    }

    /// The root of its own TLS.
    pub(crate) fn ca_root(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// The root of what it issues; a new one at each start.
    pub(crate) async fn root(&self) -> CertificateDer<'static> {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let said = Command::new("curl")
            .args(["--silent", "--fail", "--cacert"])
            .arg(self.ca_root())
            .arg(url)
            .output()
            .await
            .unwrap();
        assert!(said.status.success(), "{said:?}");
        CertificateDer::from_pem_slice(&said.stdout).unwrap()
    }

    /// What the DNS says of a name that it does not say of all.
    pub(crate) async fn dns(&self, what: &str, body: serde_json::Value) {
        let url = format!("http://127.0.0.1:{}/{what}", self.dns_management);
        let said = Command::new("curl")
            .args(["--silent", "--fail", "--data", &body.to_string(), &url])
            .output()
            .await
            .unwrap();
        assert!(said.status.success(), "{said:?}");
    }

    /// Settings for a proxy that gets certificates here.
    pub(crate) fn settings(&self, state: &Path, acme: &str) -> String {
        format!(
            "[listen]\nhttps = [\"127.0.0.1:{}\"]\nhttp = [\"127.0.0.1:{}\"]\n\
             [tls]\ncertificate = \"acme\"\nfiles = []\n\
             [acme]\ndirectories = [\"{}\"]\nca_root = {:?}\nstate_dir = {state:?}\nimport = []\n{acme}\n",
            self.tls_port,
            self.http_port,
            self.directory,
            self.ca_root(),
        )
    }

    /// What it has written.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("pebble.log")).unwrap()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.dns.start_kill();
    }
}

/// A CA for Pebble's own TLS, and its certificate.
fn make_tls(dir: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "for Pebble's own TLS");
    std::fs::write(dir.join("root.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("server.pem"), leaf.pem()).unwrap();
    std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
}
