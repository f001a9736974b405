//! The admin listener's place: it may be moved or closed while the proxy runs.
//!
//! A connection outlives the listener that it came through: whoever asked for the change gets an
//! answer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Admin;
use crate::listen::{BindError, Inherited, Kind, KnownSocket, Listener, ListeningSocket, Share};

/// The admin listener, if there is one.
#[derive(Debug)]
pub struct AdminDoor {
    admin: Admin,
    open: Mutex<Option<Open>>,
    /// The socket that was closed last, and may not be gone yet.
    closing: Mutex<Option<KnownSocket>>,
    leave: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Open {
    wanted: SocketAddr,
    address: SocketAddr,
    socket: KnownSocket,
    closed: CancellationToken,
}

impl AdminDoor {
    /// Closed at first. What it serves, it serves until `stop`, in `tasks`; from `leave` on another
    /// process is asked.
    #[must_use]
    pub fn new(
        admin: Admin,
        leave: CancellationToken,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            admin,
            open: Mutex::default(),
            closing: Mutex::default(),
            leave,
            stop,
            tasks,
        }
    }

    /// Where it is, with the port that was given out.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.lock().as_ref().map(|open| open.address)
    }

    /// The socket again, for the process that takes our place.
    ///
    /// # Errors
    /// When there is no descriptor left for it.
    pub fn share(&self) -> io::Result<Option<Share>> {
        let open = self.lock();
        let socket = open.as_ref().and_then(|open| {
            let socket = open.socket.socket()?;
            Some(Listener::share(Kind::Admin, open.wanted, &socket))
        });
        socket.transpose()
    }

    /// The sockets that are of no more use with `wanted`, or that are closing already.
    #[must_use]
    pub fn leaving(&self, wanted: Option<SocketAddr>) -> Vec<Arc<ListeningSocket>> {
        let open = self.lock();
        let left = open.as_ref().filter(|open| Some(open.wanted) != wanted);
        let left = left.map(|open| &open.socket);
        let closing = self.closing();
        let known = left.into_iter().chain(closing.as_ref());
        known.filter_map(KnownSocket::socket).collect()
    }

    /// Takes the address, if it is not there already. What is `leaving`, here or elsewhere, is not
    /// in the way.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn prepare(
        &self,
        wanted: Option<SocketAddr>,
        leaving: &[Arc<ListeningSocket>],
        inherited: &mut Inherited,
    ) -> Result<Option<Listener>, BindError> {
        let there = self.lock().as_ref().map(|open| open.wanted);
        wanted
            .filter(|_| wanted != there)
            .map(|address| Listener::bind_admin(address, leaving, inherited))
            .transpose()
    }

    /// Moves to what was prepared for `wanted`, or stays.
    pub fn apply(&self, wanted: Option<SocketAddr>, prepared: Option<Listener>) {
        let mut open = self.lock();
        if open.as_ref().map(|open| open.wanted) == wanted {
            return;
        }
        if let Some(left) = open.take() {
            left.closed.cancel();
            *self.closing() = Some(left.socket);
        }
        if let (Some(wanted), Some(listener)) = (wanted, prepared) {
            let (closed, address) = (self.leave.child_token(), listener.address());
            let socket = listener.socket().known();
            let admin = self.admin.clone();
            admin.serve(listener, &closed, &self.stop, &self.tasks);
            *open = Some(Open {
                wanted,
                address,
                socket,
                closed,
            });
        }
    }

    /// Waits until nobody can connect any more where the listener was.
    pub async fn closed(&self) {
        let closing = self.closing().clone();
        if let Some(socket) = closing {
            socket.closed().await;
        }
    }

    fn closing(&self) -> std::sync::MutexGuard<'_, Option<KnownSocket>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
