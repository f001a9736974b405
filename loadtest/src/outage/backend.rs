//! Restarting the backend, and finding out when it was gone and when it was ready again.

use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::http;
use crate::procfs;
use crate::url::Url;

const LOOK: Duration = Duration::from_millis(50);
/// One slow answer is normal while a gateway starts.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// A restart command that is done, and a backend that never failed a probe for this long after it:
/// the restart was shorter than our look.
const MISSED: Duration = Duration::from_secs(5);

/// How the backend is restarted.
pub enum Restart {
    /// By a shell command that does everything.
    Command(String),
    /// By a signal to a process and, once it is gone, a shell command that starts it again.
    Process {
        /// The backend.
        pid: u32,
        /// `SIGTERM`, or `SIGKILL` for the hard way.
        signal: Signal,
        /// Starts it again; it is left running at the end.
        start: Option<String>,
    },
    /// By somebody else: only watched.
    Watch,
    /// By a future that resolves when the old one is gone and the new one is on its way.
    Call(Pin<Box<dyn Future<Output = Result<()>> + Send>>),
}

impl std::fmt::Debug for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Command(_) => "Command",
            Self::Process { .. } => "Process",
            Self::Watch => "Watch",
            Self::Call(_) => "Call",
        })
    }
}

/// The backend's own times in an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartTimes {
    /// The restart was asked for.
    pub start: Instant,
    /// The old backend was certainly not serving any more.
    pub gone: Option<Instant>,
    /// The new one was ready.
    pub ready: Option<Instant>,
}

impl RestartTimes {
    /// Nothing seen.
    #[must_use]
    pub const fn never(start: Instant) -> Self {
        Self {
            start,
            gone: None,
            ready: None,
        }
    }

    /// From when on an answer comes from the new backend. A look at the ready URL is late by up
    /// to its interval, and an answer may be faster.
    #[must_use]
    pub fn new_backend_from(&self) -> Option<Instant> {
        match (self.gone, self.ready) {
            (Some(gone), Some(ready)) => Some(gone.max(ready - LOOK)),
            (gone, ready) => ready.or(gone),
        }
    }
}

impl Restart {
    /// Restarts, and waits until the ready URL (where there is one) says ready.
    ///
    /// # Errors
    /// When the restart itself fails.
    pub async fn perform(self, ready_url: Option<Url>) -> Result<RestartTimes> {
        let start = Instant::now();
        let gone = match self {
            Self::Command(command) => return by_command(start, &command, ready_url).await,
            Self::Process { pid, signal, start } => {
                end(pid, signal).await?;
                let gone = Instant::now();
                if let Some(command) = start {
                    launch(&command)?;
                }
                Some(gone)
            }
            Self::Call(restart) => {
                restart.await?;
                Some(Instant::now())
            }
            Self::Watch => None,
        };
        match ready_url {
            Some(url) => Ok(watch(start, &url, gone).await),
            None if gone.is_some() => Ok(RestartTimes {
                start,
                gone,
                ready: None,
            }),
            None => std::future::pending().await,
        }
    }
}

async fn by_command(start: Instant, command: &str, ready_url: Option<Url>) -> Result<RestartTimes> {
    let run = async {
        let status = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .status()
            .await;
        let status = status.context("--restart-command")?;
        ensure!(status.success(), "--restart-command: {status}");
        anyhow::Ok(Instant::now())
    };
    let Some(url) = ready_url else {
        let gone = Some(run.await?);
        return Ok(RestartTimes {
            start,
            gone,
            ready: None,
        });
    };
    let mut seen = Box::pin(watch(start, &url, None));
    tokio::pin!(run);
    let done = tokio::select! {
        times = &mut seen => {
            run.await?;
            return Ok(times);
        }
        done = &mut run => done?,
    };
    loop {
        tokio::select! {
            times = &mut seen => return Ok(times),
            () = sleep(MISSED) => {
                if matches!(http::get(&url, PROBE_PATIENCE).await, Ok((200, _))) {
                    return Ok(RestartTimes { start, gone: Some(done), ready: Some(done) });
                }
            }
        }
    }
}

/// Asks until the backend was seen away (or is known to be) and then ready.
async fn watch(start: Instant, url: &Url, mut gone: Option<Instant>) -> RestartTimes {
    loop {
        let asked = Instant::now();
        match http::get(url, PROBE_PATIENCE).await {
            Ok((200, _)) if gone.is_some() => {
                return RestartTimes {
                    start,
                    gone,
                    ready: Some(Instant::now()),
                };
            }
            Ok((200, _)) => {}
            Ok(_) | Err(_) => {
                gone.get_or_insert(asked);
            }
        }
        sleep(LOOK).await;
    }
}

/// Signals a process and waits until it is gone.
async fn end(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(raw) = raw else {
        bail!("--kill-pid {pid}: not a process id")
    };
    kill_process(raw, signal).with_context(|| format!("--kill-pid {pid}"))?;
    while procfs::alive(pid) {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Starts the backend again, in a process group of its own so that our Ctrl-C does not reach it.
fn launch(command: &str) -> Result<()> {
    Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .context("--start-command")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_count_for_the_new_backend_only_after_the_old_one_is_gone() {
        let start = Instant::now();
        let at = |ms| Some(start + Duration::from_millis(ms));
        let from = |gone, ready| RestartTimes { start, gone, ready }.new_backend_from();
        assert_eq!(from(at(100), at(9000)), at(8950));
        assert_eq!(from(at(100), at(120)), at(100));
        assert_eq!(from(at(100), None), at(100));
        assert_eq!(from(None, None), None);
    }

    #[tokio::test]
    async fn a_failing_command_is_an_error() {
        let failed = Restart::Command("exit 3".to_owned())
            .perform(None)
            .await
            .unwrap_err();
        assert!(failed.to_string().contains("--restart-command"), "{failed}");
    }

    #[tokio::test]
    async fn a_killed_process_is_waited_for_and_the_start_command_runs() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().unwrap();
        let restart = Restart::Process {
            pid,
            signal: Signal::TERM,
            start: Some("true".to_owned()),
        };
        let times = restart.perform(None).await.unwrap();
        assert!(times.gone.is_some() && times.ready.is_none());
        assert!(!child.wait().await.unwrap().success());
    }
}
