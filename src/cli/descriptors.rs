//! How many files and sockets the process may have open.

use holdline::config::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes what the hard limit gives, and says when it is too little for the sessions.
pub(crate) fn raise(limits: &Limits) {
    let sessions = limits.sessions;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    let raised = current != maximum && setrlimit(Resource::Nofile, wanted).is_ok();
    let limit = if raised { maximum } else { current };
    let needed = limits.descriptors();
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "too few file descriptors for limits.sessions = {sessions}: set LimitNOFILE (systemd) \
             or ulimit -n to {needed}, or lower limits.sessions to {}",
            Limits::sessions_within(limit)
        );
    }
}
