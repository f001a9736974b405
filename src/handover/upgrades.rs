//! Whether an upgrade may begin, and what became of the last one.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, getppid};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Binary, ChannelError, LIMIT, Process, Successor};
use crate::listen::Share;
use crate::reload::Doubted;
use crate::systemd;

/// Inits of containers, and what runtimes start a container with; as the kernel calls them.
const INITS: [&str; 8] = [
    "tini",
    "tini-static",
    "docker-init",
    "podman-init",
    "catatonit",
    "dumb-init",
    "containerd-shim",
    "conmon",
];
/// As process 1 they end with their last command.
const SHELLS: [&str; 5] = ["sh", "ash", "dash", "bash", "busybox"];

/// Why there is no upgrade. The running process goes on as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// One at a time.
    #[error("an upgrade is under way already")]
    UnderWay,
    /// It has no place to give any more.
    #[error("process {pid} has taken over already: ask that one")]
    HandedOver {
        /// Who serves now.
        pid: u32,
    },
    /// It is on its way out.
    #[error("holdline is stopping")]
    Stopping,
    /// It is part of another program, or does not know its own file.
    #[error("it is not known which program to start")]
    NoBinary,
    /// The end of the old process would be that of the container.
    #[error(
        "this holdline is process 1, as in a container: with its end the new one would be killed, too; start a new container instead"
    )]
    FirstProcess,
    /// The same, by a detour.
    #[error(
        "{starter} has started this holdline and ends with it, and the whole container with that: the new one would be killed, too; start a new container instead"
    )]
    OnlyChild {
        /// A container's init, or what is outside of it.
        starter: String,
    },
    /// The end of the old process would be that of the service.
    #[error(
        "systemd started this holdline without NOTIFY_SOCKET, and would end the new one with it: set Type=notify-reload (or notify) and NotifyAccess=all in its unit"
    )]
    NotNotified,
    /// The new process would not find what this one serves.
    #[error("a certificate would be lost with this process: {reason}. Then upgrade again")]
    Certificates {
        /// With what to do.
        reason: String,
    },
    /// It would take a config that the running process has not taken.
    #[error(
        "the new process would take the changed config file, which waits for somebody's word: {0}, and upgrade then"
    )]
    Doubtful(Doubted),
    /// A listening socket cannot be handed over.
    #[error("the listening sockets cannot be shared: {0}")]
    Share(std::io::Error),
    /// It cannot be executed.
    #[error("{} cannot be started: {source}", .path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It has said why it will not.
    #[error("the new process refuses: {reason}")]
    Refused {
        /// In its words.
        reason: String,
    },
    /// It has ended.
    #[error("the new process ended before it was ready ({}); its output is where ours is", told(*.status))]
    Ended {
        /// How, if that is known.
        status: Option<ExitStatus>,
    },
    /// It has said nothing.
    #[error("the new process was not ready within {} s, and was killed", .limit.as_secs_f32())]
    TimedOut {
        /// How long it had.
        limit: Duration,
    },
    /// It has said what makes no sense.
    #[error("the new process said something out of turn")]
    OutOfTurn,
    /// The conversation failed.
    #[error("the handover failed: {0}")]
    Channel(#[from] ChannelError),
    /// This process is ending.
    #[error("the upgrade was interrupted")]
    Interrupted,
}

/// What an upgrade has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// Who serves now.
    pub successor: Process,
    /// Sessions that stay with the old process.
    pub sessions: usize,
    /// How long they may.
    pub budget: Duration,
}

/// Starts upgrades, one after the other, until one succeeds.
#[derive(Debug)]
pub(crate) struct Upgrades {
    binary: Option<Binary>,
    stage: Mutex<Stage>,
}

#[derive(Debug)]
enum Stage {
    Idle(Option<Failure>),
    UnderWay,
    HandedOver(Process),
}

#[derive(Debug, Clone)]
struct Failure {
    at: SystemTime,
    reason: String,
}

// === impl Upgraded ===

impl Upgraded {
    /// For the answer to a command.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "pid": self.successor.pid,
            "version": self.successor.version,
            "sessionsLeft": self.sessions,
            "leftMs": u64::try_from(self.budget.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

// === impl Upgrades ===

impl Upgrades {
    /// `binary`: which program to start; without one there are no upgrades.
    pub(crate) fn new(binary: Option<Binary>) -> Self {
        Self {
            binary,
            stage: Mutex::new(Stage::Idle(None)),
        }
    }

    /// Starts the new process with what `share` comes to, and returns when it serves; gives up when
    /// `stopping`.
    pub(crate) async fn begin(
        &self,
        share: impl Future<Output = Result<Vec<Share>, UpgradeError>>,
        stopping: &CancellationToken,
    ) -> Result<Successor, UpgradeError> {
        let attempt = Attempt::begin(self)?;
        let launched = async {
            let binary = self.binary.as_ref().ok_or(UpgradeError::NoBinary)?;
            may_be_replaced()?;
            let shares = share.await?;
            Successor::launch(binary, shares, LIMIT).await
        };
        let outcome = stopping
            .run_until_cancelled(launched)
            .await
            .unwrap_or(Err(UpgradeError::Stopping));
        attempt.end(&outcome);
        outcome
    }

    /// For the status.
    pub(crate) fn json(&self) -> Value {
        match &*self.stage() {
            Stage::Idle(None) => json!({"state": "none"}),
            Stage::Idle(Some(failure)) => {
                let since = failure.at.duration_since(UNIX_EPOCH).unwrap_or_default();
                let at = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                json!({"state": "failed", "at": at, "reason": failure.reason})
            }
            Stage::UnderWay => json!({"state": "underWay"}),
            Stage::HandedOver(Process { pid, version }) => {
                json!({"state": "handedOver", "pid": pid, "version": version})
            }
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one upgrade that is under way. One that is given up has failed.
struct Attempt<'a> {
    upgrades: &'a Upgrades,
    ended: bool,
}

impl<'a> Attempt<'a> {
    fn begin(upgrades: &'a Upgrades) -> Result<Self, UpgradeError> {
        let mut stage = upgrades.stage();
        match &*stage {
            Stage::UnderWay => return Err(UpgradeError::UnderWay),
            Stage::HandedOver(process) => {
                return Err(UpgradeError::HandedOver { pid: process.pid });
            }
            Stage::Idle(_) => *stage = Stage::UnderWay,
        }
        Ok(Self {
            upgrades,
            ended: false,
        })
    }

    fn end(mut self, outcome: &Result<Successor, UpgradeError>) {
        self.ended = true;
        *self.upgrades.stage() = match outcome {
            Ok(successor) => Stage::HandedOver(successor.process.clone()),
            Err(error) => Stage::Idle(Some(Failure::of(error))),
        };
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let failure = Failure::of(&UpgradeError::Interrupted);
            *self.upgrades.stage() = Stage::Idle(Some(failure));
        }
    }
}

impl Failure {
    fn of(error: &UpgradeError) -> Self {
        Self {
            at: SystemTime::now(),
            reason: error.to_string(),
        }
    }
}

/// Whether the new process would outlive this one.
fn may_be_replaced() -> Result<(), UpgradeError> {
    if std::process::id() == 1 {
        return Err(UpgradeError::FirstProcess);
    }
    if let Some(starter) = starter() {
        return Err(UpgradeError::OnlyChild { starter });
    }
    if systemd::is_main_process() && std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Err(UpgradeError::NotNotified);
    }
    Ok(())
}

/// Who has started this process, if that ends with it.
fn starter() -> Option<String> {
    let Some(parent) = getppid().map(Pid::as_raw_pid) else {
        return Some("a program outside of this container".to_owned());
    };
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    let name = name.trim();
    ends_with_us(parent, name).then(|| format!("{name} (process {parent})"))
}

/// Whether the program of this name ends with what it has started, and takes the rest along.
fn ends_with_us(parent: i32, name: &str) -> bool {
    INITS.contains(&name) || (parent == 1 && SHELLS.contains(&name))
}

fn told(status: Option<ExitStatus>) -> String {
    status.map_or_else(
        || "how is not known".to_owned(),
        |status| status.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_init_ends_with_what_it_has_started_and_others_do_not() {
        for (parent, name, ends) in [
            (1, "docker-init", true),
            (7, "tini", true),
            (1, "sh", true),
            // Somebody's terminal.
            (4711, "bash", false),
            (1, "systemd", false),
            (1, "init", false),
            (4711, "holdline", false),
        ] {
            assert_eq!(ends_with_us(parent, name), ends, "{parent} {name}");
        }
    }
}
