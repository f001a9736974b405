//! The status of a running proxy as `/status` tells it, for whoever reads it.
//!
//! What is missing reads as nothing: a reader may be older or newer than the proxy it asks.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Metrics;
use super::labels::SessionState;
use crate::config::Started;
use crate::tls::Facts;
use crate::tls::acme::STAND_IN;

/// All of it. Durations are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// The version that runs.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// Whether it is on its way out.
    pub draining: bool,
    /// How far it is, then.
    pub drain: Option<Drain>,
    /// What it was started with; `None`: it does not say.
    pub config: Option<Started>,
    /// Outages of all gateways since it runs.
    pub outages: u64,
    /// One per route, the default one last.
    pub gateways: Vec<GatewayStatus>,
    /// How many sessions there are.
    pub sessions: SessionCounts,
    /// What is served, the default one first.
    pub certificates: Vec<CertificateStatus>,
    /// How the last reload went; `None` before the first.
    pub last_reload: Option<LastReload>,
    /// The process among those before and after it.
    pub process: ProcessStatus,
    /// Every certificate that is had from a CA.
    pub acme: Vec<AcmeStatus>,
}

/// The last time that a config was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LastReload {
    /// So long ago.
    pub ago_ms: u64,
    /// Why what was read is not in force, if it is not.
    pub refused: Option<String>,
}

/// A process and its neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessStatus {
    /// The one whose listeners it has taken over; it may have ended by now.
    pub predecessor: Option<Predecessor>,
    /// How the last upgrade went.
    pub upgrade: UpgradeStatus,
}

/// A process from before the last upgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Predecessor {
    /// Its number.
    pub pid: u32,
    /// What it runs.
    pub version: String,
}

/// An upgrade of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// `none`, `underWay`, `failed` or `handedOver`.
    pub state: String,
    /// When it failed, in milliseconds since 1970.
    pub at: u64,
    /// Why it failed.
    pub reason: String,
}

/// A certificate that is had from a CA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AcmeStatus {
    /// All of its names.
    pub names: Vec<String>,
    /// `served` or `awaited`.
    pub state: String,
    /// What happens next, and when.
    pub next: String,
    /// What went wrong last, if nothing has gone right since.
    pub last_error: Option<AcmeError>,
}

/// An order that has failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AcmeError {
    /// When (RFC 3339).
    pub at: String,
    /// At which CA; empty if it did not come that far.
    pub ca: String,
    /// Why.
    pub reason: String,
}

impl Status {
    /// How long ago a config was refused, and why; `None`: the one that was read last is in force.
    #[must_use]
    pub fn refused(&self) -> Option<(u64, Refused)> {
        let last = self.last_reload.as_ref()?;
        let reason = Refused::of(last.refused.as_deref()?);
        Some((last.ago_ms, reason))
    }
}

/// Why a config was refused, in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The first thing that is wrong.
    pub why: String,
    /// Whether it is the file that is wrong, so that a check of it says more.
    pub in_file: bool,
}

impl Refused {
    /// Of the words of a reload that was refused.
    pub(crate) fn of(reason: &str) -> Self {
        let mut lines = reason
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or("no reason was given");
        // That the old one is in force is said by whoever tells this.
        let why = match (first.strip_suffix("in force:"), lines.next()) {
            (Some(_), Some(second)) => {
                let why = second.strip_prefix("error: ").unwrap_or(second);
                return Self {
                    why: why.to_owned(),
                    in_file: true,
                };
            }
            _ => first.strip_prefix("the new config is refused, the old one is in force: "),
        };
        let why = why.unwrap_or(first);
        Self {
            why: why.replacen(", the old config is in force", "", 1),
            in_file: false,
        }
    }
}

impl CertificateStatus {
    /// Whether it only stands in for one that a CA has still to issue.
    #[must_use]
    pub fn stands_in(&self) -> bool {
        self.source == STAND_IN
    }
}

/// A drain that is going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Drain {
    /// Since it was asked for.
    pub since_ms: u64,
    /// What `limits.drain` leaves to live sessions.
    pub left_ms: u64,
}

/// The gateway of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayStatus {
    /// The route's name.
    pub route: String,
    /// `host:port`.
    pub gateway: String,
    /// `ready`, `starting`, `draining`, `down` or `hung`.
    pub state: String,
    /// In this state for so long.
    pub since_ms: u64,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub hint: Option<String>,
    /// Unsuccessful probes in this outage.
    pub attempt: u64,
    /// How long outages last, by those seen so far.
    pub expected_ms: Option<u64>,
    /// Set while outages come thick.
    pub crash_loop: Option<CrashLoopStatus>,
}

/// Outages that come thick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CrashLoopStatus {
    /// How many.
    pub outages: u64,
    /// Since the first of them.
    pub since_ms: u64,
}

/// Sessions by what they are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SessionCounts {
    /// All of them.
    pub open: u64,
    /// Connected through.
    pub live: u64,
    /// Kept while their gateway is away.
    pub held: u64,
    /// Greeted on an absent gateway's behalf.
    pub greeting: u64,
    /// On their way back.
    pub resuming: u64,
    /// Not accepted yet: their upgrade waits for the gateway.
    pub waiting: u64,
    /// Client bytes kept for them.
    pub kept_bytes: u64,
}

/// A certificate that is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Where it comes from.
    pub source: String,
    /// DNS names and addresses that it is for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Valid until, for people.
    pub until: String,
    /// The same in milliseconds since 1970.
    pub not_after: u64,
    /// SHA-256 over it, as clients pin it.
    pub sha256: String,
}

impl From<&Facts> for CertificateStatus {
    fn from(facts: &Facts) -> Self {
        Self {
            source: facts.source.clone(),
            names: facts.names.clone(),
            issuer: facts.issuer.clone(),
            until: facts.until(),
            not_after: since_1970(facts.not_after),
            sha256: facts.sha256.clone(),
        }
    }
}

fn since_1970(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// [`SessionCounts`] as `/status` says them. The parts are read one after the other: while sessions
/// move they may not add up to `open`.
pub(crate) fn sessions(metrics: &Metrics, open: usize, kept: usize) -> Value {
    let count = |state| metrics.sessions.get(state).max(0);
    json!({
        "open": open,
        "live": count(SessionState::Live),
        "held": count(SessionState::Held),
        "greeting": count(SessionState::Greeting),
        "resuming": count(SessionState::Resuming),
        "waiting": count(SessionState::Waiting),
        "keptBytes": kept,
    })
}

/// Every [`CertificateStatus`] as `/status` says them.
pub(crate) fn certificates(facts: &[Facts]) -> Value {
    facts
        .iter()
        .map(|facts| json!(CertificateStatus::from(facts)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_a_line() {
        let told = |reason: &str| {
            let last_reload = Some(LastReload {
                ago_ms: 7,
                refused: Some(reason.to_owned()),
            });
            let status = Status {
                last_reload,
                ..Status::default()
            };
            let (ago, refused) = status.refused().unwrap();
            assert_eq!(ago, 7);
            (refused.why, refused.in_file)
        };
        let errors =
            "the new config is refused, the old one is in force:\nerror: a.toml:1:1: no\n  more";
        assert_eq!(told(errors), ("a.toml:1:1: no".to_owned(), true));
        assert_eq!(
            told("the new config is refused, the old one is in force: port 1 is taken"),
            ("port 1 is taken".to_owned(), false)
        );
        let doubt =
            "the changed file is not taken by itself, the old config is in force: it sets nothing";
        assert_eq!(
            told(doubt).0,
            "the changed file is not taken by itself: it sets nothing"
        );
        assert_eq!(told("").0, "no reason was given");
        assert_eq!(Status::default().refused(), None);
    }
}
