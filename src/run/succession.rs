//! This process among those before and after it, and what their manager is told: an upgrade from
//! the old process's side, and what becomes of its sessions.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, kill_process};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::handover::{Arrival, Binary, Process, Successor, UpgradeError, Upgraded, Upgrades};
use crate::observe::log::Beside;
use crate::protocol::rescue::millis;
use crate::reload::{By, ReloadError, Reloaded};
use crate::systemd::{Notifier, Watchdog};

/// Between two lines of the log about what has stayed behind after an upgrade.
const PROGRESS: Duration = Duration::from_secs(60);
/// For answers on the admin listener.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Between two words to the service manager about how it goes.
const STATUS: Duration = Duration::from_secs(5);
/// While a stop goes on, the manager is asked to wait this long for the next word.
const WORD: Duration = Duration::from_secs(20);

/// For a reload that is being carried out when an upgrade is asked for.
const LAST_RELOAD: Duration = Duration::from_secs(30);
/// Between two looks at whether the process before this one has ended.
const PREDECESSOR: Duration = Duration::from_secs(1);

/// Who came before, who comes after, and who is told.
#[derive(Debug)]
pub(crate) struct Succession {
    upgrades: Upgrades,
    predecessor: Option<Process>,
    notifier: Notifier,
    /// Held by a reload, and by an upgrade from the sharing of the sockets to its end: or one of
    /// them could listen where the other does.
    turn: Mutex<()>,
    /// Another process serves, and this one only has its sessions.
    pub(super) handed_over: CancellationToken,
}

// === impl Succession ===

impl Succession {
    pub(super) fn new(
        binary: Option<Binary>,
        arrival: Option<&Arrival>,
        notifier: Notifier,
    ) -> Self {
        Self {
            upgrades: Upgrades::new(binary),
            predecessor: arrival.map(|arrival| arrival.predecessor.clone()),
            notifier,
            turn: Mutex::default(),
            handed_over: CancellationToken::new(),
        }
    }

    /// For the status.
    pub(crate) fn json(&self) -> Value {
        let predecessor = self
            .predecessor
            .as_ref()
            .map(|Process { pid, version }| json!({"pid": pid, "version": version}));
        json!({
            "pid": std::process::id(),
            "predecessor": predecessor,
            "upgrade": self.upgrades.json(),
        })
    }

    /// The process before this one, too, is to take what was asked for: it has sessions, perhaps of
    /// people who may not be here any more, and does not take every file by itself.
    fn pass_on_reload(&self) {
        let before = self.predecessor.as_ref();
        let before = before.and_then(|before| i32::try_from(before.pid).ok());
        // It has ended if it is no longer our parent, and its number may be another's.
        let parent = getppid().filter(|parent| Some(parent.as_raw_pid()) == before);
        if let Some(parent) = parent
            && let Err(error) = kill_process(parent, Signal::HUP)
        {
            tracing::warn!("the process before this one cannot be told to reload: {error}");
        }
    }
}

// === impl Shared ===

impl Shared {
    /// The binary that is there now takes over; this process keeps its sessions for
    /// `limits.handover`.
    pub(super) async fn upgrade(self: &Arc<Self>) -> Result<Upgraded, UpgradeError> {
        // Kept until it is known that there will be none.
        let beside = Beside::another_process();
        tracing::info!("an upgrade is asked for: starting the new process");
        let mut turn = None;
        let share = async {
            let ours = timeout(LAST_RELOAD, self.succession.turn.lock()).await;
            let ours = ours.map_err(|_| io::Error::other("a reload does not come to its end"));
            turn = Some(ours.map_err(UpgradeError::Share)?);
            let secured = self.keeper.secure().await;
            secured.map_err(|reason| UpgradeError::Certificates { reason })?;
            self.in_force.shares().map_err(UpgradeError::Share)
        };
        let successor = match self.succession.upgrades.begin(share, &self.stopping).await {
            Ok(successor) => successor,
            Err(error) => {
                tracing::error!("not upgraded, this process goes on: {error}");
                return Err(error);
            }
        };
        let upgraded = Upgraded {
            successor: successor.process.clone(),
            sessions: self.sessions.count(),
            budget: self.in_force.config().limits.handover,
        };
        self.succession.notifier.main_pid(successor.process.pid);
        self.succession.handed_over.cancel();
        self.leave();
        drop(turn);
        tracing::info!(
            successor = upgraded.successor.pid,
            version = upgraded.successor.version,
            sessions = upgraded.sessions,
            budget_ms = millis(upgraded.budget),
            "the new process serves; this one keeps its sessions until they end"
        );
        let (this, stopped) = (Arc::clone(self), self.stopped.clone());
        self.rest.spawn(async move {
            tokio::join!(
                this.stay(upgraded.budget),
                stopped.run_until_cancelled(watch(successor)),
            );
            drop(beside);
        });
        Ok(upgraded)
    }

    /// A new config, and the manager hears that it is being taken. It waits until it is known what
    /// becomes of an upgrade.
    pub(super) async fn reload(&self, by: By) -> Result<Reloaded, ReloadError> {
        let _turn = self.succession.turn.lock().await;
        let told = !self.succession.handed_over.is_cancelled() && !self.stopping.is_cancelled();
        if told {
            self.succession.notifier.reloading();
        }
        let reloaded = self.reloader.reload(by).await;
        if by == By::Command && reloaded.is_ok() {
            self.succession.pass_on_reload();
        }
        // Whoever is on the way out is not ready again.
        if told && !self.stopping.is_cancelled() {
            let refused = reloaded.as_ref().err().map(ToString::to_string);
            let refused = refused.map(|error| format!("not reloaded: {error}"));
            self.succession
                .notifier
                .ready(&refused.unwrap_or_else(|| self.in_words()));
        }
        reloaded
    }

    /// Accepts nothing more.
    pub(super) fn leave(&self) {
        self.edge.leave.cancel();
        // The new process has the same certificates to keep.
        self.keeper.retire();
    }

    /// Tells the manager that it serves, and from now on how it goes.
    pub(super) fn announce(self: &Arc<Self>, watchdog: Option<Watchdog>) {
        let notifier = self.succession.notifier.clone();
        notifier.ready(&self.in_words());
        if !notifier.is_on() {
            return;
        }
        let this = Arc::clone(self);
        self.rest.spawn(async move {
            // A process that has handed over is no longer the service.
            let over = this.succession.handed_over.clone();
            let told = async { tokio::join!(this.tell(), feed(watchdog, &notifier)) };
            this.stopped
                .run_until_cancelled(over.run_until_cancelled(told))
                .await;
        });
        let this = Arc::clone(self);
        self.rest.spawn(async move {
            let ending = async {
                this.stopping.cancelled().await;
                this.ask_for_time().await;
            };
            this.stopped.run_until_cancelled(ending).await;
        });
    }

    /// For ever: how it goes, in words.
    async fn tell(&self) {
        let mut last = self.in_words();
        let mut ticks = interval(STATUS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = async {
                loop {
                    ticks.tick().await;
                    let words = self.in_words();
                    if words != last {
                        self.succession.notifier.status(&words);
                        last = words;
                    }
                }
            } => {}
        }
        std::future::pending::<()>().await;
    }

    /// Tells the manager that the service ends. Not left to a task: a stop of nothing is over before
    /// that has its turn.
    pub(super) fn tell_stopping(&self) {
        // A process that has handed over is no longer the service.
        if !self.succession.handed_over.is_cancelled() {
            self.succession.notifier.stopping(&self.in_words());
        }
    }

    /// For ever: a stop takes as long as its sessions may.
    async fn ask_for_time(&self) {
        let mut ticks = interval(STATUS);
        loop {
            ticks.tick().await;
            self.succession.notifier.extend(WORD);
            if !self.succession.handed_over.is_cancelled() {
                self.succession.notifier.status(&self.in_words());
            }
        }
    }

    fn in_words(&self) -> String {
        let sessions = match self.sessions.count() {
            1 => "1 session".to_owned(),
            count => format!("{count} sessions"),
        };
        match self.stopping.is_cancelled() {
            true => format!("draining: {sessions} left"),
            false => format!("serving {sessions}"),
        }
    }

    /// Until the process before this one has ended, its lines in the log are told from ours.
    pub(super) fn tell_apart(self: &Arc<Self>, arrival: &Arrival) {
        let beside = arrival.beside();
        let predecessor = i32::try_from(arrival.predecessor.pid).ok();
        let its_child = move || getppid().map(Pid::as_raw_pid) == predecessor;
        // Something else may have started us for it; then its end is not seen.
        let seen = its_child();
        let stopped = self.stopped.clone();
        self.rest.spawn(async move {
            let ended = async {
                while !seen || its_child() {
                    tokio::time::sleep(PREDECESSOR).await;
                }
            };
            stopped.run_until_cancelled(ended).await;
            drop(beside);
        });
    }

    /// Until the last session has ended, or `budget` is over and they are drained.
    async fn stay(&self, budget: Duration) {
        self.edge.tasks.close();
        self.session_tasks.close();
        self.admin_tasks.close();
        let ended = async {
            // A connection may still become a session, but not the other way round.
            self.edge.tasks.wait().await;
            self.session_tasks.wait().await;
            // Or the new process would have to order a second time.
            self.keeper.idle().await;
            // Who has asked for the upgrade may still be reading what came of it.
            let _ = timeout(LAST_ANSWERS, self.admin_tasks.wait()).await;
        };
        let waited = async {
            tokio::select! {
                () = ended => {}
                () = self.progress() => {}
            }
        };
        let in_time = self
            .stopping
            .run_until_cancelled(timeout(budget, waited))
            .await;
        match in_time {
            // Somebody else has begun the drain.
            None => return,
            Some(Ok(())) => tracing::info!("nothing is left after the upgrade"),
            Some(Err(_)) => tracing::info!(
                sessions = self.sessions.count(),
                "the time for what is left after the upgrade is over"
            ),
        }
        self.drain().await;
    }

    /// For ever: how many are left, when that has changed.
    async fn progress(&self) {
        let mut last = self.sessions.count();
        loop {
            tokio::time::sleep(PROGRESS).await;
            let sessions = self.sessions.count();
            if sessions != last {
                tracing::info!(sessions, "left after the upgrade");
                last = sessions;
            }
        }
    }
}

async fn feed(watchdog: Option<Watchdog>, notifier: &Notifier) {
    if let Some(watchdog) = watchdog {
        watchdog.run(notifier.clone()).await;
    }
}

/// Nobody accepts for a successor that ends; its manager has to see to that.
async fn watch(mut successor: Successor) {
    let status = successor.ended().await;
    let in_order = status.is_some_and(|status| status.success());
    let successor = successor.process.pid;
    let status = status.map(|status| status.to_string());
    match in_order {
        // Stopped, or upgraded itself.
        true => tracing::info!(successor, "the process that took over has ended in order"),
        false => tracing::warn!(successor, status, "the process that took over has ended"),
    }
}
