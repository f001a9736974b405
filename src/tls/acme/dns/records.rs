//! The records that are at the name servers because of us, or may be: written down before they are
//! added, forgotten when they are taken away.
//!
//! Kept with the certificate, in `records.json`; whoever changes it holds the `records.lock` beside it:
//! an order from its first record to its end, or whoever takes away what an end in the middle of an
//! order has left. That is done by what has written it only: another hook or server may say that all is
//! well, and know nothing of the record.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Do, TxtRecord, change, update};
use crate::config::{Acme, Dns};
use crate::tls::acme::ca::blocking;
use crate::tls::acme::moment::{DAY, Moment};
use crate::tls::acme::problem::Failure;
use crate::tls::acme::state::{Locked, Record, StateDir, StateError};
use crate::tls::acme::underway::Underway;

/// One that could not be taken away for so long is left to people.
const GIVEN_UP: u64 = 7 * DAY;
/// Of one certificate; each order adds as many as it has names.
const MOST: usize = 256;
/// More than anybody keeps.
const MOST_FOLDERS: usize = 1000;
const FILE: &str = "records.json";
const LOCK: &str = "records.lock";
/// Of `dns_timeout`: so long one look at what is left over in a folder may last, and an order waits
/// for it.
const TIDYING: u32 = 2;
const WAITING: u32 = 8;

/// Those of one certificate.
#[derive(Debug, Clone)]
pub(in crate::tls::acme) struct Records {
    state: StateDir,
    folder: String,
}

/// Oldest first.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    records: Vec<Note>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    record: TxtRecord,
    since: Moment,
    /// Earlier ones do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Writer>,
}

/// What has written a record. A hook is the same one as long as its program is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Writer {
    Hook(String),
    Server(String),
}

/// What could not be taken away.
#[derive(Debug, Default)]
pub(in crate::tls::acme) struct Left {
    /// It may be another time.
    again: bool,
    /// Not by what is in the config.
    by_hand: Vec<Note>,
}

impl Record for Noted {}

// === impl Writer ===

impl Writer {
    fn of(dns: &Dns) -> Self {
        match dns {
            Dns::Hook(hook) => Self::Hook(hook.command.first().cloned().unwrap_or_default()),
            Dns::Update(update) => Self::Server(update::place(update)),
        }
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(program) => write!(f, "the hook {program}"),
            Self::Server(server) => write!(f, "the name server {server}"),
        }
    }
}

// === impl Note ===

impl Note {
    /// Whether it is worth a further attempt, and nobody's work yet.
    fn is_young(&self) -> bool {
        Moment::now().since(self.since) < GIVEN_UP
    }

    fn by(&self) -> String {
        self.by
            .as_ref()
            .map_or_else(|| "an earlier holdline".to_owned(), Writer::to_string)
    }
}

// === impl Records ===

impl Records {
    /// Of the certificate with this folder in the state directory.
    pub(in crate::tls::acme) fn of(state: &StateDir, folder: &str) -> Self {
        Self {
            state: state.clone(),
            folder: folder.to_owned(),
        }
    }

    fn file(&self) -> String {
        format!("{}/{FILE}", self.folder)
    }

    fn lock_file(&self) -> String {
        format!("{}/{LOCK}", self.folder)
    }

    /// For an order: waits for whoever takes away what was left over.
    pub(in crate::tls::acme) async fn hold(&self, dns: &Dns) -> Result<Locked, Failure> {
        let limit = dns.timeout() * WAITING;
        self.state.lock_within(&self.lock_file(), limit).await
    }

    /// For who is not in a hurry: `None` if somebody has them, or orders.
    async fn hold_idle(&self) -> Result<Option<Locked>, Failure> {
        let (state, ours) = (self.state.clone(), self.lock_file());
        let order = format!("{}/order.lock", self.folder);
        let locked = blocking(move || {
            let locked = state.try_lock(&ours)?;
            // Looked at and not kept: else it would seem to be ordered.
            Ok::<_, StateError>(locked.filter(|_| matches!(state.try_lock(&order), Ok(Some(_)))))
        });
        Ok(locked.await??)
    }

    /// Adds one, once it is on disk that it may be there.
    pub(in crate::tls::acme) async fn add(
        &self,
        dns: &Dns,
        record: &TxtRecord,
        underway: &Underway,
    ) -> Result<(), Failure> {
        let note = Note {
            record: record.clone(),
            since: Moment::now(),
            by: Some(Writer::of(dns)),
        };
        self.amend(|noted| noted.records.push(note)).await?;
        change(dns, Do::Present, record, &self.state, underway)
            .await
            .map_err(|reason| Failure::here(reason).unproved())
    }

    /// Takes away all that there are, as far as it can be begun before a deadline; what cannot be is
    /// kept for the next time.
    pub(in crate::tls::acme) async fn clear(
        &self,
        dns: Option<&Dns>,
        underway: &Underway,
        deadline: Option<Instant>,
    ) -> Left {
        let mut left = Left::default();
        let noted = match self.load().await {
            Ok(noted) => noted,
            Err(failure) => {
                tracing::warn!("records may be left over: {}", failure.reason);
                left.again = true;
                return left;
            }
        };
        for note in noted.records {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                left.again = true;
                return left;
            }
            let (record, started) = (note.record.clone(), Instant::now());
            let (name, value) = (&record.name, &record.value);
            let wrote = |dns: &&Dns| note.by.as_ref().is_none_or(|by| *by == Writer::of(dns));
            match dns.filter(wrote) {
                Some(dns) => {
                    let changed = change(dns, Do::Cleanup, &record, &self.state, underway).await;
                    if let Err(error) = changed {
                        if note.is_young() {
                            tracing::warn!(
                                name,
                                "a record is left over: {error}; it is tried again"
                            );
                            left.again = true;
                            // It would take as long for the next one.
                            if started.elapsed() >= dns.timeout() {
                                return left;
                            }
                            continue;
                        }
                        tracing::error!(
                            name,
                            value,
                            "a record stays: {error}; take it away yourself"
                        );
                    }
                }
                None if note.is_young() => {
                    left.by_hand.push(note);
                    continue;
                }
                None => {
                    let by = note.by();
                    tracing::error!(name, value, by, "a record stays; take it away yourself");
                }
            }
            let forgotten = self.amend(|noted| noted.records.retain(|it| it.record != record));
            if let Err(failure) = forgotten.await {
                tracing::warn!(
                    name,
                    "a record that is gone is not forgotten: {}",
                    failure.reason
                );
            }
        }
        left
    }

    async fn load(&self) -> Result<Noted, Failure> {
        let (state, file) = (self.state.clone(), self.file());
        let noted = blocking(move || state.load_some::<Noted>(&file)).await?;
        Ok(noted?.unwrap_or_default())
    }

    async fn amend(&self, change: impl FnOnce(&mut Noted)) -> Result<(), Failure> {
        let mut noted = self.load().await?;
        change(&mut noted);
        let over = noted.records.len().saturating_sub(MOST);
        for Note { record, .. } in noted.records.drain(..over) {
            tracing::error!(
                name = record.name,
                value = record.value,
                "a record stays, there are too many: take it away yourself"
            );
        }
        let (state, file) = (self.state.clone(), self.file());
        let saved = blocking(move || match noted.records.is_empty() {
            true => {
                state.remove(&file);
                Ok(())
            }
            false => state.save(&file, &noted),
        });
        Ok(saved.await??)
    }
}

/// Takes away what was left over, of certificates that are wanted and of those that are not; but for
/// those that somebody is ordering, who sees to it. Says what to do where it cannot be done, if it is
/// to `tell`. Whether there is something to be tried again.
pub(in crate::tls::acme) async fn tidy(acme: &Acme, underway: &Underway, tell: bool) -> bool {
    let state = StateDir::new(&acme.state_dir);
    let listed = state.clone();
    let folders = blocking(move || left_over(&listed)).await;
    let mut again = false;
    for folder in folders.unwrap_or_default() {
        let records = Records::of(&state, &folder);
        let Ok(Some(_lock)) = records.hold_idle().await else {
            again = true;
            continue;
        };
        tracing::debug!(folder, "looking after records that were left over");
        let dns = acme.dns.as_ref();
        let limit = dns.map_or(Duration::ZERO, |dns| dns.timeout() * TIDYING);
        let deadline = dns.map(|_| Instant::now() + limit);
        let left = records.clear(dns, underway, deadline).await;
        again |= left.again;
        if tell {
            left.tell(&state.path(&records.file()));
        }
    }
    again
}

// === impl Left ===

impl Left {
    fn tell(&self, file: &Path) {
        for note in &self.by_hand {
            let TxtRecord { name, value } = &note.record;
            let (by, file) = (note.by(), file.display());
            tracing::warn!(name, value, by, %file, "a record is left over, and what has written it is not in [acme] any more: take it away yourself, or put that back for once; it is remembered for a week");
        }
    }
}

/// Folders that have some.
fn left_over(state: &StateDir) -> Vec<String> {
    let entries = fs::read_dir(state.path("certificates"))
        .into_iter()
        .flatten();
    entries
        .flatten()
        .take(MOST_FOLDERS)
        .filter(|entry| entry.path().join(FILE).exists())
        .filter_map(|entry| Some(format!("certificates/{}", entry.file_name().to_str()?)))
        .collect()
}

#[cfg(test)]
mod tests;
