//! Looks at a running gateway from outside, setting by setting.
//!
//! What each answer of the gateway means was learned from version 2026.9.6. It looks at the origin
//! first, at the identity next and at the device last; so every setting has a question whose
//! answer hangs on it alone. A question with a device is only asked where the gateway has just
//! refused the same credentials, so that it never gets as far as pairing that device.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::answer::{Reason, code_of, is_starting, is_unattributed, text};
use super::auto_approve;
use super::connect::{As, AskError, Connected, connect, get, request};
use super::wanted::{Identities, Wanted};
use super::{Finding, Verdict};
use crate::config::Upstream;

const GATEWAY: &str = "gateway";
const PROXIES: &str = "gateway.trustedProxies";
const ORIGINS: &str = "gateway.controlUi.allowedOrigins";
const MODE: &str = "gateway.auth.mode";
const SCOPES: &str = "gateway.auth.identityScopes";
const USER_HEADER: &str = "gateway.auth.trustedProxy.userHeader";
const REQUIRED: &str = "gateway.auth.trustedProxy.requiredHeaders";
const LOOPBACK: &str = "gateway.auth.trustedProxy.allowLoopback";
const ALLOWED: &str = "gateway.auth.trustedProxy.allowUsers";
pub(super) const AUTO_APPROVE: &str = "gateway.auth.trustedProxy.deviceAutoApprove";

/// Users asked about; of more the rest is not looked at.
const MOST_USERS: usize = 16;
/// Stands in for an origin where none is wanted.
const NO_ORIGIN: &str = "https://localhost";

/// Looks at the gateway, and says how each setting is. What is not seen within `limit` cannot be
/// told.
pub async fn check(wanted: &Wanted, limit: Duration) -> Vec<Finding> {
    let origin = wanted.origins.first().map_or(NO_ORIGIN, String::as_str);
    let mut check = Check {
        wanted,
        upstream: &wanted.upstream,
        host: origin.strip_prefix("https://").unwrap_or(origin),
        findings: Vec::new(),
    };
    if tokio::time::timeout(limit, check.everything())
        .await
        .is_err()
    {
        let seen = format!("it was not done with within {} s", limit.as_secs());
        let remedy = "try again when the gateway is idle";
        check.note(Finding::cannot_tell(GATEWAY, seen, remedy));
    }
    check.findings
}

struct Check<'w> {
    wanted: &'w Wanted,
    upstream: &'w Upstream,
    /// Which of our names clients ask for.
    host: &'w str,
    findings: Vec<Finding>,
}

impl<'w> Check<'w> {
    /// Without an answer to one question the next would only say the same again.
    async fn everything(&mut self) {
        if self.gateway().await && self.trusted_proxies().await {
            let allowed = self.origins().await;
            match &self.wanted.identity {
                Some(identity) => self.identities(identity, allowed.as_deref()).await,
                None => self.own_auth(allowed.as_deref()).await,
            }
        }
    }

    fn forwarded(&self) -> As<'w> {
        As {
            host: Some(self.host),
            ..As::default()
        }
    }

    fn note(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn unanswered(&mut self, setting: &str, error: &AskError) {
        let remedy = match error {
            AskError::Connect(_) => {
                "start the gateway, or correct [gateway] url; without a gateway use --print"
            }
            AskError::TooSlow | AskError::Broken(_) => "try again when the gateway is idle",
        };
        let seen = error.to_string();
        // Nobody there is certain; anything else may pass.
        self.note(match setting {
            GATEWAY => Finding::wrong(setting, seen, remedy),
            _ => Finding::cannot_tell(setting, seen, remedy),
        });
    }

    /// Whether there is an OpenClaw gateway that has started.
    async fn gateway(&mut self) -> bool {
        match get(self.upstream, "/health", &As::default()).await {
            Err(error) => {
                self.unanswered(GATEWAY, &error);
                return false;
            }
            Ok((answer, _)) if !answer.status().is_success() => {
                let seen = format!("/health answers {}", answer.status());
                let remedy = "point [gateway] url at an OpenClaw gateway";
                self.note(Finding::wrong(GATEWAY, seen, remedy));
                return false;
            }
            Ok(_) => {}
        }
        // A trusted proxy that asks for itself is refused here, and is all right.
        let started = get(self.upstream, "/startupz", &As::default()).await;
        let word = started.ok().and_then(|(answer, _)| {
            let body: Value = serde_json::from_slice(answer.body()).ok()?;
            text(&body, "/status").map(str::to_owned)
        });
        if let Some(word @ ("starting" | "draining")) = word.as_deref() {
            let remedy = "try again when it has started";
            self.note(Finding::cannot_tell(
                GATEWAY,
                format!("it is {word}"),
                remedy,
            ));
            return false;
        }
        self.note(Finding::ok(GATEWAY, "it answers"));
        true
    }

    /// Whether it takes our word for who our clients are. `/health` it answers to anybody.
    async fn trusted_proxies(&mut self) -> bool {
        let (answer, from) = match get(self.upstream, "/startupz", &self.forwarded()).await {
            Ok(answered) => answered,
            Err(error) => {
                self.unanswered(PROXIES, &error);
                return false;
            }
        };
        if !is_unattributed(&answer) {
            let seen = "it takes the forwarding headers of a remote client from us";
            self.note(Finding::ok(PROXIES, seen));
            return true;
        }
        let seen = "it refuses requests with forwarding headers (proxy_attribution_required)";
        let from = from.ip().to_canonical();
        let remedy = format!("add the address that holdline has for it; from here that is {from}");
        self.note(Finding::wrong(PROXIES, seen, remedy));
        false
    }

    /// Looks at each origin; one that is allowed.
    async fn origins(&mut self) -> Option<String> {
        let mut allowed = None;
        for origin in &self.wanted.origins {
            let dressed = As {
                origin: Some(origin),
                ..self.forwarded()
            };
            let connected = match connect(self.upstream, &dressed).await {
                Ok(connected) => connected,
                Err(error) => {
                    self.unanswered(ORIGINS, &error);
                    return allowed;
                }
            };
            if code_of(&connected) == Some("CONTROL_UI_ORIGIN_NOT_ALLOWED") {
                let remedy = format!("add \"{origin}\"");
                let seen = format!("pages of {origin} are refused");
                self.note(Finding::wrong(ORIGINS, seen, remedy));
            } else if let Connected::Refused(answer) = &connected {
                let seen = format!("the upgrade is answered with {}", answer.status());
                let remedy = "try again; see the gateway's log if it stays so";
                self.note(Finding::cannot_tell(ORIGINS, seen, remedy));
            } else if is_starting(&connected) {
                let remedy = "try again when the gateway has started";
                self.note(Finding::cannot_tell(ORIGINS, "it is starting", remedy));
            } else {
                self.note(Finding::ok(ORIGINS, format!("{origin} is allowed")));
                allowed.get_or_insert_with(|| origin.clone());
            }
        }
        allowed
    }

    // === where it is decided here who comes in ===

    async fn identities(&mut self, identity: &Identities, origin: Option<&str>) {
        let Some(origin) = origin else {
            let remedy = format!("set {ORIGINS} first");
            self.note(Finding::cannot_tell(MODE, "no origin is allowed", remedy));
            return;
        };
        let header = identity.user_header.as_str();
        if identity.users.is_empty() {
            let (seen, remedy) = ("no user is known", "name one with --user NAME");
            self.note(Finding::cannot_tell(SCOPES, seen, remedy));
        }
        let known: Vec<&str> = identity.users.iter().map(String::as_str).collect();
        let asked = if known.is_empty() {
            vec!["holdline-check"]
        } else {
            known
        };
        let mut trusted = None;
        for user in asked.iter().copied().take(MOST_USERS) {
            let dressed = As {
                user: Some((header, user)),
                origin: Some(origin),
                ..self.forwarded()
            };
            match connect(self.upstream, &dressed).await {
                Ok(Connected::Hello(hello))
                    if text(&hello, "/auth/method") == Some("trusted-proxy") =>
                {
                    if trusted.is_none() {
                        self.trusts(identity);
                    }
                    trusted = Some(user);
                    if !identity.users.is_empty() {
                        self.scopes(identity, user, &hello);
                    }
                }
                Ok(Connected::Hello(hello)) => {
                    let method = text(&hello, "/auth/method").unwrap_or("nothing");
                    let seen = format!("it lets in by {method}, whoever holdline says it is");
                    self.note(Finding::wrong(MODE, seen, "set it to \"trusted-proxy\""));
                    return;
                }
                Ok(refused) if code_of(&refused) == Some("CONTROL_UI_DEVICE_IDENTITY_REQUIRED") => {
                    if !self.refused(identity, user, &dressed).await {
                        return;
                    }
                }
                // Not for want of an identity, so that a device might do: it stays untried.
                Ok(refused) => {
                    let seen = Reason::of(&refused).in_words();
                    let remedy = "see the gateway's log";
                    return self.note(Finding::cannot_tell(MODE, seen, remedy));
                }
                Err(error) => return self.unanswered(MODE, &error),
            }
        }
        if asked.len() > MOST_USERS {
            let seen = format!("only the first {MOST_USERS} users were looked at");
            self.note(Finding::cannot_tell(SCOPES, seen, ""));
        }
        if let Some(user) = trusted {
            self.required_headers(header, user, origin).await;
            self.auto_approve(identity, user, origin).await;
        }
    }

    /// One hello in the name of a user shows all of these at once.
    fn trusts(&mut self, identity: &Identities) {
        self.note(Finding::ok(MODE, "trusted-proxy"));
        let seen = format!("it reads {}", identity.user_header);
        self.note(Finding::ok(USER_HEADER, seen));
        if identity.loopback {
            self.note(Finding::ok(LOOPBACK, "it believes us over loopback"));
        }
    }

    fn scopes(&mut self, identity: &Identities, user: &str, hello: &Value) {
        let granted: Vec<&str> = hello
            .pointer("/auth/scopes")
            .and_then(Value::as_array)
            .map(|scopes| scopes.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let missing = identity.scopes.iter().map(String::as_str);
        let missing: Vec<&str> = missing.filter(|scope| !granted.contains(scope)).collect();
        let beyond = |scope: &&str| !identity.scopes.iter().any(|wanted| wanted == scope);
        let beyond: Vec<&str> = granted.iter().copied().filter(beyond).collect();
        let seen = match granted.is_empty() {
            true => format!("{user} may do nothing"),
            false => format!("{user} has {}", granted.join(", ")),
        };
        let mut remedy = Vec::new();
        if !missing.is_empty() {
            remedy.push(format!("add {} for {user}", missing.join(", ")));
        }
        if !beyond.is_empty() {
            remedy.push(format!("remove {} for {user}", beyond.join(", ")));
        }
        let verdict = match remedy.is_empty() {
            true => Verdict::Ok,
            false => Verdict::Wrong,
        };
        self.note(Finding::new(SCOPES, verdict, seen, remedy.join("; ")));
    }

    /// Why a user is refused. Whether it is worth asking about the next one.
    async fn refused(&mut self, identity: &Identities, user: &str, dressed: &As<'_>) -> bool {
        let remedy = "set it to \"trusted-proxy\"";
        let Some(reason) = self.reason(dressed, remedy).await else {
            return false;
        };
        let header = &identity.user_header;
        let trusted = |check: &mut Self| check.note(Finding::ok(MODE, "trusted-proxy"));
        match reason.auth.as_str() {
            "trusted_proxy_user_not_allowed" => {
                let seen = format!("{user} is refused");
                let remedy = format!("add \"{user}\", or unset it");
                self.note(Finding::wrong(ALLOWED, seen, remedy));
                return true;
            }
            "trusted_proxy_loopback_source" => {
                trusted(self);
                let seen = "it believes nobody on its own machine";
                self.note(Finding::wrong(LOOPBACK, seen, "set it to true"));
            }
            "trusted_proxy_user_missing" => {
                trusted(self);
                let seen = format!("it does not read {header}");
                self.note(Finding::wrong(
                    USER_HEADER,
                    seen,
                    format!("set it to \"{header}\""),
                ));
            }
            "trusted_proxy_local_interface_source" => {
                trusted(self);
                let seen = "it believes nobody who comes from another address of its own machine";
                let remedy = "reach it over loopback: [gateway] url = \"http://127.0.0.1:PORT\"";
                self.note(Finding::wrong(GATEWAY, seen, remedy));
            }
            auth => {
                if let Some(missing) = auth.strip_prefix("trusted_proxy_missing_header_") {
                    trusted(self);
                    let seen = format!("it wants {missing}, which holdline does not send");
                    let remedy = "set it to [\"x-forwarded-proto\", \"x-forwarded-host\"]";
                    self.note(Finding::wrong(REQUIRED, seen, remedy));
                } else if auth.starts_with("trusted_proxy_") {
                    trusted(self);
                    let seen = format!("{user} is refused: {auth}");
                    self.note(Finding::cannot_tell(
                        USER_HEADER,
                        seen,
                        "see the gateway's log",
                    ));
                } else {
                    self.note(Finding::wrong(MODE, reason.in_words(), remedy));
                }
            }
        }
        false
    }

    /// Whether it insists on what only a proxy sends.
    async fn required_headers(&mut self, header: &str, user: &str, origin: &str) {
        for missing in ["x-forwarded-proto", "x-forwarded-host"] {
            let dressed = As {
                but: Some(missing),
                user: Some((header, user)),
                origin: Some(origin),
                ..self.forwarded()
            };
            match connect(self.upstream, &dressed).await {
                Ok(Connected::Hello(_)) => {
                    let seen = format!("it lets {user} in without {missing}");
                    let remedy = format!("add \"{missing}\"");
                    self.note(Finding::wrong(REQUIRED, seen, remedy));
                }
                Ok(_) => self.note(Finding::ok(REQUIRED, format!("{missing} is required"))),
                Err(error) => self.unanswered(REQUIRED, &error),
            }
        }
    }

    /// What a new browser of somebody signed in may do; read where a user may read.
    async fn auto_approve(&mut self, identity: &Identities, user: &str, origin: &str) {
        let dressed = As {
            user: Some((identity.user_header.as_str(), user)),
            origin: Some(origin),
            ..self.forwarded()
        };
        let wanted = identity.device_scopes();
        self.note(
            match request(self.upstream, &dressed, auto_approve::METHOD).await {
                Ok(Ok(answer)) => auto_approve::judge(&answer, &wanted),
                Ok(Err(error)) => {
                    let code = text(&error, "/details/code").or_else(|| text(&error, "/code"));
                    let code = code.unwrap_or("no reason");
                    let seen = format!("{user} may not read the gateway's config ({code})");
                    auto_approve::cannot_tell(seen, &wanted)
                }
                Err(error) => auto_approve::cannot_tell(error.to_string(), &wanted),
            },
        );
    }

    /// Why somebody without a device is refused; the gateway says so only to one with a device.
    /// `None`: it is noted already that there is no telling, or no refusal.
    async fn reason(&mut self, dressed: &As<'_>, remedy: &str) -> Option<Reason> {
        const CONFIG: &str = "/control-ui-config.json";
        let answer = match get(self.upstream, CONFIG, dressed).await {
            Ok((answer, _)) => answer,
            Err(error) => {
                self.unanswered(MODE, &error);
                return None;
            }
        };
        // Only the device is missing then, and the next question would pair one.
        if answer.status() != StatusCode::UNAUTHORIZED {
            let open = answer.status().is_success();
            self.note(
                match open && serde_json::from_slice::<Value>(answer.body()).is_ok() {
                    true => Finding::wrong(MODE, "it lets anybody in", remedy),
                    false => {
                        let seen = format!("{CONFIG} is answered with {}", answer.status());
                        Finding::cannot_tell(MODE, seen, "")
                    }
                },
            );
            return None;
        }
        let with_device = As {
            device: true,
            ..dressed.clone()
        };
        match connect(self.upstream, &with_device).await {
            Ok(connected) => {
                let reason = Reason::of(&connected);
                if reason.code != "AUTH_RATE_LIMITED" {
                    return Some(reason);
                }
                let remedy = "try again in some minutes";
                self.note(Finding::cannot_tell(MODE, reason.in_words(), remedy));
            }
            Err(error) => self.unanswered(MODE, &error),
        }
        None
    }

    // === where the gateway decides ===

    async fn own_auth(&mut self, origin: Option<&str>) {
        let dressed = As {
            origin: Some(origin.unwrap_or(NO_ORIGIN)),
            ..self.forwarded()
        };
        let remedy = "set it to \"token\" or \"password\", or set [auth] modes";
        let Some(reason) = self.reason(&dressed, remedy).await else {
            return;
        };
        let auth = reason.auth.as_str();
        self.note(match reason.code.as_str() {
            code if code.starts_with("AUTH_TOKEN_") => Finding::ok(MODE, "token"),
            code if code.starts_with("AUTH_PASSWORD_") => Finding::ok(MODE, "password"),
            _ if auth.starts_with("trusted_proxy_") => Finding::wrong(
                MODE,
                "trusted-proxy, but holdline names nobody while [auth] is off",
                "set [auth] modes here, or \"token\" there",
            ),
            _ => Finding::cannot_tell(MODE, reason.in_words(), ""),
        });
    }
}
