//! BIND and Knot as processes of their own, on a free port, with zones that a key may write to.

use std::path::Path;
use std::process::Stdio;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::kit::{ms, within};
use crate::pebble::port;

pub(crate) const SECRET: &str = "mONSgl2myTdX577Np9iMPgHL9tXU4/VOF2V24lqxyRQ=";
/// Has been there before, at `_acme-challenge.example.net`.
pub(crate) const ANOTHERS: &str = "of somebody else";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Bind,
    Knot,
}

/// The primary of `example.net` and `challenges.test`.
///
/// The key `holdline` may write TXT records of `_acme-challenge.example.net`, and of where
/// `_acme-challenge.alias.example.net` leads: to the other zone with BIND; Knot answers with one zone
/// at a time, so it stays in its own.
pub(crate) struct NameServer {
    pub(crate) port: u16,
    _dir: TempDir,
    _process: Child,
}

impl NameServer {
    pub(crate) async fn start(kind: Kind) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), port());
        let target = match kind {
            Kind::Bind => "alias.challenges.test.",
            Kind::Knot => "alias.challenges.example.net.",
        };
        let start = "$TTL 60\n@ SOA ns root 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n";
        let more =
            format!("_acme-challenge TXT \"{ANOTHERS}\"\n_acme-challenge.alias CNAME {target}\n");
        write(dir.path(), "example.net", &format!("{start}{more}"));
        write(dir.path(), "challenges.test", start);
        let mut command = match kind {
            Kind::Bind => {
                write(dir.path(), "conf", &bind(dir.path(), port));
                program("named", &["-g", "-n", "1", "-c"])
            }
            Kind::Knot => {
                std::fs::create_dir(dir.path().join("db")).unwrap();
                write(dir.path(), "conf", &knot(dir.path(), port));
                program("knotd", &["-c"])
            }
        };
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = command
            .arg(dir.path().join("conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("BIND and Knot; tests/acme/run gets them");
        let server = Self {
            port,
            _dir: dir,
            _process: process,
        };
        within("the name server's start", async {
            while server.texts("_acme-challenge.example.net").await.is_empty() {
                tokio::time::sleep(ms(20)).await;
            }
        })
        .await;
        server
    }

    /// What is there under a name; nothing as well while nobody answers.
    pub(crate) async fn texts(&self, name: &str) -> Vec<String> {
        self.ask(name).await.unwrap_or_default()
    }

    async fn ask(&self, name: &str) -> std::io::Result<Vec<String>> {
        let mut query = Message::query();
        let name = Name::from_ascii(format!("{name}.")).unwrap();
        query.add_query(Query::query(name, RecordType::TXT));
        let query = query.to_vec().unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await?;
        socket.write_u16(query.len().try_into().unwrap()).await?;
        socket.write_all(&query).await?;
        let mut answer = vec![0; usize::from(socket.read_u16().await?)];
        socket.read_exact(&mut answer).await?;
        let answer = Message::from_vec(&answer).unwrap();
        let texts = answer.answers.iter().filter_map(|it| match &it.data {
            RData::TXT(text) => Some(String::from_utf8(text.txt_data.concat()).unwrap()),
            _ => None,
        });
        Ok(texts.collect())
    }

    /// `[acme.dns_update]` for it, and the challenge.
    pub(crate) fn settings(&self, domains: &str) -> String {
        format!(
            "domains = [\"{domains}\"]\nchallenges = [\"dns-01\"]\ndns_timeout = \"20s\"\n\
             dns_resolvers = [\"127.0.0.1:{port}\"]\n[acme.dns_update]\n\
             server = \"127.0.0.1:{port}\"\ntsig_name = \"holdline\"\ntsig_secret = \"{SECRET}\"\n",
            port = self.port
        )
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

/// Installed, or unpacked by `run`.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    if let Some(root) = std::env::var_os("HOLDLINE_NAME_SERVERS") {
        let root = Path::new(&root);
        let path = std::env::var("PATH").unwrap();
        let [sbin, bin] = ["usr/sbin", "usr/bin"].map(|it| root.join(it));
        let path = format!("{}:{}:{path}", sbin.display(), bin.display());
        let found = std::fs::read_dir(root.join("usr/lib")).unwrap();
        let libraries = found
            .flatten()
            .map(|entry| entry.path().display().to_string());
        command
            .env("PATH", path)
            .env("LD_LIBRARY_PATH", libraries.collect::<Vec<_>>().join(":"));
    }
    command.args(arguments);
    command
}

/// What docs/certificates.md shows, and a place of its own.
fn bind(dir: &Path, port: u16) -> String {
    let page = include_str!("../../docs/certificates.md");
    let (_, shown) = page.split_once("```named\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let shown = shown
        .replace("\"…\"", &format!("\"{SECRET}\""))
        .replace("/var/lib/bind", &dir.display().to_string());
    format!(
        "options {{ directory {dir:?}; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
         pid-file none; session-keyfile none; dnssec-validation no; }};\n\
         controls {{ }};\n{shown}\n\
         zone \"challenges.test\" {{ type primary; file \"challenges.test\";\n\
         update-policy {{ grant holdline name alias.challenges.test TXT; }}; }};\n"
    )
}

fn knot(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "server:\n  rundir: {dir}\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         log:\n  - target: stdout\n    any: info\n\
         database:\n  storage: {dir}/db\n\
         key:\n  - id: holdline\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         acl:\n  - id: holdline\n    key: holdline\n    action: update\n    update-type: TXT\n    \
         update-owner: name\n    update-owner-match: equal\n    \
         update-owner-name: [ _acme-challenge, alias.challenges ]\n\
         zone:\n  - domain: example.net\n    file: {dir}/example.net\n    acl: holdline\n"
    )
}
