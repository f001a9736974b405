//! The records that are at the name servers because of us, or may be: written down before they are
//! added, forgotten when they are taken away.
//!
//! Kept with the certificate, in `records.json`; whoever changes it holds that certificate's
//! `order.lock`. What an end in the middle of an order has left is taken away at the next start, or by
//! the next order.

use std::fs;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Do, TxtRecord, change};
use crate::config::{Acme, Dns};
use crate::tls::acme::ca::blocking;
use crate::tls::acme::moment::{DAY, Moment};
use crate::tls::acme::problem::Failure;
use crate::tls::acme::state::{Record, StateDir};
use crate::tls::acme::underway::Underway;

/// One that could not be taken away for so long is left to people.
const GIVEN_UP: u64 = 7 * DAY;
/// Of one certificate; each order adds as many as it has names.
const MOST: usize = 256;
/// More than anybody keeps.
const MOST_FOLDERS: usize = 1000;
const FILE: &str = "records.json";

/// Those of one certificate.
#[derive(Debug, Clone)]
pub(in crate::tls::acme) struct Records {
    state: StateDir,
    file: String,
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
}

impl Record for Noted {}

// === impl Records ===

impl Records {
    /// Of the certificate with this folder in the state directory.
    pub(in crate::tls::acme) fn of(state: &StateDir, folder: &str) -> Self {
        Self {
            state: state.clone(),
            file: format!("{folder}/{FILE}"),
        }
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
        };
        self.amend(|noted| noted.records.push(note)).await?;
        change(dns, Do::Present, record, &self.state, underway)
            .await
            .map_err(|reason| Failure::here(reason).unproved())
    }

    /// Takes away all that there are; what cannot be is kept for the next time.
    pub(in crate::tls::acme) async fn clear(&self, dns: &Dns, underway: &Underway) {
        let noted = match self.load().await {
            Ok(noted) => noted,
            Err(failure) => {
                tracing::warn!("records may be left over: {}", failure.reason);
                return;
            }
        };
        for Note { record, since } in noted.records {
            let (name, started) = (&record.name, Instant::now());
            if let Err(error) = change(dns, Do::Cleanup, &record, &self.state, underway).await {
                if Moment::now().since(since) < GIVEN_UP {
                    tracing::warn!(name, "a record is left over: {error}; it is tried again");
                    // It would take as long for the next one.
                    if started.elapsed() >= dns.timeout() {
                        return;
                    }
                    continue;
                }
                tracing::error!(
                    name,
                    value = record.value,
                    "a record stays: {error}; take it away yourself"
                );
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
    }

    async fn load(&self) -> Result<Noted, Failure> {
        let (state, file) = (self.state.clone(), self.file.clone());
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
        let (state, file) = (self.state.clone(), self.file.clone());
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
/// those that somebody is ordering, who sees to it.
pub(in crate::tls::acme) async fn tidy(acme: &Acme, underway: &Underway) {
    let state = StateDir::new(&acme.state_dir);
    let listed = state.clone();
    let folders = blocking(move || left_over(&listed)).await;
    for folder in folders.unwrap_or_default() {
        let Some(dns) = &acme.dns else {
            let file = state.path(&format!("{folder}/{FILE}"));
            tracing::warn!(file = %file.display(), "records are left over, and neither dns_hook nor [acme.dns_update] is set any more: take them away yourself, and delete that file");
            continue;
        };
        let (locks, name) = (state.clone(), format!("{folder}/order.lock"));
        let lock = blocking(move || locks.try_lock(&name)).await;
        if let Ok(Ok(Some(_lock))) = lock {
            tracing::info!(folder, "taking away records that were left over");
            Records::of(&state, &folder).clear(dns, underway).await;
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
