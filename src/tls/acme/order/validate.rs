//! How an order's names are shown to be ours: every challenge is made ready, then the CA is told, and
//! its verdict awaited.

use std::sync::Arc;

use instant_acme::{
    AuthorizationStatus, ChallengeType, Error, KeyAuthorization, Order, OrderStatus,
};

use super::{Job, VALIDATION};
use crate::config::{Challenge, DnsHook};
use crate::tls::acme::ca::{Ca, blocking};
use crate::tls::acme::challenge::{Presented, Shown, tls_name};
use crate::tls::acme::dns::hook::{self, Do};
use crate::tls::acme::dns::{self, TxtRecord};
use crate::tls::acme::problem::{Failure, Stage, sentence};

/// A name whose challenge is ready.
struct Ready {
    _presented: Option<Presented>,
    record: Option<TxtRecord>,
}

impl Job {
    /// The order is ready then.
    pub(super) async fn validate(&self, ca: &Ca, order: &mut Order) -> Result<(), Failure> {
        let mut ready = Vec::new();
        let validated = self.validate_with(ca, order, &mut ready).await;
        if let Some(dns) = &self.acme.dns {
            for record in ready.iter().filter_map(|each| each.record.as_ref()) {
                if let Err(error) = hook::run(dns, Do::Cleanup, record).await {
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
        // All are made ready before the first is asked for: the hook's records are seen sooner.
        let kinds = self.make_ready(ca, order, ready).await?;
        if ready.is_empty() && order.state().status == OrderStatus::Ready {
            return Ok(());
        }
        if let Some(hook) = &self.acme.dns {
            self.see(hook, ready).await?;
        }
        let failed = |error: Error| ca.failed(&error, Stage::Validation);
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
        match order.poll_ready(&VALIDATION).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(self.why_invalid(ca, order, None).await),
            Err(Error::Api(problem)) => Err(self.why_invalid(ca, order, Some(problem)).await),
            Err(error) => Err(failed(error)),
        }
    }

    /// How each name will be shown; `None` for those that the CA knows to be ours.
    async fn make_ready(
        &self,
        ca: &Ca,
        order: &mut Order,
        ready: &mut Vec<Ready>,
    ) -> Result<Vec<Option<Challenge>>, Failure> {
        let mut kinds = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(|error| ca.failed(&error, Stage::Validation))?;
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
            let challenges = authorization.challenges.iter();
            let offered: Vec<ChallengeType> = challenges.map(|it| it.r#type.clone()).collect();
            let kind = self.choose(&name, &offered)?;
            kinds.push(Some(kind));
            if let Some(challenge) = authorization.challenge(wire(kind)) {
                let (answer, token) = (challenge.key_authorization(), challenge.token.clone());
                ready.push(self.prepare(kind, &name, &token, &answer).await?);
            }
        }
        Ok(kinds)
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
                let dns = self
                    .acme
                    .dns
                    .as_ref()
                    .ok_or_else(|| Failure::names("dns-01 needs [acme] dns_hook"))?;
                hook::run(dns, Do::Present, &record)
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
                    let by = kind_of(&challenge.r#type);
                    let kind = word(&challenge.r#type).unwrap_or("challenge");
                    said.push(format!("{name} by {kind}: {}", sentence(error, by)));
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
}

fn wire(kind: Challenge) -> ChallengeType {
    match kind {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

fn kind_of(wire: &ChallengeType) -> Option<Challenge> {
    match wire {
        ChallengeType::Http01 => Some(Challenge::Http01),
        ChallengeType::TlsAlpn01 => Some(Challenge::TlsAlpn01),
        ChallengeType::Dns01 => Some(Challenge::Dns01),
        _ => None,
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
