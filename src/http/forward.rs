//! Plain HTTP through to a gateway: streamed both ways, held while it is away, never sent twice
//! unless that is safe.
//!
//! What passes: every method, trailers, HEAD, 1xx (see below), responses without end. What does
//! not: anything that belongs to one connection ([`super::headers`]). An answer of our own is a
//! [`Cause`]; rendering it is [`super::refusal`]'s.
//!
//! Limits of hyper's HTTP/1.1 server: it sends no informational response but its own `100
//! Continue`, so the gateway's 103 ends here; and trailers of a response reach an HTTP/1.1 client
//! only if it said `TE: trailers` and the gateway announced them in `Trailer` (which RFC 9110,
//! 6.5.1, lets us do).

mod outgoing;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request,
};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Body;
use super::headers::{self, Presented};
use super::hold::{Hold, Waits};
use crate::gateway::{Evidence, Gateway};
use crate::protocol::rescue::Cause;
use outgoing::{Asked, Outgoing};
use pool::{FromGateway, Pool, SendError, Unsized};

/// How often a safe request is sent again after it was lost: once for a gateway that went away,
/// once for one that was not quite back. A request that brings the gateway down must not do so
/// for as long as its client is patient.
const RESENDS: u32 = 2;

/// Sends requests to one gateway. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Forwarder {
    pool: Arc<Pool>,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder")
            .field("gateway", self.gateway())
            .finish_non_exhaustive()
    }
}

/// What is known of a request apart from itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Errand<'a> {
    /// As whom its client is presented.
    pub(super) presented: &'a Presented,
    /// What it asked for.
    pub(super) host: &'a HeaderValue,
    /// What the gateway is told of who it is.
    pub(super) told: &'a [(HeaderName, HeaderValue)],
    /// How long it may wait.
    pub(super) patience: Duration,
}

impl Forwarder {
    /// For this gateway.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self {
            pool: Pool::new(gateway),
        }
    }

    /// Whom it forwards to.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        self.pool.gateway()
    }

    /// The gateway's response to `request`, or why there is none. `reroute`: who it would go to if it
    /// came now; a reload may say another one while it waits.
    pub(super) async fn forward(
        &self,
        request: Request<Incoming>,
        errand: Errand<'_>,
        waits: &Waits,
        reroute: impl Fn() -> Option<Self>,
    ) -> Result<Response<Body>, Cause> {
        let (head, body) = outbound(request, errand);
        let again = Again::of(&head, &body);
        let mut pool = Arc::clone(&self.pool);
        let mut hold = Hold::new(Arc::clone(pool.gateway()), waits, errand.patience);
        let other_than =
            |pool: &Pool| reroute().filter(|other| !Arc::ptr_eq(other.gateway(), pool.gateway()));
        let (mut request, mut asked) = dress(head, body);
        let (mut resends, mut reuse) = (RESENDS, again.is_some());
        loop {
            hold.until_answering(|| other_than(&pool).is_some()).await?;
            if hold.has_waited()
                && let Some(other) = other_than(&pool)
            {
                hold.turn_to(Arc::clone(other.gateway()));
                pool = other.pool;
                continue;
            }
            let sent = tokio::select! {
                biased;
                sent = pool.send(request, asked.clone(), reuse) => sent,
                view = hold.lost_for_good() => return Err(match again {
                    Some(_) => hold.expired(),
                    None => Cause::MayHaveExecuted(view),
                }),
            };
            match sent {
                Ok(response) => {
                    let mut response = inbound(response)?;
                    hold.mark(response.extensions_mut());
                    return Ok(response);
                }
                Err(SendError::NotSent {
                    request: back,
                    reason,
                    connected,
                }) => {
                    request = *back;
                    if !connected {
                        pool.gateway().report(Evidence::Lost(reason));
                    }
                    hold.pause().await?;
                }
                Err(SendError::Lost { error, reused }) => match &again {
                    Some(again) if resends > 0 && !error.is_parse() => {
                        (resends, reuse) = (resends - 1, false);
                        (request, asked) = (again.request(), None);
                        if !reused {
                            pool.verify().await;
                            hold.pause().await?;
                        }
                    }
                    _ => return Err(lost(&pool, &error).await),
                },
            }
        }
    }
}

/// What to say of a request that was sent and not answered.
async fn lost(pool: &Pool, error: &hyper::Error) -> Cause {
    tracing::debug!(%error, "exchange lost");
    if error.is_user() {
        return Cause::BadRequest("the request's body broke off".into());
    }
    if error.is_parse() {
        return Cause::BadAnswer;
    }
    pool.verify().await;
    Cause::MayHaveExecuted(pool.gateway().view())
}

/// A request that can be said again: its head, as sent.
struct Again(request::Parts);

impl Again {
    /// Only what is safe by definition (RFC 9110, 9.2.1) and has no body.
    fn of(head: &request::Parts, body: &Incoming) -> Option<Self> {
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&head.method);
        (safe && body.is_end_stream()).then(|| Self(head.clone()))
    }

    fn request(&self) -> Request<Outgoing> {
        Request::from_parts(self.0.clone(), Outgoing::none())
    }
}

/// The head as the gateway gets it.
fn outbound(request: Request<Incoming>, errand: Errand<'_>) -> (request::Parts, Incoming) {
    let (client, body) = request.into_parts();
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = client.method;
    head.uri = origin_form(&client.uri);
    head.version = Version::HTTP_11;
    head.headers = client.headers;
    headers::request_for_gateway(
        &mut head.headers,
        errand.presented,
        errand.host,
        errand.told,
    );
    if !body.is_end_stream() && !head.headers.contains_key(header::CONTENT_LENGTH) {
        // Said outright: hyper would drop a GET's body of unknown length.
        head.headers.insert(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        );
    }
    (head, body)
}

fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
        .into()
}

/// Puts the body behind the head, and an ear on the gateway's `100 Continue`.
fn dress(head: request::Parts, body: Incoming) -> (Request<Outgoing>, Option<Asked>) {
    let (body, asked) = Outgoing::new(body, &head.headers);
    let mut request = Request::from_parts(head, body);
    if let Some(asked) = asked.clone() {
        hyper::ext::on_informational(&mut request, move |response| {
            asked.on_informational(response.status());
        });
    }
    (request, asked)
}

/// The response as the client gets it.
fn inbound(response: Response<FromGateway>) -> Result<Response<Body>, Cause> {
    let (gateway, body) = response.into_parts();
    if gateway.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for it.
        return Err(Cause::BadAnswer);
    }
    // hyper drops the length of a 304 whose body is known to be empty; RFC 9110, 8.6, gives it a
    // meaning.
    let body = match gateway.status == StatusCode::NOT_MODIFIED {
        true => Unsized(body).boxed_unsync(),
        false => body.boxed_unsync(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = gateway.status;
    *response.headers_mut() = gateway.headers;
    headers::response_for_client(response.headers_mut());
    if let Some(reason) = gateway.extensions.get::<hyper::ext::ReasonPhrase>() {
        response.extensions_mut().insert(reason.clone());
    }
    Ok(response)
}
