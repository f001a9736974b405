//! A listening socket, and how it is known without being kept open: whoever accepts owns it.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A listening socket.
#[derive(Debug)]
pub struct ListeningSocket {
    // Closed before it is told: fields are dropped in this order.
    tcp: TcpListener,
    closed: Tells,
}

/// A listening socket that others own.
#[derive(Debug, Clone)]
pub struct KnownSocket {
    socket: Weak<ListeningSocket>,
    closed: CancellationToken,
}

/// Cancels its token at its end.
#[derive(Debug)]
struct Tells(CancellationToken);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl ListeningSocket {
    pub(super) fn new(tcp: TcpListener) -> Arc<Self> {
        let closed = Tells(CancellationToken::new());
        Arc::new(Self { tcp, closed })
    }

    /// The same, known.
    #[must_use]
    pub fn known(self: &Arc<Self>) -> KnownSocket {
        KnownSocket {
            socket: Arc::downgrade(self),
            closed: self.closed.0.clone(),
        }
    }
}

impl Deref for ListeningSocket {
    type Target = TcpListener;

    fn deref(&self) -> &TcpListener {
        &self.tcp
    }
}

impl KnownSocket {
    /// The socket, while it is open. Whoever has it keeps it so.
    #[must_use]
    pub fn socket(&self) -> Option<Arc<ListeningSocket>> {
        self.socket.upgrade()
    }

    /// Whether nobody can connect through it any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits for that.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_its_end_is_told_when_the_last_owner_lets_go() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let socket = ListeningSocket::new(tcp);
        let known = socket.known();
        let another = known.socket().unwrap();
        drop(socket);
        assert!(!known.is_closed());
        let waits = tokio::spawn(async move {
            known.closed().await;
            known
        });
        drop(another);
        let known = waits.await.unwrap();
        assert!(known.is_closed() && known.socket().is_none());
        // The same address can be had again, although nothing allows two there.
        let again = tokio::net::TcpSocket::new_v4().unwrap();
        again.bind(address).unwrap();
        again.listen(1).unwrap();
    }
}
