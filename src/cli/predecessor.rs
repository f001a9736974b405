//! The process from before the last upgrade: whether it still lives, which only this machine knows.

use std::fs;

use holdline::observe::status::Status;

/// The number of the predecessor of the holdline that said this, if it still lives. It lives only for
/// its sessions.
pub(crate) fn living(status: &Status) -> Option<u32> {
    let before = status.process.predecessor.as_ref()?.pid;
    // Its number may be another program's by now.
    (before != status.pid && name(before)? == name(status.pid)?).then_some(before)
}

/// Whether a process lives, of those that are no corpses.
pub(crate) fn lives(pid: u32) -> bool {
    name(pid).is_some()
}

/// What the kernel calls it.
fn name(pid: u32) -> Option<String> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<String> {
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let ended = field("State:")?.trim_start().starts_with(['Z', 'X']);
    (!ended).then(|| field("Name:").map(|name| name.trim().to_owned()))?
}

#[cfg(test)]
mod tests {
    use holdline::observe::status::{Predecessor, ProcessStatus};

    use super::*;

    #[test]
    fn a_process_that_has_ended_keeps_no_sessions() {
        assert_eq!(
            parse("Name:\tholdline\nState:\tS (sleeping)\n").as_deref(),
            Some("holdline")
        );
        assert_eq!(parse("Name:\tholdline\nState:\tZ (zombie)\n"), None);
        assert_eq!(parse(""), None);
        let us = std::process::id();
        assert!(lives(us) && !lives(u32::MAX));
        let status = |pid| Status {
            pid: us,
            process: ProcessStatus {
                predecessor: Some(Predecessor {
                    pid,
                    ..Predecessor::default()
                }),
                ..ProcessStatus::default()
            },
            ..Status::default()
        };
        // Itself is nobody's predecessor; the first process is another program.
        for pid in [us, 1, u32::MAX] {
            assert_eq!(living(&status(pid)), None);
        }
        assert_eq!(living(&Status::default()), None);
    }
}
