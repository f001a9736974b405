//! A whole running proxy: everything started in order, and stopped in order.
//!
//! Wires the rooms together; decides nothing that belongs to one of them.

mod succession;

use std::fmt;
use std::io;
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
use crate::handover::{Arrival, ArrivalError, Binary, UpgradeError, Upgraded};
use crate::http::forward::Forwarder;
use crate::http::upgrade::Switchboard;
use crate::http::{App, Doorway, Gate, Table};
use crate::listen::{BindError, Edge, Inherited, Listener, Listeners};
use crate::observe::{Admin, Command, Metrics, StatusSource};
use crate::protocol::rescue::millis;
use crate::reload::{Loader, ReloadError, Reloaded, Reloader};
use crate::session::{Line, Sessions};
use crate::systemd::{Notifier, Watchdog};
use crate::tls::{Tls, TlsError};
use succession::Succession;

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
    /// The process whose place this one was to take keeps it.
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
    /// A listening socket's descriptor.
    #[error("the listening sockets cannot be shared: {0}")]
    Share(io::Error),
    /// Start-up was cut off.
    #[error("start-up was interrupted")]
    Interrupted,
}

/// What a process gives its proxy beside the config. By default nothing: then there are no reloads
/// and no upgrades, and nobody is told anything.
#[derive(Default)]
pub struct Surroundings {
    /// Reads the config anew, for [`Holdline::reload`].
    pub source: Option<Loader>,
    /// Sockets that are listening already; those that the config does not want are closed.
    pub inherited: Inherited,
    /// The running proxy whose place this one takes.
    pub arrival: Option<Arrival>,
    /// What [`Holdline::upgrade`] starts.
    pub binary: Option<Binary>,
    /// The service manager.
    pub notifier: Notifier,
    /// Its watchdog.
    pub watchdog: Option<Watchdog>,
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
    succession: Succession,
    /// Sessions' tasks.
    session_tasks: TaskTracker,
    /// The admin listener and its connections.
    admin_tasks: TaskTracker,
    /// Everything that is of use until the very end.
    rest: TaskTracker,
    /// No new work; sessions end.
    stopping: CancellationToken,
    /// The drain is over.
    stopped: CancellationToken,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

impl Holdline {
    /// Loads certificates, binds every address and serves. Nothing is bound if anything fails.
    ///
    /// # Errors
    /// What keeps it from serving, with what to do about it. An absent gateway does not.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_in(config, Surroundings::default()).await
    }

    /// The same, with a way to read the config anew for [`Self::reload`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_from(config: Config, source: Loader) -> Result<Self, StartError> {
        let source = Some(source);
        let surroundings = Surroundings {
            source,
            ..Surroundings::default()
        };
        Self::start_in(config, surroundings).await
    }

    /// The same as part of a process, perhaps in the place of a running one.
    ///
    /// # Errors
    /// As [`Self::start`], and when the running one keeps its place.
    pub async fn start_in(config: Config, around: Surroundings) -> Result<Self, StartError> {
        let Surroundings {
            source,
            mut inherited,
            arrival,
            binary,
            notifier,
            watchdog,
        } = around;
        let (tls_config, auth) = (config.tls.clone(), config.auth.clone());
        let prepare = move || Ok::<_, StartError>((Tls::new(&tls_config)?, Desk::open(&auth)?));
        let (tls, desk) = tokio::task::spawn_blocking(prepare)
            .await
            .map_err(|_| StartError::Interrupted)??;
        let listeners = Listeners::bind(&config.listen, &mut inherited)?;
        let admin = config.admin.listen;
        let admin = admin
            .map(|address| Listener::bind_admin(address, &mut inherited))
            .transpose()?;
        let shares = succession::shares(&listeners, admin.as_ref()).map_err(StartError::Share)?;
        let addresses =
            |bound: &[Listener]| bound.iter().map(Listener::address).collect::<Vec<_>>();
        let (https, http) = (addresses(&listeners.https), addresses(&listeners.http));
        let admin_address = admin.as_ref().map(Listener::address);
        let config = Arc::new(config);
        let gate = Arc::new(Gate::new(desk));
        let succession = Succession::new(binary, arrival.as_ref(), notifier, shares);
        let (shared, app) = assemble(&config, Arc::new(tls), gate, source, succession);
        if let Some(arrival) = &arrival {
            arrival.prepared().await?;
        }
        inherited.close_rest();
        listeners.serve(&shared.edge, move |peer| {
            Doorway::new(Arc::clone(&app), peer)
        });
        if let Some(listener) = admin {
            serve_admin(&shared, listener);
        }
        if let Some(Err(error)) = arrival.map(|arrival| arrival.serving()) {
            tracing::warn!(%error, "the process before this one is gone already");
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
        shared.announce(watchdog);
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
        self.shared.reload().await
    }

    /// Starts the program that is there now and hands it the listening sockets. Returns when it
    /// serves; from then on nothing is accepted here. Sessions stay until they end or
    /// `limits.handover` is over; then [`Self::wait_for_shutdown`] resolves.
    ///
    /// # Errors
    /// Why not; then everything stays as it was.
    pub async fn upgrade(&self) -> Result<Upgraded, UpgradeError> {
        self.shared.upgrade().await
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
        self.shared.leave();
        self.shared.edge.drain.cancel();
        self.shared.stopped.cancel();
    }
}

/// Builds what serves, without serving yet.
fn assemble(
    config: &Arc<Config>,
    tls: Arc<Tls>,
    gate: Arc<Gate>,
    source: Option<Loader>,
    succession: Succession,
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
    let drain = CancellationToken::new();
    let edge = Edge {
        config: Arc::new(ArcSwap::new(Arc::clone(config))),
        tls,
        metrics: Arc::clone(&metrics),
        leave: drain.child_token(),
        drain,
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
        succession,
        session_tasks,
        admin_tasks: TaskTracker::new(),
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
    admin.serve(
        listener,
        &shared.succession.handed_over,
        &shared.stopped,
        &shared.admin_tasks,
    );
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
                    let reloaded = proxy.reload().await;
                    let told = reloaded
                        .map(Reloaded::json)
                        .map_err(|error| error.to_string());
                    // Nobody may be waiting any more.
                    let _ = answer.send(told);
                }
                Some(Command::Upgrade(answer)) => {
                    let proxy = Arc::clone(&proxy);
                    tokio::spawn(async move {
                        let upgraded = proxy.upgrade().await;
                        let told = upgraded
                            .map(|upgraded| upgraded.json())
                            .map_err(|error| error.to_string());
                        let _ = answer.send(told);
                    });
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
        self.leave();
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
            "process": self.succession.json(),
            "gateways": gateways,
            "sessions": {"open": self.sessions.count(), "keptBytes": self.sessions.kept()},
        })
    }

    fn measure(&self, metrics: &Metrics) {
        let kept = i64::try_from(self.sessions.kept()).unwrap_or(i64::MAX);
        metrics.buffered_bytes.set(kept);
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            Err("draining".to_owned())
        } else {
            Ok(())
        }
    }
}
