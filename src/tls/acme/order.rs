//! One order, from the first request to a certificate that may be served.
//!
//! Nothing here decides when or where: see `plan`. The key is on disk before the CA is asked to sign
//! it, so that an end of this process in between costs no second certificate.

mod names;
mod unfinished;
mod validate;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, CertificateIdentifier, Error, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::unfinished::is_gone;
pub(super) use self::unfinished::{Unfinished, file as unfinished_file};
use super::ca::{Ca, blocking};
use super::challenge::Challenges;
use super::dns::Records;
use super::history::Concerns;
use super::judge::{Refused, judge};
use super::moment::Moment;
use super::problem::{Failure, Stage, kind, no_orders};
use super::state::{Locked, StateDir};
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
/// With it, however many names there are: something hangs then.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

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
    /// How often the names could not be shown to be ours before: the next kind of challenge may do
    /// better.
    pub(super) tried: usize,
    /// The certificate that this one is for, if it came from this CA.
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
    /// Set when the CA is asked to sign: from then on it may have counted a certificate, whatever
    /// becomes of the order.
    pub(super) signing: Arc<AtomicBool>,
    /// Set as long as records are written or looked for: not the CA is waited for then.
    pub(super) at_dns: Arc<AtomicBool>,
    /// The state directory is another one from now on: nothing is to come of it here.
    pub(super) moved: CancellationToken,
}

// === impl Job ===

impl Job {
    /// Key and chain in one PEM text, judged fit to be served. `None`: this process ends.
    pub(super) async fn run(
        self,
        underway: &Underway,
    ) -> Option<Result<Zeroizing<Vec<u8>>, Failure>> {
        let held = match underway.until_stopped(self.hold_records()).await? {
            Ok(held) => held,
            Err(failure) => return Some(Err(failure)),
        };
        // Boxed: these futures are large.
        let order = tokio::time::timeout(self.limit(), Box::pin(self.order(underway)));
        let order = self.moved.run_until_cancelled(order);
        let result = underway.until_stopped(order).await;
        let result = match result {
            None => None,
            Some(None) => Some(Err(self.leave().await)),
            Some(Some(Ok(result))) => Some(result),
            Some(Some(Err(_))) => Some(Err(self.too_long())),
        };
        // However it has ended: nothing that it has added is to stay.
        self.clear_records(underway).await;
        drop(held);
        result
    }

    fn too_long(&self) -> Failure {
        match self.at_dns.load(Ordering::Acquire) {
            true => Failure::here(
                "the order took too long, and waited for the records of dns-01 at last; check that \
                 the hook or the server of [acme.dns_update] is quick enough for all names",
            )
            .unproved(),
            false => Failure::ca("the order took too long; it is tried again"),
        }
    }

    /// Nobody looks there any more: no key is to stay.
    async fn leave(&self) -> Failure {
        if let Err(failure) = self.forget().await {
            return failure;
        }
        Failure::here("[acme] state_dir is another one now; it is ordered there")
    }

    /// Nobody else adds or takes away records of this certificate until it is dropped.
    async fn hold_records(&self) -> Result<Option<Locked>, Failure> {
        match &self.acme.dns {
            Some(dns) => self.records().hold(dns).await.map(Some),
            None => Ok(None),
        }
    }

    fn limit(&self) -> Duration {
        // For each name a hook or an update that adds and one that takes away, of this order and of
        // others at the same time, and the wait for the record.
        let hooks = self
            .acme
            .dns
            .as_ref()
            .map_or(Duration::ZERO, |dns| dns.timeout().saturating_mul(9));
        let names = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        WHOLE
            .saturating_add(hooks.saturating_mul(names))
            .min(LONGEST)
    }

    /// Takes away what this order and those before it have left at the name servers.
    async fn clear_records(&self, underway: &Underway) {
        if let Some(dns) = &self.acme.dns {
            let records = self.records();
            // Boxed: it is large, and part of everything.
            let cleared = Box::pin(records.clear(Some(dns), underway, None));
            self.of_dns(underway.until_over(cleared)).await;
        }
    }

    /// Says what is waited for. What is dropped in the middle leaves it said.
    async fn of_dns<T>(&self, work: impl Future<Output = T>) -> T {
        self.at_dns.store(true, Ordering::Release);
        let done = work.await;
        self.at_dns.store(false, Ordering::Release);
        done
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
        let ordered = self.order_as(&ca, &account, underway).await;
        let other_key = ca.has_other_key(&account, &self.state);
        if ordered.is_err() && other_key.await.unwrap_or(false) {
            return Err(Failure::names(
                "our account was given a new key in the middle of the order; it is tried again",
            ));
        }
        ordered
    }

    async fn order_as(
        &self,
        ca: &Ca,
        account: &Account,
        underway: &Underway,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let (mut order, mut about) = match self.resume(ca, account).await? {
            Some(left) => left,
            None => self.begin(ca, account).await?,
        };
        if !matches!(
            order.state().status,
            OrderStatus::Valid | OrderStatus::Processing
        ) {
            let proved = self.prove(ca, account, (&mut order, &about), underway);
            proved.await?;
            self.finalize(ca, account, &mut order, &mut about).await?;
        }
        self.collect(ca, &mut order, &about.key).await
    }

    /// A new order. It is on disk with its key before anything else, so that a second one is not
    /// needed whenever we end.
    async fn begin(&self, ca: &Ca, account: &Account) -> Result<(Order, Unfinished), Failure> {
        let order = self.place(ca, account).await?;
        let key = KeyPair::generate().map_err(|error| no_request(&error))?;
        let about = Unfinished {
            ca: self.ca.clone(),
            order: order.url().to_owned(),
            names: self.names.clone(),
            since: Moment::now(),
            key: Zeroizing::new(key.serialize_pem()),
            asked_to_sign: false,
        };
        self.remember(&about).await?;
        Ok((order, about))
    }

    /// One that has failed for its names is of no more use; one that the CA could not be asked
    /// about, or has not decided about, is.
    async fn prove(
        &self,
        ca: &Ca,
        account: &Account,
        (order, about): (&mut Order, &Unfinished),
        underway: &Underway,
    ) -> Result<(), Failure> {
        let Err(failure) = self.validate(ca, order, underway).await else {
            return Ok(());
        };
        if failure.undecided {
            return Err(about.undecided(failure));
        }
        if failure.concerns == Concerns::Names {
            self.give_up(ca, account).await?;
        }
        Err(failure)
    }

    /// Forgets an order that the CA refuses; but if that was because the account has another key, the
    /// order is as good as before.
    async fn give_up(&self, ca: &Ca, account: &Account) -> Result<(), Failure> {
        match ca.has_other_key(account, &self.state).await? {
            true => Ok(()),
            false => self.forget().await,
        }
    }

    /// Has it signed. An order that is asked about for a second time is one certificate still.
    async fn finalize(
        &self,
        ca: &Ca,
        account: &Account,
        order: &mut Order,
        about: &mut Unfinished,
    ) -> Result<(), Failure> {
        let csr = self.request(&about.key)?;
        if !about.asked_to_sign {
            about.asked_to_sign = true;
            self.remember(about).await?;
            self.signing.store(true, Ordering::Release);
        }
        let Err(error) = order.finalize_csr(&csr).await else {
            return Ok(());
        };
        if is_refusal(&error) {
            self.give_up(ca, account).await?;
        }
        Err(ca.failed(&error, Stage::Issue))
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
                Err(Error::Api(problem)) if !is_about_replaced(&problem) => {
                    return Err(self.refused(ca, account, &Error::Api(problem)).await);
                }
                Err(Error::Other(error)) if error.is::<TransportError>() => {
                    return Err(ca.failed(&Error::Other(error), Stage::Order));
                }
                Err(error) => {
                    tracing::debug!(ca = ca.url, %error, "ordered without naming what it replaces");
                }
            }
        }
        match account.new_order(&new()).await {
            Ok(order) => Ok(order),
            Err(error) => Err(self.refused(ca, account, &error).await),
        }
    }

    async fn refused(&self, ca: &Ca, account: &Account, error: &Error) -> Failure {
        let failure = ca.failed(error, Stage::Order);
        if let Error::Api(problem) = error
            && kind(problem.r#type.as_deref()) == "unauthorized"
        {
            // No name has been looked at yet: it is about the account.
            let closed = ca.has_closed(account, &self.state).await;
            let closed = closed.unwrap_or_else(|failure| {
                tracing::warn!("{}", failure.reason);
                false
            });
            return match closed {
                true => Failure::ca(no_orders(problem, true)),
                false => Failure {
                    reason: no_orders(problem, false),
                    ..failure
                },
            };
        }
        if forgets_us(error)
            && let Err(failure) = ca.forget(account, &self.state).await
        {
            tracing::warn!("{}", failure.reason);
        }
        failure
    }

    // === the certificate ===

    fn request(&self, key: &str) -> Result<Vec<u8>, Failure> {
        let made = || {
            let mut params = CertificateParams::new(self.names.clone())?;
            params.distinguished_name = DistinguishedName::new();
            let key = KeyPair::from_pem(key)?;
            Ok::<_, rcgen::Error>(params.serialize_request(&key)?.der().to_vec())
        };
        made().map_err(|error| no_request(&error))
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
}

/// Whether an error means that the account is of no use any more.
fn forgets_us(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind(problem.r#type.as_deref()) == "accountDoesNotExist")
}

/// Whether the CA will never sign this request: its own faults pass.
fn is_refusal(error: &Error) -> bool {
    const PASS: [&str; 5] = [
        "accountDoesNotExist",
        "badNonce",
        "orderNotReady",
        "rateLimited",
        "serverInternal",
    ];
    matches!(error, Error::Api(problem)
        if problem.status.is_none_or(|status| status < 500)
            && !PASS.contains(&kind(problem.r#type.as_deref())))
}

/// Whether what the CA refuses may be the word on what is replaced: it knows no such certificate, has
/// it replaced already, or issued it to another account (RFC 9773, 5), as to that of the server that
/// was here before.
fn is_about_replaced(problem: &instant_acme::Problem) -> bool {
    let kinds = ["alreadyReplaced", "malformed", "conflict", "unauthorized"];
    kinds.contains(&kind(problem.r#type.as_deref()))
        || problem
            .status
            .is_some_and(|status| status == 404 || status == 409)
}

fn no_request(error: &rcgen::Error) -> Failure {
    Failure::names(format!("no request can be made: {error}"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acme::history::Concerns;

    fn job(dns: &str, names: usize) -> Job {
        let text = format!(
            "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example\"]\n\
             challenges = [\"dns-01\"]\n{dns}"
        );
        let acme = crate::config::parse(&text, "t").unwrap().config.acme;
        Job {
            names: vec!["a.example".to_owned(); names],
            ca: "https://ca.example/dir".to_owned(),
            acme: Arc::new(acme.unwrap()),
            state: StateDir::new(Path::new("nowhere")),
            challenges: Arc::default(),
            folder: "certificates/a.example".to_owned(),
            tried: 0,
            replaces: None,
            signing: Arc::default(),
            at_dns: Arc::default(),
            moved: CancellationToken::new(),
        }
    }

    #[test]
    fn no_order_takes_for_days() {
        let hook = "dns_hook = [\"true\"]\ndns_timeout = \"60m\"";
        assert_eq!(job(hook, 1).limit(), LONGEST);
        assert_eq!(job(hook, 100).limit(), LONGEST);
        let usual = job("dns_hook = [\"true\"]\ndns_timeout = \"60s\"", 2).limit();
        assert_eq!(usual, WHOLE + Duration::from_secs(9 * 60 * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_takes_too_long_is_blamed_on_who_was_waited_for() {
        let job = job("dns_hook = [\"true\"]", 1);
        job.of_dns(async {}).await;
        assert_eq!(job.too_long().concerns, Concerns::Ca);
        let hangs = job.of_dns(std::future::pending::<()>());
        tokio::time::timeout(job.limit(), hangs).await.unwrap_err();
        assert_eq!(job.too_long().concerns, Concerns::Here);
    }
}
