//! A whole running proxy: everything started in order, and stopped in order.
//!
//! Wires the rooms together; decides nothing that belongs to one of them.

mod succession;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Desk, DeskError};
use crate::config::{CertificateSource, Config, Loaded, ProtocolKind, Route, Started};
use crate::handover::{Arrival, ArrivalError, Binary, UpgradeError, Upgraded};
use crate::http::{App, Doorway, Gate};
use crate::listen::{BindError, Doors, Edge, Inherited};
use crate::observe::{Admin, AdminDoor, Command, Metrics};
use crate::protocol::rescue::millis;
use crate::reload::{
    By, InForce, LastReload, ReloadError, Reloaded, Reloader, Source, Swapped, Written, first_table,
};
use crate::session::{House, Sessions};
use crate::status::Status;
use crate::systemd::{Notifier, Watchdog};
use crate::tls::acme::AcmeKeeper;
use crate::tls::{Tls, TlsError};
pub(crate) use succession::Succession;

/// Beyond the drain's time, for what is being written.
const LAST_WRITES: Duration = Duration::from_secs(6);
/// For the disk with the certificates in a handover, whose limit is ten seconds more.
const FIRST_LOOK: Duration = Duration::from_secs(20);

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A certificate or a TLS setting.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What the process before this one serves cannot be read here.
    #[error("{reason}; until then the running process goes on")]
    Certificates {
        /// With what to do.
        reason: String,
    },
    /// The key of the sign-ins.
    #[error(transparent)]
    Auth(#[from] DeskError),
    /// An address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The process whose place this one was to take keeps it.
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
    /// Start-up was cut off.
    #[error("start-up was interrupted")]
    Interrupted,
}

/// What a process gives its proxy beside the config. By default nothing: then there are no reloads
/// and no upgrades, and nobody is told anything.
#[derive(Default)]
pub struct Surroundings {
    /// Reads the config anew, for [`Holdline::reload`].
    pub source: Option<Source>,
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

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
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
    succession: Arc<Succession>,
    /// Sessions' tasks.
    session_tasks: TaskTracker,
    /// The admin listener and its connections.
    admin_tasks: TaskTracker,
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
        Box::pin(Self::start_with(
            config,
            Written::default(),
            Surroundings::default(),
        ))
        .await
    }

    /// The same, with a way to read the config anew for [`Self::reload`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_from(loaded: Loaded, source: Source) -> Result<Self, StartError> {
        let surroundings = Surroundings {
            source: Some(source),
            ..Surroundings::default()
        };
        Self::start_in(loaded, surroundings).await
    }

    /// The same as part of a process, perhaps in the place of a running one.
    ///
    /// # Errors
    /// As [`Self::start`], and when the running one keeps its place.
    pub async fn start_in(loaded: Loaded, around: Surroundings) -> Result<Self, StartError> {
        let (written, config) = Written::of(loaded);
        // Large, and gone once it runs.
        Box::pin(Self::start_with(config, written, around)).await
    }

    async fn start_with(
        config: Config,
        written: Written,
        around: Surroundings,
    ) -> Result<Self, StartError> {
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
        let keeper = AcmeKeeper::start(config.acme.clone(), &tls).await;
        let keeper = Arc::new(keeper);
        if arrival.is_some() {
            // The process before this one has them in memory.
            let looked = keeper.looked(FIRST_LOOK).await;
            looked.map_err(|reason| StartError::Certificates { reason })?;
        }
        let tls = (Arc::new(tls), Arc::clone(&keeper));
        let succession = Succession::new(binary, arrival.as_ref(), notifier);
        let started = written.started.clone();
        let reloader = move |in_force, last| Reloader::new(in_force, source, written, last);
        let around = (succession, started);
        let shared = assemble(config, tls, Gate::new(desk), around, reloader);
        let bound = shared.in_force.bind(&mut inherited)?;
        if let Some(arrival) = &arrival {
            arrival.prepared().await?;
        }
        inherited.close_rest();
        shared.in_force.open(bound);
        // Now CAs find us where they come to look.
        keeper.begin();
        if let Some(arrival) = &arrival {
            shared.tell_apart(arrival);
        }
        if let Some(Err(error)) = arrival.map(|arrival| arrival.serving()) {
            tracing::warn!(%error, "the process before this one is gone already");
        }
        shared.keep_up();
        let config = shared.in_force.config();
        if matches!(config.tls.certificate, CertificateSource::Dev { .. }) {
            for address in shared.in_force.doors().wider_than_configured() {
                tracing::warn!(
                    %address,
                    "reachable from other machines, where nobody trusts the development certificate: \
                     a socket that was passed to us stands in for one of listen.https; set [tls] \
                     certificate = \"acme\" and [acme] domains, or \"files\" and name a certificate"
                );
            }
        }
        tracing::info!(
            https = listed(&shared.in_force.doors().https()),
            http = listed(&shared.in_force.doors().http()),
            admin = listed(shared.in_force.admin().as_slice()),
            routes = listed(&config.routes.iter().map(told).collect::<Vec<_>>()),
            "running"
        );
        shared.announce(watchdog);
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
        self.shared.reload(By::Command).await
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
        self.shared.edge.leave.cancel();
        self.shared.edge.drain.cancel();
        self.shared.stopped.cancel();
    }
}

/// Builds what serves, without serving yet.
fn assemble(
    config: Config,
    (tls, keeper): (Arc<Tls>, Arc<AcmeKeeper>),
    gate: Gate,
    (succession, started_with): (Succession, Option<Started>),
    reloader: impl FnOnce(Arc<InForce>, Arc<LastReload>) -> Reloader,
) -> Arc<Shared> {
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
    let drain = CancellationToken::new();
    let edge = Edge {
        config: Arc::new(ArcSwap::new(Arc::clone(&config))),
        tls: Arc::clone(&tls),
        metrics: Arc::clone(&metrics),
        leave: drain.child_token(),
        drain,
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
    let (succession, admin_tasks) = (Arc::new(succession), TaskTracker::new());
    let status = Status {
        lines: Arc::clone(&lines),
        config: Arc::clone(&edge.config),
        tls: Arc::clone(&tls),
        keeper: Arc::clone(&keeper),
        metrics: Arc::clone(&metrics),
        draining_since: Arc::clone(&draining_since),
        succession: Arc::clone(&succession),
        sessions: Arc::clone(&sessions),
        last_reload: Arc::clone(&outcome),
        started: Instant::now(),
        started_with,
        stopping: stopping.clone(),
    };
    let admin = Admin {
        metrics: Arc::clone(&metrics),
        tls,
        status: Arc::new(status),
        commands,
    };
    let leave = succession.handed_over.clone();
    let admin = AdminDoor::new(admin, leave, stopped.clone(), admin_tasks.clone());
    let swapped = Swapped {
        table,
        lines,
        sessions: Arc::clone(&sessions),
        gate,
        keeper: Arc::clone(&keeper),
        edge: edge.clone(),
    };
    let in_force = Arc::new(InForce::new(swapped, doors, admin));
    let reloader = Arc::new(reloader(Arc::clone(&in_force), outcome));
    let shared = Arc::new(Shared {
        in_force,
        reloader,
        metrics,
        sessions,
        edge,
        keeper,
        succession,
        session_tasks,
        admin_tasks,
        rest,
        stopping,
        draining_since,
        stopped,
    });
    shared.take_orders(orders);
    shared
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
                    Some(Command::Upgrade(answer)) => {
                        let proxy = Arc::clone(&proxy);
                        tokio::spawn(async move {
                            let upgraded = proxy.upgrade().await;
                            let told = upgraded.map(|upgraded| upgraded.json());
                            let told = told.map_err(|error| json!({"error": error.to_string()}));
                            let _ = answer.send(told);
                        });
                    }
                    Some(Command::Reload(answer)) => {
                        let proxy = Arc::clone(&proxy);
                        tokio::spawn(async move {
                            let reloaded = proxy.reload(By::Command).await;
                            let told = reloaded.map(|done| done.json());
                            // Nobody may be waiting any more.
                            let _ = answer.send(told.map_err(|error| error.json()));
                        });
                    }
                    Some(Command::RenewCertificates(name, answer)) => {
                        // A disk that hangs holds up no other order.
                        let keeper = Arc::clone(&proxy.keeper);
                        tokio::spawn(async move {
                            let told = keeper.renew(name).await;
                            let _ = answer.send(told.map(|all| json!(all)));
                        });
                    }
                    None => return,
                }
            }
        });
    }

    /// Sweeps, and takes a config whose files have changed, until the end.
    fn keep_up(self: &Arc<Self>) {
        let (sweeping, watching) = (Arc::clone(&self.reloader), Arc::clone(self));
        let stopped = self.stopped.clone();
        self.rest.spawn(async move {
            let files = async {
                loop {
                    watching.reloader.files_changed().await;
                    // Its outcome is in the log and in the status.
                    while let Err(ReloadError::Unsettled) =
                        Box::pin(watching.reload(By::File)).await
                    {
                        watching.reloader.files_changed_or_settled().await;
                    }
                }
            };
            let both = async { tokio::join!(sweeping.sweep(), files) };
            stopped.run_until_cancelled(both).await;
        });
    }

    async fn drain(&self) {
        let budget = self.in_force.config().limits.drain;
        let begins = !self.stopping.is_cancelled();
        if begins {
            let sessions = self.sessions.count();
            tracing::info!(sessions, budget_ms = millis(budget), "draining");
        }
        let _ = self.draining_since.set(Instant::now());
        self.stopping.cancel();
        if begins {
            self.tell_stopping();
        }
        self.edge.leave.cancel();
        self.edge.drain.cancel();
        self.edge.tasks.close();
        self.session_tasks.close();
        let ended = async {
            self.session_tasks.wait().await;
            self.edge.tasks.wait().await;
        };
        let sessions = async {
            let limit = budget + LAST_WRITES;
            if tokio::time::timeout(limit, ended).await.is_err() {
                tracing::warn!(
                    sessions = self.sessions.count(),
                    "drain over; what is left is cut off"
                );
            }
        };
        // No CA finds us any more.
        tokio::join!(sessions, self.keeper.stop(budget));
        self.stopped.cancel();
    }
}
