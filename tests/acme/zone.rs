//! A zone that hooks can write: a folder for each name, and in it a file for each TXT record. A name
//! server shows what is there.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// For a hook: its words become records, and `$Z` is the zone.
const HOOK: &str = "mkdir -p $Z/$2; echo \"$1 $2\" >>$Z/log\n\
                    add() { : >$Z/$2/$3; }; del() { rm $Z/$2/$3; }\n";

#[derive(Debug, Clone)]
pub(crate) struct Zone {
    dir: Arc<TempDir>,
    pub(crate) server: SocketAddr,
    _serves: Arc<AbortOnDropHandle<()>>,
}

impl Zone {
    pub(crate) async fn start() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        let folder = dir.path().to_owned();
        let serves = tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut query).await.unwrap();
                let answer = answer(&query[..length], &folder);
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self {
            dir,
            server,
            _serves: Arc::new(AbortOnDropHandle::new(serves)),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The values that are at this name.
    pub(crate) fn records(&self, name: &str) -> Vec<String> {
        records(self.dir.path(), name)
    }

    /// What hooks were told, in order.
    pub(crate) fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.path("log")).unwrap_or_default();
        told.lines().map(str::to_owned).collect()
    }

    /// A hook that adds a record by `add "$@"` and takes it away by `del "$@"`.
    pub(crate) fn settings(&self, present: &str, cleanup: &str) -> String {
        let script = format!(
            "Z={}; {HOOK} case $1 in present) {present} ;; cleanup) {cleanup} ;; esac",
            self.dir.path().display()
        );
        format!(
            "challenges = [\"dns-01\"]\ndns_resolvers = [\"{}\"]\ndns_hook = [\"sh\", \"-euc\", {script:?}, \"hook\"]",
            self.server
        )
    }
}

fn records(zone: &Path, name: &str) -> Vec<String> {
    let entries = fs::read_dir(zone.join(name)).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// To a question for one name's TXT records (RFC 1035, 4.1).
fn answer(query: &[u8], zone: &Path) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(std::str::from_utf8(&query[at + 1..end]).unwrap());
        at = end;
    }
    let question = &query[12..at + 5];
    let values = match question.ends_with(&[0, 16, 0, 1]) {
        true => records(zone, &labels.join(".").to_ascii_lowercase()),
        false => Vec::new(),
    };
    let count = u8::try_from(values.len()).unwrap();
    let mut answer = [
        &query[..2],
        &[0x84, 0, 0, 1, 0, count, 0, 0, 0, 0],
        question,
    ]
    .concat();
    for value in values {
        let length = u8::try_from(value.len()).unwrap();
        answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, length + 1, length]);
        answer.extend(value.as_bytes());
    }
    answer
}
