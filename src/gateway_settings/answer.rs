//! What an answer of the gateway says, in its own words.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use super::connect::Connected;

/// Why a `connect` was refused.
pub(super) struct Reason {
    /// `details.code`, or the error's own.
    pub(super) code: String,
    /// `details.authReason`.
    pub(super) auth: String,
}

impl Reason {
    pub(super) fn of(connected: &Connected) -> Self {
        let code = code_of(connected).unwrap_or_default().to_owned();
        let auth = match connected {
            Connected::Error(error) => text(error, "/details/authReason"),
            Connected::Hello(_) | Connected::Refused(_) => None,
        };
        Self {
            code,
            auth: auth.unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn in_words(&self) -> String {
        match (self.code.as_str(), self.auth.as_str()) {
            ("", _) => "it gives no reason".to_owned(),
            (code, "") => format!("it answers {code}"),
            (code, auth) => format!("it answers {code} ({auth})"),
        }
    }
}

pub(super) fn code_of(connected: &Connected) -> Option<&str> {
    let Connected::Error(error) = connected else {
        return None;
    };
    text(error, "/details/code").or_else(|| text(error, "/code"))
}

pub(super) fn is_starting(connected: &Connected) -> bool {
    matches!(connected, Connected::Error(error) if text(error, "/code") == Some("UNAVAILABLE"))
}

pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer)?.as_str()
}

pub(super) fn is_unattributed(answer: &Response<Bytes>) -> bool {
    const WORD: &[u8] = b"proxy_attribution_required";
    answer.status() == StatusCode::FORBIDDEN && memchr::memmem::find(answer.body(), WORD).is_some()
}
