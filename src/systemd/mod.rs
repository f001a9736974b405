//! What is agreed on with a service manager such as systemd: sockets that it opened, what it is
//! told about our state, and its watchdog.
//!
//! Every part works as if it were not there when nobody manages us. All is taken from the
//! environment once, at the start; nothing here decides what the proxy does.

mod activation;
mod notify;
mod watchdog;

pub use activation::{ActivationError, sockets};
pub use notify::Notifier;
pub use watchdog::Watchdog;

/// Whether a service manager has started exactly this process.
pub(crate) fn is_main_process() -> bool {
    std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| is_us(&pid))
}

fn is_us(pid: &str) -> bool {
    pid.parse() == Ok(std::process::id())
}
