//! WebSocket upgrades: checked, admitted, held until the gateway is there, answered.
//!
//! The 101 (200 over HTTP/2) is sent when the gateway's side is in hand, or, where its protocol
//! lets us speak for it, when the wait has become too long. Frames are the session's concern.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;

use super::headers::{request_for_gateway, response_for_client};
use super::{Body, Call, Upgraded, Upgrades};
use crate::config::Limits;
use crate::gateway::UpstreamSocket;
use crate::observe::Metrics;
use crate::observe::labels::{SessionState, UpgradeOutcome};
use crate::protocol::rescue::Cause;
use crate::session::{self, Line, Lines, Opened, Opening, Sessions, Ticket};
use crate::ws::handshake::{self, HandshakeError};

/// Takes upgrades for all routes of one config.
#[derive(Debug)]
pub(crate) struct Switchboard {
    lines: Arc<Lines>,
    sessions: Arc<Sessions>,
}

impl Switchboard {
    pub(crate) fn new(lines: Arc<Lines>, sessions: Arc<Sessions>) -> Self {
        Self { lines, sessions }
    }
}

impl Upgrades for Switchboard {
    fn handle(&self, call: Call, request: Request<Incoming>) -> Upgraded<'_> {
        Box::pin(async move {
            let line = self.lines.current().get(call.route);
            let line = line.ok_or(Cause::NotFound)?;
            let outcome = take(Arc::clone(line), &self.sessions, call, request).await;
            line.house.metrics.upgrades.inc(match &outcome {
                Ok((outcome, _)) => *outcome,
                Err(Cause::HoldExpired { .. } | Cause::Stopping) => UpgradeOutcome::Unavailable,
                Err(_) => UpgradeOutcome::Refused,
            });
            outcome.map(|(_, response)| response)
        })
    }
}

async fn take(
    mut line: Arc<Line>,
    sessions: &Arc<Sessions>,
    call: Call,
    mut request: Request<Incoming>,
) -> Result<(UpgradeOutcome, Response<Body>), Cause> {
    let opening = handshake::opening(&request).map_err(|error| match error {
        HandshakeError::Version => Cause::WebSocketVersion,
        other => Cause::BadUpgrade(other.to_string().into()),
    })?;
    check_origin(&request, &line.limits)?;
    let admitted = sessions.admit(call.presented.address, &line.limits)?;
    let ticket = ticket(&line, &call, &mut request);
    let wants_subprotocol = request
        .headers()
        .contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let opened = {
        let _waiting = Waiting::begin(&line.house.metrics);
        let stopping = line.house.stopping.clone();
        tokio::select! {
            () = call.grant.ended() => return Err(Cause::SignedOut),
            opened = session::open(&mut line, &ticket, call.presented.address) => opened,
            () = stopping.cancelled() => return Err(Cause::Stopping),
        }
    };
    let (outcome, upstream) = match opened {
        Opened::Connected {
            upstream,
            held: true,
        } => (UpgradeOutcome::Held, Some(upstream)),
        Opened::Connected {
            upstream,
            held: false,
        } => (UpgradeOutcome::Passed, Some(upstream)),
        Opened::Refused(refusal) => return Ok((UpgradeOutcome::Rejected, pass_on(*refusal))),
        Opened::Expired(Cause::HoldExpired { .. }) if line.speaks_first() && !wants_subprotocol => {
            (UpgradeOutcome::Greeted, None)
        }
        Opened::Expired(cause) => return Err(cause),
    };
    let response = switching(&opening, upstream.as_ref().map(|upstream| &upstream.socket));
    let client = hyper::upgrade::on(&mut request);
    session::start(
        line,
        Opening {
            admitted,
            ticket,
            grant: call.grant,
            upstream,
        },
        client,
    );
    Ok((outcome, response))
}

/// The request as the gateway gets it, and gets it again.
fn ticket(line: &Line, call: &Call, request: &mut Request<Incoming>) -> Ticket {
    let headers = request.headers_mut();
    request_for_gateway(headers, &call.presented, &call.host.value, &call.told);
    // Where messages are read they have to be readable: nothing is negotiated on top.
    Ticket::new(request.uri(), request.headers(), !line.speaks_first())
}

fn check_origin(request: &Request<Incoming>, limits: &Limits) -> Result<(), Cause> {
    if limits.origins.is_empty() {
        return Ok(());
    }
    let mut named = request.headers().get_all(header::ORIGIN).iter();
    let allowed = match (named.next(), named.next()) {
        (Some(origin), None) => limits
            .origins
            .iter()
            .any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes())),
        _ => false,
    };
    if allowed {
        Ok(())
    } else {
        Err(Cause::OriginRefused)
    }
}

/// The answer that ends HTTP on this connection (RFC 6455, 4.2.2; RFC 8441, 5).
fn switching(opening: &handshake::Opening, gateway: Option<&UpstreamSocket>) -> Response<Body> {
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    if let Some(gateway) = gateway {
        headers.clone_from(gateway.head.headers());
        response_for_client(headers);
        headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        headers.remove(header::CONTENT_LENGTH);
    }
    let (handshake::Opening::Upgrade(key) | handshake::Opening::ExtendedConnect(Some(key))) =
        opening
    else {
        return response;
    };
    if let Ok(accept) = HeaderValue::from_str(&key.accept()) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if matches!(opening, handshake::Opening::Upgrade(_)) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    response
}

/// The gateway's own refusal.
fn pass_on(refusal: Response<bytes::Bytes>) -> Response<Body> {
    let (mut head, body) = refusal.into_parts();
    response_for_client(&mut head.headers);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(
        head,
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
    )
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Counts a client as waiting for its 101.
struct Waiting(Arc<Metrics>);

impl Waiting {
    fn begin(metrics: &Arc<Metrics>) -> Self {
        metrics.sessions.add(SessionState::Waiting, 1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.sessions.add(SessionState::Waiting, -1);
    }
}
