//! What we know of one gateway, as everyone else sees it.
//!
//! Plain values: no clock, no I/O, no clients. How they change is in [`super::machine`].

use std::time::Duration;

use tokio::time::Instant;

/// The gateway's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Answers, and a `connect` will work.
    Ready,
    /// Its port answers, but start-up is not finished.
    Starting,
    /// It has said that it is going away; what it still answers is its own.
    Draining,
    /// Nothing answers.
    Down,
    /// Accepts connections and does not answer.
    Hung,
}

impl Phase {
    /// The word used in frames, JSON and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Hung => "hung",
        }
    }

    /// Whether plain HTTP may be sent to it: it answers, perhaps with its own refusal.
    #[must_use]
    pub fn answers_http(self) -> bool {
        matches!(self, Self::Ready | Self::Starting | Self::Draining)
    }
}

/// Why it is not ready, as far as we could see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Connection refused: nothing listens.
    Refused,
    /// A connection was reset.
    Reset,
    /// A connection ended without a word, or with a close that means "going away".
    Closed,
    /// No connection within the time limit.
    Timeout,
    /// The name has no address.
    Dns,
    /// No route to the host or network.
    Unreachable,
    /// It answered an upgrade with something else than 101.
    UpgradeRejected,
    /// It accepts and does not answer.
    Hung,
}

impl Reason {
    /// The word used in frames, JSON and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Unreachable => "unreachable",
            Self::UpgradeRejected => "upgrade_rejected",
            Self::Hung => "hung",
        }
    }

    /// One sentence for a person: what it means for them.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Refused => "nothing listens on the gateway's port: it is probably not running",
            Self::Reset | Self::Closed => "the gateway process ended its connections",
            Self::Timeout => "the gateway's host does not answer",
            Self::Dns => "the gateway's host name has no address",
            Self::Unreachable => "the gateway's host cannot be reached",
            Self::UpgradeRejected => "the gateway refuses WebSocket upgrades",
            Self::Hung => "the gateway accepts connections but does not answer",
        }
    }
}

/// Three or more outages within two minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashLoop {
    /// Outages in the window.
    pub outages: u32,
    /// When the first of them began.
    pub since: Instant,
}

/// The published state of one gateway. Cheap to copy; compare `generation` to see a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its condition.
    pub phase: Phase,
    /// When this phase began.
    pub since: Instant,
    /// When the current outage began; `None` while ready and before the first probe has answered.
    pub outage_since: Option<Instant>,
    /// Why it is not ready; `None` while ready.
    pub reason: Option<Reason>,
    /// Unsuccessful probes in this outage.
    pub attempt: u32,
    /// Median length of the outages seen so far.
    pub expected: Option<Duration>,
    /// Median length of the starting phases seen so far.
    pub expected_starting: Option<Duration>,
    /// Set while outages come thick.
    pub crash_loop: Option<CrashLoop>,
    /// Counts the times it became ready after an outage: a connection of an older generation may
    /// be dead without a word.
    pub generation: u64,
}

impl View {
    /// Whether nothing that is sent to it now will be answered, though connections stand: it
    /// hangs, or its host has gone. A port that merely refuses says nothing of the connections
    /// that a closing process still serves.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match self.phase {
            Phase::Hung => true,
            Phase::Down => {
                self.attempt > 0
                    && matches!(self.reason, Some(Reason::Timeout | Reason::Unreachable))
            }
            Phase::Ready | Phase::Starting | Phase::Draining => false,
        }
    }

    /// One sentence for a person: what is known of why it is not ready.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Starting => Some("the gateway answers, but has not finished starting"),
            Phase::Draining => Some("the gateway has announced its end"),
            Phase::Ready | Phase::Down | Phase::Hung => self.reason.map(Reason::hint),
        }
    }

    /// How long clients should wait before they ask again.
    #[must_use]
    pub fn retry_after(&self, now: Instant) -> Duration {
        const SHORT: Duration = Duration::from_millis(500);
        const LONG: Duration = Duration::from_secs(5);
        match (self.phase, self.expected, self.outage_since) {
            (Phase::Ready, ..) => Duration::from_millis(100),
            (Phase::Starting, ..) => SHORT,
            (_, Some(expected), Some(since)) => expected
                .saturating_sub(now.saturating_duration_since(since))
                .clamp(SHORT, LONG),
            _ => Duration::from_secs(1),
        }
    }
}
