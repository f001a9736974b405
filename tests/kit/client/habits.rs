//! What distinguishes one client program from another.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::gateway::{SCOPES, TOKEN, sign};

/// A client program's habits, as measured.
#[derive(Debug, Clone)]
pub struct Role {
    pub id: &'static str,
    pub mode: &'static str,
    pub role: &'static str,
    /// Whether its `connect` carries a device that signs the nonce.
    pub device: bool,
    pub token: String,
    pub user_agent: &'static str,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub backoff: Backoff,
    /// Longest wait for each of: upgrade, challenge, answer to `connect`.
    pub patience: Duration,
    /// Without a challenge for this long it sends a `connect` without a nonce.
    pub challenge_fallback: Option<Duration>,
    /// Whether a gap in `seq` makes it reconnect.
    pub reconnects_on_gap: bool,
    /// Whether a second challenge makes it shake hands again on the same socket.
    pub answers_second_challenge: bool,
    pub startup: Startup,
}

/// What it does when `connect` is answered `startup-sidecars`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// Closes with this code and quietly tries again after the answer's `retryAfterMs`.
    Retry { close: u16, longest: Duration },
    /// Waits for the server's close, which is a failed attempt.
    Ignore,
}

/// Waits between attempts; `hello-ok` starts them over.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first: Duration,
    pub factor: f64,
    pub longest: Duration,
    /// Attempts in a row before it gives up.
    pub attempts: Option<usize>,
}

impl Backoff {
    /// The wait before attempt number `retry` (from 1) in a row.
    pub fn wait(&self, retry: usize) -> Duration {
        let factor = self
            .factor
            .powi(i32::try_from(retry).unwrap_or(i32::MAX) - 1);
        self.longest.min(self.first.mul_f64(factor.min(1000.0)))
    }
}

const SECOND: Duration = Duration::from_secs(1);

impl Role {
    /// The official node client with a device: phones, the TUI, the CLI of a person.
    pub fn official() -> Self {
        Self {
            id: "gateway-client",
            mode: "ui",
            role: "operator",
            device: true,
            token: TOKEN.to_owned(),
            user_agent: "openclaw/2026.9.1",
            path: "/".to_owned(),
            headers: Vec::new(),
            backoff: Backoff {
                first: SECOND,
                factor: 2.0,
                longest: SECOND * 30,
                attempts: None,
            },
            patience: SECOND * 15,
            challenge_fallback: None,
            reconnects_on_gap: false,
            answers_second_challenge: false,
            startup: Startup::Retry {
                close: 1013,
                longest: SECOND * 2,
            },
        }
    }

    /// The official node client without a device: automation on the same host.
    pub fn backend() -> Self {
        Self {
            mode: "backend",
            device: false,
            ..Self::official()
        }
    }

    /// The Control UI in a browser.
    pub fn control_ui() -> Self {
        Self {
            id: "openclaw-control-ui",
            mode: "webchat",
            user_agent: "Mozilla/5.0 (X11; Linux x86_64)",
            headers: vec![("origin".into(), "https://localhost:8443".into())],
            backoff: Backoff {
                first: Duration::from_millis(800),
                factor: 1.7,
                longest: SECOND * 15,
                attempts: None,
            },
            challenge_fallback: Some(Duration::from_millis(750)),
            reconnects_on_gap: true,
            startup: Startup::Retry {
                close: 4013,
                longest: SECOND * 2,
            },
            ..Self::official()
        }
    }

    /// openclaw-node.
    pub fn node() -> Self {
        Self {
            id: "node-host",
            mode: "node",
            user_agent: "openclaw-node/0.14.0",
            role: "node",
            backoff: Backoff {
                attempts: Some(10),
                ..Self::official().backoff
            },
            patience: Duration::from_secs(3600),
            answers_second_challenge: true,
            startup: Startup::Ignore,
            ..Self::official()
        }
    }

    /// With this header on its upgrades.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// At this path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// With this token.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Its `connect` request in answer to a challenge, or without one.
    pub fn connect(&self, id: &str, nonce: Option<&str>) -> String {
        let nonce = nonce.unwrap_or_default();
        let mut params = json!({
            "minProtocol":4,"maxProtocol":4,
            "client":{"id":self.id,"version":"2026.9.6","platform":"Linux x86_64",
                "mode":self.mode},
            "role":self.role,"scopes":SCOPES,"caps":["tool-events"],
            "auth":{"token":self.token},"userAgent":self.user_agent,"locale":"en-US"});
        if self.device {
            params["device"] = json!({"id":"d".repeat(64),"publicKey":"key",
                "signature":sign(nonce),"signedAt":1_795_290_202_130_u64,"nonce":nonce});
        }
        request(id, "connect", &params)
    }
}

/// A request's text, its members in the order in which the real clients write them.
pub fn request(id: &str, method: &str, params: &Value) -> String {
    format!(
        r#"{{"type":"req","id":{},"method":{},"params":{params}}}"#,
        json!(id),
        json!(method)
    )
}
