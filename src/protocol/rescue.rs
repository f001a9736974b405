//! The one table from what went wrong to what the other side is told.
//!
//! [`Cause`] → [`Answer`]: HTTP status and `Retry-After`, WebSocket close code and reason, and the
//! words of the JSON error. Nothing else in the program invents an answer.
//!
//! Pure values. Rendering lives in [`crate::http::refusal`] (HTTP) and in the protocol's own
//! modules (frames); nothing here does I/O, reads a clock or decides when to give up.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use tokio::time::Instant;

use crate::gateway::{Phase, View};
use crate::observe::labels::Way;

mod answer;

pub use answer::{Answer, Close, Execution, MAX_CLOSE_REASON, close_code, millis, whole_seconds};

/// Free words inside a fixed sentence; never a client's own bytes.
pub type Detail = Cow<'static, str>;

/// Why somebody is refused, cut off or told to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The gateway is away, now.
    GatewayAway(View),
    /// The gateway restarts; an open session should come back.
    GatewayRestarting(View),
    /// Waited for the gateway as long as the config allows.
    HoldExpired {
        /// The gateway at the end of the wait.
        view: View,
        /// How long was waited.
        waited: Duration,
    },
    /// So many requests wait for the gateway already that this one may not.
    TooManyWaiting(View),
    /// The gateway was lost after the request was sent: nobody knows whether it ran.
    MayHaveExecuted(View),
    /// The gateway's answer was not HTTP.
    BadAnswer,
    /// holdline itself was told to stop.
    Stopping,
    /// `[limits] sessions` is reached.
    SessionLimit,
    /// `[limits] sessions_per_ip` is reached.
    SessionsPerIp,
    /// More new connections per second than `[limits] handshakes_per_ip`.
    HandshakeRate,
    /// An upgrade with a `Sec-WebSocket-Version` other than 13.
    WebSocketVersion,
    /// An upgrade that breaks RFC 6455 or RFC 8441.
    BadUpgrade(Detail),
    /// A request that breaks HTTP or cannot be routed safely.
    BadRequest(Detail),
    /// The request's head is larger than we read.
    HeadersTooLarge,
    /// `Origin` is not in `[limits] origins`.
    OriginRefused,
    /// `[gateway] loopback_clients = "refuse"`, and the client is on loopback.
    LoopbackRefused,
    /// A client on loopback carries this header of a proxy or tunnel that we do not trust.
    TunnelNotTrusted(HeaderName),
    /// A trusted proxy on this machine does not say who its client is.
    ClientUnknown,
    /// A trusted proxy's `X-Forwarded-For` cannot be read.
    ForwardedForBroken,
    /// A trusted proxy says that its client is on loopback: that would be full trust on hearsay.
    ForwardedLoopback(IpAddr),
    /// Nobody known, where only those who signed in may come in, in any of these ways.
    SignInRequired(Vec<Way>),
    /// An access token that is not one of ours, or no longer.
    TokenRefused,
    /// So many wrong tokens came from this address that none is looked at for a while.
    TooManyTokens(Duration),
    /// A request with our cookie that a page of somebody else made.
    ForeignOrigin,
    /// The service that says who may come in cannot be asked.
    AuthUnavailable,
    /// The sign-in or token that an open session hangs on was ended.
    SignedOut,
    /// A page of ours that is asked for in a way it does not know.
    MethodNotAllowed,
    /// Nothing of ours lives at this path under `/.holdline/`.
    NotFound,
    /// A frame is larger than the limit.
    FrameTooBig {
        /// The limit, payload bytes.
        limit: u64,
    },
    /// The peer broke RFC 6455 on an open session.
    ProtocolError(Detail),
    /// A held session sent more than `[hold] buffer` (or all of them `buffer_total`).
    HoldBufferFull,
}

/// For clients' own clocks: limits that free themselves.
const LIMIT_RETRY: Duration = Duration::from_secs(5);
/// A process manager has a new holdline up within about this time.
const STOPPING_RETRY: Duration = Duration::from_secs(1);

/// What to do about not being signed in, where these are the ways.
fn sign_in_by(ways: &[Way]) -> String {
    let advice = ways.iter().map(|way| match way {
        Way::Password => "with a browser at /.holdline/sign-in",
        Way::Token => "a program with an access token (Authorization: Bearer hl_...)",
        Way::Mtls => "with a client certificate",
        Way::Forward => "with the sign-in service",
    });
    let advice: Vec<&str> = advice.collect();
    format!("sign in first: {}", advice.join(", or "))
}

impl Cause {
    /// The answer for this cause at this moment (the moment matters for retry hints only).
    #[must_use]
    pub fn answer(&self, now: Instant) -> Answer {
        match self {
            Self::GatewayAway(_)
            | Self::GatewayRestarting(_)
            | Self::HoldExpired { .. }
            | Self::TooManyWaiting(_)
            | Self::MayHaveExecuted(_)
            | Self::BadAnswer => self.gateway_answer(now),
            Self::Stopping
            | Self::SessionLimit
            | Self::SessionsPerIp
            | Self::HandshakeRate
            | Self::HoldBufferFull => self.limit_answer(),
            Self::OriginRefused
            | Self::LoopbackRefused
            | Self::TunnelNotTrusted(_)
            | Self::ClientUnknown
            | Self::ForwardedForBroken
            | Self::ForwardedLoopback(_) => self.policy_answer(),
            Self::SignInRequired(_)
            | Self::TokenRefused
            | Self::TooManyTokens(_)
            | Self::ForeignOrigin
            | Self::AuthUnavailable
            | Self::SignedOut => self.identity_answer(),
            Self::WebSocketVersion
            | Self::BadUpgrade(_)
            | Self::BadRequest(_)
            | Self::HeadersTooLarge
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::FrameTooBig { .. }
            | Self::ProtocolError(_) => self.client_answer(),
        }
    }

    /// The gateway's condition, where it is the cause.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        match self {
            Self::GatewayAway(view)
            | Self::GatewayRestarting(view)
            | Self::HoldExpired { view, .. }
            | Self::TooManyWaiting(view)
            | Self::MayHaveExecuted(view) => Some(view),
            _ => None,
        }
    }

    /// The gateway is away or was lost.
    fn gateway_answer(&self, now: Instant) -> Answer {
        use close_code::{SERVICE_RESTART, TRY_AGAIN_LATER};
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let answer = match self {
            Self::GatewayRestarting(_) => Answer::new(unavailable, "gateway_down")
                .says("the gateway is restarting")
                .closes(SERVICE_RESTART, "service restart"),
            Self::HoldExpired { view, waited } => Answer::new(unavailable, "gateway_down")
                .says(format!("{}; waited {}", sentence(view), rounded(*waited)))
                .closes(
                    TRY_AGAIN_LATER,
                    format!("gateway {} after {}", why(view), rounded(*waited)),
                ),
            Self::TooManyWaiting(view) => Answer::new(unavailable, "gateway_down")
                .says(format!(
                    "{}, and too many requests wait for it",
                    sentence(view)
                ))
                .closes(TRY_AGAIN_LATER, "too many wait for the gateway"),
            Self::MayHaveExecuted(_) => Answer::new(unavailable, "gateway_lost")
                .says("the gateway was lost before it answered: the request may have been executed")
                .executed(Execution::MayHaveExecuted)
                .closes(SERVICE_RESTART, "service restart"),
            Self::BadAnswer => Answer::new(StatusCode::BAD_GATEWAY, "gateway_protocol_error")
                .says("the gateway's answer is not valid HTTP: the request may have been executed")
                .executed(Execution::MayHaveExecuted)
                .closes(TRY_AGAIN_LATER, "gateway protocol error"),
            _ => Answer::new(unavailable, "gateway_down")
                .says(
                    self.view()
                        .map_or(Cow::Borrowed("the gateway is away"), sentence),
                )
                .closes(
                    TRY_AGAIN_LATER,
                    self.view().map_or(Cow::Borrowed("gateway down"), |view| {
                        format!("gateway {}", why(view)).into()
                    }),
                ),
        };
        match self.view() {
            Some(view) => answer.sees(view, now),
            None => answer,
        }
    }

    /// A bound of ours was reached, or we stop.
    fn limit_answer(&self) -> Answer {
        use close_code::{SERVICE_RESTART, TRY_AGAIN_LATER};
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self::Stopping => Answer::new(unavailable, "proxy_stopping")
                .says("the proxy in front of the gateway restarts")
                .retries(STOPPING_RETRY)
                .closes(SERVICE_RESTART, "service restart"),
            Self::SessionsPerIp => Answer::new(StatusCode::TOO_MANY_REQUESTS, "sessions_per_ip")
                .says("too many open sessions from this address")
                .retries(LIMIT_RETRY)
                .closes(TRY_AGAIN_LATER, "too many sessions from this address"),
            Self::HandshakeRate => Answer::new(StatusCode::TOO_MANY_REQUESTS, "handshake_rate")
                .says("too many new connections from this address")
                .retries(STOPPING_RETRY)
                .closes(
                    TRY_AGAIN_LATER,
                    "too many new connections from this address",
                ),
            Self::HoldBufferFull => Answer::new(unavailable, "hold_buffer_full")
                .says("more was sent than is kept while the gateway is away")
                .retries(STOPPING_RETRY)
                .closes(TRY_AGAIN_LATER, "hold buffer full"),
            _ => Answer::new(unavailable, "session_limit")
                .says("the proxy holds as many sessions as it may")
                .retries(LIMIT_RETRY)
                .closes(TRY_AGAIN_LATER, "too many sessions"),
        }
    }

    /// Not allowed: says which setting decides.
    fn policy_answer(&self) -> Answer {
        let (kind, message): (_, Cow<'static, str>) = match self {
            Self::OriginRefused => (
                "origin_refused",
                "this Origin is not allowed: add it to [limits] origins".into(),
            ),
            Self::LoopbackRefused => (
                "loopback_refused",
                "clients on this machine are refused: [gateway] loopback_clients = \"refuse\""
                    .into(),
            ),
            Self::TunnelNotTrusted(header) => (
                "tunnel_not_trusted",
                format!(
                    "the request comes over loopback but carries `{header}` of a proxy or tunnel: \
                     add that proxy's address to [listen] trusted_proxies, and let it set \
                     X-Forwarded-For"
                )
                .into(),
            ),
            Self::ClientUnknown => (
                "client_unknown",
                "a trusted proxy on this machine does not say who its client is: let it set \
                 X-Forwarded-For; without a proxy, connect from an address that is not in \
                 [listen] trusted_proxies, e.g. through a listener on [::1] where only 127.0.0.1 \
                 is trusted"
                    .into(),
            ),
            Self::ForwardedLoopback(address) => (
                "forwarded_loopback",
                format!(
                    "a trusted proxy names {address} as its client: on this machine connect to \
                     holdline directly, from an address that is not in [listen] trusted_proxies"
                )
                .into(),
            ),
            _ => (
                "forwarded_for_broken",
                "X-Forwarded-For of a trusted proxy cannot be read: let it send a list of IP \
                 addresses, or correct [listen] trusted_proxies"
                    .into(),
            ),
        };
        Answer::new(StatusCode::FORBIDDEN, kind)
            .says(message)
            .closes(close_code::POLICY, kind)
    }

    /// Not known, or not any more.
    fn identity_answer(&self) -> Answer {
        use close_code::{POLICY, TRY_AGAIN_LATER};
        let unauthorized = StatusCode::UNAUTHORIZED;
        match self {
            Self::TokenRefused => Answer::new(unauthorized, "token_refused")
                .says("this access token is not known here: `holdline token add` makes one")
                .closes(POLICY, "access token refused"),
            Self::TooManyTokens(wait) => Answer::new(StatusCode::TOO_MANY_REQUESTS, "token_limit")
                .says("too many wrong access tokens from this address")
                .retries(*wait)
                .closes(TRY_AGAIN_LATER, "too many wrong access tokens"),
            Self::ForeignOrigin => Answer::new(StatusCode::FORBIDDEN, "foreign_origin")
                .says(
                    "a page of another site made this request in your name, or a proxy on the way \
                     has changed Host (let it pass Host on): it was not done",
                )
                .closes(POLICY, "foreign origin"),
            Self::AuthUnavailable => {
                Answer::new(StatusCode::SERVICE_UNAVAILABLE, "auth_unavailable")
                    .says("the service that says who may come in cannot be asked")
                    .retries(LIMIT_RETRY)
                    .closes(TRY_AGAIN_LATER, "sign-in service unavailable")
            }
            Self::SignedOut => Answer::new(unauthorized, "signed_out")
                .says("signed out")
                .closes(POLICY, "signed out"),
            Self::SignInRequired(ways) => Answer::new(unauthorized, "sign_in_required")
                .says(sign_in_by(ways))
                .closes(POLICY, "sign-in required"),
            _ => Answer::new(unauthorized, "sign_in_required"),
        }
    }

    /// The client's own mistake.
    fn client_answer(&self) -> Answer {
        use close_code::{POLICY, PROTOCOL_ERROR, TOO_BIG};
        match self {
            Self::WebSocketVersion => {
                Answer::new(StatusCode::UPGRADE_REQUIRED, "websocket_version")
                    .says("only WebSocket version 13 is spoken here")
                    .closes(PROTOCOL_ERROR, "only WebSocket version 13")
            }
            Self::BadUpgrade(detail) => Answer::new(StatusCode::BAD_REQUEST, "bad_upgrade")
                .says(format!("bad WebSocket upgrade: {detail}"))
                .closes(PROTOCOL_ERROR, detail.clone()),
            Self::HeadersTooLarge => Answer::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
            )
            .says("the request's headers are too large")
            .closes(POLICY, "headers too large"),
            Self::NotFound => Answer::new(StatusCode::NOT_FOUND, "not_found")
                .says("nothing of holdline's is here")
                .closes(POLICY, "not found"),
            Self::MethodNotAllowed => {
                Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
                    .says("this page knows GET and POST only")
                    .closes(POLICY, "method not allowed")
            }
            Self::FrameTooBig { limit } => {
                Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "frame_too_big")
                    .says(format!("a frame may carry at most {limit} bytes"))
                    .closes(TOO_BIG, format!("frame larger than {limit} bytes"))
            }
            Self::ProtocolError(detail) => Answer::new(StatusCode::BAD_REQUEST, "protocol_error")
                .says(format!("WebSocket protocol error: {detail}"))
                .closes(PROTOCOL_ERROR, detail.clone()),
            Self::BadRequest(detail) => Answer::bad_request(detail),
            _ => Answer::bad_request("malformed"),
        }
    }
}

/// The gateway's condition as a sentence for a person, without a full stop.
#[must_use]
pub fn sentence(view: &View) -> Cow<'static, str> {
    let state = match view.phase {
        Phase::Ready => "the gateway has just come back",
        Phase::Starting => "the gateway is starting",
        Phase::Draining => "the gateway is about to restart",
        Phase::Down => "the gateway is down",
        Phase::Hung => "the gateway does not answer",
    };
    match (view.phase, view.reason) {
        (Phase::Down, Some(reason)) => format!("{state}: {}", reason.hint()).into(),
        _ => state.into(),
    }
}

/// The condition in one or two words, for close reasons.
fn why(view: &View) -> Cow<'static, str> {
    let phase = view.phase.as_str();
    match (view.phase, view.reason) {
        (Phase::Down, Some(reason)) => format!("{phase} ({})", reason.as_str()).into(),
        _ => phase.into(),
    }
}

/// A wait as a person says it.
fn rounded(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        secs @ 1..120 => format!("{secs} s"),
        secs => format!("{} min", secs / 60),
    }
}

#[cfg(test)]
mod tests;
