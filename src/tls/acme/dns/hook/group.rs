//! A hook with all that it has started: its process group, ended as a whole.
//!
//! The group's number is good as long as the hook itself has not been waited for; after that nothing
//! is sent to it any more.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// Between the request to end and the end.
const GRACE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A process that waits for a disk ends later.
const KILLED: Duration = Duration::from_secs(1);
/// A program that is just being written cannot be run.
const BUSY: usize = 5;

/// Dropping it kills all of it.
pub(super) struct Group {
    leader: Child,
}

impl Group {
    pub(super) async fn start(command: &mut Command) -> io::Result<Self> {
        command.process_group(0).kill_on_drop(true);
        let mut tries = 0;
        loop {
            match command.spawn() {
                Ok(leader) => return Ok(Self { leader }),
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY => {
                    tries += 1;
                    sleep(LOOK_EVERY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Both once.
    pub(super) fn outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.leader.stdout.take(), self.leader.stderr.take())
    }

    /// Waits for the hook itself. What it has left running is its own business.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.leader.wait().await
    }

    /// Asks all of it to end, and kills what has not done so in time. `is_quiet`: nobody holds the
    /// outputs any more.
    pub(super) async fn end(&mut self, is_quiet: impl Fn() -> bool) {
        let Some(group) = self.number() else { return };
        // What does not come from the kernel is that all have ended already.
        let _ = kill_process_group(group, Signal::TERM);
        let by = Instant::now() + GRACE;
        while (runs(group) || !is_quiet()) && Instant::now() < by {
            sleep(LOOK_EVERY).await;
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = timeout(KILLED, self.leader.wait()).await;
    }

    fn number(&self) -> Option<Pid> {
        Pid::from_raw(self.leader.id()?.try_into().ok()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.number() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Whether a child of ours does, without forgetting it if it does not.
fn runs(child: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(child), look), Ok(None))
}
