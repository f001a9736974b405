//! How an order's names are shown to be ours: every challenge is made ready, then the CA is told, and
//! its verdict awaited.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    AuthorizationStatus, ChallengeType, Error, KeyAuthorization, Order, OrderStatus,
};
use tokio::time::{sleep, timeout};

use super::{Job, VALIDATION};
use crate::config::{Challenge, Dns};
use crate::tls::acme::ca::{Ca, blocking};
use crate::tls::acme::challenge::{Presented, Shown, is_token, tls_name};
use crate::tls::acme::dns::{self, TxtRecord};
use crate::tls::acme::moment::{HOUR, Moment};
use crate::tls::acme::problem::{Failure, NEXT_LOOK_MOST, Stage, is_limit, sentence};
use crate::tls::acme::underway::Underway;

/// Some CAs take minutes for many names.
const DECISION: Duration = Duration::from_secs(8 * 60);
/// Where a CA says that it wants to be asked again in hours: some do that, and have decided after seconds.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A name whose challenge is ready.
enum Ready {
    /// Answered by us until it is dropped.
    Presented { _answer: Presented },
    /// Written into the DNS.
    Record(TxtRecord),
}

/// What the CA wants to be shown.
struct Asked<'n> {
    name: &'n str,
    kind: Challenge,
    token: String,
    answer: KeyAuthorization,
}

impl Job {
    /// The order is ready then.
    pub(super) async fn validate(
        &self,
        ca: &Ca,
        order: &mut Order,
        underway: &Underway,
    ) -> Result<(), Failure> {
        let mut ready = Vec::new();
        let validated = self.validate_with(ca, order, &mut ready, underway).await;
        // Files are deleted.
        blocking(move || drop(ready)).await?;
        self.clear_records(underway).await;
        validated
    }

    async fn validate_with(
        &self,
        ca: &Ca,
        order: &mut Order,
        ready: &mut Vec<Ready>,
        underway: &Underway,
    ) -> Result<(), Failure> {
        let asked = self.asked(ca, order).await?;
        // All are made ready before the first is asked for: records in the DNS are seen sooner.
        let mut kinds = Vec::new();
        for asked in asked {
            kinds.push(asked.as_ref().map(|asked| asked.kind));
            if let Some(asked) = asked {
                ready.push(self.prepare(asked, underway).await?);
            }
        }
        if ready.is_empty() && order.state().status == OrderStatus::Ready {
            return Ok(());
        }
        if let Some(dns) = &self.acme.dns {
            self.of_dns(see(dns, ready)).await?;
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
        match decision(order).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(self.why_invalid(ca, order, None).await),
            Err(Error::Api(problem)) => Err(self.why_invalid(ca, order, Some(problem)).await),
            Err(error) => Err(failed(error)),
        }
    }

    /// How each name will be shown; `None` for those that the CA knows to be ours. All of them are
    /// looked at before anything is done for the first.
    async fn asked(&self, ca: &Ca, order: &mut Order) -> Result<Vec<Option<Asked<'_>>>, Failure> {
        let mut asked = Vec::new();
        let mut names = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(|error| ca.failed(&error, Stage::Validation))?;
            let identifier = authorization.identifier();
            let name = self.ordered(identifier.identifier, identifier.wildcard)?;
            if names.contains(&name) {
                return Err(Failure::ca(format!(
                    "the CA at {} wants to be shown {name} twice in one order; ask whoever runs it",
                    self.ca
                )));
            }
            names.push(name);
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => {
                    asked.push(None);
                    continue;
                }
                other => {
                    return Err(Failure::names(format!(
                        "{name}: the CA's authorization is {other:?} already; it is tried again"
                    ))
                    .unproved());
                }
            }
            let challenges = authorization.challenges.iter();
            let offered: Vec<ChallengeType> = challenges.map(|it| it.r#type.clone()).collect();
            let kind = self.choose(name, &offered)?;
            let Some(challenge) = authorization.challenge(wire(kind)) else {
                asked.push(None);
                continue;
            };
            let (token, answer) = (challenge.token.clone(), challenge.key_authorization());
            if !is_token(&token) {
                return Err(Failure::ca(format!(
                    "the CA at {} sends a token for {name} that is none (RFC 8555, 8.1); ask whoever \
                     runs it",
                    self.ca
                )));
            }
            asked.push(Some(Asked {
                name,
                kind,
                token,
                answer,
            }));
        }
        Ok(asked)
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

    async fn prepare(&self, asked: Asked<'_>, underway: &Underway) -> Result<Ready, Failure> {
        let Asked {
            name,
            kind,
            token,
            answer,
        } = asked;
        let present = |shown, asked: String| {
            let (challenges, answer) = (Arc::clone(&self.challenges), answer.as_str().to_owned());
            blocking(move || challenges.present(shown, &asked, &answer))
        };
        let presented = |answer| Ready::Presented { _answer: answer };
        tracing::debug!(name, ?kind, "answering a challenge");
        Ok(match kind {
            Challenge::Http01 => presented(present(Shown::Http, token).await?),
            Challenge::TlsAlpn01 => presented(present(Shown::Tls, tls_name(name)).await?),
            Challenge::Dns01 => {
                let record = TxtRecord::new(name, answer.dns_value());
                let dns = self.acme.dns.as_ref().ok_or_else(|| {
                    Failure::names("dns-01 needs [acme] dns_hook or [acme.dns_update]")
                })?;
                let records = self.records();
                let added = self.of_dns(records.add(dns, &record, underway)).await;
                added.map_err(|failure| Failure {
                    reason: format!("{name}: {}", failure.reason),
                    ..failure
                })?;
                Ready::Record(record)
            }
        })
    }

    /// Which name it was, and what the CA says of it.
    async fn why_invalid(
        &self,
        ca: &Ca,
        order: &mut Order,
        problem: Option<instant_acme::Problem>,
    ) -> Failure {
        // Each further answer takes the place of the one before.
        let mut until = ca.transport.ask_again();
        let mut limited = problem.as_ref().is_some_and(is_limit);
        let mut said = Vec::new();
        let mut first = problem.clone();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let refreshed = authorization.refresh().await;
            until = until.max(ca.transport.ask_again());
            let Ok(state) = refreshed else {
                continue;
            };
            let identifier = state.identifier();
            let Ok(name) = self.ordered(identifier.identifier, identifier.wildcard) else {
                continue;
            };
            for challenge in &state.challenges {
                if let Some(error) = &challenge.error {
                    let by = kind_of(&challenge.r#type);
                    let kind = word(&challenge.r#type).unwrap_or("challenge");
                    limited |= is_limit(error);
                    said.push(format!("{name} by {kind}: {}", sentence(error, by)));
                    first.get_or_insert_with(|| error.clone());
                }
            }
        }
        let mut failure = match first {
            Some(problem) => ca.failed(&Error::Api(problem), Stage::Validation),
            None => {
                Failure::names("the CA found the order invalid and does not say why").unproved()
            }
        };
        if !said.is_empty() {
            failure.reason = said.join("; ");
        }
        let wait = match limited {
            // A limit without a date is one all the same.
            true => until.or_else(|| Some(Moment::now().after(HOUR))),
            false => until.map(|until| until.min(Moment::now().after(NEXT_LOOK_MOST))),
        };
        failure.not_before = failure.not_before.max(wait);
        failure
    }
}

/// What the CA makes of an order whose challenges it may look at.
async fn decision(order: &mut Order) -> Result<OrderStatus, Error> {
    let mut again = None;
    let decided = timeout(DECISION, async {
        loop {
            match order.poll_ready(&VALIDATION).await {
                Err(Error::Timeout(at)) => again = at,
                other => return other,
            }
            sleep(LOOK_EVERY).await;
        }
    });
    let decided = decided.await;
    decided.unwrap_or(Err(Error::Timeout(again)))
}

/// By a hook or an update: no CA is to blame, and none could look with more success.
fn not_added(reason: String) -> Failure {
    Failure::here(reason).unproved()
}

async fn see(dns: &Dns, ready: &[Ready]) -> Result<(), Failure> {
    for each in ready {
        match each {
            Ready::Record(record) => dns::wait_for(dns, record).await.map_err(not_added)?,
            Ready::Presented { .. } => {}
        }
    }
    Ok(())
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
