//! The one owner of a gateway's state: the prober, dialling, the paced return.
//!
//! Sessions and requests subscribe to the state, report what they see, and dial through here.
//! Nothing in this room knows about clients or frames.

mod admission;
mod dial;
mod flush;
mod machine;
mod news;
mod pace;
mod probe;
mod resolve;
mod state;
mod tally;
mod upgrade;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

pub use admission::{HandshakeGate, HandshakePermit};
pub use dial::{DialError, reason_of};
pub use flush::{FlushGate, Places};
pub use machine::{Evidence, Machine, Observation, ProbePace};
pub use pace::{Pacer, Turn};
pub use state::{CrashLoop, Phase, Reason, View};
pub use upgrade::{UpgradeError, UpstreamSocket, hyper_reason, upgrade};

use crate::config::{Hold, Upstream};
use crate::observe::Metrics;
use crate::supervise::supervise;
pub(crate) use dial::Dialler;
use news::Stranger;
use probe::Probed;
use tally::Tally;

/// One gateway: its state, and the ways to it. Lives in an `Arc`; its tasks end with it.
#[derive(Debug)]
pub struct Gateway {
    core: Arc<Core>,
    /// Replays and held upgrades take a turn here before they dial.
    pub returns: Pacer,
    /// Closes that send clients back to us take a turn here, so as not to slow the dials.
    pub farewells: Pacer,
    /// Unfinished handshakes.
    pub handshakes: HandshakeGate,
    /// Requests that were kept for it and that it has not answered yet.
    pub flushes: FlushGate,
    _tasks: [AbortOnDropHandle<()>; 3],
}

/// What the prober shares with the handle.
#[derive(Debug)]
struct Core {
    /// Its address and protocol stay; how it is asked may change.
    upstream: ArcSwap<Upstream>,
    dialler: Dialler,
    watched: Mutex<Watched>,
    metrics: Arc<Metrics>,
    published: watch::Sender<View>,
    look_again: Notify,
}

/// What moves with every event.
#[derive(Debug)]
struct Watched {
    machine: Machine,
    tally: Tally,
}

impl Gateway {
    /// Starts to watch a gateway. Needs a tokio runtime.
    #[must_use]
    pub fn start(upstream: Upstream, hold: &Hold, metrics: &Arc<Metrics>) -> Arc<Self> {
        let core = Core::new(upstream, metrics);
        let (returns, farewells) = (Pacer::new(hold.resume_rate), Pacer::new(hold.resume_rate));
        let tasks = [
            core.spawn_prober(),
            returns.spawn("the pacer of returns"),
            farewells.spawn("the pacer of farewells"),
        ];
        Arc::new(Self {
            core,
            returns,
            farewells,
            handshakes: HandshakeGate::new(hold.unfinished_handshakes, hold.unfinished_per_ip),
            flushes: FlushGate::default(),
            _tasks: tasks,
        })
    }

    /// Where it is and what it speaks.
    #[must_use]
    pub fn upstream(&self) -> Arc<Upstream> {
        self.core.upstream.load_full()
    }

    /// Whether `upstream` is this gateway, however it is to be asked.
    #[must_use]
    pub fn is(&self, upstream: &Upstream) -> bool {
        let ours = self.core.upstream.load();
        (&ours.host, ours.port, ours.protocol) == (&upstream.host, upstream.port, upstream.protocol)
    }

    /// Goes on under other terms: how it is asked, how fast sessions return. What it is known to
    /// be stays known. `upstream` must be the same gateway ([`Self::is`]).
    pub fn retune(&self, upstream: Upstream, hold: &Hold) {
        self.returns.set_rate(hold.resume_rate);
        self.farewells.set_rate(hold.resume_rate);
        self.handshakes
            .set_limits(hold.unfinished_handshakes, hold.unfinished_per_ip);
        if **self.core.upstream.load() != upstream {
            self.core.upstream.store(Arc::new(upstream));
            // It may have to be asked in another way, or sooner.
            self.core.look_again.notify_one();
        }
    }

    /// Makes everybody who watches the state look again, though it is the same.
    pub fn nudge(&self) {
        self.core.published.send_modify(|_| {});
    }

    /// The state now.
    #[must_use]
    pub fn view(&self) -> View {
        *self.core.published.borrow()
    }

    /// The state from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<View> {
        self.core.published.subscribe()
    }

    /// Takes what a session or request saw; the state moves before this returns, and a probe
    /// follows at once.
    pub fn report(&self, evidence: Evidence) {
        if self
            .core
            .change(|watched, now| watched.machine.note(evidence, now))
        {
            self.core.look_again.notify_one();
        }
    }

    /// Connects, within `connect_timeout`.
    ///
    /// # Errors
    /// See [`DialError`]; nothing was sent.
    pub async fn dial(&self) -> Result<TcpStream, DialError> {
        let limit = self.core.upstream.load().connect_timeout;
        let dialled = self.core.dialler.dial(limit).await;
        tally::dialled(&self.core.metrics, &dialled);
        dialled
    }

    /// Waits until the state is as wanted.
    pub async fn wait_for(&self, wanted: impl FnMut(&View) -> bool) -> View {
        let mut state = self.subscribe();
        // Copied out at once: the guard is not `Send`.
        let seen = state.wait_for(wanted).await.map(|view| *view).ok();
        match seen {
            Some(view) => view,
            // The sender lives in `self`.
            None => std::future::pending().await,
        }
    }
}

impl Core {
    fn new(upstream: Upstream, metrics: &Arc<Metrics>) -> Arc<Self> {
        let machine = Machine::new(Instant::now());
        let (published, _) = watch::channel(machine.view());
        let tally = Tally::new(Arc::clone(metrics), machine.view().phase);
        Arc::new(Self {
            dialler: Dialler::new(&upstream),
            upstream: ArcSwap::from_pointee(upstream),
            watched: Mutex::new(Watched { machine, tally }),
            metrics: Arc::clone(metrics),
            published,
            look_again: Notify::new(),
        })
    }

    fn spawn_prober(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let core = Arc::clone(self);
        supervise("the prober", move || Arc::clone(&core).watch())
    }

    /// Steps the machine and publishes; whether anything changed.
    fn change(&self, step: impl FnOnce(&mut Watched, Instant)) -> bool {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let before = watched.machine.view();
        step(&mut watched, Instant::now());
        let after = watched.machine.view();
        watched.tally.moved(&after);
        // Published under the lock, so that the order of changes is the order of news.
        let changed = self.published.send_if_modified(|view| {
            let changed = *view != after;
            *view = after;
            changed
        });
        drop(watched);
        news::changed(&self.upstream.load(), &before, &after);
        changed
    }

    /// Probes once. A probe that began before the newest evidence says nothing about now: `None`.
    async fn probe(&self) -> Option<Probed> {
        let (accepted, upstream) = (Notify::new(), self.upstream.load_full());
        let probe = probe::probe(&upstream, &self.dialler, &accepted);
        tokio::pin!(probe);
        loop {
            tokio::select! {
                biased;
                () = self.look_again.notified() => return None,
                () = accepted.notified() => {
                    self.change(|watched, now| watched.machine.accepted(now));
                }
                probed = &mut probe => {
                    self.change(|watched, now| {
                        watched.tally.probed(probed.seen);
                        watched.machine.observe(probed.seen, now);
                    });
                    return Some(probed);
                }
            }
        }
    }

    /// Probes for ever, as often as the state asks for.
    async fn watch(self: Arc<Self>) {
        let mut stranger = Stranger::default();
        loop {
            let Some(probed) = self.probe().await else {
                continue;
            };
            let view = *self.published.borrow();
            let upstream = self.upstream.load_full();
            if stranger.answered(probed.strangely, &view, Instant::now()) {
                Stranger::say(&upstream);
            }
            let pace = ProbePace {
                not_ready: upstream.probe_interval,
                ready: upstream.probe_interval_ready,
            };
            let wait = {
                let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
                watched.machine.next_probe(Instant::now(), pace)
            };
            let _ = tokio::time::timeout(wait, self.look_again.notified()).await;
        }
    }
}
