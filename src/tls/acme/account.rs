//! Our account at a CA: made, kept, told who we are, and given new keys.
//!
//! Whatever the CA will know is on disk before: an end of this process at any moment costs no account.
//! The account's lock is held for all of it, so that of several orders and instances one does it.

mod files;
mod rekey;

use http::header::LOCATION;
use instant_acme::{Account, Error, Problem};
use serde_json::json;
use zeroize::Zeroizing;

use self::files::{Files, NewKey, Stored};
use self::rekey::Fit;
use super::ca::{Ca, blocking};
use super::jws::{AccountKey, Customer, Signer, pkcs8};
use super::problem::{Failure, Stage, kind, sentence};
use super::state::{StateDir, StateError};
use crate::config::{Acme, ExternalAccount};

const UNKNOWN: &str = "the CA does not know this account";
const CLOSED: &str = "the CA has closed this account";

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
        if let Err(Error::Api(problem)) = &made
            && kind(problem.r#type.as_deref()) == "unauthorized"
        {
            // It may be the key of an account that the CA has closed: it would be refused for ever.
            files.remove(files.of_new()).await?;
        }
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
        match ExternalAccount::key(&text) {
            Some(key) => Ok(Some(Customer {
                kid: eab.kid.clone(),
                key,
            })),
            None => Err(Failure::ca(format!(
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
