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
use super::connect::{As, AskError, Connected, connect, get};
use super::wanted::Wanted;
use super::{Finding, Looked};
use crate::config::Upstream;

pub(super) const GATEWAY: &str = "gateway";
pub(super) const PROXIES: &str = "gateway.trustedProxies";
pub(super) const ORIGINS: &str = "gateway.controlUi.allowedOrigins";
pub(super) const MODE: &str = "gateway.auth.mode";
/// Origins asked about; of more the rest is not looked at.
const MOST_ORIGINS: usize = 16;
/// Stands in for an origin where none is wanted.
const NO_ORIGIN: &str = "https://localhost";

/// Looks at the gateway, and says how each setting is. What is not seen within `limit` cannot be
/// told.
pub async fn check(wanted: &Wanted, limit: Duration) -> Looked {
    let origin = wanted.origins.first().map_or(NO_ORIGIN, String::as_str);
    let mut check = Check {
        wanted,
        upstream: &wanted.upstream,
        host: origin.strip_prefix("https://").unwrap_or(origin),
        looked: Looked::default(),
    };
    if tokio::time::timeout(limit, check.everything())
        .await
        .is_err()
    {
        let seen = format!("it was not done with within {} s", limit.as_secs());
        let remedy = "try again when the gateway is idle";
        check.note(Finding::cannot_tell(GATEWAY, seen, remedy));
    }
    check.looked
}

pub(super) struct Check<'w> {
    pub(super) wanted: &'w Wanted,
    pub(super) upstream: &'w Upstream,
    /// Which of our names clients ask for.
    host: &'w str,
    pub(super) looked: Looked,
}

impl<'w> Check<'w> {
    /// Without an answer to one question the next would only say the same again.
    async fn everything(&mut self) {
        if self.gateway().await && self.trusted_proxies().await {
            let Some(allowed) = self.origins().await else {
                return;
            };
            match &self.wanted.identity {
                Some(identity) => self.people(identity, allowed.as_deref()).await,
                None => self.own_auth(allowed.as_deref()).await,
            }
        }
    }

    pub(super) fn forwarded(&self) -> As<'w> {
        As {
            host: Some(self.host),
            ..As::default()
        }
    }

    pub(super) fn note(&mut self, finding: Finding) {
        self.looked.findings.push(finding);
    }

    pub(super) fn unanswered(&mut self, setting: &str, error: &AskError) {
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

    /// Looks at each origin; one that is allowed, if there is one. `None`: it could not be seen.
    async fn origins(&mut self) -> Option<Option<String>> {
        let mut allowed = None;
        for origin in self.wanted.origins.iter().take(MOST_ORIGINS) {
            let dressed = As {
                origin: Some(origin),
                ..self.forwarded()
            };
            let connected = match connect(self.upstream, &dressed).await {
                Ok(connected) => connected,
                Err(error) => {
                    self.unanswered(ORIGINS, &error);
                    return None;
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
                return None;
            } else if is_starting(&connected) {
                let remedy = "try again when the gateway has started";
                self.note(Finding::cannot_tell(ORIGINS, "it is starting", remedy));
                return None;
            } else {
                self.note(Finding::ok(ORIGINS, format!("{origin} is allowed")));
                allowed.get_or_insert_with(|| origin.clone());
            }
        }
        if self.wanted.origins.len() > MOST_ORIGINS {
            let seen = format!("only the first {MOST_ORIGINS} origins were looked at");
            self.note(Finding::cannot_tell(ORIGINS, seen, ""));
        }
        Some(allowed)
    }

    /// Why somebody without a device is refused; the gateway says so only to one with a device.
    /// `None`: it is noted already that there is no telling, or no refusal.
    pub(super) async fn reason(&mut self, dressed: &As<'_>, remedy: &str) -> Option<Reason> {
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
