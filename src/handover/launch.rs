//! The old process's side: start the new one, give it the sockets, hear that it serves.
//!
//! Whatever goes wrong, the new process is gone at the end and nothing has changed here.

use std::os::fd::AsFd as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::binary::Binary;
use super::channel::{Channel, ChannelError};
use super::message::{Message, Offer, Offered, Process};
use super::{UpgradeError, VARIABLE};
use crate::listen::Share;

/// For a new process to read its config, load its certificates and bind what is new.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// For it to begin once it was told to.
const BEGIN: Duration = Duration::from_secs(5);
/// For the last words of one that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The process that serves now.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) process: Process,
    child: Child,
}

/// A started process that has not taken over. Dropping it ends it.
struct Candidate {
    child: Option<Child>,
    channel: Arc<Channel>,
}

impl Successor {
    /// Starts `binary` and hands it the sockets; returns when it serves.
    pub(crate) async fn launch(
        binary: &Binary,
        shares: Vec<Share>,
        limit: Duration,
    ) -> Result<Self, UpgradeError> {
        let by = Instant::now() + limit;
        let mut candidate = Candidate::start(binary)?;
        let talk = candidate.talk(shares, by);
        let outcome = candidate.outcome(talk, limit).await;
        match outcome {
            Ok(process) => candidate.succeed(process),
            Err(error) => {
                candidate.end().await;
                Err(error)
            }
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> Option<ExitStatus> {
        self.child.wait().await.ok()
    }
}

impl Candidate {
    fn start(binary: &Binary) -> Result<Self, UpgradeError> {
        let failed = |source| UpgradeError::Start {
            path: binary.path.clone(),
            source,
        };
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let child = Command::new(&binary.path)
            .arg0(&binary.name)
            .args(&binary.arguments)
            .env(VARIABLE, "1")
            // Meant for this process.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            child: Some(child),
            channel: Arc::new(channel),
        })
    }

    fn talk(&self, shares: Vec<Share>, by: Instant) -> JoinHandle<Result<Process, UpgradeError>> {
        let channel = Arc::clone(&self.channel);
        spawn_blocking(move || converse(&channel, &shares, by))
    }

    /// What it has said, or that it has ended without a word.
    async fn outcome(
        &mut self,
        mut talk: JoinHandle<Result<Process, UpgradeError>>,
        limit: Duration,
    ) -> Result<Process, UpgradeError> {
        let Some(child) = &mut self.child else {
            return Err(UpgradeError::Interrupted);
        };
        let (said, ended) = tokio::select! {
            said = &mut talk => (Some(said), None),
            ended = child.wait() => (None, ended.ok()),
        };
        let said = match said {
            Some(said) => Ok(said),
            // A child of its own may keep the channel open.
            None => timeout(LAST_WORDS, &mut talk).await,
        };
        let said = match said {
            Ok(said) => said.map_err(|_| UpgradeError::Interrupted)?,
            Err(_) => Err(UpgradeError::Channel(ChannelError::Closed)),
        };
        match (said, ended) {
            (Err(UpgradeError::Channel(ChannelError::TimedOut)), _) => {
                Err(UpgradeError::TimedOut { limit })
            }
            (Err(UpgradeError::Channel(ChannelError::Closed)), ended) => {
                let status = match ended {
                    Some(status) => Some(status),
                    None => timeout(LAST_WORDS, child.wait())
                        .await
                        .ok()
                        .and_then(Result::ok),
                };
                Err(UpgradeError::Ended { status })
            }
            // It has said all that it should, and ended.
            (Ok(_), Some(status)) => Err(UpgradeError::Ended {
                status: Some(status),
            }),
            (said, _) => said,
        }
    }

    fn succeed(mut self, process: Process) -> Result<Successor, UpgradeError> {
        let child = self.child.take().ok_or(UpgradeError::Interrupted)?;
        Ok(Successor { process, child })
    }

    async fn end(&mut self) {
        self.channel.shut();
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.start_kill();
            let _ = timeout(LAST_WORDS, child.wait()).await;
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            self.channel.shut();
            let _ = child.start_kill();
        }
    }
}

/// The whole conversation, up to the moment when the new process serves.
fn converse(channel: &Channel, shares: &[Share], by: Instant) -> Result<Process, UpgradeError> {
    let sockets = shares
        .iter()
        .map(|share| Offered {
            kind: share.kind,
            configured: share.configured,
        })
        .collect();
    let offer = Message::Offer(Offer {
        from: Process::this(),
        sockets,
    });
    let descriptors: Vec<_> = shares.iter().map(|share| share.socket.as_fd()).collect();
    channel.send(&offer, &descriptors, by)?;
    let process = match channel.receive(by)?.0 {
        Message::Prepared(process) => process,
        other => return Err(unexpected(other)),
    };
    let by = Instant::now() + BEGIN;
    channel.send(&Message::Take, &[], by)?;
    match channel.receive(by)?.0 {
        Message::Serving => Ok(process),
        other => Err(unexpected(other)),
    }
}

fn unexpected(message: Message) -> UpgradeError {
    match message {
        Message::Refused { reason } => UpgradeError::Refused { reason },
        _ => UpgradeError::OutOfTurn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use tempfile::TempDir;

    const LONG: Duration = Duration::from_secs(20);

    /// What a shell as the new binary comes to; $1 is a folder of its own.
    async fn launched(script: &str, limit: Duration) -> (UpgradeError, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let binary = Binary {
            path: PathBuf::from("/bin/sh"),
            name: "sh".into(),
            arguments: ["-c", script, "sh"]
                .into_iter()
                .map(Into::into)
                .chain([folder.path().into()])
                .collect(),
        };
        let error = Successor::launch(&binary, Vec::new(), limit).await;
        (error.unwrap_err(), folder)
    }

    #[tokio::test]
    async fn one_that_ends_is_told_with_how_it_ended() {
        let (error, _) = launched("exit 3", LONG).await;
        let words = "ended before it was ready (exit status: 3)";
        assert!(error.to_string().contains(words), "{error}");
    }

    #[tokio::test]
    async fn one_whose_child_keeps_the_channel_open_is_not_waited_for() {
        let (error, folder) = launched(
            "echo $$ >$1/pid; sleep 60 & echo $! >$1/child; exit 4",
            LONG,
        )
        .await;
        let words = "ended before it was ready (exit status: 4)";
        assert!(error.to_string().contains(words), "{error}");
        let child = std::fs::read_to_string(folder.path().join("child")).unwrap();
        let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn one_that_says_nothing_is_killed() {
        let limit = Duration::from_millis(500);
        let (error, folder) = launched("echo $$ >$1/pid; exec sleep 60", limit).await;
        let words = "not ready within 0.5 s, and was killed";
        assert!(error.to_string().contains(words), "{error}");
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        let process = PathBuf::from(format!("/proc/{}", pid.trim()));
        assert!(!process.exists(), "it still runs");
    }

    #[tokio::test]
    async fn one_that_says_something_else_is_no_holdline() {
        // Standard input is a socket, which can be written to.
        let (error, _) = launched("echo 'HTTP/1.1 400 Bad Request' >&0; exec sleep 60", LONG).await;
        assert!(error.to_string().contains("is no holdline"), "{error}");
    }

    #[tokio::test]
    async fn one_that_is_not_there_is_named() {
        let path = PathBuf::from("/nowhere/holdline");
        let binary = Binary {
            name: path.clone().into(),
            path,
            arguments: Vec::new(),
        };
        let error = Successor::launch(&binary, Vec::new(), LONG).await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("/nowhere/holdline cannot be started: "),
            "{error}"
        );
    }
}
