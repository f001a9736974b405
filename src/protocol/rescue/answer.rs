//! What the other side is told: plain values, and the JSON of them.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::gateway::{Phase, Reason, View};
use crate::ws::close::{REASON_LIMIT, fitting};

/// Longest close reason a WebSocket close frame can carry (RFC 6455, 5.5: 125 less the code).
pub const MAX_CLOSE_REASON: usize = REASON_LIMIT;

/// Close codes we say (RFC 6455, 7.4.1, and the IANA registry).
pub mod close_code {
    /// The peer broke RFC 6455.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Not allowed, and trying again as is will not help. Clients take it as final: never "down".
    pub const POLICY: u16 = 1008;
    /// A message is too big.
    pub const TOO_BIG: u16 = 1009;
    /// Come back: the service restarts.
    pub const SERVICE_RESTART: u16 = 1012;
    /// Come back later.
    pub const TRY_AGAIN_LATER: u16 = 1013;
}

/// What a sender may assume about its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Execution {
    /// It never left us.
    NotStarted,
    /// It may have reached the gateway.
    MayHaveExecuted,
}

impl Execution {
    /// The word used in frames and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::MayHaveExecuted => "may_have_executed",
        }
    }
}

/// A close frame's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: u16,
    /// The reason: at most [`MAX_CLOSE_REASON`] bytes.
    pub reason: Cow<'static, str>,
}

impl Close {
    /// A close with the reason cut (on a character boundary) to what a frame can carry.
    #[must_use]
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut reason = reason.into();
        let fits = fitting(&reason).len();
        if fits < reason.len() {
            reason.to_mut().truncate(fits);
        }
        Self { code, reason }
    }
}

/// What the other side is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// `error.type` in JSON; a label in logs and metrics.
    pub kind: &'static str,
    /// One sentence for a person.
    pub message: Cow<'static, str>,
    /// When to come back; `None` where coming back as is will not help.
    pub retry_after: Option<Duration>,
    /// The gateway's condition, where it is the cause.
    pub state: Option<Phase>,
    /// ... and why.
    pub reason: Option<Reason>,
    /// What the sender may assume about its request, where that is a question.
    pub execution: Option<Execution>,
    /// How an open WebSocket is closed for it.
    pub close: Close,
}

/// A wait as `Retry-After` says it: rounded up, at least 1, at most an hour.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).clamp(1, 3600) as u64
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(status: StatusCode, kind: &'static str) -> Self {
        Self {
            status,
            kind,
            message: Cow::Borrowed(kind),
            retry_after: None,
            state: None,
            reason: None,
            execution: None,
            close: Close::new(close_code::POLICY, kind),
        }
    }

    pub(super) fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request").says(format!("bad request: {detail}"))
    }

    pub(super) fn says(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    pub(super) fn retries(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub(super) fn executed(mut self, execution: Execution) -> Self {
        self.execution = Some(execution);
        self
    }

    pub(super) fn closes(mut self, code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        self.close = Close::new(code, reason);
        self
    }

    pub(super) fn sees(mut self, view: &View, now: Instant) -> Self {
        self.state = Some(view.phase);
        self.reason = view.reason;
        self.retries(view.retry_after(now))
    }

    /// `Retry-After` in whole seconds, rounded up, at least 1.
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after.map(whole_seconds)
    }

    /// The JSON body: `{"error":{"type","message",…}}`. The official client reads `type` and
    /// `message` out of the first 2 KiB of a rejected upgrade.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut error = Map::new();
        error.insert("type".into(), self.kind.into());
        error.insert("message".into(), self.message.as_ref().into());
        if let Some(state) = self.state {
            error.insert("state".into(), state.as_str().into());
        }
        if let Some(reason) = self.reason {
            error.insert("reason".into(), reason.as_str().into());
        }
        if let Some(after) = self.retry_after {
            error.insert("retryAfterMs".into(), json!(millis(after)));
        }
        if let Some(execution) = self.execution {
            error.insert("execution".into(), execution.as_str().into());
        }
        json!({ "error": error })
    }
}

/// A duration as JSON carries it.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
