//! One order, from the first request to a certificate that may be served.
//!
//! Nothing here decides when or where: see `plan`. The key is on disk before the CA is asked to sign
//! it, so that an end of this process in between costs no second certificate.

mod names;
mod validate;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, CertificateIdentifier, Error, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ca::{Ca, account_file, blocking};
use super::challenge::Challenges;
use super::dns::Records;
use super::judge::{Refused, judge};
use super::moment::{DAY, Moment};
use super::problem::{Failure, Stage, kind};
use super::state::{StateDir, StateError};
use super::transport::{Transport, TransportError};
use super::underway::Underway;
use crate::config::Acme;

/// CAs look from several places, and some are slow.
const VALIDATION: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.4)
    .timeout(Duration::from_secs(180));
const ISSUE: RetryPolicy = VALIDATION;
/// A whole order but for the time of hooks and updates.
const WHOLE: Duration = Duration::from_secs(15 * 60);
/// CAs keep an order for some days.
const UNFINISHED: u64 = DAY;

/// What to order where.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) names: Vec<String>,
    /// Directory URL.
    pub(super) ca: String,
    pub(super) acme: Arc<Acme>,
    pub(super) state: StateDir,
    pub(super) challenges: Arc<Challenges>,
    /// Our folder in the state directory.
    pub(super) folder: String,
    /// Failures before this one: the next kind of challenge may do better.
    pub(super) tried: usize,
    /// The certificate that this one is for, if it came from this CA.
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
    /// Set when the CA is asked to sign: from then on it may have counted a certificate, whatever
    /// becomes of the order.
    pub(super) signing: Arc<AtomicBool>,
}

/// An order that a CA has, and the key that is for it.
#[derive(Serialize, Deserialize)]
struct Unfinished {
    ca: String,
    order: String,
    names: Vec<String>,
    since: Moment,
    key: Zeroizing<String>,
}

// === impl Job ===

impl Job {
    /// Key and chain in one PEM text, judged fit to be served. `None`: this process ends.
    pub(super) async fn run(
        self,
        underway: &Underway,
    ) -> Option<Result<Zeroizing<Vec<u8>>, Failure>> {
        // Boxed: these futures are large.
        let order = tokio::time::timeout(self.limit(), Box::pin(self.order(underway)));
        let result = underway.until_stopped(order).await.map(|result| {
            result
                .unwrap_or_else(|_| Err(Failure::ca("the order took too long; it is tried again")))
        });
        // However it has ended: nothing that it has added is to stay.
        self.clear_records(underway).await;
        result
    }

    fn limit(&self) -> Duration {
        // For each name a hook or an update that adds and one that takes away, of this order and of
        // others at the same time, and the wait for the record.
        let hooks = self
            .acme
            .dns
            .as_ref()
            .map_or(Duration::ZERO, |dns| dns.timeout() * 9);
        WHOLE + hooks * u32::try_from(self.names.len()).unwrap_or(u32::MAX)
    }

    /// Takes away what this order and those before it have left at the name servers.
    async fn clear_records(&self, underway: &Underway) {
        if let Some(dns) = &self.acme.dns {
            let records = self.records();
            underway.until_over(records.clear(dns, underway)).await;
        }
    }

    fn records(&self) -> Records {
        Records::of(&self.state, &self.folder)
    }

    async fn order(&self, underway: &Underway) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let root = self.acme.ca_root.clone();
        let transport = blocking(move || Transport::new(root.as_deref()))
            .await?
            .map_err(Failure::from)?;
        let ca = Ca::open(&self.ca, transport).await?;
        // Of a process that did not live to do so.
        self.clear_records(underway).await;
        let account = ca.account(&self.acme, &self.state).await?;
        if let Some(pem) = self.resume(&ca, &account).await? {
            return Ok(pem);
        }
        let mut order = self.place(&ca, &account).await?;
        self.validate(&ca, &mut order, underway).await?;
        let (key, csr) = self.request()?;
        self.remember(&order, &key).await?;
        self.signing.store(true, Ordering::Release);
        order
            .finalize_csr(&csr)
            .await
            .map_err(|error| ca.failed(&error, Stage::Issue))?;
        self.collect(&ca, &mut order, &key).await
    }

    async fn place(&self, ca: &Ca, account: &Account) -> Result<Order, Failure> {
        let identifiers: Vec<Identifier> = self.names.iter().map(|name| identifier(name)).collect();
        let profile = ca.profile(self.acme.profile.as_deref());
        let new = || {
            let order = NewOrder::new(&identifiers);
            match profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        if let Some(replaces) = self.replaces.clone().filter(|_| ca.has_renewal_info()) {
            match account.new_order(&new().replaces(replaces)).await {
                Ok(order) => return Ok(order),
                // It may have been replaced by another instance, or be unknown there by now; some
                // CAs do not say back what they were told. None of it is a reason not to renew.
                Err(Error::Api(problem))
                    if !["alreadyReplaced", "malformed", "conflict"]
                        .contains(&kind(problem.r#type.as_deref())) =>
                {
                    return Err(self.refused(ca, &Error::Api(problem)));
                }
                Err(Error::Other(error)) if error.is::<TransportError>() => {
                    return Err(self.refused(ca, &Error::Other(error)));
                }
                Err(error) => {
                    tracing::debug!(ca = ca.url, %error, "ordered without naming what it replaces");
                }
            }
        }
        account
            .new_order(&new())
            .await
            .map_err(|error| self.refused(ca, &error))
    }

    fn refused(&self, ca: &Ca, error: &Error) -> Failure {
        if Ca::forgets_us(error) {
            self.state
                .set_aside(&account_file(&ca.url), "the CA does not know this account");
        }
        ca.failed(error, Stage::Order)
    }

    // === the certificate ===

    fn request(&self) -> Result<(Zeroizing<String>, Vec<u8>), Failure> {
        let made = || {
            let mut params = CertificateParams::new(self.names.clone())?;
            params.distinguished_name = DistinguishedName::new();
            let key = KeyPair::generate()?;
            let csr = params.serialize_request(&key)?.der().to_vec();
            Ok::<_, rcgen::Error>((Zeroizing::new(key.serialize_pem()), csr))
        };
        made().map_err(|error| Failure::names(format!("no request can be made: {error}")))
    }

    fn unfinished(&self) -> String {
        format!("{}/order.json", self.folder)
    }

    async fn remember(&self, order: &Order, key: &Zeroizing<String>) -> Result<(), Failure> {
        let unfinished = Unfinished {
            ca: self.ca.clone(),
            order: order.url().to_owned(),
            names: self.names.clone(),
            since: Moment::now(),
            key: key.clone(),
        };
        let (state, name) = (self.state.clone(), self.unfinished());
        let saved: Result<(), StateError> =
            blocking(move || state.save(&name, &unfinished)).await?;
        saved.map_err(|error| Failure::ca(format!("{error}; {}", error.remedy())))
    }

    /// The certificate of an order that we did not live to see; `None` if there is no such order,
    /// or nothing can come of it any more. Any other failure is one of that order, and no reason to
    /// have the CA sign a second time.
    async fn resume(
        &self,
        ca: &Ca,
        account: &Account,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let (state, name) = (self.state.clone(), self.unfinished());
        let unfinished = blocking(move || state.load_some::<Unfinished>(&name)).await??;
        let Some(unfinished) = unfinished else {
            return Ok(None);
        };
        let fits = unfinished.ca == self.ca
            && unfinished.names == self.names
            && Moment::now().since(unfinished.since) < UNFINISHED;
        if !fits {
            return Ok(None);
        }
        let mut order = match account.order(unfinished.order).await {
            Ok(order) => order,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(self.refused(ca, &error)),
        };
        match order.state().status {
            OrderStatus::Valid | OrderStatus::Processing => {}
            // It was never asked to sign, or will not.
            OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Invalid => return Ok(None),
        }
        tracing::info!(ca = self.ca, names = ?self.names, "taking up an order that was left unfinished");
        self.collect(ca, &mut order, &unfinished.key)
            .await
            .map(Some)
    }

    async fn collect(
        &self,
        ca: &Ca,
        order: &mut Order,
        key: &Zeroizing<String>,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let chain = match order.poll_certificate(&ISSUE).await {
            Ok(chain) => chain,
            Err(error) => {
                if is_gone(&error) {
                    self.forget().await?;
                }
                return Err(ca.failed(&error, Stage::Issue));
            }
        };
        let mut pem = Zeroizing::new(Vec::with_capacity(key.len() + chain.len() + 1));
        pem.extend_from_slice(key.as_bytes());
        pem.extend_from_slice(chain.as_bytes());
        let (names, judged) = (self.names.clone(), pem.clone());
        let verdict = blocking(move || {
            judge(
                &judged,
                Path::new("the new certificate"),
                &names,
                SystemTime::now(),
            )
        })
        .await?;
        match verdict {
            Ok(_) => Ok(pem),
            Err(refused) => {
                if !refused.is_about_time() {
                    self.forget().await?;
                }
                Err(unfit(&refused))
            }
        }
    }

    async fn forget(&self) -> Result<(), Failure> {
        let (state, name) = (self.state.clone(), self.unfinished());
        blocking(move || state.remove(&name)).await
    }
}

/// Whether the CA says that there is no such order, or no such certificate.
fn is_gone(error: &Error) -> bool {
    let gone = |status: u16| status == 404 || status == 410;
    match error {
        Error::Api(problem) => problem.status.is_some_and(gone),
        Error::Other(inner) => matches!(
            inner.downcast_ref::<TransportError>(),
            Some(TransportError::Status(status)) if gone(status.as_u16())
        ),
        _ => false,
    }
}

fn unfit(refused: &Refused) -> Failure {
    let clock = match refused.is_about_time() {
        true => format!("; check this machine's clock, it says {}", Moment::now()),
        false => String::new(),
    };
    Failure::names(format!(
        "the CA issued a certificate that cannot be served: {refused}{clock}"
    ))
}

fn identifier(name: &str) -> Identifier {
    match name.parse() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}
