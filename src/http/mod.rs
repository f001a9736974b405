//! Plain HTTP at the edge: from a parsed request to a response, whatever the gateway does.
//!
//! [`App::handle`] is the whole way: check → our own surface → route → who is it, and may they come
//! in → WebSocket or plain. WebSocket upgrades leave here through [`Upgrades`]; frames are unknown
//! in this room. Every answer that is not the gateway's is a [`Cause`], rendered by [`refusal`].

mod account;
mod form;
pub mod forward;
mod gate;
mod guarded;
pub mod headers;
mod hold;
mod origin;
mod own;
pub mod refusal;
pub mod route;
mod sign_in;
pub(crate) mod upgrade;
mod waiting;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, Request, Response, header, request};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use tokio_util::sync::CancellationToken;

use crate::auth::Grant;
use crate::config::{Config, LoopbackClients, Route};
use crate::gateway::Gateway;
use crate::listen::Peer;
use crate::observe::Metrics;
use crate::protocol::rescue::Cause;
use crate::ws::handshake;
use account::{Account, Kind};
use forward::{Errand, Forwarder};
pub(crate) use gate::Gate;
use gate::{Caller, Entry};
use guarded::guarded;
use headers::{Presented, Refused};
use hold::Waits;
use refusal::Asker;
use route::Host;
use sign_in::Visit;

/// An error of any kind, kept for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Every response's body.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;

/// One config and the ways to the gateways it names. Replaced whole on reload.
pub struct Table {
    config: Arc<Config>,
    forwarders: Vec<Forwarder>,
    upgrades: Box<dyn Upgrades>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("forwarders", &self.forwarders)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// `forwarders`: one per route, in the config's order, as `upgrades` has its ways.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        forwarders: Vec<Forwarder>,
        upgrades: Box<dyn Upgrades>,
    ) -> Self {
        Self {
            config,
            forwarders,
            upgrades,
        }
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// In the order of the config's routes.
    pub(crate) fn forwarders(&self) -> &[Forwarder] {
        &self.forwarders
    }

    /// Who answers for this host (as in [`Host::name`]) and path: the route, its index in the config,
    /// and its forwarder.
    fn choose(&self, host: &str, path: &str) -> Option<(usize, &Route, &Forwarder)> {
        let routes = &self.config.routes;
        let index = route::choose(routes, host, path)?;
        Some((index, routes.get(index)?, self.forwarders.get(index)?))
    }
}

/// What is known of a WebSocket upgrade when it leaves this room.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose connection it is.
    pub peer: Arc<Peer>,
    /// As whom the client is presented; its address is the one that limits count.
    pub presented: Presented,
    /// Its right to be here, and as whom.
    pub grant: Arc<Grant>,
    /// What the gateway is told of who it is.
    pub told: Vec<(HeaderName, HeaderValue)>,
    /// What it asked for.
    pub host: Host,
    /// The route's index in the config.
    pub route: usize,
    /// The config at this moment.
    pub config: Arc<Config>,
    /// The route's gateway.
    pub gateway: Arc<Gateway>,
}

/// What an upgrade comes to: a 101 (200 for HTTP/2), the gateway's refusal, or ours.
pub type Upgraded<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>, Cause>> + Send + 'a>>;

/// Takes WebSocket upgrades: HTTP/1.1 `Upgrade: websocket` and HTTP/2 extended CONNECT.
pub trait Upgrades: Send + Sync {
    /// Handles one. The request is the client's, untouched.
    fn handle(&self, call: Call, request: Request<Incoming>) -> Upgraded<'_>;
}

/// The service behind every TLS connection. Share it in an `Arc`.
pub struct App {
    table: Arc<ArcSwap<Table>>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    waits: Waits,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Reads `table` anew for every request; `stop` ends all waits with an answer.
    #[must_use]
    pub(crate) fn new(
        table: Arc<ArcSwap<Table>>,
        gate: Arc<Gate>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            table,
            gate,
            metrics,
            waits: Waits::new(stop),
        }
    }

    /// The response to one request. Never fails: what goes wrong is an answer, too.
    pub async fn handle(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let mut account = Account::of(&request);
        let (head, body) = request.into_parts();
        let mut asker = Asker::of(&head);
        let request = Request::from_parts(head, body);
        let answered = self.answer(peer, request, &mut asker, &mut account).await;
        account.write(&answered);
        if let Some(outcome) = account.outcome(&answered, asker) {
            self.metrics.http_requests.inc(outcome);
        }
        answered.unwrap_or_else(|cause| refusal::render(&cause, asker))
    }

    async fn answer(
        &self,
        peer: Arc<Peer>,
        request: Request<Incoming>,
        asker: &mut Asker,
        account: &mut Account,
    ) -> Result<Response<Body>, Cause> {
        let (head, body) = request.into_parts();
        check(&head)?;
        let host =
            route::host_of(&head).map_err(|bad| Cause::BadRequest(bad.to_string().into()))?;
        let table = self.table.load_full();
        if own::is_ours(head.uri.path()) {
            account.is(Kind::Own);
            if sign_in::is_here(head.uri.path()) {
                let config = Arc::clone(table.config());
                let visit = Visit {
                    auth: &config.auth,
                    gate: &self.gate,
                    metrics: &self.metrics,
                    presented: present(&peer, &head, &config, LoopbackClients::Local)?,
                    host: &host,
                };
                let request = Request::from_parts(head, body);
                return Box::pin(visit.answer(request)).await;
            }
            return own::answer(&table, &host.name, &head);
        }
        let config = table.config();
        let chosen = table.choose(&host.name, head.uri.path());
        let (index, route, forwarder) = chosen.ok_or(Cause::NotFound)?;
        *asker = asker.of_gateway(route.upstream.protocol);
        let loopback = route.upstream.loopback_clients;
        let presented = present(&peer, &head, config, loopback)?;
        account.routed(route, presented);
        let request = Request::from_parts(head, body);
        let upgrades = wants_websocket(&request)?;
        let (mut head, body) = request.into_parts();
        if upgrades {
            account.is(Kind::Upgrade);
        }
        let caller = Caller {
            auth: &config.auth,
            peer: &peer,
            presented,
            host: &host,
            asker: *asker,
            upgrades,
            metrics: &self.metrics,
        };
        let (presented, mut welcome) = match self.gate.enter(&caller, &mut head).await? {
            Entry::Answered(response) => return Ok(response),
            Entry::Open => (presented, None),
            Entry::As(welcome) => (gate::presented_as(&config.auth, presented), Some(welcome)),
        };
        let entrant = welcome.as_mut().map(|welcome| welcome.entrant());
        let in_force = || Arc::clone(self.table.load().config());
        let grant = self
            .gate
            .grant(&config.auth, entrant, &self.metrics, in_force)
            .inspect_err(|_| {
                let because = "revoked while it came in";
                let desk = self.gate.desk();
                desk.note_refused(because, caller.presented.address);
            })?;
        let (told, cookies) = match &welcome {
            Some(welcome) => (welcome.told.as_slice(), welcome.cookies.as_slice()),
            None => Default::default(),
        };
        let request = Request::from_parts(head, body);
        if upgrades {
            grant.note_entry(caller.presented.address);
            let grant = Arc::new(grant);
            let config = Arc::clone(config);
            let gateway = Arc::clone(forwarder.gateway());
            let call = Call {
                peer,
                presented,
                grant,
                told: told.to_vec(),
                host,
                route: index,
                config,
                gateway,
            };
            let switched = table.upgrades.handle(call, request).await?;
            return Ok(with_cookies(switched, cookies));
        }
        let patience = match asker.navigates() {
            true => config.http.page_after.min(config.http.hold),
            false => config.http.hold,
        };
        let errand = Errand {
            presented: &presented,
            host: &host.value,
            told,
            patience,
        };
        let uri = request.uri().clone();
        let reroute = || {
            let table = self.table.load();
            let chosen = table.choose(&host.name, uri.path());
            chosen.map(|(_, _, forwarder)| forwarder.clone())
        };
        let forwarded = Box::pin(forwarder.forward(request, errand, &self.waits, reroute));
        let response = tokio::select! {
            biased;
            () = grant.ended() => return Err(Cause::SignedOut),
            response = forwarded => response?,
        };
        // What is no page may be kept by caches, and a cookie is nothing for these.
        let always = welcome.as_ref().is_some_and(|welcome| welcome.always);
        let response = match asker.navigates() || always {
            true => with_cookies(response, cookies),
            false => response,
        };
        Ok(match grant.identity() {
            Some(_) => response.map(|body| guarded(body, grant)),
            None => response,
        })
    }
}

/// One connection's way to the App, as the listeners want it.
#[derive(Debug, Clone)]
pub struct Doorway {
    app: Arc<App>,
    peer: Arc<Peer>,
}

impl Doorway {
    /// For requests of this peer.
    #[must_use]
    pub fn new(app: Arc<App>, peer: Arc<Peer>) -> Self {
        Self { app, peer }
    }
}

impl tower::Service<Request<Incoming>> for Doorway {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Self { app, peer } = self.clone();
        Box::pin(async move { Ok(app.handle(peer, request).await) })
    }
}

fn with_cookies(mut response: Response<Body>, cookies: &[HeaderValue]) -> Response<Body> {
    for cookie in cookies {
        response
            .headers_mut()
            .append(header::SET_COOKIE, cookie.clone());
    }
    response
}

/// As whom the peer is presented to a gateway.
fn present(
    peer: &Peer,
    head: &request::Parts,
    config: &Config,
    loopback: LoopbackClients,
) -> Result<Presented, Refused> {
    let remote = peer.remote.ip().to_canonical();
    // No connection from loopback arrives at another address: this one was told by the PROXY
    // header of another machine, and is loopback there.
    if remote.is_loopback() && !peer.local.ip().to_canonical().is_loopback() {
        return Err(Refused::ForwardedLoopback(remote));
    }
    let trusted = &config.listen.trusted_proxies;
    headers::present(
        remote,
        peer.via_trusted_proxy,
        &head.headers,
        trusted,
        loopback,
    )
}

/// What hyper lets through and a gateway must not see.
fn check(head: &request::Parts) -> Result<(), Cause> {
    let codings = head.headers.get_all(header::TRANSFER_ENCODING);
    // hyper takes any list that ends in "chunked"; what was before that would be lost with it.
    if codings
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.iter().nth(1).is_some()
    {
        return Err(Cause::BadRequest(
            "only Transfer-Encoding: chunked is read".into(),
        ));
    }
    Ok(())
}

/// Whether a request asks for a WebSocket, rightly or not.
fn wants_websocket(request: &Request<Incoming>) -> Result<bool, Cause> {
    let wants = handshake::wants_websocket(request);
    if !wants && request.extensions().get::<Protocol>().is_some() {
        return Err(Cause::BadRequest(
            "only WebSocket is spoken over CONNECT".into(),
        ));
    }
    Ok(wants)
}
