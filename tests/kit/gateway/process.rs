//! One gateway process: what it listens on, which connections hang on it, how it dies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::conn::Conn;
use super::{Inner, http};

/// How a process's connections end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Reset,
    Fin,
}

/// A process from its first `listen` to its exit.
pub(super) struct Process {
    pub number: u64,
    pub boot_id: String,
    pub born: Instant,
    pub conns: Mutex<BTreeMap<u64, Conn>>,
    pub unauthenticated: Mutex<HashMap<String, usize>>,
    /// Idempotency keys; the real gateway keeps them in memory too.
    keys: Mutex<HashSet<String>>,
    death: watch::Sender<Option<Death>>,
    frozen: watch::Sender<bool>,
    deaf: CancellationToken,
    tasks: TaskTracker,
}

impl Process {
    /// Starts one on a listener that is already bound.
    pub(super) fn start(inner: &Arc<Inner>, number: u64, listener: TcpListener) -> Arc<Self> {
        let process = Arc::new(Self {
            number,
            boot_id: format!(
                "b0070000-0000-4000-8000-{:06}{number:06}",
                inner.addr.port()
            ),
            born: Instant::now(),
            conns: Mutex::default(),
            unauthenticated: Mutex::default(),
            keys: Mutex::default(),
            death: watch::Sender::new(None),
            frozen: watch::Sender::new(false),
            deaf: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let ticking = Arc::clone(&process).tick(inner.options.tick_interval);
        process.tasks.spawn(ticking);
        process
            .tasks
            .spawn(accept(Arc::clone(inner), Arc::clone(&process), listener));
        process
    }

    /// Returns when every connection has ended and the port is free.
    pub(super) async fn end(&self, death: Death) {
        self.deaf.cancel();
        self.death.send_replace(Some(death));
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends it without waiting.
    pub(super) fn abandon(&self) {
        self.deaf.cancel();
        self.death.send_replace(Some(Death::Reset));
    }

    /// Refuses new connections; those that are open go on.
    pub(super) fn stop_listening(&self) {
        self.deaf.cancel();
    }

    /// Does nothing any more, as after SIGSTOP, until thawed.
    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Returns at once unless the process is frozen.
    pub(super) async fn thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        frozen
            .wait_for(|frozen| !frozen)
            .await
            .expect("the sender lives in self");
    }

    /// Returns when the process dies.
    pub(super) async fn died(&self) -> Death {
        let mut death = self.death.subscribe();
        let death = death
            .wait_for(Option::is_some)
            .await
            .expect("the sender lives in self");
        death.expect("waited for")
    }

    /// Whether this process has executed a request with this idempotency key before.
    pub(super) fn has_seen(&self, key: &serde_json::Value) -> bool {
        key.as_str()
            .is_some_and(|key| !self.keys.lock().unwrap().insert(key.to_owned()))
    }

    /// Its connections that have had their `hello-ok`.
    pub(super) fn authenticated(&self) -> Vec<Conn> {
        let conns = self.conns.lock().unwrap();
        conns
            .values()
            .filter(|conn| conn.is_authenticated())
            .cloned()
            .collect()
    }

    async fn tick(self: Arc<Self>, every: std::time::Duration) {
        let mut interval = tokio::time::interval(every);
        interval.tick().await;
        loop {
            tokio::select! {
                _ = self.died() => return,
                _ = interval.tick() => {}
            }
            self.authenticated()
                .iter()
                .for_each(|conn| conn.event("tick", serde_json::json!({})));
        }
    }
}

async fn accept(inner: Arc<Inner>, process: Arc<Process>, listener: TcpListener) {
    loop {
        let (stream, peer) = tokio::select! {
            () = process.deaf.cancelled() => return,
            accepted = listener.accept() => accepted.expect("accept on loopback"),
        };
        let serving = serve(Arc::clone(&inner), Arc::clone(&process), stream, peer);
        process.tasks.spawn(serving);
    }
}

async fn serve(inner: Arc<Inner>, process: Arc<Process>, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let death = tokio::select! {
        () = http::serve(&inner, &process, &stream, peer) => return,
        death = process.died() => death,
    };
    let socket = socket2::SockRef::from(&stream);
    let _ = match death {
        Death::Reset => socket.set_linger(Some(std::time::Duration::ZERO)),
        Death::Fin => socket.shutdown(std::net::Shutdown::Write),
    };
}
