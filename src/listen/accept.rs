//! The accept loop: goes on whatever happens to single connections or to our descriptors.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::bind::BACKLOG;
use crate::observe::Metrics;

/// Longest pause when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(50);
/// Shortages closer together than this are one, and logged once.
const EPISODE: Duration = Duration::from_secs(10);

/// Where connections come from; a seam for tests.
pub(super) trait Source {
    type Connection;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Connection, SocketAddr)>> + Send;
}

impl Source for TcpListener {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}

/// Whoever has connected already when a listener is closed for good comes in all the same.
pub(super) fn rest(socket: &TcpListener, metrics: &Metrics, take: impl Fn(TcpStream, SocketAddr)) {
    // Asked of the system itself: what it has, the runtime may not know of yet.
    for _ in 0..=BACKLOG {
        let Ok((connection, from)) = SockRef::from(socket).accept() else {
            return;
        };
        let connection = connection
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(connection.into()));
        if let (Ok(connection), Some(from)) = (connection, from.as_socket()) {
            metrics.connections.inc();
            take(connection, from);
        }
    }
}

/// Hands every connection to `take` until `stop`.
pub(super) async fn run<S: Source>(
    source: &S,
    stop: &CancellationToken,
    admission: &Admission,
    metrics: &Metrics,
    take: impl Fn(S::Connection, SocketAddr),
) {
    let mut shortage: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = source.accept() => accepted,
        };
        let over = shortage.is_none_or(|last| last.elapsed() > EPISODE);
        match accepted {
            Ok((connection, from)) => {
                if over && shortage.take().is_some() {
                    tracing::info!("accepting connections again");
                }
                metrics.connections.inc();
                take(connection, from);
            }
            // Its client went away, or a firewall's verdict, while it was in the backlog.
            Err(error) if concerns_one(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                if over {
                    tracing::warn!(%error, "cannot accept connections for now; raise the limit of open files (ulimit -n, LimitNOFILE=)");
                }
                shortage = Some(Instant::now());
                metrics.accept_pauses.inc();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = admission.ended() => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

/// Whether an error of `accept` is that of the one connection (accept(2), "Error handling").
fn concerns_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::sync::mpsc;

    /// Gives back what it is told, then waits for ever.
    struct Script(Mutex<Vec<io::Result<u32>>>);

    impl Source for Script {
        type Connection = u32;

        async fn accept(&self) -> io::Result<(u32, SocketAddr)> {
            let next = self.0.lock().unwrap().pop();
            match next {
                Some(result) => result.map(|n| (n, SocketAddr::from(([127, 0, 0, 1], 1)))),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn survives_what_accept_may_say() {
        const EMFILE: i32 = 24;
        let mut script = vec![
            Ok(1),
            Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(2),
            Err(io::Error::from_raw_os_error(EMFILE)),
            Err(io::Error::from_raw_os_error(EMFILE)),
            Ok(3),
            Err(io::Error::from_raw_os_error(EMFILE)),
            Ok(4),
        ];
        script.reverse();
        let metrics = Arc::new(Metrics::default());
        let admission = Admission::new(Arc::clone(&metrics), usize::MAX);
        let stop = CancellationToken::new();
        let (taken, mut seen) = mpsc::unbounded_channel();
        let started = Instant::now();
        let script = Script(Mutex::new(script));
        let serve = run(&script, &stop, &admission, &metrics, |n, _| {
            taken.send(n).unwrap();
        });
        let watch = async {
            for expected in 1..=4 {
                assert_eq!(seen.recv().await, Some(expected));
            }
            stop.cancel();
        };
        tokio::join!(serve, watch);
        assert_eq!(started.elapsed().as_millis() / 50, 3);
        assert_eq!(
            (metrics.connections.get(), metrics.accept_pauses.get()),
            (4, 3)
        );
    }
}
