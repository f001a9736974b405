//! What can be told apart about sessions and gateways.

use crate::observe::Label;

/// What became of a WebSocket upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeOutcome {
    /// Accepted by the gateway at once.
    Passed,
    /// Waited for the gateway, then accepted by it.
    Held,
    /// Accepted on the absent gateway's behalf.
    Greeted,
    /// The gateway was away for too long.
    Unavailable,
    /// The gateway said no.
    Rejected,
    /// Over a limit, malformed or not allowed.
    Refused,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Its upgrade waits for the gateway.
    Waiting,
    /// Greeted on the absent gateway's behalf.
    Greeting,
    /// Connected through.
    Live,
    /// The gateway is away, the client is kept.
    Held,
    /// On its way back.
    Resuming,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client closed it.
    Client,
    /// The gateway closed it on purpose.
    Gateway,
    /// Closed so that its client comes back.
    Reconnect,
    /// `hold.max` ran out.
    Expired,
    /// The client no longer answers.
    Dead,
    /// Over a limit.
    Limit,
    /// The gateway died inside a long frame.
    Torn,
    /// holdline was told to stop.
    Drain,
    /// Its sign-in or token was ended.
    Revoked,
}

/// What a gateway is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayPhase {
    /// Ready.
    Ready,
    /// Accepts, but has not finished its start.
    Starting,
    /// Said that it is going away.
    Draining,
    /// Not there.
    Down,
    /// Accepts and does not answer.
    Hung,
}

/// What a probe or a dial found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// What was hoped for.
    Ok,
    /// An answer, but not ready.
    NotReady,
    /// Nobody listens.
    Refused,
    /// No answer in time.
    Timeout,
    /// Anything else.
    Error,
}

/// How a held session comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeWay {
    /// The recorded handshake said again.
    Replay,
    /// The client answered the new challenge.
    Rechallenge,
    /// A gap in the sequence, so that the client comes back.
    Gap,
    /// Closed, so that the client comes back.
    Reconnect,
    /// Dialled again and gone on.
    Splice,
}

/// How a request that was unanswered at a loss was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Sent again.
    Resent,
    /// Answered: it never left.
    NotStarted,
    /// Answered: it may have been executed.
    MayHaveExecuted,
}

// === impl Label ===

impl Label for UpgradeOutcome {
    const KEY: &'static str = "outcome";
    const NAMES: &'static [&'static str] = &[
        "passed",
        "held",
        "greeted",
        "unavailable",
        "rejected",
        "refused",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for SessionState {
    const KEY: &'static str = "state";
    const NAMES: &'static [&'static str] = &["waiting", "greeting", "live", "held", "resuming"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for SessionEnd {
    const KEY: &'static str = "cause";
    const NAMES: &'static [&'static str] = &[
        "client",
        "gateway",
        "reconnect",
        "expired",
        "dead",
        "limit",
        "torn",
        "drain",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for GatewayPhase {
    const KEY: &'static str = "state";
    const NAMES: &'static [&'static str] = &["ready", "starting", "draining", "down", "hung"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for ProbeResult {
    const KEY: &'static str = "result";
    const NAMES: &'static [&'static str] = &["ok", "not_ready", "refused", "timeout", "error"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for ResumeWay {
    const KEY: &'static str = "way";
    const NAMES: &'static [&'static str] = &["replay", "rechallenge", "gap", "reconnect", "splice"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for Settled {
    const KEY: &'static str = "kind";
    const NAMES: &'static [&'static str] = &["resent", "not_started", "may_have_executed"];

    fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::labels::ends_with;

    #[test]
    fn every_variant_has_a_name() {
        ends_with(UpgradeOutcome::Refused);
        ends_with(SessionState::Resuming);
        ends_with(SessionEnd::Drain);
        ends_with(GatewayPhase::Hung);
        ends_with(ProbeResult::Error);
        ends_with(ResumeWay::Splice);
        ends_with(Settled::MayHaveExecuted);
    }
}
