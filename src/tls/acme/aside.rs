//! What can be done beside a running keeper: a look at the state directory, and new account keys.

use super::account::is_there;
use super::ca::{Ca, blocking, health_file};
use super::desk::{meanwhile, on_disk_for};
use super::history::Health;
use super::import::{self, Left};
use super::judge::judge_kept;
use super::kept::Kept;
use super::moment::Moment;
use super::problem::Failure;
use super::state::StateDir;
use super::status::{CertificateStatus, LastError, State};
use super::transport::Transport;
use crate::config::Acme;

/// What the state directory tells of the certificates; nothing there is changed.
#[must_use]
pub fn on_disk(acme: &Acme) -> Vec<CertificateStatus> {
    let state = StateDir::to_look_at(&acme.state_dir);
    let nothing_else = Acme {
        import: Vec::new(),
        ..acme.clone()
    };
    let now = Moment::now();
    let health: Vec<Health> = acme
        .directories
        .iter()
        .map(|ca| state.load(&health_file(&ca.url)))
        .collect();
    let cas: Vec<(&str, &Health)> = acme
        .directories
        .iter()
        .map(|ca| ca.url.as_str())
        .zip(&health)
        .collect();
    let left = Left::default();
    acme.certificates
        .iter()
        .map(|names| {
            let kept = Kept::open(names, &state, &nothing_else);
            let mut told = kept.status(kept.next(&cas, now), &acme.directories, now);
            if !kept.is_served(now) {
                let names: Vec<&String> = names.iter().collect();
                let others = on_disk_for(&names, &state, now);
                told.meanwhile = meanwhile(&kept.names, others.iter(), now);
            }
            complete(told, &kept, &state, acme, &left)
        })
        .collect()
}

/// What only somebody who looks has to be told: what cannot be read, what is damaged and still in its
/// place, and what is to come from another server.
fn complete(
    mut status: CertificateStatus,
    kept: &Kept,
    state: &StateDir,
    acme: &Acme,
    left: &Left,
) -> CertificateStatus {
    let files = [kept.history_file(), kept.file()].map(|file| state.read(&file));
    let pem = match files {
        [Ok(_), Ok(pem)] => pem,
        [Err(error), _] | [_, Err(error)] => {
            status.state = State::Unknown;
            status.next = format!("cannot tell: {error}; {}", error.remedy_to_look());
            (status.next_at, status.last_error) = (None, None);
            return status;
        }
    };
    if kept.certificate.is_some() {
        return status;
    }
    let now = Moment::now();
    let path = state.path(&kept.file());
    let refused = pem.and_then(|pem| judge_kept(&pem, &path, &kept.names, now.system()).err());
    if let Some(refused) = refused {
        let reason = match refused.is_about_time() {
            true => refused.to_string(),
            false => format!("{refused}. It is set aside at the start"),
        };
        status.last_error = Some(LastError {
            at: now,
            ca: String::new(),
            reason,
        });
    }
    if let Some(found) = left.find(acme, &kept.names, now.system()) {
        status.next = format!("is taken over from {} at the start", found.path.display());
        (status.next_at, status.last_error) = (None, None);
        return status;
    }
    for unreadable in import::unreadable(acme) {
        status.next.push_str(&format!("; {unreadable}"));
    }
    status
}

/// Gives the account at each CA a new key (RFC 8555, 7.3.5). By the CA's name: whether there is an
/// account, or why its key could not be changed.
pub async fn change_account_keys(acme: &Acme) -> Vec<(String, Result<bool, String>)> {
    let mut changed = Vec::new();
    for ca in &acme.directories {
        let result = change_account_key(acme, &ca.url).await;
        changed.push((ca.name.clone(), result.map_err(|failure| failure.reason)));
    }
    changed
}

async fn change_account_key(acme: &Acme, url: &str) -> Result<bool, Failure> {
    let state = StateDir::new(&acme.state_dir);
    // Or the new key would have nowhere to go.
    let (ca, probed, root) = (url.to_owned(), state.clone(), acme.ca_root.clone());
    let (there, transport) = blocking(move || {
        let there = is_there(&ca, &probed).and_then(|there| match there {
            true => probed.probe().map(|()| true),
            false => Ok(false),
        });
        (there, Transport::new(root.as_deref()))
    })
    .await?;
    if !there? {
        return Ok(false);
    }
    Ca::open(url, transport?).await?.change_key(&state).await
}
