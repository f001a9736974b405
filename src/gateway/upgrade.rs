//! The WebSocket upgrade towards the gateway: request out, 101 back, the bare socket handed over.

use std::io;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::dial::{DialError, reason_of};
use super::state::Reason;

/// The largest refusal that is passed on; the gateway's are a few hundred bytes.
const REFUSAL_LIMIT: usize = 64 * 1024;

/// A socket that speaks WebSocket from here on.
#[derive(Debug)]
pub struct UpstreamSocket {
    /// The connection itself.
    pub stream: TcpStream,
    /// What arrived behind the 101; it belongs to the stream.
    pub leftover: Bytes,
    /// The 101's head.
    pub head: Response<()>,
}

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// No connection at all.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended before an answer.
    #[error("the gateway ended the connection during the upgrade")]
    Broken(#[source] hyper::Error),
    /// It answered something else than 101.
    #[error("the gateway answered the upgrade with {}", .0.status())]
    Refused(Box<Response<Bytes>>),
    /// It answered 101, but not as RFC 6455 wants it.
    #[error("the gateway's 101 does not match our request")]
    WrongAccept,
}

impl UpgradeError {
    /// The word for it in frames and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Broken(error) => hyper_reason(error),
            Self::Refused(_) | Self::WrongAccept => Reason::UpgradeRejected,
        }
    }
}

/// The word for a failed exchange with the gateway.
#[must_use]
pub fn hyper_reason(error: &hyper::Error) -> Reason {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return reason_of(io);
        }
        source = cause.source();
    }
    Reason::Closed
}

/// Sends `request` on `stream` and takes the socket back after the 101.
///
/// `accept` is the `Sec-WebSocket-Accept` that the request's key demands (RFC 6455, 4.1).
///
/// # Errors
/// See [`UpgradeError`]; a refusal carries the gateway's whole answer.
pub async fn upgrade(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    accept: &str,
) -> Result<UpstreamSocket, UpgradeError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(UpgradeError::Broken)?;
    // Ends with us: a gateway that never answers must not keep the connection.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let mut response = sender
        .send_request(request)
        .await
        .map_err(UpgradeError::Broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpgradeError::Refused(Box::new(refusal(response).await)));
    }
    let answered = response.headers().get(http::header::SEC_WEBSOCKET_ACCEPT);
    if answered.is_none_or(|value| value.as_bytes() != accept.as_bytes()) {
        return Err(UpgradeError::WrongAccept);
    }
    let upgraded = hyper::upgrade::on(&mut response)
        .await
        .map_err(UpgradeError::Broken)?;
    let (head, _) = response.into_parts();
    let parts = upgraded
        .downcast::<TokioIo<TcpStream>>()
        .map_err(|_| UpgradeError::WrongAccept)?;
    Ok(UpstreamSocket {
        stream: parts.io.into_inner(),
        leftover: parts.read_buf,
        head: Response::from_parts(head, ()),
    })
}

async fn refusal(response: Response<Incoming>) -> Response<Bytes> {
    let (head, body) = response.into_parts();
    // A body that is too long or breaks off is not worth more than the status.
    let body = Limited::new(body, REFUSAL_LIMIT)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    Response::from_parts(head, body)
}
