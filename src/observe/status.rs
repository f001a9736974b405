//! The status of a running proxy as `/status` tells it, for whoever reads it.
//!
//! What is missing reads as nothing: a reader may be older or newer than the proxy it asks.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Metrics;
use super::labels::SessionState;
use crate::tls::Facts;

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
    /// Outages of all gateways since it runs.
    pub outages: u64,
    /// One per route, the default one last.
    pub gateways: Vec<GatewayStatus>,
    /// How many sessions there are.
    pub sessions: SessionCounts,
    /// What is served, the default one first.
    pub certificates: Vec<CertificateStatus>,
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
