//! The answers of other instances, which they leave in the state directory.
//!
//! Anybody can ask, as often as he likes, so the disk is not asked each time: one thread at a time
//! looks at all that is there, a few times a second at most, and everybody who waits gets to know what
//! it saw. No look is older than the question: an answer that was left before a CA was told to come is
//! found.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Shown, tls_name};
use crate::config::Acme;
use crate::tls::acme::state::StateDir;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(200);
/// CAs do not wait much longer.
const LIMIT: Duration = Duration::from_secs(3);
/// Of each kind; orders that did not live to take theirs away leave some for a day.
const MOST: usize = 1000;
/// A key authorization is a token and a hash.
const LARGEST: u64 = 1024;

/// What the others of one config may have left.
#[derive(Debug)]
pub(super) struct Elsewhere {
    state: StateDir,
    /// By which a CA may ask in TLS.
    names: HashSet<String>,
    seen: Arc<Mutex<Seen>>,
}

/// One look.
#[derive(Debug, Default)]
struct Seen {
    began: Option<Instant>,
    answers: HashMap<(Shown, String), String>,
}

// === impl Elsewhere ===

impl Elsewhere {
    pub(super) fn of(acme: &Acme) -> Self {
        let names = acme.certificates.iter().flatten();
        // Wildcards are shown by records only.
        let names = names.filter(|name| !name.starts_with("*."));
        Self {
            state: StateDir::new(&acme.state_dir),
            names: names.map(|name| tls_name(name)).collect(),
            seen: Arc::default(),
        }
    }

    pub(super) fn state(&self) -> &StateDir {
        &self.state
    }

    /// Waits for a look at the disk, unless nobody can have left such an answer; not for a disk
    /// that hangs.
    pub(super) async fn find(&self, key: &(Shown, String)) -> Option<String> {
        let (shown, asked) = key;
        if *shown == Shown::Tls && !self.names.contains(asked) {
            return None;
        }
        timeout(LIMIT, self.find_now(key)).await.ok().flatten()
    }

    async fn find_now(&self, key: &(Shown, String)) -> Option<String> {
        let since = Instant::now();
        // Whoever is before us looks for us as well.
        let mut seen = Arc::clone(&self.seen).lock_owned().await;
        if seen.began.is_none_or(|began| began <= since) {
            seen = self.look(seen).await?;
        }
        seen.answers.get(key).cloned()
    }

    /// The thread keeps the lock, whatever becomes of us: a disk that hangs holds up one.
    async fn look(&self, mut seen: OwnedMutexGuard<Seen>) -> Option<OwnedMutexGuard<Seen>> {
        if let Some(began) = seen.began {
            sleep_until(began + EVERY).await;
        }
        let state = self.state.clone();
        let looked = tokio::task::spawn_blocking(move || {
            seen.began = Some(Instant::now());
            seen.answers = answers(&state);
            seen
        });
        looked.await.ok()
    }
}

fn answers(state: &StateDir) -> HashMap<(Shown, String), String> {
    let mut answers = HashMap::new();
    for shown in [Shown::Http, Shown::Tls] {
        let entries = fs::read_dir(state.path(shown.folder()))
            .into_iter()
            .flatten();
        for entry in entries.flatten().take(MOST) {
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if let (true, Ok(name)) = (is_file, entry.file_name().into_string())
                && let Ok(Some(answer)) = read(&entry.path())
            {
                answers.insert((shown, name), answer);
            }
        }
    }
    answers
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_string(&mut text)?;
    let whole = u64::try_from(text.len()).is_ok_and(|length| length <= LARGEST);
    Ok(Some(text).filter(|_| whole))
}
