//! One order, from the first request to a certificate that may be served.
//!
//! Nothing here decides when or where: see `plan`. The key is on disk before the CA is asked to sign
//! it, so that an end of this process in between costs no second certificate.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    KeyAuthorization, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ca::{Ca, account_file, blocking};
use super::challenge::{Challenges, Presented, Shown, tls_name};
use super::dns::{self, Do, TxtRecord};
use super::judge::{Refused, judge};
use super::moment::{DAY, Moment};
use super::problem::{Failure, Stage, kind, sentence};
use super::state::{StateDir, StateError};
use super::transport::Transport;
use crate::config::{Acme, Challenge, DnsHook};

/// CAs look from several places, and some are slow.
const VALIDATION: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.4)
    .timeout(Duration::from_secs(180));
const ISSUE: RetryPolicy = VALIDATION;
/// A whole order but for the hook's time.
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

/// A name whose challenge is ready.
struct Ready {
    _presented: Option<Presented>,
    record: Option<TxtRecord>,
}

// === impl Job ===

impl Job {
    /// Key and chain in one PEM text, judged fit to be served.
    pub(super) async fn run(self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let hooks = self
            .acme
            .dns
            .as_ref()
            .map_or(Duration::ZERO, |dns| dns.timeout * 3);
        let limit = WHOLE + hooks * u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        // Boxed: these futures are large.
        match tokio::time::timeout(limit, Box::pin(self.order())).await {
            Ok(result) => result,
            Err(_) => Err(Failure::ca("the order took too long; it is tried again")),
        }
    }

    async fn order(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let root = self.acme.ca_root.clone();
        let transport = blocking(move || Transport::new(root.as_deref()))
            .await?
            .map_err(Failure::from)?;
        let ca = Ca::open(&self.ca, transport).await?;
        let account = ca.account(&self.acme, &self.state).await?;
        if let Some(pem) = self.resume(&ca, &account).await {
            return Ok(pem);
        }
        let mut order = self.place(&ca, &account).await?;
        self.validate(&ca, &mut order).await?;
        let (key, csr) = self.request()?;
        self.remember(&order, &key).await?;
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
                Err(Error::Other(error)) if error.is::<super::transport::TransportError>() => {
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

    // === validation ===

    async fn validate(&self, ca: &Ca, order: &mut Order) -> Result<(), Failure> {
        let mut ready = Vec::new();
        let validated = self.validate_with(ca, order, &mut ready).await;
        if let Some(hook) = &self.acme.dns {
            for record in ready.iter().filter_map(|each| each.record.as_ref()) {
                if let Err(error) = dns::run(hook, Do::Cleanup, record).await {
                    tracing::warn!(name = record.name, "a record may be left over: {error}");
                }
            }
        }
        validated
    }

    async fn validate_with(
        &self,
        ca: &Ca,
        order: &mut Order,
        ready: &mut Vec<Ready>,
    ) -> Result<(), Failure> {
        let failed = |error: Error| ca.failed(&error, Stage::Validation);
        // All are made ready before the first is asked for: the hook's records are seen sooner.
        let mut kinds = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(failed)?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => {
                    kinds.push(None);
                    continue;
                }
                other => {
                    return Err(Failure::names(format!(
                        "{name}: the CA's authorization is {other:?} already; it is tried again"
                    )));
                }
            }
            let offered: Vec<ChallengeType> = authorization
                .challenges
                .iter()
                .map(|it| it.r#type.clone())
                .collect();
            let kind = self.choose(&name, &offered)?;
            let Some(challenge) = authorization.challenge(wire(kind)) else {
                continue;
            };
            let answer = challenge.key_authorization();
            let token = challenge.token.clone();
            ready.push(self.prepare(kind, &name, &token, &answer).await?);
            kinds.push(Some(kind));
        }
        if let Some(hook) = &self.acme.dns {
            self.see(hook, ready).await?;
        }
        let mut kinds = kinds.into_iter();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(failed)?;
            if let Some(kind) = kinds.next().flatten()
                && let Some(mut challenge) = authorization.challenge(wire(kind))
            {
                challenge.set_ready().await.map_err(failed)?;
            }
        }
        if kinds.len() == 0 && ready.is_empty() && order.state().status == OrderStatus::Ready {
            return Ok(());
        }
        match order.poll_ready(&VALIDATION).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(self.why_invalid(ca, order, None).await),
            Err(Error::Api(problem)) => Err(self.why_invalid(ca, order, Some(problem)).await),
            Err(error) => Err(failed(error)),
        }
    }

    /// The first of our kinds that is offered; after a failure the next one.
    fn choose(&self, name: &str, offered: &[ChallengeType]) -> Result<Challenge, Failure> {
        let usable: Vec<Challenge> = self
            .acme
            .challenges
            .iter()
            .copied()
            .filter(|kind| offered.contains(&wire(*kind)))
            .collect();
        let index = self.tried.checked_rem(usable.len()).unwrap_or_default();
        usable.get(index).copied().ok_or_else(|| {
            let offered: Vec<&str> = offered.iter().filter_map(word).collect();
            Failure::names(format!(
                "{name}: the CA offers only {}; add one of these to [acme] challenges",
                offered.join(", ")
            ))
        })
    }

    async fn prepare(
        &self,
        kind: Challenge,
        name: &str,
        token: &str,
        answer: &KeyAuthorization,
    ) -> Result<Ready, Failure> {
        let present = |shown, asked: String| {
            let (challenges, answer) = (Arc::clone(&self.challenges), answer.as_str().to_owned());
            blocking(move || challenges.present(shown, &asked, &answer))
        };
        tracing::debug!(name, ?kind, "answering a challenge");
        let (presented, record) = match kind {
            Challenge::Http01 => (Some(present(Shown::Http, token.to_owned()).await?), None),
            Challenge::TlsAlpn01 => (Some(present(Shown::Tls, tls_name(name)).await?), None),
            Challenge::Dns01 => {
                let record = TxtRecord::new(name, answer.dns_value());
                let hook = self
                    .acme
                    .dns
                    .as_ref()
                    .ok_or_else(|| Failure::names("dns-01 needs [acme] dns_hook"))?;
                dns::run(hook, Do::Present, &record)
                    .await
                    .map_err(|error| Failure::names(format!("{name}: {error}")))?;
                (None, Some(record))
            }
        };
        Ok(Ready {
            _presented: presented,
            record,
        })
    }

    async fn see(&self, hook: &DnsHook, ready: &[Ready]) -> Result<(), Failure> {
        for record in ready.iter().filter_map(|each| each.record.as_ref()) {
            dns::wait_for(hook, record).await.map_err(Failure::names)?;
        }
        Ok(())
    }

    /// Which name it was, and what the CA says of it.
    async fn why_invalid(
        &self,
        ca: &Ca,
        order: &mut Order,
        problem: Option<instant_acme::Problem>,
    ) -> Failure {
        let mut said = Vec::new();
        let mut first = problem.clone();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let Ok(state) = authorization.refresh().await else {
                continue;
            };
            for challenge in &state.challenges {
                if let Some(error) = &challenge.error {
                    let kind = word(&challenge.r#type).unwrap_or("challenge");
                    said.push(format!("{name} by {kind}: {}", sentence(error)));
                    first.get_or_insert_with(|| error.clone());
                }
            }
        }
        let mut failure = match first {
            Some(problem) => ca.failed(&Error::Api(problem), Stage::Validation),
            None => Failure::names("the CA found the order invalid and does not say why"),
        };
        if !said.is_empty() {
            failure.reason = said.join("; ");
        }
        failure
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

    /// The certificate of an order that we did not live to see.
    async fn resume(&self, ca: &Ca, account: &Account) -> Option<Zeroizing<Vec<u8>>> {
        let (state, name) = (self.state.clone(), self.unfinished());
        let unfinished = blocking(move || state.load_some::<Unfinished>(&name))
            .await
            .ok()??;
        let fits = unfinished.ca == self.ca
            && unfinished.names == self.names
            && Moment::now().since(unfinished.since) < UNFINISHED;
        if !fits {
            return None;
        }
        let mut order = account.order(unfinished.order).await.ok()?;
        match order.state().status {
            OrderStatus::Valid | OrderStatus::Processing => {}
            OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Invalid => return None,
        }
        tracing::info!(ca = self.ca, names = ?self.names, "taking up an order that was left unfinished");
        match self.collect(ca, &mut order, &unfinished.key).await {
            Ok(pem) => Some(pem),
            Err(error) => {
                tracing::warn!(ca = self.ca, reason = error.reason, "it is ordered anew");
                None
            }
        }
    }

    async fn collect(
        &self,
        ca: &Ca,
        order: &mut Order,
        key: &Zeroizing<String>,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let chain = order
            .poll_certificate(&ISSUE)
            .await
            .map_err(|error| ca.failed(&error, Stage::Issue))?;
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
                    let (state, name) = (self.state.clone(), self.unfinished());
                    blocking(move || state.remove(&name)).await?;
                }
                Err(unfit(&refused))
            }
        }
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

fn wire(kind: Challenge) -> ChallengeType {
    match kind {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

fn word(kind: &ChallengeType) -> Option<&'static str> {
    match kind {
        ChallengeType::Http01 => Some("http-01"),
        ChallengeType::TlsAlpn01 => Some("tls-alpn-01"),
        ChallengeType::Dns01 => Some("dns-01"),
        _ => None,
    }
}
