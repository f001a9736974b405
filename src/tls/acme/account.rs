//! Our account at a CA: made, kept, told who we are, and given new keys.
//!
//! Whatever the CA will know is on disk before: an end of this process at any moment costs no account.
//! The account's lock is held for all of it, so that of several orders and instances one does it.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::LOCATION;
use instant_acme::{Account, Error, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ca::{Ca, blocking, url_name};
use super::jws::{AccountKey, Customer, Signer, pkcs8};
use super::problem::{Failure, Stage, kind, sentence};
use super::state::{Locked, Record, StateDir, StateError};
use crate::config::Acme;

/// Longest wait for an account that somebody else is making.
const LOCKED: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const UNKNOWN: &str = "the CA does not know this account";
const CLOSED: &str = "the CA has closed this account";

/// An account that the CA knows.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Its URL.
    id: String,
    key_pkcs8: Zeroizing<String>,
    #[serde(default)]
    directory: Option<String>,
    /// What the CA was told last, whether it took it or not. `None`: an older holdline has told it.
    #[serde(default)]
    contact: Option<Vec<String>>,
}

/// A key before the CA knows it: of a new account, or the next one of an account that there is.
#[derive(Serialize, Deserialize)]
struct NewKey {
    new_key: Zeroizing<String>,
}

/// Whether an account can be used with a key.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Fits,
    WrongKey,
    /// By that key or any other: nobody knows.
    Refused,
    NoAccount,
}

/// The files of an account.
#[derive(Debug, Clone)]
struct Files {
    state: StateDir,
    name: String,
}

impl Record for Stored {}
impl Record for NewKey {}

// === impl Stored ===

impl Stored {
    fn key(&self) -> Option<AccountKey> {
        AccountKey::from_text(self.key_pkcs8.clone())
    }

    /// Whether it is this one, with the same key.
    fn is(&self, account: &Account) -> bool {
        let thumbprint = self.key().map(|key| key.thumbprint());
        self.id == account.id() && thumbprint.as_deref() == Some(account.key_thumbprint())
    }
}

// === impl Files ===

impl Files {
    fn of(ca: &str, state: &StateDir) -> Self {
        Self {
            state: state.clone(),
            name: format!("accounts/{}.json", url_name(ca)),
        }
    }

    /// Of an account that the CA may not know yet.
    fn of_new(&self) -> String {
        format!("{}.new", self.name)
    }

    /// That the CA may know in place of the account's.
    fn of_next(&self) -> String {
        format!("{}.next", self.name)
    }

    /// Waits for whoever has it; they ask a CA, so that it may take a while.
    async fn lock(&self) -> Result<Locked, Failure> {
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

    async fn try_lock(&self) -> Result<Option<Locked>, Failure> {
        let (state, name) = (self.state.clone(), format!("{}.lock", self.name));
        Ok(blocking(move || state.try_lock(&name)).await??)
    }

    async fn load<T: Record + Send + 'static>(&self, name: String) -> Result<Option<T>, Failure> {
        let state = self.state.clone();
        Ok(blocking(move || state.load_some(&name)).await??)
    }

    async fn save<T: Record + Send + 'static>(&self, name: String, it: T) -> Result<T, Failure> {
        let state = self.state.clone();
        let saved = blocking(move || state.save(&name, &it).map(|()| it)).await?;
        Ok(saved?)
    }

    async fn set_aside(&self, why: &'static str) -> Result<(), Failure> {
        let (state, name) = (self.state.clone(), self.name.clone());
        blocking(move || state.set_aside(&name, why)).await
    }

    async fn remove(&self, name: String) -> Result<(), Failure> {
        let state = self.state.clone();
        blocking(move || state.remove(&name)).await
    }
}

// === impl Ca ===

impl Ca {
    /// The account of the state directory, or a new one, kept there.
    pub(super) async fn account(&self, acme: &Acme, state: &StateDir) -> Result<Account, Failure> {
        let files = Files::of(&self.url, state);
        let _lock = files.lock().await?;
        let stored = match self.settled(&files).await? {
            Some(stored) => stored,
            None => self.make(acme, &files).await?,
        };
        let stored = self.tell_contact(stored, acme, &files).await;
        Account::builder_with_http(Box::new(self.transport.clone()))
            .from_parts(
                stored.id.clone(),
                pkcs8(&stored.key_pkcs8),
                self.url.clone(),
            )
            .await
            .map_err(|error| self.failed(&error, Stage::Account))
    }

    /// Brings an account that there is up to date; for whoever talks with the CA anyway.
    pub(super) async fn look_after_account(
        &self,
        acme: &Acme,
        state: &StateDir,
    ) -> Result<(), Failure> {
        let files = Files::of(&self.url, state);
        let Some(_lock) = files.try_lock().await? else {
            return Ok(());
        };
        if let Some(stored) = self.settled(&files).await? {
            self.tell_contact(stored, acme, &files).await;
        }
        Ok(())
    }

    /// The CA does not know `account`: it is put aside, unless another one has taken its place in
    /// the meantime.
    pub(super) async fn forget(&self, account: &Account, state: &StateDir) -> Result<(), Failure> {
        let files = Files::of(&self.url, state);
        let _lock = files.lock().await?;
        let Some(stored) = files.load::<Stored>(files.name.clone()).await? else {
            return Ok(());
        };
        match stored.is(account) {
            true => files.set_aside(UNKNOWN).await,
            false => Ok(()),
        }
    }

    /// Whether the CA has closed `account` (RFC 8555, 7.3.6); then it is put aside. One that has got
    /// another key in the meantime, or may have, is not looked at.
    pub(super) async fn has_closed(
        &self,
        account: &Account,
        state: &StateDir,
    ) -> Result<bool, Failure> {
        let files = Files::of(&self.url, state);
        let _lock = files.lock().await?;
        let stored = match files.load::<Stored>(files.name.clone()).await? {
            Some(stored) if stored.id == account.id() => stored,
            // Another order has found it out.
            _ => return Ok(true),
        };
        let next = files.load::<NewKey>(files.of_next()).await?;
        let Some(key) = stored
            .key()
            .filter(|_| stored.is(account) && next.is_none())
        else {
            return Ok(false);
        };
        match self.fit(&stored.id, &key).await? {
            Fit::Fits | Fit::WrongKey => Ok(false),
            Fit::Refused | Fit::NoAccount => files.set_aside(CLOSED).await.map(|()| true),
        }
    }

    /// Whether the account has got another key since it was opened.
    pub(super) async fn has_other_key(
        &self,
        opened: &Account,
        state: &StateDir,
    ) -> Result<bool, Failure> {
        let files = Files::of(&self.url, state);
        let stored = files.load::<Stored>(files.name.clone()).await?;
        Ok(stored.is_some_and(|stored| stored.id == opened.id() && !stored.is(opened)))
    }

    // === a new one ===

    async fn make(&self, acme: &Acme, files: &Files) -> Result<Stored, Failure> {
        let failed = |error: Error| self.failed(&error, Stage::Account);
        let url = &self.directory.new_account;
        let customer = self.customer(acme).await?;
        let key = new_key(files).await?;
        let contact = contact(acme);
        let mut payload = json!({"termsOfServiceAgreed": true});
        if let (Some(customer), Some(payload)) = (&customer, payload.as_object_mut()) {
            let binding = key.bound_to(customer, url);
            let binding = binding.map_err(|_| failed(Error::Crypto))?;
            payload.insert("externalAccountBinding".to_owned(), binding);
        }
        let plain = payload.clone();
        if let (false, Some(payload)) = (contact.is_empty(), payload.as_object_mut()) {
            payload.insert("contact".to_owned(), json!(contact));
        }
        let signer = Signer::Key(&key);
        let made = match self.post(url, &signer, Some(&payload)).await {
            Err(Error::Api(problem)) if !contact.is_empty() && is_about_contact(&problem) => {
                tracing::warn!(
                    ca = self.url,
                    "[acme] contact: {}; it goes on without",
                    sentence(&problem, None)
                );
                self.post(url, &signer, Some(&plain)).await
            }
            made => made,
        };
        let made = made.map_err(failed)?;
        let id = made.headers().get(LOCATION).and_then(|it| it.to_str().ok());
        let id = id.ok_or_else(|| failed(Error::Str("no account URL")))?;
        let stored = Stored {
            id: id.to_owned(),
            key_pkcs8: key.text().clone(),
            directory: Some(self.url.clone()),
            // One that the CA knew already is as it was.
            contact: (made.status() == http::StatusCode::CREATED).then_some(contact),
        };
        let stored = files.save(files.name.clone(), stored).await?;
        files.remove(files.of_new()).await?;
        tracing::info!(
            ca = self.url,
            account = stored.id,
            "made an account at a CA, under its terms of service"
        );
        Ok(stored)
    }

    async fn customer(&self, acme: &Acme) -> Result<Option<Customer>, Failure> {
        let required = self.directory.meta.external_account_required;
        let for_us = |named: bool| {
            acme.eab.iter().find(|eab| match &eab.directory {
                Some(url) => named && *url == self.url,
                None => !named && required,
            })
        };
        let Some(eab) = for_us(true).or_else(|| for_us(false)) else {
            return match required {
                true => Err(Failure::ca(
                    "the CA takes only accounts that are bound to one of its customers; get kid \
                     and key from it, and set them in [acme] eab",
                )),
                false => Ok(None),
            };
        };
        let path = eab.key_file.clone();
        let read = blocking(move || std::fs::read(path).map(Zeroizing::new)).await?;
        let path = eab.key_file.display();
        let text = read.map_err(|error| {
            Failure::ca(format!(
                "[acme] eab: cannot read {path}: {error}; let holdline read it"
            ))
        })?;
        let text: Zeroizing<Vec<u8>> = text
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace() && **byte != b'=')
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect::<Vec<u8>>()
            .into();
        match BASE64_URL_SAFE_NO_PAD.decode(&*text).map(Zeroizing::new) {
            Ok(key) if !key.is_empty() => Ok(Some(Customer {
                kid: eab.kid.clone(),
                key,
            })),
            _ => Err(Failure::ca(format!(
                "[acme] eab: {path} does not hold a key in base64url; write the HMAC key into it as \
                 the CA shows it"
            ))),
        }
    }

    // === whom to write to ===

    /// Tells the CA what `[acme] contact` says, if it was told something else last. No reason not to
    /// go on if that fails.
    async fn tell_contact(&self, mut stored: Stored, acme: &Acme, files: &Files) -> Stored {
        let contact = contact(acme);
        if stored.contact.as_deref().unwrap_or_default() == contact {
            return stored;
        }
        let Some(key) = stored.key() else {
            return stored;
        };
        let signer = Signer::Account(&stored.id, &key);
        let told = self
            .post(&stored.id, &signer, Some(&json!({"contact": contact})))
            .await;
        match told {
            Ok(_) => tracing::info!(ca = self.url, "the CA has the new [acme] contact"),
            Err(Error::Api(problem)) if is_about_contact(&problem) => {
                let said = sentence(&problem, None);
                tracing::warn!(
                    ca = self.url,
                    "[acme] contact: {said}; it keeps the old one"
                );
            }
            Err(error) => {
                let reason = self.failed(&error, Stage::Account).reason;
                tracing::warn!(
                    ca = self.url,
                    "[acme] contact: {reason}; it is told the next time"
                );
                return stored;
            }
        }
        stored.contact = Some(contact);
        let copy = Stored {
            id: stored.id.clone(),
            key_pkcs8: stored.key_pkcs8.clone(),
            directory: stored.directory.clone(),
            contact: stored.contact.clone(),
        };
        if let Err(failure) = files.save(files.name.clone(), copy).await {
            tracing::warn!("{}", failure.reason);
        }
        stored
    }

    // === another key ===

    /// Gives the account a new key (RFC 8555, 7.3.5). `false`: there is no account.
    pub(super) async fn change_key(&self, state: &StateDir) -> Result<bool, Failure> {
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
    async fn settled(&self, files: &Files) -> Result<Option<Stored>, Failure> {
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
    async fn fit(&self, account: &str, key: &AccountKey) -> Result<Fit, Failure> {
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

/// Whether an account at this CA is kept.
pub(super) fn is_there(ca: &str, state: &StateDir) -> Result<bool, StateError> {
    Ok(state.read(&Files::of(ca, state).name)?.is_some())
}

/// A key that is on disk before the CA knows it: an end between the two makes no second account.
async fn new_key(files: &Files) -> Result<AccountKey, Failure> {
    let kept: Option<NewKey> = files.load(files.of_new()).await?;
    if let Some(key) = kept.and_then(|kept| AccountKey::from_text(kept.new_key)) {
        return Ok(key);
    }
    let key = AccountKey::generate().map_err(|_| Failure::here("no key can be made"))?;
    let new_key = key.text().clone();
    files.save(files.of_new(), NewKey { new_key }).await?;
    Ok(key)
}

fn contact(acme: &Acme) -> Vec<String> {
    let mails = acme.contact.iter();
    mails.map(|mail| format!("mailto:{mail}")).collect()
}

/// Whether it may be the contact that a CA does not take, if one was sent.
fn is_about_contact(problem: &Problem) -> bool {
    let kind = kind(problem.r#type.as_deref());
    ["invalidContact", "unsupportedContact", "malformed"].contains(&kind)
}
