//! Connections to one gateway for plain HTTP/1.1 exchanges, reused where that is safe.
//!
//! Own and small instead of hyper-util's `client::legacy`, for one reason: promise 3 ("nothing
//! runs twice") needs to know of every failure whether the request left us, and to get it back,
//! body and all, where it did not. `try_send_request` says so; the pool client keeps it to itself.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::outgoing::{Asked, Outgoing};
use crate::gateway::{Evidence, Gateway, Reason, hyper_reason};
use crate::http::BoxError;

/// Idle connections are not reused after this: Node closes its side after 5 s, and a request that
/// crosses that close is lost.
const IDLE: Duration = Duration::from_secs(3);
/// Idle connections kept: about what two browsers loading a page leave behind.
const MAX_IDLE: usize = 16;
/// hyper's read buffer per connection (and thus the largest response head).
const BUFFER: usize = 128 * 1024;

/// The connections to one gateway.
pub(super) struct Pool {
    gateway: Arc<Gateway>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// Not a byte of the request left us: here it is again.
    NotSent {
        request: Box<Request<Outgoing>>,
        reason: Reason,
        /// Whether a connection could be made at all.
        connected: bool,
    },
    /// It left us, at least in part, and then the connection failed.
    Lost {
        error: hyper::Error,
        /// Whether the connection had been used before: then its end says little.
        reused: bool,
    },
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(gateway: Arc<Gateway>) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            idle: Mutex::default(),
        })
    }

    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Sends a request and returns the response's head, its body still flowing.
    ///
    /// With `reuse` an idle connection may carry it. It may fail because the gateway has just
    /// closed it, so only requests that can be said twice are gambled on one.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Request<Outgoing>,
        asked: Option<Asked>,
        reuse: bool,
    ) -> Result<Response<FromGateway>, SendError> {
        let idle = if reuse { self.take() } else { None };
        let reused = idle.is_some();
        let mut sender = match idle {
            Some(sender) => sender,
            None => match self.connect().await {
                Ok(sender) => sender,
                Err((reason, connected)) => {
                    let request = Box::new(request);
                    return Err(SendError::NotSent {
                        request,
                        reason,
                        connected,
                    });
                }
            },
        };
        let response = sender
            .try_send_request(request)
            .await
            .map_err(|mut failed| match failed.take_message() {
                Some(request) => SendError::NotSent {
                    request: Box::new(request),
                    reason: hyper_reason(failed.error()),
                    connected: true,
                },
                None => SendError::Lost {
                    error: failed.into_error(),
                    reused,
                },
            })?;
        if let Some(asked) = &asked {
            asked.on_final(response.status());
        }
        let pool = Arc::downgrade(self);
        Ok(response.map(|body| FromGateway {
            body,
            sender: Some(sender),
            pool,
            asked,
            ended: false,
        }))
    }

    /// A new connection, its task running. The error says whether at least TCP came about.
    async fn connect(&self) -> Result<SendRequest<Outgoing>, (Reason, bool)> {
        let stream = self
            .gateway
            .dial()
            .await
            .map_err(|error| (error.reason(), false))?;
        let handshake = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake
            .await
            .map_err(|error| (hyper_reason(&error), true))?;
        // Ends by itself once the sender and the exchange in flight are gone.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the gateway");
            }
        });
        sender
            .ready()
            .await
            .map_err(|error| (hyper_reason(&error), true))?;
        Ok(sender)
    }

    /// The most recently used connection that is still good.
    fn take(&self) -> Option<SendRequest<Outgoing>> {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| {
            !idle.sender.is_closed() && now.saturating_duration_since(idle.since) < IDLE
        });
        let at = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        Some(idle.swap_remove(at).sender)
    }

    fn give_back(&self, sender: SendRequest<Outgoing>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// An exchange broke off. One that ended alone is the gateway's own affair; only if it cannot
    /// be reached either is that evidence.
    pub(super) async fn verify(&self) {
        if let Err(error) = self.gateway.dial().await {
            self.gateway.report(Evidence::Lost(error.reason()));
        }
    }
}

/// A response body. Gives its connection back at its end; torn midway it is an error, so that the
/// client's side is torn as well and never takes a part for the whole.
pub(super) struct FromGateway {
    body: Incoming,
    sender: Option<SendRequest<Outgoing>>,
    /// Not held: a stream without end is no reason to watch a gateway that nobody routes to.
    pool: Weak<Pool>,
    asked: Option<Asked>,
    ended: bool,
}

impl Body for FromGateway {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.ended = true,
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "the gateway tore a response");
                if let Some(pool) = self.pool.upgrade() {
                    tokio::spawn(async move { pool.verify().await });
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for FromGateway {
    fn drop(&mut self) {
        if let Some(asked) = &self.asked {
            asked.on_end();
        }
        if (self.ended || self.body.is_end_stream())
            && let (Some(sender), Some(pool)) = (self.sender.take(), self.pool.upgrade())
        {
            pool.give_back(sender);
        }
    }
}

/// A body that does not tell its length, nor that it is empty.
pub(super) struct Unsized(pub(super) FromGateway);

impl Body for Unsized {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}
