//! A whole running proxy: everything started in order, and stopped in order.
//!
//! Wires the rooms together; decides nothing that belongs to one of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Desk, DeskError};
use crate::config::{Config, ProtocolKind, Route, Upstream};
use crate::gateway::Gateway;
use crate::http::forward::Forwarder;
use crate::http::upgrade::Switchboard;
use crate::http::{App, Doorway, Gate, Table};
use crate::listen::{BindError, Edge, Listener, Listeners};
use crate::observe::{Admin, Command, Metrics, StatusSource};
use crate::protocol::rescue::millis;
use crate::reload::{Loader, ReloadError, Reloaded, Reloader};
use crate::session::{Line, Sessions};
use crate::tls::acme::AcmeKeeper;
use crate::tls::{Tls, TlsError};

/// Beyond the drain's time, for what is being written.
const LAST_WRITES: Duration = Duration::from_secs(6);

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A certificate or a TLS setting.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key of the sign-ins.
    #[error(transparent)]
    Auth(#[from] DeskError),
    /// An address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Start-up was cut off.
    #[error("start-up was interrupted")]
    Interrupted,
}

/// A running proxy. Dropping it ends everything at once.
#[derive(Debug)]
pub struct Holdline {
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    reloader: Arc<Reloader>,
    metrics: Arc<Metrics>,
    sessions: Arc<Sessions>,
    gateways: Vec<(String, Arc<Gateway>)>,
    started: Instant,
    edge: Edge,
    /// Certificates from a CA.
    keeper: AcmeKeeper,
    /// Sessions' tasks.
    session_tasks: TaskTracker,
    /// Everything that is of use until the very end.
    rest: TaskTracker,
    /// No new work; sessions end.
    stopping: CancellationToken,
    /// The drain is over.
    stopped: CancellationToken,
}

impl Holdline {
    /// Loads certificates, binds every address and serves. Nothing is bound if anything fails.
    ///
    /// # Errors
    /// What keeps it from serving, with what to do about it. An absent gateway does not.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, None).await
    }

    /// The same, with a way to read the config anew for [`Self::reload`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_from(config: Config, source: Loader) -> Result<Self, StartError> {
        Self::start_with(config, Some(source)).await
    }

    async fn start_with(config: Config, source: Option<Loader>) -> Result<Self, StartError> {
        let (tls_config, auth) = (config.tls.clone(), config.auth.clone());
        let prepare = move || Ok::<_, StartError>((Tls::new(&tls_config)?, Desk::open(&auth)?));
        let (tls, desk) = tokio::task::spawn_blocking(prepare)
            .await
            .map_err(|_| StartError::Interrupted)??;
        let keeper = AcmeKeeper::start(config.acme.clone(), &tls).await;
        let listeners = Listeners::bind(&config.listen)?;
        let admin = config.admin.listen.map(Listener::bind).transpose()?;
        let addresses =
            |bound: &[Listener]| bound.iter().map(Listener::address).collect::<Vec<_>>();
        let (https, http) = (addresses(&listeners.https), addresses(&listeners.http));
        let admin_address = admin.as_ref().map(Listener::address);
        let config = Arc::new(config);
        let gate = Arc::new(Gate::new(desk));
        let (shared, app) = assemble(&config, Arc::new(tls), keeper, gate, source);
        listeners.serve(&shared.edge, move |peer| {
            Doorway::new(Arc::clone(&app), peer)
        });
        if let Some(listener) = admin {
            serve_admin(&shared, listener);
        }
        let (reloader, stopped) = (Arc::clone(&shared.reloader), shared.stopped.clone());
        shared
            .rest
            .spawn(async move { stopped.run_until_cancelled(reloader.sweep()).await });
        tracing::info!(
            https = listed(&https),
            http = listed(&http),
            admin = listed(admin_address.as_slice()),
            routes = listed(&shared.config.routes.iter().map(told).collect::<Vec<_>>()),
            "running"
        );
        Ok(Self {
            https,
            http,
            admin: admin_address,
            shared,
        })
    }

    /// The TLS addresses, with the ports that were given out.
    #[must_use]
    pub fn https_addrs(&self) -> &[SocketAddr] {
        &self.https
    }

    /// The plain addresses.
    #[must_use]
    pub fn http_addrs(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The admin address.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The proxy's numbers.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Reads the config anew and takes of it what can be taken live, whole or not at all.
    ///
    /// # Errors
    /// Why not; then everything stays as it was.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.shared.reloader.reload().await
    }

    /// Stops accepting, ends held sessions, lets live ones finish within `limits.drain`, spreads
    /// the ends of the others over that time. Returns when all is done.
    pub async fn drain(&self) {
        self.shared.drain().await;
    }

    /// Resolves when a drain is over, whoever asked for it.
    pub async fn wait_for_shutdown(&self) {
        self.shared.stopped.cancelled().await;
    }
}

impl Drop for Holdline {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
        self.shared.edge.drain.cancel();
        self.shared.stopped.cancel();
    }
}

/// Builds what serves, without serving yet.
fn assemble(
    config: &Arc<Config>,
    tls: Arc<Tls>,
    keeper: AcmeKeeper,
    gate: Arc<Gate>,
    source: Option<Loader>,
) -> (Arc<Shared>, Arc<App>) {
    let metrics = Arc::new(Metrics::default());
    let sessions = Arc::new(Sessions::default());
    let (stopping, session_tasks) = (CancellationToken::new(), TaskTracker::new());
    let gateways = gateways(config, &metrics);
    let line = |(route, gateway): (&Route, &(String, Arc<Gateway>))| {
        Arc::new(Line {
            route: route.name.clone(),
            gateway: Arc::clone(&gateway.1),
            hold: config.hold.clone(),
            limits: config.limits.clone(),
            metrics: Arc::clone(&metrics),
            stopping: stopping.clone(),
            tasks: session_tasks.clone(),
        })
    };
    let lines = config.routes.iter().zip(&gateways).map(line).collect();
    let forwarders = gateways
        .iter()
        .map(|(_, gateway)| Forwarder::new(Arc::clone(gateway)));
    let table = Table::new(Arc::clone(config), forwarders.collect());
    let switchboard = Box::new(Switchboard::new(lines, Arc::clone(&sessions)));
    let table = Arc::new(ArcSwap::from_pointee(table));
    let app = Arc::new(App::new(
        Arc::clone(&table),
        switchboard,
        Arc::clone(&gate),
        Arc::clone(&metrics),
        stopping.clone(),
    ));
    let edge = Edge {
        config: Arc::new(ArcSwap::new(Arc::clone(config))),
        tls,
        metrics: Arc::clone(&metrics),
        drain: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let shared = Shared {
        config: Arc::clone(config),
        reloader: Arc::new(Reloader::new(table, gate, source)),
        metrics,
        sessions,
        gateways,
        started: Instant::now(),
        edge,
        keeper,
        session_tasks,
        rest: TaskTracker::new(),
        stopping,
        stopped: CancellationToken::new(),
    };
    (Arc::new(shared), app)
}

fn listed(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(", "),
    }
}

/// A route for the log.
fn told(route: &Route) -> String {
    let protocol = match route.upstream.protocol {
        ProtocolKind::Openclaw => "openclaw",
        ProtocolKind::Generic => "generic",
    };
    let gateway = route.upstream.authority();
    format!("{} to http://{gateway} ({protocol})", route.name)
}

/// One gateway per route; routes that name the same one share its state.
fn gateways(config: &Config, metrics: &Arc<Metrics>) -> Vec<(String, Arc<Gateway>)> {
    let mut known: Vec<(Upstream, Arc<Gateway>)> = Vec::new();
    let mut gateway = |upstream: &Upstream| match known.iter().find(|(same, _)| same == upstream) {
        Some((_, gateway)) => Arc::clone(gateway),
        None => {
            let gateway = Gateway::start(upstream.clone(), &config.hold, metrics);
            known.push((upstream.clone(), Arc::clone(&gateway)));
            gateway
        }
    };
    config
        .routes
        .iter()
        .map(|route| (route.name.clone(), gateway(&route.upstream)))
        .collect()
}

fn serve_admin(shared: &Arc<Shared>, listener: Listener) {
    let (commands, mut orders) = mpsc::channel(4);
    let admin = Admin {
        metrics: Arc::clone(&shared.metrics),
        tls: Arc::clone(&shared.edge.tls),
        status: Arc::clone(shared) as Arc<dyn StatusSource>,
        commands,
    };
    admin.serve(listener, &shared.stopped, &shared.rest);
    let (proxy, stopped) = (Arc::clone(shared), shared.stopped.clone());
    shared.rest.spawn(async move {
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                () = stopped.cancelled() => None,
            };
            match order {
                Some(Command::Drain) => {
                    let proxy = Arc::clone(&proxy);
                    tokio::spawn(async move { proxy.drain().await });
                }
                Some(Command::Reload(answer)) => {
                    let reloaded = proxy.reloader.reload().await;
                    let told = reloaded
                        .map(Reloaded::json)
                        .map_err(|error| error.to_string());
                    // Nobody may be waiting any more.
                    let _ = answer.send(told);
                }
                Some(Command::RenewCertificates(name, answer)) => {
                    let _ = answer.send(proxy.keeper.renew(name).await);
                }
                None => return,
            }
        }
    });
}

impl Shared {
    async fn drain(&self) {
        if !self.stopping.is_cancelled() {
            let sessions = self.sessions.count();
            let budget_ms = millis(self.config.limits.drain);
            tracing::info!(sessions, budget_ms, "draining");
        }
        self.stopping.cancel();
        self.edge.drain.cancel();
        self.edge.tasks.close();
        self.session_tasks.close();
        let ended = async {
            self.session_tasks.wait().await;
            self.edge.tasks.wait().await;
        };
        let limit = self.config.limits.drain + LAST_WRITES;
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!(
                sessions = self.sessions.count(),
                "drain over; what is left is cut off"
            );
        }
        self.stopped.cancel();
    }
}

impl StatusSource for Shared {
    fn status(&self) -> Value {
        let now = Instant::now();
        let gateways: Vec<Value> = self
            .gateways
            .iter()
            .map(|(route, gateway)| {
                let view = gateway.view();
                json!({
                    "route": route,
                    "gateway": gateway.upstream().authority(),
                    "state": view.phase.as_str(),
                    "sinceMs": millis(now.saturating_duration_since(view.since)),
                    "reason": view.reason.map(|reason| reason.as_str()),
                    "hint": view.hint(),
                    "attempt": view.attempt,
                    "expectedMs": view.expected.map(millis),
                    "crashLoop": view.crash_loop.map(|crash| json!({
                        "outages": crash.outages,
                        "sinceMs": millis(now.saturating_duration_since(crash.since)),
                    })),
                })
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptimeMs": millis(now.saturating_duration_since(self.started)),
            "draining": self.stopping.is_cancelled(),
            "gateways": gateways,
            "certificates": self.keeper.status(),
            "sessions": {"open": self.sessions.count(), "keptBytes": self.sessions.kept()},
        })
    }

    fn measure(&self, metrics: &Metrics) {
        let kept = i64::try_from(self.sessions.kept()).unwrap_or(i64::MAX);
        metrics.buffered_bytes.set(kept);
    }

    fn numbers(&self, out: &mut String) {
        self.keeper.numbers(out);
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("draining".to_owned());
        }
        self.keeper.awaited().map_or(Ok(()), Err)
    }
}
