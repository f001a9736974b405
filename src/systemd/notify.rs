//! What the service manager is told: datagrams to the socket that `NOTIFY_SOCKET` names
//! (sd_notify(3)).
//!
//! A manager that does not listen, or that does not exist, is no reason for anything to wait or
//! fail.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// For one message to be taken.
const PATIENCE: Duration = Duration::from_millis(200);

/// Tells the service manager, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    manager: Option<Arc<Manager>>,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// The manager that the environment names. One that cannot be reached is told nothing, which
    /// is logged.
    #[must_use]
    pub fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let opened = Manager::open(&name);
        if let Err(error) = &opened {
            tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be told anything");
        }
        Self {
            manager: opened.ok().map(Arc::new),
        }
    }

    #[cfg(test)]
    pub(super) fn to(path: &std::path::Path) -> Self {
        Self {
            manager: Some(Arc::new(Manager::open(path.as_os_str()).unwrap())),
        }
    }

    /// Whether anybody is told.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.manager.is_some()
    }

    /// It serves, again or for the first time.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\n{}", status_line(status)));
    }

    /// It is taking a new config; [`Self::ready`] has to follow, whatever comes of it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    /// It is on its way out.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\n{}", status_line(status)));
    }

    /// In words, for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.tell(&status_line(status));
    }

    /// From now on this process is the service.
    pub fn main_pid(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}\n"));
    }

    /// A start or stop that is under way needs at least this long from now.
    pub fn extend(&self, time: Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}\n", time.as_micros()));
    }

    /// It is alive.
    pub(super) fn watchdog(&self) {
        self.tell("WATCHDOG=1\n");
    }

    fn tell(&self, message: &str) {
        let Some(manager) = &self.manager else { return };
        let Manager { socket, address } = &**manager;
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

impl Manager {
    fn open(name: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            address: address(name)?,
        })
    }
}

/// A path, or with `@` at its beginning a name in the abstract namespace of Linux.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => {
            let words = "neither a path nor an abstract name";
            Err(io::Error::new(io::ErrorKind::Unsupported, words))
        }
    }
}

/// One line: a manager reads what follows as the next assignment.
fn status_line(status: &str) -> String {
    let first = status.lines().next().unwrap_or_default();
    format!("STATUS={first}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &OsStr, manager: &UnixDatagram) -> String {
        let notifier = Notifier::to(name.as_ref());
        notifier.ready("serving\nREADY=0");
        notifier.reloading();
        notifier.extend(Duration::from_millis(1500));
        let mut bytes = [0; 512];
        (0..3)
            .map(|_| {
                let count = manager.recv(&mut bytes).unwrap();
                String::from_utf8(bytes[..count].to_vec()).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_manager_hears_it_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let mut managers = vec![(
            path.clone().into_os_string(),
            UnixDatagram::bind(&path).unwrap(),
        )];
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt as _;
            let name = format!("holdline-test-{}", std::process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            let socket = UnixDatagram::bind_addr(&address).unwrap();
            managers.push((format!("@{name}").into(), socket));
        }
        for (name, manager) in managers {
            let heard = told(&name, &manager);
            assert!(
                heard.starts_with("READY=1\nSTATUS=serving\nRELOADING=1\nMONOTONIC_USEC="),
                "{heard}"
            );
            assert!(
                heard.ends_with("\nEXTEND_TIMEOUT_USEC=1500000\n"),
                "{heard}"
            );
        }
    }

    #[test]
    fn a_manager_that_is_gone_or_deaf_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(&path);
        // More than its queue holds, which it never reads.
        let fill = UnixDatagram::unbound().unwrap();
        fill.set_nonblocking(true).unwrap();
        while fill.send_to(b"full", &path).is_ok() {}
        let before = tokio::time::Instant::now();
        notifier.watchdog();
        drop(manager);
        notifier.watchdog();
        std::fs::remove_file(&path).unwrap();
        notifier.watchdog();
        Notifier::default().ready("nobody");
        assert!(before.elapsed() < Duration::from_secs(5));
        assert!(address(OsStr::new("vsock:2:1")).is_err());
    }
}
