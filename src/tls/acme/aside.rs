//! What can be done beside a running keeper: a look at the state directory, and new account keys.

use instant_acme::{Account, AccountCredentials};

use super::ca::{Ca, account_file, blocking, health_file};
use super::history::Health;
use super::kept::Kept;
use super::moment::Moment;
use super::problem::{Failure, Stage};
use super::state::StateDir;
use super::status::CertificateStatus;
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
    acme.certificates
        .iter()
        .map(|names| {
            let kept = Kept::open(names, &state, &nothing_else);
            kept.status(kept.next(&cas, now), &acme.directories, now)
        })
        .collect()
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
    let name = account_file(url);
    let (looked, root) = ((state.clone(), name.clone()), acme.ca_root.clone());
    let (stored, transport) = blocking(move || {
        let (state, name) = looked;
        let stored = state.load_some::<AccountCredentials>(&name);
        (stored, Transport::new(root.as_deref()))
    })
    .await?;
    let Some(credentials) = stored? else {
        return Ok(false);
    };
    // Or the new key would have nowhere to go.
    let probed = state.clone();
    blocking(move || probed.probe())
        .await?
        .map_err(|error| Failure::ca(format!("{error}; {}", error.remedy())))?;
    let transport = transport.map_err(Failure::from)?;
    let ca = Ca::open(url, transport).await?;
    let failed = |error| ca.failed(&error, Stage::Account);
    let mut account = Account::builder_with_http(Box::new(ca.transport.clone()))
        .from_credentials(credentials)
        .await
        .map_err(failed)?;
    let new = account.update_key().await.map_err(failed)?;
    blocking(move || state.save(&name, &new))
        .await?
        .map_err(|error| {
            Failure::ca(format!(
                "the CA has the new key, but {error}; {}. A new account is made at the next order",
                error.remedy()
            ))
        })?;
    Ok(true)
}
