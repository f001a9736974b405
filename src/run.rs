//! A whole running proxy: everything started in order, and stopped in order.
//!
//! Wires the rooms together; decides nothing that belongs to one of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Desk, DeskError};
use crate::config::{Config, Loaded, ProtocolKind, Route, Settings};
use crate::http::{App, Doorway, Gate};
use crate::listen::{BindError, Doors, Edge};
use crate::observe::{Admin, AdminDoor, Command, Metrics};
use crate::protocol::rescue::millis;
use crate::reload::{
    InForce, LastReload, ReloadError, Reloaded, Reloader, Source, Swapped, first_table,
};
use crate::session::{House, Sessions};
use crate::status::Status;
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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    in_force: Arc<InForce>,
    reloader: Arc<Reloader>,
    metrics: Arc<Metrics>,
    sessions: Arc<Sessions>,
    edge: Edge,
    /// Certificates from a CA.
    keeper: Arc<AcmeKeeper>,
    /// Sessions' tasks.
    session_tasks: TaskTracker,
    /// Everything that is of use until the very end.
    rest: TaskTracker,
    /// No new work; sessions end.
    stopping: CancellationToken,
    /// When it was told to stop.
    draining_since: Arc<OnceLock<Instant>>,
    /// The drain is over.
    stopped: CancellationToken,
}

impl Holdline {
    /// Loads certificates, binds every address and serves. Nothing is bound if anything fails.
    ///
    /// # Errors
    /// What keeps it from serving, with what to do about it. An absent gateway does not.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Settings::default(), Vec::new(), None).await
    }

    /// The same, with a way to read the config anew for [`Self::reload`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_from(loaded: Loaded, source: Source) -> Result<Self, StartError> {
        let Loaded {
            config,
            settings,
            files,
            ..
        } = loaded;
        Self::start_with(config, settings, files, Some(source)).await
    }

    async fn start_with(
        config: Config,
        settings: Settings,
        files: Vec<PathBuf>,
        source: Option<Source>,
    ) -> Result<Self, StartError> {
        let (tls_config, auth) = (config.tls.clone(), config.auth.clone());
        let prepare = move || Ok::<_, StartError>((Tls::new(&tls_config)?, Desk::open(&auth)?));
        let (tls, desk) = tokio::task::spawn_blocking(prepare)
            .await
            .map_err(|_| StartError::Interrupted)??;
        let keeper = Arc::new(AcmeKeeper::start(config.acme.clone(), &tls).await);
        let reloader = move |in_force, last| Reloader::new(in_force, source, settings, files, last);
        let shared = assemble(config, (Arc::new(tls), keeper), Gate::new(desk), reloader)?;
        let config = shared.in_force.config();
        tracing::info!(
            https = listed(&shared.in_force.doors().https()),
            http = listed(&shared.in_force.doors().http()),
            admin = listed(shared.in_force.admin().as_slice()),
            routes = listed(&config.routes.iter().map(told).collect::<Vec<_>>()),
            "running"
        );
        Ok(Self { shared })
    }

    /// The TLS addresses, with the ports that were given out.
    #[must_use]
    pub fn https_addrs(&self) -> Vec<SocketAddr> {
        self.shared.in_force.doors().https()
    }

    /// The plain addresses.
    #[must_use]
    pub fn http_addrs(&self) -> Vec<SocketAddr> {
        self.shared.in_force.doors().http()
    }

    /// The admin address.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.shared.in_force.admin()
    }

    /// The proxy's numbers.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Reads the config anew and takes it, whole or not at all. Nothing that is open is closed.
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

/// Builds everything, binds the addresses and serves.
fn assemble(
    config: Config,
    (tls, keeper): (Arc<Tls>, Arc<AcmeKeeper>),
    gate: Gate,
    reloader: impl FnOnce(Arc<InForce>, Arc<LastReload>) -> Reloader,
) -> Result<Arc<Shared>, StartError> {
    let (config, gate) = (Arc::new(config), Arc::new(gate));
    let metrics = Arc::new(Metrics::default());
    let sessions = Arc::new(Sessions::default());
    let (stopping, stopped) = (CancellationToken::new(), CancellationToken::new());
    let (session_tasks, rest) = (TaskTracker::new(), TaskTracker::new());
    let house = House {
        metrics: Arc::clone(&metrics),
        stopping: stopping.clone(),
        tasks: session_tasks.clone(),
    };
    let edge = Edge {
        config: Arc::new(ArcSwap::new(Arc::clone(&config))),
        tls: Arc::clone(&tls),
        metrics: Arc::clone(&metrics),
        drain: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let (table, lines) = first_table(&config, house, &sessions);
    let app = Arc::new(App::new(
        Arc::clone(&table),
        Arc::clone(&gate),
        Arc::clone(&metrics),
        stopping.clone(),
    ));
    let doors = Doors::serving(&edge, move |peer| Doorway::new(Arc::clone(&app), peer));
    let outcome = Arc::new(LastReload::default());
    let (commands, orders) = mpsc::channel(4);
    let draining_since = Arc::<OnceLock<Instant>>::default();
    let status = Status {
        lines: Arc::clone(&lines),
        config: Arc::clone(&edge.config),
        tls: Arc::clone(&tls),
        keeper: Arc::clone(&keeper),
        metrics: Arc::clone(&metrics),
        draining_since: Arc::clone(&draining_since),
        sessions: Arc::clone(&sessions),
        last_reload: Arc::clone(&outcome),
        started: Instant::now(),
        stopping: stopping.clone(),
    };
    let admin = Admin {
        metrics: Arc::clone(&metrics),
        tls,
        status: Arc::new(status),
        commands,
    };
    let admin = AdminDoor::new(admin, stopped.clone(), rest.clone());
    let swapped = Swapped {
        table,
        lines,
        sessions: Arc::clone(&sessions),
        gate,
        keeper: Arc::clone(&keeper),
        edge: edge.clone(),
    };
    let in_force = Arc::new(InForce::open(swapped, doors, admin)?);
    let reloader = Arc::new(reloader(Arc::clone(&in_force), outcome));
    let watching = Arc::clone(&reloader);
    let until = stopped.clone();
    rest.spawn(async move { until.run_until_cancelled(watching.run()).await });
    let shared = Arc::new(Shared {
        in_force,
        reloader,
        metrics,
        sessions,
        edge,
        keeper,
        session_tasks,
        rest,
        stopping,
        draining_since,
        stopped,
    });
    shared.take_orders(orders);
    Ok(shared)
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
impl Shared {
    /// Carries out what an operator wants, until the end.
    fn take_orders(self: &Arc<Self>, mut orders: mpsc::Receiver<Command>) {
        let (proxy, stopped) = (Arc::clone(self), self.stopped.clone());
        self.rest.spawn(async move {
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
                        let told = reloaded.map(|done| done.json());
                        // Nobody may be waiting any more.
                        let _ = answer.send(told.map_err(|error| error.json()));
                    }
                    Some(Command::RenewCertificates(name, answer)) => {
                        let _ = answer.send(proxy.keeper.renew(name).await);
                    }
                    None => return,
                }
            }
        });
    }

    async fn drain(&self) {
        let budget = self.in_force.config().limits.drain;
        if !self.stopping.is_cancelled() {
            let sessions = self.sessions.count();
            tracing::info!(sessions, budget_ms = millis(budget), "draining");
        }
        let _ = self.draining_since.set(Instant::now());
        self.stopping.cancel();
        self.edge.drain.cancel();
        self.edge.tasks.close();
        self.session_tasks.close();
        let ended = async {
            self.session_tasks.wait().await;
            self.edge.tasks.wait().await;
        };
        if tokio::time::timeout(budget + LAST_WRITES, ended)
            .await
            .is_err()
        {
            tracing::warn!(
                sessions = self.sessions.count(),
                "drain over; what is left is cut off"
            );
        }
        self.stopped.cancel();
    }
}
