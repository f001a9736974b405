//! What the frames of the OpenClaw gateway protocol (version 4) mean to a proxy.
//!
//! `{"type":"req","id","method","params"}` from clients, `{"type":"res","id","ok",…}` and
//! `{"type":"event","event","payload","seq"}` from the gateway. Only what a decision hangs on is
//! read; the rest passes unread.

use std::borrow::Cow;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::methods::{self, Nature};
use super::scan::{self, Go};

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientSays {
    /// The handshake's request.
    Connect(Connect),
    /// Any other request.
    Request(Request),
    /// Nothing that is answered.
    Other,
}

/// A request's address and character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names the answer.
    pub id: Box<str>,
    /// What is asked.
    pub method: Box<str>,
    /// What asking twice would do.
    pub nature: Nature,
    /// `params.key`, where the method's standing hangs on it.
    pub key: Option<Box<str>>,
}

/// Who connects, as far as it decides how the session can come back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connect {
    /// The request's id.
    pub id: Box<str>,
    /// `params.client.id`.
    pub client: Box<str>,
    /// Signed the challenge.
    pub has_device: bool,
    /// Connects as a node: its signature is all that it is known by.
    pub is_node: bool,
    /// Runs the handshake again on the same socket when it sees another challenge.
    pub answers_challenges: bool,
}

/// A message from the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewaySays<'a> {
    /// `connect.challenge`.
    Challenge,
    /// The answer to the request with this id.
    Response {
        /// Whose.
        id: Cow<'a, str>,
        /// Granted or refused.
        ok: bool,
    },
    /// It is about to end its connections.
    Shutdown {
        /// Its number, which must not be lost.
        seq: Option<u64>,
    },
    /// Any other event.
    Event {
        /// Its number; only broadcasts have one.
        seq: Option<u64>,
    },
    /// Anything else.
    Other,
}

/// The Control UI's `client.id`.
pub const CONTROL_UI: &str = "openclaw-control-ui";

/// Whether a Control UI waits for the answer to this method without limit: what a person typed, and
/// what takes it back. It passes no time limit with them, and takes a late answer as it takes any
/// (read in its code, 2026.9.6). Given back, a message is sent again only seconds after the
/// gateway is there.
#[must_use]
pub fn is_waited_for(method: &str) -> bool {
    matches!(method, "chat.send" | "chat.abort" | "sessions.abort")
}

/// Reads a client's message; `text` may be the beginning of a longer one.
#[must_use]
pub fn client_says(text: &[u8]) -> ClientSays {
    let (mut is_request, mut id, mut method, mut params) = (false, None, None, &b""[..]);
    scan::members(text, |name, value| {
        match name {
            b"type" => is_request = value == br#""req""#,
            b"id" => id = scan::string(value),
            b"method" => method = scan::string(value),
            b"params" => params = value,
            _ => {}
        }
        Go::On
    });
    let (true, Some(id), Some(method)) = (is_request, id, method) else {
        return ClientSays::Other;
    };
    if method == "connect" {
        return ClientSays::Connect(Connect {
            id: id.into(),
            ..connect_facts(text)
        });
    }
    let of_session = || member_string(params, b"sessionKey").is_some_and(|key| !key.is_empty());
    let nature = methods::nature(&method, method == "chat.startup" && of_session());
    let key = match nature {
        Nature::Standing(_) => member_string(params, b"key"),
        Nature::ReadOnly | Nature::Mutating => None,
    };
    ClientSays::Request(Request {
        id: id.into(),
        method: method.into(),
        nature,
        key,
    })
}

fn member_string(object: &[u8], wanted: &[u8]) -> Option<Box<str>> {
    let mut found = None;
    scan::members(object, |name, value| {
        if name == wanted {
            found = scan::string(value).map(Into::into);
        }
        Go::On
    });
    found
}

fn connect_facts(text: &[u8]) -> Connect {
    #[derive(Deserialize)]
    struct Frame {
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        client: Option<Client>,
        role: Option<Box<str>>,
        device: Option<serde::de::IgnoredAny>,
        user_agent: Option<String>,
    }
    #[derive(Deserialize)]
    struct Client {
        id: Option<Box<str>>,
    }
    match serde_json::from_slice::<Frame>(text) {
        Ok(Frame { params }) => Connect {
            id: Box::default(),
            client: params
                .client
                .and_then(|client| client.id)
                .unwrap_or_default(),
            has_device: params.device.is_some(),
            is_node: params.role.is_some_and(|role| &*role != "operator"),
            answers_challenges: params
                .user_agent
                .is_some_and(|ua| ua.starts_with("openclaw-node/")),
        },
        // The gateway will refuse it; until then it is nobody who could be replayed.
        Err(_) => Connect {
            has_device: true,
            ..Connect::default()
        },
    }
}

/// A `connect` without its signature, which is of no use a second time; `None`: it is not JSON.
#[must_use]
pub fn without_device(text: &[u8]) -> Option<Zeroizing<String>> {
    let mut frame: serde_json::Value = serde_json::from_slice(text).ok()?;
    frame.get_mut("params")?.as_object_mut()?.remove("device");
    Some(Zeroizing::new(frame.to_string()))
}

/// Reads a gateway's message; `text` may be the beginning of a longer one.
#[must_use]
pub fn gateway_says(text: &[u8]) -> GatewaySays<'_> {
    let (mut kind, mut id, mut ok, mut event, mut seq) = (&b""[..], None, false, &b""[..], None);
    scan::members(text, |name, value| {
        match name {
            b"type" => kind = value,
            b"id" => id = scan::string(value),
            b"ok" => ok = value == b"true",
            b"event" => event = value,
            b"seq" => seq = scan::number(value),
            _ => {}
        }
        // An answer's payload is long and says nothing to us.
        if kind == br#""res""# && name == b"ok" {
            Go::Stop
        } else {
            Go::On
        }
    });
    match (kind, event, id) {
        (br#""res""#, _, Some(id)) => GatewaySays::Response { id, ok },
        (br#""event""#, br#""connect.challenge""#, _) => GatewaySays::Challenge,
        (br#""event""#, br#""shutdown""#, _) => GatewaySays::Shutdown { seq },
        (br#""event""#, ..) => GatewaySays::Event { seq },
        _ => GatewaySays::Other,
    }
}

/// What a `hello-ok` granted, as far as a later one must cover it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    protocol: u64,
    role: String,
    scopes: Vec<String>,
    method: String,
    has_device_token: bool,
    max_payload: u64,
    max_buffered: u64,
    tick_interval_ms: u64,
    version: String,
}

/// Why a replayed handshake must not be passed off as the old session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shrunk {
    /// Another protocol version.
    #[error("another protocol version")]
    Protocol,
    /// Another role or sign-in method.
    #[error("another role")]
    Role,
    /// A scope is missing.
    #[error("fewer scopes")]
    Scopes,
    /// The first one issued a device token, which a replay cannot.
    #[error("the device token is missing")]
    DeviceToken,
    /// Smaller limits, or another tick.
    #[error("a smaller policy")]
    Policy,
    /// Another version of the gateway: what the client learnt of its features is stale.
    #[error("another gateway version")]
    Version,
}

impl Hello {
    /// Reads a `res` frame that answers a `connect`; `None` when it is not a `hello-ok`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Frame {
            ok: bool,
            payload: Payload,
        }
        #[derive(Deserialize)]
        struct Payload {
            r#type: String,
            #[serde(default)]
            protocol: u64,
            #[serde(default)]
            server: Server,
            #[serde(default)]
            auth: Auth,
            #[serde(default)]
            policy: Policy,
        }
        #[derive(Deserialize, Default)]
        struct Server {
            #[serde(default)]
            version: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Auth {
            method: String,
            role: String,
            scopes: Vec<String>,
            device_token: Option<serde::de::IgnoredAny>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Policy {
            max_payload: u64,
            max_buffered_bytes: u64,
            tick_interval_ms: u64,
        }
        let Frame { ok: true, payload } = serde_json::from_slice(text).ok()? else {
            return None;
        };
        (payload.r#type == "hello-ok").then_some(Self {
            protocol: payload.protocol,
            role: payload.auth.role,
            scopes: payload.auth.scopes,
            method: payload.auth.method,
            has_device_token: payload.auth.device_token.is_some(),
            max_payload: payload.policy.max_payload,
            max_buffered: payload.policy.max_buffered_bytes,
            tick_interval_ms: payload.policy.tick_interval_ms,
            version: payload.server.version,
        })
    }

    /// Whether the gateway took a proxy's word for who it is, so that a signature is not needed.
    #[must_use]
    pub fn is_by_proxy(&self) -> bool {
        self.method == "trusted-proxy"
    }

    /// From here on a device token is the client's own affair: its session does not hang on it.
    pub fn disregard_device_token(&mut self) {
        self.has_device_token = false;
    }

    /// Whether `again` grants at least what this one did.
    ///
    /// # Errors
    /// Names the first thing that shrank.
    pub fn covered_by(&self, again: &Self) -> Result<(), Shrunk> {
        let checks = [
            (self.protocol == again.protocol, Shrunk::Protocol),
            (
                self.role == again.role && self.method == again.method,
                Shrunk::Role,
            ),
            (
                self.scopes.iter().all(|scope| again.scopes.contains(scope)),
                Shrunk::Scopes,
            ),
            (!self.has_device_token, Shrunk::DeviceToken),
            (
                again.max_payload >= self.max_payload
                    && again.max_buffered >= self.max_buffered
                    && again.tick_interval_ms == self.tick_interval_ms,
                Shrunk::Policy,
            ),
            (self.version == again.version, Shrunk::Version),
        ];
        checks
            .into_iter()
            .find(|(covered, _)| !covered)
            .map_or(Ok(()), |(_, why)| Err(why))
    }
}

/// Whether a refused `connect` says that the gateway is merely not ready yet.
#[must_use]
pub fn is_starting_refusal(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Frame {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        retryable: bool,
    }
    serde_json::from_slice::<Frame>(text)
        .is_ok_and(|frame| frame.error.code == "UNAVAILABLE" && frame.error.retryable)
}

/// Why the gateway refuses a request because of its own state: it is going away, or not back yet.
/// `None` for every other refusal. `announced`: it has said its `shutdown`, after which it gives no
/// reasons any more.
#[must_use]
pub fn refused_for_restart(text: &[u8], announced: bool) -> Option<Restart> {
    #[derive(Deserialize)]
    struct Frame {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        details: Option<Details>,
    }
    #[derive(Deserialize, Default)]
    struct Details {
        #[serde(default)]
        reason: String,
    }
    let error = serde_json::from_slice::<Frame>(text).ok()?.error;
    if error.code != "UNAVAILABLE" {
        return None;
    }
    let reason = error.details.unwrap_or_default().reason;
    match &*reason {
        "gateway-restarting" | "gateway-suspending" => Some(Restart::Leaving),
        reason if reason.starts_with("startup-") => Some(Restart::Starting),
        _ => announced.then_some(Restart::Leaving),
    }
}

/// Which end of a restart a gateway is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It goes away.
    Leaving,
    /// It comes up.
    Starting,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::methods::Standing;

    #[test]
    fn requests_are_told_apart() {
        let says = client_says(br#"{"type":"req","id":"4:x","method":"chat.send","params":{"key":"k","message":"hi"}}"#);
        let ClientSays::Request(request) = says else {
            panic!("{says:?}")
        };
        assert_eq!(
            (&*request.id, &*request.method, request.nature),
            ("4:x", "chat.send", Nature::Mutating)
        );
        assert_eq!(request.key, None);
        let says = client_says(br#"{"id":"5","type":"req","params":{"key":"main"},"method":"sessions.messages.subscribe"}"#);
        let ClientSays::Request(request) = says else {
            panic!("{says:?}")
        };
        assert_eq!(request.nature, Nature::Standing(Standing::Add));
        assert_eq!(request.key.as_deref(), Some("main"));
        let startup = |params: &str| {
            let text =
                format!(r#"{{"type":"req","id":"6","method":"chat.startup","params":{params}}}"#);
            match client_says(text.as_bytes()) {
                ClientSays::Request(request) => request.nature,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(startup(r#"{"sessionKey":"main"}"#), Nature::ReadOnly);
        let subscribes = Nature::Standing(Standing::As("sessions.subscribe"));
        assert_eq!(startup("{}"), subscribes);
        assert_eq!(startup(r#"{"other":{"sessionKey":"main"}}"#), subscribes);
        assert_eq!(client_says(b"{}"), ClientSays::Other);
        assert_eq!(client_says(b"\xff\xfe"), ClientSays::Other);
    }

    #[test]
    fn a_long_requests_beginning_is_enough() {
        let says = client_says(
            br#"{"type":"req","id":"9","method":"chat.send","params":{"message":"aaaa"#,
        );
        assert!(matches!(
            says,
            ClientSays::Request(Request {
                nature: Nature::Mutating,
                ..
            })
        ));
    }

    #[test]
    fn who_connects_is_read_from_its_connect() {
        let connect = |params: &str| {
            let text = format!(r#"{{"type":"req","id":"1","method":"connect","params":{params}}}"#);
            let ClientSays::Connect(connect) = client_says(text.as_bytes()) else {
                panic!()
            };
            connect
        };
        let ui = connect(
            r#"{"client":{"id":"openclaw-control-ui"},"device":{"id":"x"},"userAgent":"Mozilla"}"#,
        );
        assert_eq!(
            (&*ui.client, ui.has_device, ui.answers_challenges),
            (CONTROL_UI, true, false)
        );
        let backend = connect(r#"{"client":{"id":"gateway-client"}}"#);
        assert!(!backend.has_device);
        assert!(connect(r#"{"userAgent":"openclaw-node/0.2.1"}"#).answers_challenges);
        assert!(
            connect("7").has_device,
            "what cannot be read is never replayed"
        );
    }

    #[test]
    fn the_gateways_frames_are_told_apart() {
        let event = br#"{"type":"event","event":"agent","payload":{"seq":99},"seq":12,"stateVersion":{"seq":1}}"#;
        assert_eq!(gateway_says(event), GatewaySays::Event { seq: Some(12) });
        let challenge = br#"{"type":"event","event":"connect.challenge","payload":{"nonce":"n"}}"#;
        assert_eq!(gateway_says(challenge), GatewaySays::Challenge);
        let shutdown = br#"{"type":"event","event":"shutdown","payload":{},"seq":3}"#;
        assert_eq!(
            gateway_says(shutdown),
            GatewaySays::Shutdown { seq: Some(3) }
        );
        let answer = br#"{"type":"res","id":"7","ok":true,"payload":{"id":"x""#;
        assert_eq!(
            gateway_says(answer),
            GatewaySays::Response {
                id: "7".into(),
                ok: true
            }
        );
    }

    #[test]
    fn a_refusal_for_a_restart_is_told_from_others() {
        let refused = |error: &str| {
            let text = format!(r#"{{"type":"res","id":"7","ok":false,"error":{{{error}}}}}"#);
            [false, true].map(|announced| refused_for_restart(text.as_bytes(), announced))
        };
        let both = |why| [Some(why), Some(why)];
        let reason = |reason| {
            refused(&format!(
                r#""code":"UNAVAILABLE","details":{{"reason":"{reason}"}}"#
            ))
        };
        assert_eq!(reason("gateway-restarting"), both(Restart::Leaving));
        assert_eq!(reason("gateway-suspending"), both(Restart::Leaving));
        assert_eq!(reason("startup-sidecars"), both(Restart::Starting));
        let bare = r#""code":"UNAVAILABLE","message":"Error: Gateway request entry is closed""#;
        assert_eq!(refused(bare), [None, Some(Restart::Leaving)]);
        assert_eq!(refused(r#""code":"FORBIDDEN""#), [None, None]);
    }

    fn hello(scopes: &str, extra: &str) -> Hello {
        let text = format!(
            r#"{{"type":"res","id":"1","ok":true,"payload":{{"type":"hello-ok","protocol":4,
            "server":{{"version":"1","bootId":"b"}},"auth":{{"method":"token","role":"operator","scopes":{scopes}{extra}}},
            "policy":{{"maxPayload":10,"maxBufferedBytes":20,"tickIntervalMs":30000}}}}}}"#
        );
        Hello::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_second_hello_must_cover_the_first() {
        let first = hello(r#"["a","b"]"#, "");
        assert_eq!(first.covered_by(&hello(r#"["b","a","c"]"#, "")), Ok(()));
        assert_eq!(
            first.covered_by(&hello(r#"["a"]"#, "")),
            Err(Shrunk::Scopes)
        );
        let with_token = hello(r#"["a"]"#, r#","deviceToken":"t""#);
        assert_eq!(with_token.covered_by(&with_token), Err(Shrunk::DeviceToken));
        let refused = br#"{"type":"res","id":"1","ok":false,"error":{"code":"UNAVAILABLE","retryable":true}}"#;
        assert_eq!(Hello::parse(refused), None);
        assert!(is_starting_refusal(refused));
        assert!(!is_starting_refusal(
            br#"{"type":"res","id":"1","ok":false,"error":{"code":"INVALID_REQUEST"}}"#
        ));
    }
}
