//! A CA as it presents itself: its directory, our account there, and when it wants a certificate to
//! be renewed.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{
    Account, AccountCredentials, CertificateIdentifier, Error, ExternalAccountKey, Key, NewAccount,
    RenewalInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::history::{Renewal, Window};
use super::moment::{DAY, HOUR, MINUTE, Moment};
use super::problem::{Failure, Stage, kind};
use super::state::{Locked, StateDir, file_name};
use super::transport::{Transport, retry_after};
use crate::config::Acme;

/// Where a CA does not say how soon it wants to be asked again (RFC 9773, 4.3.3).
const ASK_AGAIN: u64 = 6 * HOUR;
/// Longest wait for an account that somebody else is making.
const LOCKED: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An ACME server.
#[derive(Debug)]
pub(super) struct Ca {
    pub(super) url: String,
    pub(super) transport: Transport,
    directory: Directory,
}

/// What of a directory (RFC 8555, 7.1.1) the library does not tell.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    #[serde(default)]
    renewal_info: Option<String>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    external_account_required: bool,
    #[serde(default)]
    profiles: std::collections::HashMap<String, String>,
}

/// An account before the CA knows it.
#[derive(Serialize, Deserialize)]
struct NewKey {
    new_key: Zeroizing<String>,
}

// === impl Ca ===

impl Ca {
    pub(super) async fn open(url: &str, transport: Transport) -> Result<Self, Failure> {
        let failed = |error: Error| Failure::of(&error, Stage::Directory, transport.wait_until());
        let answer = transport
            .get(url)
            .await
            .map_err(|error| failed(Error::Other(error.into())))?;
        let directory = serde_json::from_slice(answer.body()).map_err(|_| {
            Failure::ca(format!(
                "what is at {url} is not an ACME directory; check directories"
            ))
        })?;
        Ok(Self {
            url: url.to_owned(),
            transport,
            directory,
        })
    }

    pub(super) fn has_renewal_info(&self) -> bool {
        self.directory.renewal_info.is_some()
    }

    /// The wanted profile, if this CA has it.
    pub(super) fn profile<'p>(&self, wanted: Option<&'p str>) -> Option<&'p str> {
        let wanted = wanted?;
        let profiles = &self.directory.meta.profiles;
        if profiles.contains_key(wanted) {
            return Some(wanted);
        }
        tracing::warn!(
            ca = self.url,
            profile = wanted,
            has = ?profiles.keys().collect::<Vec<_>>(),
            "this CA has no such profile; it is asked for what it issues without one"
        );
        None
    }

    pub(super) fn failed(&self, error: &Error, stage: Stage) -> Failure {
        Failure::of(error, stage, self.transport.wait_until())
    }

    // === the account ===

    /// The account of the state directory, or a new one, kept there.
    pub(super) async fn account(&self, acme: &Acme, state: &StateDir) -> Result<Account, Failure> {
        let name = account_file(&self.url);
        // Of several orders, here or in another instance, one makes the account.
        let _lock = lock(state, &format!("{name}.lock")).await?;
        let stored = {
            let (state, name) = (state.clone(), name.clone());
            blocking(move || state.load_some::<AccountCredentials>(&name)).await??
        };
        let builder = || Account::builder_with_http(Box::new(self.transport.clone()));
        if let Some(credentials) = stored {
            return builder()
                .from_credentials(credentials)
                .await
                .map_err(|error| self.failed(&error, Stage::Account));
        }
        let contact: Vec<String> = acme
            .contact
            .iter()
            .map(|it| format!("mailto:{it}"))
            .collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let (account, credentials) = match self.external_account(acme).await? {
            Some(external) => {
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                builder().create(&new, self.url.clone(), Some(&external)).await
            }
            None => {
                let key = self.new_key(state).await?;
                let made = builder().create_from_key(key, self.url.clone()).await;
                if let Ok((account, _)) = &made
                    && !contact.is_empty()
                    && let Err(error) = account.update_contacts(&contact).await
                {
                    tracing::warn!(ca = self.url, %error, "the CA does not take [acme] contact; it goes on without");
                }
                made
            }
        }
        .map_err(|error| self.failed(&error, Stage::Account))?;
        let (state, saved) = (state.clone(), name.clone());
        blocking(move || {
            state.save(&saved, &credentials)?;
            state.remove(&new_key_file(&saved));
            Ok::<_, super::state::StateError>(())
        })
        .await?
        .map_err(|error| Failure::ca(format!("{error}; {}", error.remedy())))?;
        tracing::info!(
            ca = self.url,
            account = account.id(),
            "made an account at a CA, under its terms of service"
        );
        Ok(account)
    }

    /// A key that is on disk before the CA knows it: an end between the two makes no second
    /// account.
    async fn new_key(&self, state: &StateDir) -> Result<(Key, PrivateKeyDer<'static>), Failure> {
        let (state, name) = (state.clone(), new_key_file(&account_file(&self.url)));
        let made = move || {
            let kept = state
                .load_some::<NewKey>(&name)
                .map_err(|error| format!("{error}; {}", error.remedy()))?
                .and_then(|kept| BASE64_URL_SAFE_NO_PAD.decode(&*kept.new_key).ok())
                .map(PrivatePkcs8KeyDer::from);
            let der = match kept {
                Some(der) => der,
                None => {
                    let (_, der) = Key::generate_pkcs8().map_err(|error| error.to_string())?;
                    let text = BASE64_URL_SAFE_NO_PAD.encode(der.secret_pkcs8_der());
                    let new_key = Zeroizing::new(text);
                    state
                        .save(&name, &NewKey { new_key })
                        .map_err(|error| format!("{error}; {}", error.remedy()))?;
                    der
                }
            };
            let key = Key::from_pkcs8_der(der.clone_key()).map_err(|error| error.to_string())?;
            Ok((key, PrivateKeyDer::Pkcs8(der)))
        };
        blocking(made)
            .await?
            .map_err(|error: String| Failure::ca(error))
    }

    async fn external_account(&self, acme: &Acme) -> Result<Option<ExternalAccountKey>, Failure> {
        let for_us = |named: bool| {
            acme.eab.iter().find(|eab| match &eab.directory {
                Some(url) => named && *url == self.url,
                None => !named && self.directory.meta.external_account_required,
            })
        };
        let Some(eab) = for_us(true).or_else(|| for_us(false)) else {
            return match self.directory.meta.external_account_required {
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
        let text: Vec<u8> = text
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace() && **byte != b'=')
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect();
        let key = BASE64_URL_SAFE_NO_PAD.decode(&text).map(Zeroizing::new);
        match key {
            Ok(key) if !key.is_empty() => Ok(Some(ExternalAccountKey::new(eab.kid.clone(), &key))),
            _ => Err(Failure::ca(format!(
                "[acme] eab: {path} does not hold a key in base64url; write the HMAC key into it as \
                 the CA shows it"
            ))),
        }
    }

    /// Whether an error means that the account of the state directory is of no use any more.
    pub(super) fn forgets_us(error: &Error) -> bool {
        matches!(error, Error::Api(problem) if kind(problem.r#type.as_deref()) == "accountDoesNotExist")
    }

    // === renewal (RFC 9773) ===

    /// When the CA wants this certificate renewed.
    pub(super) async fn renewal(&self, certificate: &str) -> Result<Renewal, Failure> {
        let now = Moment::now();
        let nothing = |ask_again: u64| Renewal {
            certificate: certificate.to_owned(),
            window: None,
            ask_again: now.after(ask_again),
        };
        let Some(url) = &self.directory.renewal_info else {
            return Ok(nothing(DAY));
        };
        let url = format!("{}/{certificate}", url.trim_end_matches('/'));
        let answer = self
            .transport
            .get(&url)
            .await
            .map_err(|error| self.failed(&Error::Other(error.into()), Stage::Directory))?;
        let info: RenewalInfo = serde_json::from_slice(answer.body())
            .map_err(|_| Failure::ca("its renewal information cannot be read"))?;
        let window = Window {
            start: info.suggested_window.start.into(),
            end: info.suggested_window.end.into(),
        };
        if let Some(url) = info.explanation_url {
            tracing::info!(ca = self.url, url, start = %window.start, end = %window.end, "the CA explains when it wants a certificate renewed");
        }
        let wanted = retry_after(answer.headers(), SystemTime::now())
            .map_or(ASK_AGAIN, |moment| moment.since(now));
        Ok(Renewal {
            window: Some(window),
            ..nothing(wanted.clamp(MINUTE, DAY))
        })
    }
}

/// The name of a certificate in renewal information (RFC 9773, 4.1).
pub(super) fn identifier(leaf: &CertificateDer<'_>) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(leaf)
        .ok()
        .map(CertificateIdentifier::into_owned)
}

pub(super) fn account_file(url: &str) -> String {
    format!("accounts/{}.json", url_name(url))
}

pub(super) fn health_file(url: &str) -> String {
    format!("cas/{}.json", url_name(url))
}

fn new_key_file(account_file: &str) -> String {
    format!("{account_file}.new")
}

fn url_name(url: &str) -> String {
    file_name(url.strip_prefix("https://").unwrap_or(url))
}

/// Waits for whoever has it; they ask a CA, so that it may take a while.
async fn lock(state: &StateDir, name: &str) -> Result<Locked, Failure> {
    let deadline = tokio::time::Instant::now() + LOCKED;
    loop {
        let (state, name) = (state.clone(), name.to_owned());
        let tried = blocking(move || state.try_lock(&name)).await?;
        match tried.map_err(|error| Failure::ca(format!("{error}; {}", error.remedy())))? {
            Some(lock) => return Ok(lock),
            None if tokio::time::Instant::now() > deadline => {
                return Err(Failure::ca(
                    "another order has been making the account for too long",
                ));
            }
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Runs what waits for a disk where that holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Failure::ca("holdline is stopping"))
}
