//! Socket activation: the listening sockets that a service manager has opened for us
//! (`LISTEN_FDS`, sd_listen_fds(3)).

use std::env;
use std::io;

use listenfd::ListenFd;

use super::is_us;
use crate::listen::{Inherited, InheritedSocket, Kind};

/// More sockets than this are a mistake.
const MOST: usize = 128;

/// Why passed sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// `LISTEN_FDS` makes no sense.
    #[error("LISTEN_FDS = \"{value}\" is no number of sockets up to {MOST}")]
    Count {
        /// As it is.
        value: String,
    },
    /// A descriptor that is something else.
    #[error(
        "the service manager passed a descriptor ({name}) that is no listening TCP socket: {source}; its socket unit needs ListenStream= with a port, and no Accept=yes"
    )]
    Socket {
        /// `FileDescriptorName=`, or its number.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// Takes what was passed to this process; nothing, if nothing was. Call it once, before anything
/// else opens a file.
///
/// # Errors
/// When what was passed cannot be listened on.
pub fn sockets() -> Result<Inherited, ActivationError> {
    let ours = env::var("LISTEN_PID").is_ok_and(|pid| is_us(&pid));
    let Ok(count) = env::var("LISTEN_FDS") else {
        return Ok(Inherited::default());
    };
    if !ours {
        return Ok(Inherited::default());
    }
    if !count.parse().is_ok_and(|count: usize| count <= MOST) {
        return Err(ActivationError::Count { value: count });
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let name = names.next().unwrap_or_default();
        let wrong = |source| ActivationError::Socket {
            name: match name {
                "" => format!("number {index}"),
                name => name.to_owned(),
            },
            source,
        };
        if let Some(socket) = passed.take_tcp_listener(index).map_err(wrong)? {
            sockets.push(InheritedSocket::new(socket, Kind::named(name), None).map_err(wrong)?);
        }
    }
    Ok(Inherited::new(sockets))
}
