//! From a client's upgrade request to a WebSocket at the gateway, waiting for it if need be.
//!
//! Before the 101: whoever waits here holds nothing but a request. What follows the 101 is the
//! pump's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Line;
use super::ticket::Ticket;
use crate::gateway::{
    Evidence, Gateway, HandshakePermit, Phase, Reason, UpgradeError, UpstreamSocket, upgrade,
};
use crate::protocol::rescue::Cause;
use crate::ws::handshake::ClientKey;

/// Between tries to connect to a gateway that calls itself ready.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest of these waits.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A session's new connection, up to its 101.
const REDIAL_LIMIT: Duration = Duration::from_secs(10);
/// A challenge is some two hundred bytes; more than this before a word is no challenge.
const FIRST_READ: usize = 16 * 1024;

/// A WebSocket at the gateway, its handshake (if the protocol has one) still to come.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) socket: UpstreamSocket,
    pub(crate) permit: HandshakePermit,
}

/// How the wait before the 101 ended.
#[derive(Debug)]
pub(crate) enum Opened {
    /// With a connection; the gateway has spoken where its protocol begins with that.
    Connected {
        /// The connection.
        upstream: Box<Upstream>,
        /// The gateway was not there at first.
        held: bool,
    },
    /// The gateway refuses this client, in its own words.
    Refused(Box<Response<Bytes>>),
    /// The time is over and the gateway is away.
    Expired(Cause),
}

/// Waits for the gateway, for at most `hold.upgrade`, and connects. A reload may put another line
/// in the place of `line` meanwhile: it is the one to go on with.
pub(crate) async fn open(line: &mut Arc<Line>, ticket: &Ticket, ip: IpAddr) -> Opened {
    let arrived = Instant::now();
    loop {
        let here = Arc::clone(line);
        tokio::select! {
            biased;
            opened = open_at(&here, ticket, ip, arrived) => return opened,
            moved = here.moved() => *line = moved,
        }
    }
}

async fn open_at(line: &Line, ticket: &Ticket, ip: IpAddr, arrived: Instant) -> Opened {
    let deadline = arrived + line.hold.upgrade;
    let mut opening = Opening {
        line,
        ticket,
        ip,
        arrived,
        waited: false,
        refusal: None,
    };
    if let Ok(opened) = timeout_at(deadline, opening.run()).await {
        return opened;
    }
    match opening.refusal.take() {
        // It is there and says why not: that is better than our guess.
        Some(refusal) if line.gateway.view().phase == Phase::Ready => Opened::Refused(refusal),
        _ => Opened::Expired(Cause::HoldExpired {
            view: line.gateway.view(),
            waited: arrived.elapsed(),
        }),
    }
}

struct Opening<'a> {
    line: &'a Line,
    ticket: &'a Ticket,
    ip: IpAddr,
    arrived: Instant,
    /// The gateway was away when this client came, so that it returns with others.
    waited: bool,
    refusal: Option<Box<Response<Bytes>>>,
}

impl Opening<'_> {
    async fn run(&mut self) -> Opened {
        let gateway = &self.line.gateway;
        let mut backoff = BACKOFF;
        loop {
            self.waited |= gateway.view().phase != Phase::Ready;
            gateway.wait_for(|view| view.phase == Phase::Ready).await;
            if self.waited {
                // The pacer lives as long as the gateway.
                let _ = gateway.returns.turn(self.arrived).await;
                if gateway.view().phase != Phase::Ready {
                    continue;
                }
            }
            let permit = gateway.handshakes.acquire(self.ip).await;
            match self.attempt(permit).await {
                Ok(opened) => return opened,
                Err(Some(evidence)) => gateway.report(evidence),
                Err(None) => {}
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One connection. `Err`: try again, and what was seen.
    async fn attempt(&mut self, permit: HandshakePermit) -> Result<Opened, Option<Evidence>> {
        match connect(&self.line.gateway, self.ticket).await {
            Ok(mut socket) => {
                if self.line.speaks_first() {
                    first_words(&mut socket)
                        .await
                        .map_err(|reason| Some(Evidence::Lost(reason)))?;
                }
                let upstream = Box::new(Upstream { socket, permit });
                Ok(Opened::Connected {
                    upstream,
                    held: self.waited,
                })
            }
            Err(UpgradeError::Refused(refusal)) => self.refused(refusal),
            Err(UpgradeError::WrongAccept) => Ok(Opened::Expired(Cause::BadAnswer)),
            Err(error) => Err(Some(Evidence::Lost(error.reason()))),
        }
    }

    fn refused(&mut self, refusal: Box<Response<Bytes>>) -> Result<Opened, Option<Evidence>> {
        if refusal.status() != StatusCode::SERVICE_UNAVAILABLE {
            return Ok(Opened::Refused(refusal));
        }
        // "Gateway websocket admission closed": it is draining, whatever its probe said last.
        let closed = refusal
            .body()
            .windows(16)
            .any(|words| words == b"admission closed");
        self.refusal = Some(refusal);
        Err(closed.then_some(Evidence::Shutdown))
    }
}

async fn connect(gateway: &Gateway, ticket: &Ticket) -> Result<UpstreamSocket, UpgradeError> {
    let stream = gateway.dial().await?;
    let key = ClientKey::random();
    upgrade(stream, ticket.request(&key), &key.accept()).await
}

/// Waits until the gateway has said something: a 101 without a challenge behind it makes browsers
/// send a broken `connect`.
async fn first_words(socket: &mut UpstreamSocket) -> Result<(), Reason> {
    if !socket.leftover.is_empty() {
        return Ok(());
    }
    let mut first = BytesMut::with_capacity(FIRST_READ);
    match socket.stream.read_buf(&mut first).await {
        Ok(0) => Err(Reason::Closed),
        Ok(_) => {
            socket.leftover = first.freeze();
            Ok(())
        }
        Err(error) => Err(crate::gateway::reason_of(&error)),
    }
}

/// What a gateway agreed on in its 101, which a later one has to agree on, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreed {
    subprotocol: Option<HeaderValue>,
    extensions: Option<HeaderValue>,
}

impl Agreed {
    pub(super) fn of(socket: &UpstreamSocket) -> Self {
        let headers = socket.head.headers();
        Self {
            subprotocol: headers.get(header::SEC_WEBSOCKET_PROTOCOL).cloned(),
            extensions: headers.get(header::SEC_WEBSOCKET_EXTENSIONS).cloned(),
        }
    }

    pub(super) fn has_extensions(&self) -> bool {
        self.extensions.is_some()
    }
}

/// Connects an open session again.
pub(super) async fn redial(
    gateway: Arc<Gateway>,
    ticket: Ticket,
    ip: IpAddr,
    agreed: Option<Agreed>,
) -> Result<Upstream, Reason> {
    let permit = gateway.handshakes.acquire(ip).await;
    let socket = match timeout(REDIAL_LIMIT, connect(&gateway, &ticket)).await {
        Ok(connected) => connected.map_err(|error| error.reason())?,
        Err(_) => return Err(Reason::Timeout),
    };
    if agreed.is_some_and(|agreed| agreed != Agreed::of(&socket)) {
        return Err(Reason::UpgradeRejected);
    }
    Ok(Upstream { socket, permit })
}
