//! What is said on a session: plain echo, or OpenClaw's challenge, connect and requests.
//! Pure: frames in, values out. Both kinds of request carry a 16-digit id, so that an answer
//! finds its request whatever a proxy did to the order.

use serde::Deserialize;

use crate::ws::{Opcode, encode};

/// What the backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Protocol {
    /// Every message comes back as it is.
    #[default]
    Echo,
    /// The OpenClaw gateway.
    Openclaw,
}

/// What a message from the other side is to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Answers the request with this id.
    Answer(u64, Verdict),
    /// An event: nobody asked for it.
    Event,
    /// Neither.
    Other,
}

/// How a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// With its result.
    Ok,
    /// With an error that says so.
    Error(Refusal),
}

/// The error of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// `UNAVAILABLE` and the like.
    pub code: String,
    /// `details.reason`.
    pub reason: String,
    /// Whether the same request may simply be sent again.
    pub retryable: bool,
    /// How long to wait first.
    pub retry_after_ms: Option<u64>,
    /// `details.execution`: what is known about whether it ran.
    pub execution: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    event: String,
    #[serde(default)]
    error: WireError,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireError {
    code: String,
    retryable: bool,
    retry_after_ms: Option<u64>,
    details: WireDetails,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireDetails {
    reason: String,
    execution: String,
}

/// Whether this is the gateway's greeting.
#[must_use]
pub fn is_challenge(payload: &[u8]) -> bool {
    serde_json::from_slice::<Frame>(payload)
        .is_ok_and(|f| f.kind == "event" && f.event == "connect.challenge")
}

/// The `connect` of a device-less backend client.
#[must_use]
pub fn connect_frame(id: u64, token: &str) -> Vec<u8> {
    let auth = if token.is_empty() {
        serde_json::json!({})
    } else {
        serde_json::json!({"token": token})
    };
    let frame = serde_json::json!({
        "type": "req", "id": format!("{id:016x}"), "method": "connect",
        "params": {
            "minProtocol": 4, "maxProtocol": 4,
            "client": {
                "id": "gateway-client", "version": env!("CARGO_PKG_VERSION"),
                "platform": "linux", "mode": "backend"
            },
            "role": "operator",
            "scopes": ["operator.admin", "operator.read", "operator.write"],
            "caps": [], "auth": auth, "locale": "en-US"
        }
    });
    frame.to_string().into_bytes()
}

/// Reads a message in full.
#[must_use]
pub fn classify(protocol: Protocol, payload: &[u8]) -> Incoming {
    if protocol == Protocol::Echo {
        return hex_id(payload).map_or(Incoming::Other, |id| Incoming::Answer(id, Verdict::Ok));
    }
    let Ok(frame) = serde_json::from_slice::<Frame>(payload) else {
        return Incoming::Other;
    };
    match (frame.kind.as_str(), hex_id(frame.id.as_bytes())) {
        ("event", _) => Incoming::Event,
        ("res", Some(id)) if frame.ok => Incoming::Answer(id, Verdict::Ok),
        ("res", Some(id)) => Incoming::Answer(id, Verdict::Error(frame.error.into())),
        _ => Incoming::Other,
    }
}

/// The id a message answers, found without parsing it: for the hot loops.
#[must_use]
pub fn answered_id(protocol: Protocol, payload: &[u8]) -> Option<u64> {
    match protocol {
        Protocol::Echo => hex_id(payload),
        Protocol::Openclaw => {
            let front = payload.get(..128).unwrap_or(payload);
            if front.starts_with(b"{\"type\":\"event\"") {
                return None;
            }
            let at = front.windows(6).position(|w| w == b"\"id\":\"")?;
            hex_id(payload.get(at + 6..)?)
        }
    }
}

fn hex_id(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text.get(..16)?).ok()?, 16).ok()
}

impl From<WireError> for Refusal {
    fn from(wire: WireError) -> Self {
        Self {
            code: wire.code,
            reason: wire.details.reason,
            retryable: wire.retryable,
            retry_after_ms: wire.retry_after_ms,
            execution: wire.details.execution,
        }
    }
}

/// A request, encoded once; only its id changes from one use to the next.
#[derive(Debug, Clone)]
pub struct Template {
    frame: Vec<u8>,
    /// Where the id's digits are in `frame`, and in the payload (which decides their mask).
    id_at: usize,
    id_in_payload: usize,
    mask: [u8; 4],
    payload_len: usize,
}

impl Template {
    /// A request of about `size` payload bytes (never less than its own envelope needs).
    #[must_use]
    pub fn new(protocol: Protocol, method: &str, size: usize, mask: [u8; 4]) -> Self {
        let id = "0".repeat(16);
        let payload = match protocol {
            Protocol::Echo => format!("{id}{}", "x".repeat(size.saturating_sub(16))),
            Protocol::Openclaw => openclaw_request(&id, method, size),
        };
        let id_in_payload = payload.find(&id).unwrap_or_default();
        let mut frame = Vec::new();
        encode(&mut frame, Opcode::Text, payload.as_bytes(), Some(mask));
        let id_at = frame.len() - payload.len() + id_in_payload;
        Self {
            frame,
            id_at,
            id_in_payload,
            mask,
            payload_len: payload.len(),
        }
    }

    /// The encoded, masked frame with this id.
    pub fn with_id(&mut self, id: u64) -> &[u8] {
        let digits = format!("{id:016x}");
        let key = self.mask.into_iter().cycle().skip(self.id_in_payload % 4);
        let field = self.frame.get_mut(self.id_at..).unwrap_or_default();
        for ((out, digit), key) in field.iter_mut().zip(digits.bytes()).zip(key) {
            *out = digit ^ key;
        }
        &self.frame
    }

    /// Bytes of payload in each use.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.payload_len
    }
}

fn openclaw_request(id: &str, method: &str, size: usize) -> String {
    let envelope = |params: &str| {
        format!(r#"{{"type":"req","id":"{id}","method":"{method}","params":{params}}}"#)
    };
    let bare = envelope("{}");
    match size.checked_sub(bare.len() + r#""pad":"""#.len()) {
        Some(pad) => envelope(&format!(r#"{{"pad":"{}"}}"#, "x".repeat(pad))),
        None => bare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::{apply_mask, parse};

    fn payload(frame: &[u8]) -> Vec<u8> {
        let header = parse(frame).unwrap().unwrap();
        let mut body = frame[header.header_len..].to_vec();
        apply_mask(&mut body, header.mask.unwrap());
        body
    }

    #[test]
    fn a_template_keeps_its_size_and_takes_any_id() {
        for (protocol, size) in [(Protocol::Echo, 256), (Protocol::Openclaw, 256)] {
            let mut template = Template::new(protocol, "health", size, [3, 5, 7, 11]);
            for id in [0, 1, 0xdead_beef, u64::MAX] {
                let body = payload(template.with_id(id));
                assert_eq!((body.len(), template.payload_len()), (size, size));
                assert_eq!(answered_id(protocol, &body), Some(id));
            }
        }
    }

    #[test]
    fn small_requests_are_still_whole() {
        let mut template = Template::new(Protocol::Openclaw, "health", 1, [1; 4]);
        let body = payload(template.with_id(7));
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["id"], "0000000000000007");
        assert_eq!(
            payload(Template::new(Protocol::Echo, "", 1, [1; 4]).with_id(7)).len(),
            16
        );
    }

    #[test]
    fn answers_and_events_are_told_apart() {
        let read = |text: &str| classify(Protocol::Openclaw, text.as_bytes());
        let ok = r#"{"type":"res","id":"000000000000000a","ok":true,"payload":{}}"#;
        assert_eq!(read(ok), Incoming::Answer(10, Verdict::Ok));
        assert_eq!(
            read(r#"{"type":"event","event":"tick","payload":{}}"#),
            Incoming::Event
        );
        assert_eq!(read("nonsense"), Incoming::Other);
        let Incoming::Answer(11, Verdict::Error(refusal)) = read(
            r#"{"type":"res","id":"000000000000000b","ok":false,"error":{"code":"UNAVAILABLE",
            "retryable":true,"retryAfterMs":500,"details":{"reason":"startup-sidecars"}}}"#,
        ) else {
            panic!("not an error");
        };
        assert_eq!(
            (refusal.reason.as_str(), refusal.retry_after_ms),
            ("startup-sidecars", Some(500))
        );
        assert!(refusal.retryable);
    }

    #[test]
    fn only_the_challenge_is_a_challenge() {
        assert!(is_challenge(
            br#"{"type":"event","event":"connect.challenge","payload":{}}"#
        ));
        assert!(!is_challenge(br#"{"type":"event","event":"tick"}"#));
    }
}
