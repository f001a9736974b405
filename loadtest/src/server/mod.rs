//! The echo backend: a stand-in for any WebSocket application, or (with `challenge`) for the
//! OpenClaw gateway as far as a proxy and this tool's clients need it. It counts handshakes, so
//! that a test can see how gently clients come back.

mod counters;
mod serve;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

pub use counters::Stats;

use counters::Counters;

/// What to serve.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Speak OpenClaw: challenge, hello, an `ok` answer to every request.
    pub challenge: bool,
    /// Say "starting" for this long after the port opened, as the gateway does.
    pub starting: Duration,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Keep going.
    NotYet,
    /// Say goodbye: `shutdown` event where spoken, then close 1012.
    Politely,
    /// Drop every socket where it stands.
    Cut,
}

/// A running backend.
#[derive(Debug)]
pub struct EchoServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<Stop>,
    accept: JoinHandle<()>,
}

/// What every connection sees.
#[derive(Debug)]
struct Shared {
    challenge: bool,
    ready_at: Instant,
    counters: Counters,
}

impl Shared {
    fn ready(&self) -> bool {
        Instant::now() >= self.ready_at
    }
}

impl EchoServer {
    /// Binds and starts serving.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(options: &ServerOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            challenge: options.challenge,
            ready_at: Instant::now() + options.starting,
            counters: Counters::default(),
        });
        let (stop, stopped) = watch::channel(Stop::NotYet);
        let accept = tokio::spawn(accept(listener, Arc::clone(&shared), stopped));
        Ok(Self {
            addr,
            shared,
            stop,
            accept,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has seen.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats()
    }

    /// Stops listening, ends every session, and returns when all are gone.
    pub async fn stop(self, how: Stop) {
        self.stop.send_replace(how);
        // The accept task only ends by this signal; its failure leaves nothing to wait for.
        let _ = self.accept.await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<Stop>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((io, _)) => {
                    open.spawn(serve::serve(io, Arc::clone(&shared), stop.clone()));
                }
                // Out of descriptors: the next connection may find one.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}
