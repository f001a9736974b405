//! `holdline drain`: asks a running holdline to end, and shows how far it is.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use holdline::observe::status::Status;
use holdline::observe::{AdminClient, AdminError};

use super::admin::{block_on, print};
use super::predecessor;
use super::words::{count, duration};
use super::{Settings, fail, say};

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Return as soon as it is asked for
    #[arg(long)]
    no_wait: bool,
}

const EVERY: Duration = Duration::from_millis(250);
/// Beyond the time that it gives itself: last writes, and a machine that is busy.
const GRACE: Duration = Duration::from_secs(15);

pub(crate) fn run(settings: &Settings, asked: &DrainArgs) -> ExitCode {
    let client = match settings.running() {
        Ok(client) => client,
        Err(refused) => return refused,
    };
    block_on(drain(&client, asked.no_wait))
}

async fn drain(client: &AdminClient, no_wait: bool) -> ExitCode {
    // Whether it is a holdline at all, before anything is asked of it; and which one.
    let (_, first) = match client.status().await {
        Ok(answer) => answer,
        Err(error) => return fail("nothing to drain", &error),
    };
    if let Err(error) = client.drain().await {
        return fail("the drain was not taken", &error);
    }
    if no_wait {
        let told = print(&format!(
            "draining {}\n",
            count(first.sessions.open, "session")
        ));
        return told.map_or_else(|gone| gone, |()| ExitCode::SUCCESS);
    }
    wait(client, &first).await
}

async fn wait(client: &AdminClient, first: &Status) -> ExitCode {
    let mut progress = Progress::default();
    // Of the same name as this one, while there is this one.
    let before = predecessor::living(first);
    // Until it has said how long it takes.
    let mut deadline = tokio::time::Instant::now() + GRACE;
    loop {
        match client.status().await {
            Ok((_, status)) if is_another(first, &status) => {
                progress.end();
                let told = print("drained; another holdline runs in its place\n");
                return told.map_or_else(|gone| gone, |()| ExitCode::SUCCESS);
            }
            Ok((_, status)) => {
                if let Some(drain) = status.drain {
                    let left = Duration::from_millis(drain.left_ms);
                    deadline = tokio::time::Instant::now() + left + GRACE;
                }
                if let Err(gone) = progress.show(&status) {
                    return gone;
                }
            }
            // It takes its admin listener with it, last of all.
            Err(AdminError::Nobody { .. } | AdminError::Broken { .. }) => {
                progress.end();
                return print(&drained(before.filter(|pid| predecessor::lives(*pid))))
                    .map_or_else(|gone| gone, |()| ExitCode::SUCCESS);
            }
            Err(error) if tokio::time::Instant::now() >= deadline => {
                progress.end();
                return fail(
                    "the drain was asked for, and its end cannot be seen",
                    &error,
                );
            }
            Err(_) => {}
        }
        if tokio::time::Instant::now() >= deadline {
            progress.end();
            say(
                "error: the drain was asked for and should be over, but holdline still runs: see its log\n",
            );
            return ExitCode::FAILURE;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// An upgrade has left a process with its sessions, and nobody asks that one on the admin listener.
fn drained(before: Option<u32>) -> String {
    match before {
        None => "drained\n".to_owned(),
        Some(pid) => format!(
            "drained\nprocess {pid}, from before the last upgrade, still has its sessions; `kill {pid}` drains it\n"
        ),
    }
}

/// A supervisor may have started the next one already.
fn is_another(first: &Status, now: &Status) -> bool {
    now.pid != first.pid || now.uptime_ms < first.uptime_ms
}

/// One line that is written over on a terminal, and a line per change elsewhere.
#[derive(Debug, Default)]
struct Progress {
    shown: Option<u64>,
    open_line: bool,
}

impl Progress {
    fn show(&mut self, status: &Status) -> Result<(), ExitCode> {
        let text = in_words(status);
        if io::stdout().is_terminal() {
            self.open_line = true;
            return print(&format!("\r\x1b[K{text}"));
        }
        let sessions = status.sessions.open;
        if self.shown.replace(sessions) == Some(sessions) {
            return Ok(());
        }
        print(&format!("{text}\n"))
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open_line) {
            let _ = print("\r\x1b[K");
        }
    }
}

fn in_words(status: &Status) -> String {
    let sessions = count(status.sessions.open, "session");
    match status.drain {
        Some(drain) if drain.left_ms > 0 => {
            format!("{sessions} left, at most {} more", duration(drain.left_ms))
        }
        Some(_) => format!("{sessions} left, which are cut off now"),
        None => format!("{sessions} left"),
    }
}

#[cfg(test)]
mod tests {
    use holdline::observe::status::Drain;

    use super::*;

    #[test]
    fn the_next_process_is_not_taken_for_this_one() {
        let status = |pid, uptime_ms| Status {
            pid,
            uptime_ms,
            ..Status::default()
        };
        let first = status(7, 5_000);
        assert!(!is_another(&first, &status(7, 5_100)));
        assert!(is_another(&first, &status(8, 9_000)));
        // In a container every one is number 1.
        assert!(is_another(&status(1, 5_000), &status(1, 100)));
    }

    #[test]
    fn who_is_left_from_before_an_upgrade_is_told() {
        assert_eq!(drained(None), "drained\n");
        assert!(
            drained(Some(7)).ends_with("still has its sessions; `kill 7` drains it\n"),
            "{}",
            drained(Some(7))
        );
    }

    #[test]
    fn progress_says_who_is_left_and_until_when() {
        let mut status = Status::default();
        status.sessions.open = 1;
        assert_eq!(in_words(&status), "1 session left");
        let drain = |left_ms| {
            Some(Drain {
                since_ms: 0,
                left_ms,
            })
        };
        status.drain = drain(26_000);
        assert_eq!(in_words(&status), "1 session left, at most 26 s more");
        status.drain = drain(0);
        assert_eq!(in_words(&status), "1 session left, which are cut off now");
    }
}
