//! Renders a [`Cause`] as an HTTP response: JSON, or for a person's browser the waiting page.
//!
//! Decides nothing: status, words and retry hint come from [`crate::protocol::rescue`].

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;

use super::{Body, waiting};
use crate::config::ProtocolKind;
use crate::protocol::rescue::{Answer, Cause, Execution};

/// Who gets the refusal, as far as it matters for its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Whether it is a person's browser loading a page.
    navigates: bool,
    /// Whether it asked for the head only.
    head_only: bool,
    /// What the gateway speaks: when the page may go on depends on it.
    protocol: ProtocolKind,
}

impl Asker {
    /// Read off a request.
    #[must_use]
    pub fn of(request: &request::Parts) -> Self {
        Self {
            navigates: request.method == Method::GET && wants_page(&request.headers),
            head_only: request.method == Method::HEAD,
            protocol: ProtocolKind::Generic,
        }
    }

    /// The same, asking a gateway that speaks `protocol`.
    #[must_use]
    pub fn of_gateway(self, protocol: ProtocolKind) -> Self {
        Self { protocol, ..self }
    }

    /// Whether it asked for the head only.
    #[must_use]
    pub fn head_only(&self) -> bool {
        self.head_only
    }

    /// Whether it is a person's browser loading a page: it gets the waiting page.
    #[must_use]
    pub fn navigates(&self) -> bool {
        self.navigates
    }
}

/// Browsers say that they navigate; older ones and plain-HTTP origins only prefer HTML.
fn wants_page(headers: &HeaderMap) -> bool {
    if let Some(mode) = headers.get("sec-fetch-mode") {
        return mode == "navigate";
    }
    let accept = || {
        let lines = headers.get_all(header::ACCEPT).iter();
        lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
    };
    let weight = |wanted: &str| accept().filter_map(|range| weight_of(range, wanted)).max();
    let html = weight("text/html").unwrap_or_default();
    html > 0 && html >= weight("application/json").unwrap_or_default()
}

/// The weight of a media range in thousandths, if it is for `wanted`.
fn weight_of(range: &str, wanted: &str) -> Option<u16> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(wanted) {
        return None;
    }
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight: f32 = weight.map_or(Ok(1.0), str::parse).unwrap_or_default();
    Some((weight.clamp(0.0, 1.0) * 1000.0) as u16)
}

/// Whether the asker gets the page that waits.
pub(super) fn waits_with_page(answer: &Answer, asker: Asker) -> bool {
    asker.navigates
        && answer.status == StatusCode::SERVICE_UNAVAILABLE
        && answer.execution != Some(Execution::MayHaveExecuted)
}

/// The response for `cause`.
#[must_use]
pub fn render(cause: &Cause, asker: Asker) -> Response<Body> {
    let now = Instant::now();
    let answer = cause.answer(now);
    let waits_with_page = waits_with_page(&answer, asker);
    let (body, kind) = if waits_with_page {
        (
            waiting::page(cause.view(), asker.protocol, now),
            "text/html; charset=utf-8",
        )
    } else {
        (answer.json().to_string(), "application/json")
    };
    let mut response = document(body, kind, asker.head_only);
    *response.status_mut() = answer.status;
    if waits_with_page {
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, waiting::policy());
    }
    add_headers(response.headers_mut(), &answer);
    response
}

fn add_headers(headers: &mut HeaderMap, answer: &Answer) {
    if let Some(secs) = answer.retry_after_secs() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if answer.status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"holdline\""),
        );
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    if answer.status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// A document of ours: never stored, never sniffed, its address never passed on.
pub(super) fn document(body: String, kind: &'static str, head_only: bool) -> Response<Body> {
    let length = HeaderValue::from(body.len());
    let body = if head_only {
        Bytes::new()
    } else {
        Bytes::from(body)
    };
    let mut response = Response::new(
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, length);
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
