//! The frames that we say ourselves to clients of the OpenClaw protocol.
//!
//! `gateway.down` and `gateway.up` are ours; `shutdown`, `connect.challenge` and the error answers
//! are the gateway's own words, said on its behalf while it is away. What we add carries no `seq`,
//! but where a gap is the message.

use std::time::Duration;

use aws_lc_rs::rand;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::rescue::{Execution, millis};
use super::wall::{unix_ms, unix_ms_of};
use crate::gateway::{Phase, View};

/// Shown as the expected length of an outage until one was seen.
pub const UNKNOWN_OUTAGE: Duration = Duration::from_secs(15);

/// How a session came back, in `gateway.up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resumed {
    /// Its connection was never lost.
    Kept,
    /// Its handshake was said again for it.
    Replay,
    /// It may answer the new challenge itself.
    Rechallenge,
    /// It is asked to fetch everything anew.
    Gap,
    /// It is asked to connect again.
    Reconnect,
    /// It was simply connected again.
    Splice,
}

impl Resumed {
    /// The word in frames and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Replay => "replay",
            Self::Rechallenge => "rechallenge",
            Self::Gap => "gap",
            Self::Reconnect => "reconnect",
            Self::Splice => "splice",
        }
    }
}

/// `gateway.down`: what is known, and what to expect.
#[must_use]
pub fn gateway_down(view: &View, lost: Instant, now: Instant) -> String {
    let since = view.outage_since.unwrap_or(lost).min(now);
    let down = now.saturating_duration_since(since);
    // Back already, only this session's turn has not come: to its client that is still a start.
    let state = if view.phase == Phase::Ready {
        Phase::Starting
    } else {
        view.phase
    };
    json!({"type": "event", "event": "gateway.down", "payload": {
        "state": state.as_str(),
        "reason": view.reason.map(|reason| reason.as_str()),
        "since": unix_ms_of(since, now),
        "downMs": millis(down),
        "attempt": view.attempt,
        "retryAfterMs": millis(view.retry_after(now)),
        "expectedMs": view.expected.map(millis),
        "crashLoop": view.crash_loop.is_some(),
        "outages": view.crash_loop.map(|crash| crash.outages),
        "hint": view.hint(),
    }})
    .to_string()
}

/// `gateway.up`, with a number where a gap is wanted.
#[must_use]
pub fn gateway_up(down: Duration, resumed: Resumed, seq: Option<u64>) -> String {
    let mut frame = json!({"type": "event", "event": "gateway.up", "payload": {
        "downMs": millis(down), "resumed": resumed.as_str(),
    }});
    if let (Some(seq), Some(frame)) = (seq, frame.as_object_mut()) {
        frame.insert("seq".into(), seq.into());
    }
    frame.to_string()
}

/// The gateway's `shutdown`, with a length that is true. `seq` only where it is the gateway's own.
#[must_use]
pub fn shutdown(expected: Duration, seq: Option<u64>) -> String {
    let mut frame = json!({"type": "event", "event": "shutdown", "payload": {
        "reason": "gateway restarting", "restartExpectedMs": millis(expected),
    }});
    if let (Some(seq), Some(frame)) = (seq, frame.as_object_mut()) {
        frame.insert("seq".into(), seq.into());
    }
    frame.to_string()
}

/// What the Control UI shows in a corner, and can take back on the same socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspension {
    /// Shown.
    Draining,
    /// Cleared.
    Accepting,
}

/// The gateway's `gateway.suspension`. `seq` only where it stands in the place of an event that had
/// this number: a number that never comes is a gap.
#[must_use]
pub fn suspension(phase: Suspension, seq: Option<u64>) -> String {
    let phase = match phase {
        Suspension::Draining => "draining",
        Suspension::Accepting => "accepting",
    };
    let payload = json!({"phase": phase});
    let mut frame = json!({"type": "event", "event": "gateway.suspension", "payload": payload});
    if let (Some(seq), Some(frame)) = (seq, frame.as_object_mut()) {
        frame.insert("seq".into(), seq.into());
    }
    frame.to_string()
}

/// What remains of an outage, by the median of the earlier ones, but never less than the gateway
/// usually needs: clients show the restart for three times as long.
#[must_use]
pub fn remaining(view: &View, now: Instant) -> Duration {
    let elapsed = view
        .outage_since
        .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    view.expected
        .unwrap_or(UNKNOWN_OUTAGE)
        .saturating_sub(elapsed)
        .max(Duration::from_secs(5))
}

/// A challenge of our own, for a client that connects while the gateway is away.
#[must_use]
pub fn challenge() -> String {
    json!({"type": "event", "event": "connect.challenge", "payload": {
        "nonce": nonce(), "ts": unix_ms(),
    }})
    .to_string()
}

/// The answer to a `connect` that makes official clients come back by themselves, unseen by their
/// users and without growing their backoff. Close 1013 [`STARTING`] follows.
#[must_use]
pub fn starting(id: &str, retry_after: Duration) -> String {
    json!({"type": "res", "id": id, "ok": false, "error": {
        "code": "UNAVAILABLE",
        "message": "gateway starting; retry shortly",
        "retryable": true,
        "retryAfterMs": millis(retry_after),
        "details": {"reason": "startup-sidecars"},
    }})
    .to_string()
}

/// The reason of the close behind [`starting()`]; clients know it.
pub const STARTING: &str = "gateway starting";

/// An answer in the gateway's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable<'a> {
    /// The request's.
    pub id: &'a str,
    /// The request's.
    pub method: &'a str,
    /// What is known of it.
    pub execution: Execution,
    /// Whether saying it again is safe.
    pub retryable: bool,
    /// When.
    pub retry_after: Duration,
}

impl Unavailable<'_> {
    /// The frame.
    #[must_use]
    pub fn frame(&self) -> String {
        let message = match self.execution {
            Execution::NotStarted => format!("{} unavailable during gateway restart", self.method),
            Execution::MayHaveExecuted => format!(
                "the gateway was lost before it answered {}: it may have been executed",
                self.method
            ),
        };
        json!({"type": "res", "id": self.id, "ok": false, "error": {
            "code": "UNAVAILABLE",
            "message": message,
            "retryable": self.retryable,
            "retryAfterMs": millis(self.retry_after),
            "details": {
                "method": self.method,
                "reason": "gateway-restarting",
                "phase": "accepting",
                "execution": self.execution.as_str(),
            },
        }})
        .to_string()
    }
}

/// A request without params, still to get its id.
#[must_use]
pub fn bare(method: &str) -> String {
    json!({"type": "req", "id": "", "method": method, "params": {}}).to_string()
}

/// The text of a recorded request under another id.
#[must_use]
pub fn with_id(text: &[u8], id: &str) -> Option<String> {
    let mut frame: Value = serde_json::from_slice(text).ok()?;
    frame.as_object_mut()?.insert("id".into(), id.into());
    Some(frame.to_string())
}

/// 128 random bits, written as the gateway writes them (RFC 9562, version 4).
fn nonce() -> String {
    let mut bytes = [0u8; 16];
    // Nobody verifies it: the handshake that answers it is always refused or said again.
    let _ = rand::fill(&mut bytes);
    let bits =
        (u128::from_be_bytes(bytes) & !(0xF << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |range| hex.get(range).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::openclaw::{GatewaySays, gateway_says};

    #[test]
    fn our_words_are_the_gateways_shapes() {
        let error = Unavailable {
            id: "r\"5",
            method: "sessions.list",
            execution: Execution::NotStarted,
            retryable: true,
            retry_after: Duration::from_millis(800),
        };
        let frame: Value = serde_json::from_str(&error.frame()).unwrap();
        assert_eq!(frame["id"], "r\"5");
        assert_eq!(frame["error"]["details"]["execution"], "not_started");
        assert_eq!(
            frame["error"]["message"],
            "sessions.list unavailable during gateway restart"
        );
        let up = gateway_up(Duration::from_secs(9), Resumed::Gap, Some(7));
        assert_eq!(
            gateway_says(up.as_bytes()),
            GatewaySays::Event { seq: Some(7) }
        );
        let down = shutdown(Duration::from_secs(14), Some(8));
        assert_eq!(
            gateway_says(down.as_bytes()),
            GatewaySays::Shutdown { seq: Some(8) }
        );
        assert_eq!(gateway_says(challenge().as_bytes()), GatewaySays::Challenge);
    }

    #[test]
    fn nonces_are_uuids_and_differ() {
        let (a, b) = (nonce(), nonce());
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[14..15]), (36, "4"));
        assert!("89ab".contains(&a[19..20]));
    }

    #[test]
    fn a_request_can_be_said_under_another_id() {
        let text = with_id(
            br#"{"type":"req","id":"1","method":"m","params":{"x":1}}"#,
            "z",
        )
        .unwrap();
        let frame: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&frame["id"], &frame["params"]["x"]),
            (&json!("z"), &json!(1))
        );
        assert_eq!(with_id(b"[]", "z"), None);
    }
}
