//! What is on disk of an account, and the lock of all of it. Nothing here talks with a CA.

use std::time::Duration;

use instant_acme::Account;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::tls::acme::ca::{blocking, url_name};
use crate::tls::acme::jws::AccountKey;
use crate::tls::acme::problem::Failure;
use crate::tls::acme::state::{Locked, Record, StateDir};

/// Longest wait for an account that somebody else is making.
const LOCKED: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An account that the CA knows.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    /// Its URL.
    pub(super) id: String,
    pub(super) key_pkcs8: Zeroizing<String>,
    #[serde(default)]
    pub(super) directory: Option<String>,
    /// What the CA was told last, whether it took it or not. `None`: an older holdline has told it.
    #[serde(default)]
    pub(super) contact: Option<Vec<String>>,
}

/// A key before the CA knows it: of a new account, or the next one of an account that there is.
#[derive(Serialize, Deserialize)]
pub(super) struct NewKey {
    pub(super) new_key: Zeroizing<String>,
}

/// The files of an account.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) state: StateDir,
    pub(super) name: String,
}

impl Record for Stored {}
impl Record for NewKey {}

// === impl Stored ===

impl Stored {
    pub(super) fn key(&self) -> Option<AccountKey> {
        AccountKey::from_text(self.key_pkcs8.clone())
    }

    /// Whether it is this one, with the same key.
    pub(super) fn is(&self, account: &Account) -> bool {
        let thumbprint = self.key().map(|key| key.thumbprint());
        self.id == account.id() && thumbprint.as_deref() == Some(account.key_thumbprint())
    }
}

// === impl Files ===

impl Files {
    pub(super) fn of(ca: &str, state: &StateDir) -> Self {
        Self {
            state: state.clone(),
            name: format!("accounts/{}.json", url_name(ca)),
        }
    }

    /// Of an account that the CA may not know yet.
    pub(super) fn of_new(&self) -> String {
        format!("{}.new", self.name)
    }

    /// That the CA may know in place of the account's.
    pub(super) fn of_next(&self) -> String {
        format!("{}.next", self.name)
    }

    /// Waits for whoever has it; they ask a CA, so that it may take a while.
    pub(super) async fn lock(&self) -> Result<Locked, Failure> {
        let deadline = tokio::time::Instant::now() + LOCKED;
        loop {
            match self.try_lock().await? {
                Some(lock) => return Ok(lock),
                None if tokio::time::Instant::now() > deadline => {
                    return Err(Failure::here(format!(
                        "another order has been at the account for too long; see who holds {}",
                        self.state.path(&format!("{}.lock", self.name)).display()
                    )));
                }
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    pub(super) async fn try_lock(&self) -> Result<Option<Locked>, Failure> {
        let (state, name) = (self.state.clone(), format!("{}.lock", self.name));
        Ok(blocking(move || state.try_lock(&name)).await??)
    }

    pub(super) async fn load<T: Record + Send + 'static>(
        &self,
        name: String,
    ) -> Result<Option<T>, Failure> {
        let state = self.state.clone();
        Ok(blocking(move || state.load_some(&name)).await??)
    }

    pub(super) async fn save<T: Record + Send + 'static>(
        &self,
        name: String,
        it: T,
    ) -> Result<T, Failure> {
        let state = self.state.clone();
        let saved = blocking(move || state.save(&name, &it).map(|()| it)).await?;
        Ok(saved?)
    }

    pub(super) async fn set_aside(&self, why: &'static str) -> Result<(), Failure> {
        let (state, name) = (self.state.clone(), self.name.clone());
        blocking(move || state.set_aside(&name, why)).await
    }

    pub(super) async fn remove(&self, name: String) -> Result<(), Failure> {
        let state = self.state.clone();
        blocking(move || state.remove(&name)).await
    }
}
