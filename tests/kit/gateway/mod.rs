//! A scripted stand-in for the OpenClaw gateway: the real protocol, and every way to misbehave.
//!
//! It owns one port for its whole life and lives as a sequence of processes, each with its own
//! `bootId`. While no process listens, the port refuses connections and nobody else can get it.

mod conn;
mod head;
mod hello;
mod http;
mod journal;
mod openclaw;
mod options;
mod process;
mod upgrade;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::net::raise_the_limit_of_open_files;
use super::wait::{Shared, within};
use process::{Death, Process};

pub use conn::Conn;
pub use head::Head;
pub use journal::{Entry, Event, Journal};
pub use openclaw::sign;
pub use options::{AuthMode, Options, Phase, Protocol, Startupz, Stop, TOKEN, USER, UpgradeAnswer};

/// The operator scopes of the Control UI.
pub const SCOPES: [&str; 6] = [
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
    "operator.pairing",
];

/// A gateway under a test's control. Dropping it resets every connection.
pub struct ScriptedGateway(Arc<Inner>);

struct Inner {
    addr: SocketAddr,
    options: Options,
    phase: watch::Sender<Phase>,
    journal: Shared<Journal>,
    upgrade_answer: Mutex<UpgradeAnswer>,
    token: Mutex<String>,
    identity_scopes: Mutex<Vec<String>>,
    /// A method, and how often it is still refused as by a gateway that goes away.
    refusing: Mutex<(String, usize)>,
    released: watch::Sender<HashSet<String>>,
    events: broadcast::Sender<String>,
    process: Mutex<Option<Arc<Process>>>,
    processes: AtomicU64,
    conns: AtomicU64,
    /// Bound and never listening: keeps the port ours, and refused, between processes.
    _reservation: TcpSocket,
}

impl Inner {
    fn note(&self, process: &Process, event: Event) {
        let entry = Entry {
            at: Instant::now(),
            process: process.number,
            event,
        };
        self.journal.change(|journal| journal.entries.push(entry));
    }

    fn next_conn(&self) -> u64 {
        self.conns.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn released(&self, key: &str) {
        let mut released = self.released.subscribe();
        released
            .wait_for(|keys| keys.contains(key))
            .await
            .expect("the sender lives in self");
    }
}

impl Drop for ScriptedGateway {
    fn drop(&mut self) {
        if let Some(process) = self.process() {
            process.abandon();
        }
    }
}

// === Starting and stopping ===

impl ScriptedGateway {
    /// One that is ready.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// One that is ready, of another kind.
    pub async fn with(options: Options) -> Self {
        let gateway = Self::stopped(options);
        gateway.begin_starting().await;
        gateway.ready();
        gateway
    }

    /// One whose process has not been started yet: its port refuses.
    pub fn stopped(options: Options) -> Self {
        raise_the_limit_of_open_files();
        let reservation = bind(SocketAddr::new(options.ip, 0));
        let addr = reservation.local_addr().unwrap();
        Self(Arc::new(Inner {
            addr,
            options,
            phase: watch::Sender::new(Phase::Down),
            journal: Shared::default(),
            upgrade_answer: Mutex::default(),
            token: Mutex::new(TOKEN.to_owned()),
            identity_scopes: Mutex::new(SCOPES.map(str::to_owned).to_vec()),
            refusing: Mutex::default(),
            released: watch::Sender::default(),
            events: broadcast::channel(64).0,
            process: Mutex::default(),
            processes: AtomicU64::new(0),
            conns: AtomicU64::new(0),
            _reservation: reservation,
        }))
    }

    /// Starts a process: it listens, and is not ready.
    pub async fn begin_starting(&self) {
        self.listen_at(self.0.addr.ip());
    }

    /// The same at another address of this machine, on the same port.
    pub fn listen_at(&self, ip: IpAddr) {
        assert!(self.process().is_none(), "a process is running");
        let number = self.0.processes.fetch_add(1, Ordering::Relaxed) + 1;
        let socket = bind(SocketAddr::new(ip, self.0.addr.port()));
        if let Some(bytes) = self.0.options.receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let listener = socket.listen(1024).expect("listen");
        self.0.phase.send_replace(Phase::Starting);
        let process = Process::start(&self.0, number, listener);
        self.0.note(&process, Event::Started);
        *self.0.process.lock().unwrap() = Some(process);
    }

    /// Start-up is finished.
    pub fn ready(&self) {
        self.0.phase.send_replace(Phase::Ready);
    }

    /// It has been told to stop and still has work: explicit errors, no new WebSockets.
    pub fn drain(&self) {
        self.0.phase.send_replace(Phase::Draining);
    }

    /// The `shutdown` event alone: what is asked from now on gets an error that says nothing.
    pub fn announce_shutdown(&self, payload: &Value) {
        self.0.phase.send_replace(Phase::Closing);
        self.broadcast("shutdown", payload);
    }

    /// Draining, `shutdown` event, close 1012, exit.
    pub async fn sigterm_like(&self) {
        self.stop(Stop::Sigterm).await;
    }

    /// Resets every connection and refuses new ones.
    pub async fn kill(&self) {
        self.stop(Stop::Kill).await;
    }

    /// Ends the process; returns when its port refuses.
    pub async fn stop(&self, how: Stop) {
        let process = self.process().expect("a process is running");
        let goodbye = match how {
            Stop::Sigterm => Some(json!({"reason":"gateway stopping"})),
            Stop::Restart => Some(json!({"reason":"gateway restarting","restartExpectedMs":1500})),
            Stop::Kill | Stop::Fin => None,
        };
        if let Some(payload) = goodbye {
            self.drain();
            self.say_goodbye(&process, &payload).await;
        }
        let death = if how == Stop::Kill {
            Death::Reset
        } else {
            Death::Fin
        };
        within("the gateway's connections end", process.end(death)).await;
        self.0.phase.send_replace(Phase::Down);
        *self.0.process.lock().unwrap() = None;
        self.0.note(&process, Event::Stopped);
    }

    /// The real one sends its close 15 to 20 ms after the event.
    async fn say_goodbye(&self, process: &Process, payload: &Value) {
        let conns = process.authenticated();
        self.0.phase.send_replace(Phase::Closing);
        conns
            .iter()
            .for_each(|conn| conn.event("shutdown", payload.clone()));
        tokio::time::sleep(Duration::from_millis(15)).await;
        for conn in &conns {
            conn.close(1012, "service restart");
        }
        let flushed = async {
            for conn in &conns {
                conn.flushed().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), flushed).await;
    }

    /// A whole outage: stops, is down, is starting, is ready.
    pub async fn outage(&self, how: Stop, down_for: Duration, starting_for: Duration) {
        self.stop(how).await;
        tokio::time::sleep(down_for).await;
        self.begin_starting().await;
        tokio::time::sleep(starting_for).await;
        self.ready();
    }

    /// An outage that begins as after SIGTERM.
    pub async fn restart(&self, down_for: Duration, starting_for: Duration) {
        self.outage(Stop::Sigterm, down_for, starting_for).await;
    }

    /// Refuses new connections; those that are open go on.
    pub fn stop_listening(&self) {
        self.process()
            .expect("a process is running")
            .stop_listening();
    }

    /// SIGSTOP: connections are accepted, nothing is answered, nothing ends.
    pub fn hang(&self) {
        self.process().expect("a process is running").freeze(true);
    }

    /// SIGCONT: everything goes on where it was.
    pub fn resume(&self) {
        self.process().expect("a process is running").freeze(false);
    }
}

// === Misbehaviour and events ===

impl ScriptedGateway {
    /// How upgrades are answered from now on.
    pub fn answer_upgrades(&self, answer: UpgradeAnswer) {
        *self.0.upgrade_answer.lock().unwrap() = answer;
    }

    /// The token that is right from now on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.0.token.lock().unwrap());
    }

    /// What a device-less user is granted from now on, in trusted-proxy mode.
    pub fn set_identity_scopes(&self, scopes: &[&str]) {
        *self.0.identity_scopes.lock().unwrap() =
            scopes.iter().map(|&scope| scope.to_owned()).collect();
    }

    /// Refuses the next so many requests of this method as a gateway does that goes away, and calls
    /// itself ready all the same.
    pub fn refuse(&self, method: &str, times: usize) {
        *self.0.refusing.lock().unwrap() = (method.to_owned(), times);
    }

    /// Lets every request that waits for `key` be answered, now and later.
    pub fn release(&self, key: &str) {
        self.0
            .released
            .send_if_modified(|keys| keys.insert(key.to_owned()));
    }

    /// A numbered event to every client.
    pub fn broadcast(&self, event: &str, payload: &Value) {
        let conns = self
            .process()
            .map(|process| process.authenticated())
            .unwrap_or_default();
        conns
            .iter()
            .for_each(|conn| conn.event(event, payload.clone()));
    }

    /// A numbered event to the clients that called this subscribing method.
    pub fn publish(&self, subscribed: &str, event: &str, payload: &Value) {
        let conns = self
            .process()
            .map(|process| process.authenticated())
            .unwrap_or_default();
        let subscribers = conns.iter().filter(|conn| conn.is_subscribed(subscribed));
        subscribers.for_each(|conn| conn.event(event, payload.clone()));
    }

    /// A server-sent event to every reader of `/events`.
    pub fn emit(&self, event: &str) {
        let _ = self.0.events.send(event.to_owned());
    }
}

// === What it saw ===

impl ScriptedGateway {
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.addr)
    }

    pub fn boot_id(&self) -> String {
        self.process()
            .expect("a process is running")
            .boot_id
            .clone()
    }

    /// A copy of the journal so far.
    pub fn journal(&self) -> Journal {
        self.0.journal.read(Journal::clone)
    }

    /// Waits until the journal satisfies `found`.
    pub async fn wait_for(&self, what: &str, mut found: impl FnMut(&Journal) -> bool) {
        self.0
            .journal
            .wait_for(what, |journal| found(journal).then_some(()))
            .await;
    }

    /// The open WebSockets, oldest first.
    pub fn conns(&self) -> Vec<Conn> {
        let process = self.process();
        process.map_or(Vec::new(), |p| {
            p.conns.lock().unwrap().values().cloned().collect()
        })
    }

    /// The newest WebSocket, as soon as there are `count` of them.
    pub async fn conn(&self, count: usize) -> Conn {
        self.wait_for("a WebSocket at the gateway", |_| {
            self.conns().len() >= count
        })
        .await;
        self.conns().pop().expect("waited for")
    }

    fn process(&self) -> Option<Arc<Process>> {
        self.0.process.lock().unwrap().clone()
    }
}

/// A socket on `addr` that others of this gateway may share, but nobody else gets.
fn bind(addr: SocketAddr) -> TcpSocket {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).expect("a free port");
    socket
}
