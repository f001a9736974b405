//! The gateway's JSON protocol: `connect`, requests, and the errors of each phase.
//!
//! Every request may carry these params, whatever its method:
//! `name` (counted in the journal), `wait: KEY` (answered after
//! [`super::ScriptedGateway::release`] of KEY), `swallow: true` (never answered), `bytes: N`
//! (length of the answer's filler).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::conn::Conn;
use super::hello::hello_ok;
use super::journal::Event;
use super::options::{AuthMode, Phase, USER};
use super::process::Process;
use super::{Inner, http};

/// Methods without an effect.
const READ_ONLY: [&str; 8] = [
    "sessions.list",
    "health",
    "config.get",
    "agents.list",
    "chat.history",
    "status",
    "update.status",
    "models.list",
];

/// The signature that a device makes of a nonce; stands for Ed25519.
pub fn sign(nonce: &str) -> String {
    format!("signed:{nonce}")
}

/// One message from a client.
pub(super) fn on_text(inner: &Arc<Inner>, process: &Arc<Process>, conn: &Conn, message: &[u8]) {
    let request: Value = serde_json::from_slice(message).unwrap_or(Value::Null);
    let talk = Talk {
        inner,
        process,
        conn,
    };
    match (conn.is_authenticated(), request["method"].as_str()) {
        (false, Some("connect")) => talk.connect(&request),
        (false, _) => conn.close(1008, "invalid request frame"),
        (true, Some(method)) => talk.request(&request, method),
        (true, None) => {}
    }
}

struct Talk<'a> {
    inner: &'a Arc<Inner>,
    process: &'a Arc<Process>,
    conn: &'a Conn,
}

/// Why a `connect` is refused: error code, message, details.
type Refusal = (&'static str, &'static str, Value);

impl Talk<'_> {
    fn connect(&self, request: &Value) {
        let params = &request["params"];
        let granted = self.authorize(params);
        let error = granted.as_ref().err().map(|(code, _, details)| {
            let detail = details["code"]
                .as_str()
                .or_else(|| details["reason"].as_str());
            detail.unwrap_or(code).to_owned()
        });
        let event = Event::Connect {
            conn: self.conn.id(),
            params: params.clone(),
            error,
        };
        self.inner.note(self.process, event);
        match granted {
            Ok(scopes) => {
                let hello = hello_ok(self.inner, self.process, self.conn.id(), &scopes);
                self.conn
                    .send_json(&json!({"type":"res","id":request["id"],"ok":true,"payload":hello}));
                self.conn.authenticate(scopes);
            }
            Err((code, message, details)) => {
                let starting = details["reason"] == "startup-sidecars";
                let mut error = json!({"code":code,"message":message,"details":details});
                if starting {
                    error["retryable"] = json!(true);
                    error["retryAfterMs"] = json!(500);
                }
                self.conn
                    .send_json(&json!({"type":"res","id":request["id"],"ok":false,"error":error}));
                let (code, reason) = if starting {
                    (1013, "gateway starting")
                } else {
                    (1008, message)
                };
                self.conn.close(code, reason);
            }
        }
    }

    /// The granted scopes.
    fn authorize(&self, params: &Value) -> Result<Vec<String>, Refusal> {
        if *self.inner.phase.borrow() == Phase::Starting {
            let reason = json!({"reason":"startup-sidecars"});
            return Err(("UNAVAILABLE", "gateway starting; retry shortly", reason));
        }
        let asked: Vec<String> =
            serde_json::from_value(params["scopes"].clone()).unwrap_or_default();
        let head = self.conn.head();
        let local = head.header("x-forwarded-for").is_none() && !http::misattributed(head);
        self.check_device(&params["device"])?;
        let device = params["device"].is_object();
        match self.inner.options.auth {
            AuthMode::Anyone => Ok(asked),
            AuthMode::Token => {
                if params["auth"]["token"] != *self.inner.token.lock().unwrap() {
                    let code = json!({"code":"AUTH_TOKEN_MISMATCH"});
                    return Err(("INVALID_REQUEST", "gateway token mismatch", code));
                }
                deviceless_token(params, device, local, asked)
            }
            AuthMode::TrustedProxy => {
                if head.header("x-forwarded-user") != Some(USER) {
                    let reason = json!({"reason":"trusted_proxy_user_missing"});
                    return Err(("AUTH_UNAUTHORIZED", "unauthorized", reason));
                }
                let identity = self.inner.identity_scopes.lock().unwrap().clone();
                Ok(if device { asked } else { identity })
            }
        }
    }

    fn check_device(&self, device: &Value) -> Result<(), Refusal> {
        if !device.is_object() {
            return Ok(());
        }
        let invalid = |message, code| Err(("INVALID_REQUEST", message, json!({"code":code})));
        match device["nonce"].as_str().unwrap_or_default() {
            "" => invalid(
                "invalid connect params: at /device/nonce: must not have fewer than 1 characters",
                "INVALID_PARAMS",
            ),
            nonce if nonce != self.conn.nonce() => {
                invalid("device nonce mismatch", "DEVICE_AUTH_NONCE_MISMATCH")
            }
            nonce if device["signature"] != sign(nonce) => {
                invalid("device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID")
            }
            _ => Ok(()),
        }
    }

    fn request(&self, request: &Value, method: &str) {
        let refusal = self.refusal(method);
        let params = &request["params"];
        let executed = refusal.is_none()
            && !READ_ONLY.contains(&method)
            && !self.process.has_seen(&params["idempotencyKey"]);
        self.inner.note(
            self.process,
            Event::Request {
                conn: self.conn.id(),
                id: request["id"].as_str().unwrap_or_default().to_owned(),
                method: method.to_owned(),
                params: params.clone(),
                executed,
            },
        );
        if let Some(error) = refusal {
            let id = &request["id"];
            return self
                .conn
                .send_json(&json!({"type":"res","id":id,"ok":false,"error":error}));
        }
        if method.contains(".subscribe") || method.ends_with(".set") {
            self.conn.subscribe(method);
        }
        if method == "chat.startup" && params["sessionKey"].is_null() {
            self.conn.subscribe("sessions.subscribe");
        }
        self.answer(request, method);
    }

    fn refusal(&self, method: &str) -> Option<Value> {
        let restarting = json!({"code":"UNAVAILABLE",
            "message":format!("{method} unavailable during gateway restart"),
            "retryable":true,"retryAfterMs":1000,
            "details":{"method":method,"reason":"gateway-restarting","phase":"accepting"}});
        let mut refusing = self.inner.refusing.lock().unwrap();
        if refusing.0 == method && refusing.1 > 0 {
            refusing.1 -= 1;
            return Some(restarting);
        }
        match *self.inner.phase.borrow() {
            Phase::Draining => Some(restarting),
            Phase::Closing => Some(json!({"code":"UNAVAILABLE",
                "message":"Error: Gateway request entry is closed"})),
            _ if self.is_busy() => Some(json!({"code":"UNAVAILABLE","retryable":true,
                "message":"The server is busy. Please try again in a moment."})),
            _ if self.conn.scopes().is_empty() && method != "health" => {
                Some(json!({"code":"FORBIDDEN","message":"missing scope: operator.read"}))
            }
            _ => None,
        }
    }

    fn is_busy(&self) -> bool {
        let busy_from = self.inner.options.busy_from.unwrap_or(usize::MAX);
        self.inner.journal.read(|j| j.unanswered) >= busy_from
    }

    fn answer(&self, request: &Value, method: &str) {
        let params = &request["params"];
        if params["swallow"] == true {
            return;
        }
        let filler = "x".repeat(params["bytes"].as_u64().unwrap_or(0) as usize);
        let answer = json!({"type":"res","id":request["id"],"ok":true,"payload":{
            "method":method,"name":params["name"],"bootId":self.process.boot_id,
            "conn":self.conn.id(),"filler":filler}});
        if self.inner.options.busy_from.is_some() && params["wait"].is_null() {
            return self.answer_slowly(answer);
        }
        let Some(key) = params["wait"].as_str().map(str::to_owned) else {
            return self.conn.send_json(&answer);
        };
        let (inner, process) = (Arc::clone(self.inner), Arc::clone(self.process));
        let conn = self.conn.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = inner.released(&key) => conn.send_json(&answer),
                _ = process.died() => {}
            }
        });
    }
}

impl Talk<'_> {
    fn answer_slowly(&self, answer: Value) {
        let (inner, conn) = (Arc::clone(self.inner), self.conn.clone());
        inner.journal.change(|journal| journal.unanswered += 1);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            inner.journal.change(|journal| journal.unanswered -= 1);
            conn.send_json(&answer);
        });
    }
}

/// Token mode without a device: only local automation gets scopes.
fn deviceless_token(
    params: &Value,
    device: bool,
    local: bool,
    asked: Vec<String>,
) -> Result<Vec<String>, Refusal> {
    if device {
        return Ok(asked);
    }
    let client = params["client"]["id"].as_str().unwrap_or_default();
    let mode = params["client"]["mode"].as_str().unwrap_or_default();
    match (client, mode) {
        ("openclaw-control-ui" | "openclaw-tui", _) => {
            let code = json!({"code":"CONTROL_UI_DEVICE_IDENTITY_REQUIRED"});
            Err((
                "INVALID_REQUEST",
                "control ui requires device identity",
                code,
            ))
        }
        (_, "node") => {
            let code = json!({"code":"DEVICE_IDENTITY_REQUIRED"});
            Err(("NOT_PAIRED", "device identity required", code))
        }
        ("gateway-client", "backend") | ("cli", "cli") if local => Ok(asked),
        _ => Ok(Vec::new()),
    }
}
