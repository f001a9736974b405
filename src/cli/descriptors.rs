//! How many files and sockets the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A session is a socket on either side.
const PER_SESSION: u64 = 2;

/// Listeners, probes, plain requests, the log.
const BESIDES: u64 = 256;

/// Takes what the hard limit gives, and says when it is too little for `sessions`.
pub(crate) fn raise(sessions: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    let raised = current != maximum && setrlimit(Resource::Nofile, wanted).is_ok();
    let limit = if raised { maximum } else { current };
    let needed = needed(sessions);
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "too few file descriptors for limits.sessions = {sessions}: set LimitNOFILE (systemd) \
             or ulimit -n to {needed}, or lower limits.sessions to {}",
            limit.saturating_sub(BESIDES) / PER_SESSION
        );
    }
}

fn needed(sessions: usize) -> u64 {
    u64::try_from(sessions)
        .unwrap_or(u64::MAX)
        .saturating_mul(PER_SESSION)
        .saturating_add(BESIDES)
}
