//! A client's request body on its way to the gateway.
//!
//! Streams; keeps nothing. With `Expect: 100-continue` the client's body is not touched (and so
//! the client is not told to send it) before the gateway asks for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::http::{BoxError, headers};

/// A gateway that does not know `Expect` never asks: then the body is sent after this (RFC 9110,
/// 10.1.1, forbids to wait for ever).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// What is sent to the gateway behind a request's head.
pub(super) struct Outgoing {
    body: Option<Incoming>,
    gate: Option<Gate>,
}

/// The gateway refused the request before it wanted the body.
#[derive(Debug, thiserror::Error)]
#[error("the gateway answered without reading the body")]
struct Unwanted;

impl Outgoing {
    /// No body at all.
    pub(super) fn none() -> Self {
        Self {
            body: None,
            gate: None,
        }
    }

    /// The client's body, behind a gate if it expects to be asked for it.
    pub(super) fn new(body: Incoming, headers: &HeaderMap) -> (Self, Option<Asked>) {
        if body.is_end_stream() {
            return (Self::none(), None);
        }
        let expects = headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let (gate, asked) = match expects {
            true => {
                let (asked, news) = watch::channel(Asking::Silent);
                (Some(Gate::new(news)), Some(Asked(Arc::new(asked))))
            }
            false => (None, None),
        };
        (
            Self {
                body: Some(body),
                gate,
            },
            asked,
        )
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while let Some(gate) = &mut self.gate {
            match ready!(gate.poll(cx)) {
                Verdict::Send => self.gate = None,
                // Dropping it tells the client's connection that nobody will read it.
                Verdict::Keep => drop(self.body.take()),
                Verdict::GiveUp => return Poll::Ready(Some(Err(Unwanted.into()))),
            }
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(without_claims).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream) && self.gate.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Trailers can spell forwarding headers, too.
fn without_claims(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::remove_client_claims(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

// === Expect: 100-continue ===

/// What the gateway has said about the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Nothing yet.
    Silent,
    /// It asked for it, or answered in a way that does not refuse it.
    Wanted,
    /// It refused the request instead.
    Unwanted,
    /// Its answer has been read to the end.
    Over,
}

/// Tells the gate what the gateway said. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Asked(Arc<watch::Sender<Asking>>);

impl Asked {
    /// An informational answer arrived.
    pub(super) fn on_informational(&self, status: http::StatusCode) {
        if status == http::StatusCode::CONTINUE {
            self.0.send_replace(Asking::Wanted);
        }
    }

    /// The final answer's head arrived.
    pub(super) fn on_final(&self, status: http::StatusCode) {
        let refused = status.is_client_error() || status.is_server_error();
        self.0.send_if_modified(|asking| {
            let first = *asking == Asking::Silent;
            if first {
                *asking = if refused {
                    Asking::Unwanted
                } else {
                    Asking::Wanted
                };
            }
            first
        });
    }

    /// The final answer was read to its end, or given up.
    pub(super) fn on_end(&self) {
        self.0.send_if_modified(|asking| {
            let kept = *asking == Asking::Unwanted;
            if kept {
                *asking = Asking::Over;
            }
            kept
        });
    }
}

/// What to do with the body now.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Send,
    /// Do not send it, but keep the connection until the answer has been read.
    Keep,
    GiveUp,
}

/// Holds a body back. Yields [`Verdict`]s one after the other.
struct Gate {
    next: Pin<Box<dyn Future<Output = (Verdict, watch::Receiver<Asking>)> + Send>>,
}

impl Gate {
    fn new(mut news: watch::Receiver<Asking>) -> Self {
        let next = Box::pin(async move {
            let said = tokio::time::timeout(
                CONTINUE_WAIT,
                news.wait_for(|asking| *asking != Asking::Silent),
            );
            let verdict = match said.await.map(|asking| asking.map(|asking| *asking)) {
                Ok(Ok(Asking::Unwanted | Asking::Over)) => Verdict::Keep,
                _ => Verdict::Send,
            };
            (verdict, news)
        });
        Self { next }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        let (verdict, mut news) = ready!(self.next.as_mut().poll(cx));
        self.next = Box::pin(async move {
            // An error: nobody is left to read the answer.
            let _ = news.wait_for(|asking| *asking == Asking::Over).await;
            (Verdict::GiveUp, news)
        });
        Poll::Ready(verdict)
    }
}
