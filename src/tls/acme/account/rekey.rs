//! Another key for an account (RFC 8555, 7.3.5), and which one the CA knows after a change whose end
//! nobody has seen.

use instant_acme::Error;
use serde_json::Value;
use zeroize::Zeroizing;

use super::UNKNOWN;
use super::files::{Files, NewKey, Stored};
use crate::tls::acme::ca::Ca;
use crate::tls::acme::jws::{AccountKey, Signer};
use crate::tls::acme::problem::{Failure, Stage, kind};
use crate::tls::acme::state::StateDir;

/// Whether an account can be used with a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    WrongKey,
    /// By that key or any other: nobody knows.
    Refused,
    NoAccount,
}

// === impl Ca ===

impl Ca {
    /// Gives the account a new key (RFC 8555, 7.3.5). `false`: there is no account.
    pub(in crate::tls::acme) async fn change_key(&self, state: &StateDir) -> Result<bool, Failure> {
        let files = Files::of(&self.url, state);
        let _lock = files.lock().await?;
        let Some(stored) = self.settled(&files).await? else {
            return Ok(false);
        };
        let Some(url) = &self.directory.key_change else {
            return Err(Failure::ca("the CA does not change the keys of accounts"));
        };
        let crypto = |_| self.failed(&Error::Crypto, Stage::Account);
        let Some(old) = stored.key() else {
            return Ok(false);
        };
        let new = AccountKey::generate().map_err(crypto)?;
        let request = new.takes_over(&old, &stored.id, url).map_err(crypto)?;
        let new_key = new.text().clone();
        files.save(files.of_next(), NewKey { new_key }).await?;
        let signer = Signer::Account(&stored.id, &old);
        match self.post(url, &signer, Some(&request)).await {
            Ok(_) => {
                self.promote(stored, new.text().clone(), &files).await?;
                Ok(true)
            }
            Err(error) => {
                let failure = self.failed(&error, Stage::Account);
                // It may have the new one all the same.
                let settled = self.settled(&files).await.map_err(|_| Failure {
                    reason: format!(
                        "{}; which key the CA knows is found out at the next order",
                        failure.reason
                    ),
                    ..failure.clone()
                })?;
                match settled {
                    Some(stored) if stored.key_pkcs8 == *new.text() => Ok(true),
                    _ => Err(failure),
                }
            }
        }
    }

    /// The account that is kept, with the key that the CA knows, whatever became of a change of it.
    pub(super) async fn settled(&self, files: &Files) -> Result<Option<Stored>, Failure> {
        let Some(stored) = files.load::<Stored>(files.name.clone()).await? else {
            return Ok(None);
        };
        let Some(old) = stored.key() else {
            files.set_aside("its key is none").await?;
            return Ok(None);
        };
        let Some(NewKey { new_key }) = files.load(files.of_next()).await? else {
            return Ok(Some(stored));
        };
        let next = AccountKey::from_text(new_key.clone()).filter(|_| new_key != stored.key_pkcs8);
        let Some(next) = next else {
            files.remove(files.of_next()).await?;
            return Ok(Some(stored));
        };
        match self.fit(&stored.id, &next).await? {
            Fit::Fits => return self.promote(stored, new_key, files).await.map(Some),
            Fit::WrongKey | Fit::Refused | Fit::NoAccount => {}
        }
        match self.fit(&stored.id, &old).await? {
            Fit::Fits => {
                files.remove(files.of_next()).await?;
                Ok(Some(stored))
            }
            Fit::NoAccount => {
                files.set_aside(UNKNOWN).await?;
                files.remove(files.of_next()).await?;
                Ok(None)
            }
            Fit::WrongKey | Fit::Refused => Err(Failure::ca(format!(
                "the CA takes neither the key of our account nor the one that was to follow it; see \
                 {0} and {0}.next, and move both away to have a new account made",
                files.state.path(&files.name).display()
            ))),
        }
    }

    /// The CA knows the next key: it takes the place of the old one.
    async fn promote(
        &self,
        stored: Stored,
        key_pkcs8: Zeroizing<String>,
        files: &Files,
    ) -> Result<Stored, Failure> {
        let stored = Stored {
            key_pkcs8,
            ..stored
        };
        let stored = files.save(files.name.clone(), stored).await?;
        files.remove(files.of_next()).await?;
        tracing::info!(ca = self.url, "the account has a new key");
        Ok(stored)
    }

    /// Whether the CA lets this key look at the account.
    pub(super) async fn fit(&self, account: &str, key: &AccountKey) -> Result<Fit, Failure> {
        let signer = Signer::Account(account, key);
        match self.post(account, &signer, None).await {
            Ok(answer) => {
                let account: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
                let status = account.get("status").and_then(Value::as_str);
                Ok(match status {
                    Some("deactivated" | "revoked") => Fit::NoAccount,
                    _ => Fit::Fits,
                })
            }
            Err(Error::Api(problem)) => match kind(problem.r#type.as_deref()) {
                "accountDoesNotExist" => Ok(Fit::NoAccount),
                "malformed" => Ok(Fit::WrongKey),
                "unauthorized" => Ok(Fit::Refused),
                _ => Err(self.failed(&Error::Api(problem), Stage::Account)),
            },
            Err(error) => Err(self.failed(&error, Stage::Account)),
        }
    }
}
