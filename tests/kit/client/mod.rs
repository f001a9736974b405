//! Clients that behave as the real ones were measured to behave, and write down what they notice.

mod habits;
mod life;
mod record;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::net::Target;
use super::wait::Shared;

pub use habits::{Role, request};
pub use record::{Disconnect, Outcome, Record, Seen};

/// What a test asks of a running client.
#[derive(Debug)]
enum Command {
    Request(String, String),
    Send(Message),
    Close(u16),
}

/// A running client: connects, and reconnects as its role does. Dropping it ends its connection
/// without a close frame.
#[derive(Debug)]
pub struct Client {
    record: Shared<Record>,
    commands: mpsc::UnboundedSender<Command>,
    requests: AtomicU64,
    life: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.life.abort();
    }
}

impl Client {
    /// Starts it; it connects at once.
    pub fn start(role: Role, target: Target) -> Self {
        let record = Shared::<Record>::default();
        let (commands, orders) = mpsc::unbounded_channel();
        let life = tokio::spawn(life::Life::new(role, target, record.clone(), orders).run());
        Self {
            record,
            commands,
            requests: AtomicU64::new(0),
            life,
        }
    }

    /// Starts it and waits for its first `hello-ok`.
    pub async fn connected(role: Role, target: Target) -> Self {
        let client = Self::start(role, target);
        client.hello(1).await;
        client
    }

    /// Waits until it has had this many `hello-ok`s and is connected.
    pub async fn hello(&self, count: usize) {
        self.wait_for("hello-ok", |record| {
            record.connected && record.hellos.len() >= count
        })
        .await;
    }

    /// Waits until what it noticed satisfies `found`.
    pub async fn wait_for(&self, what: &str, mut found: impl FnMut(&Record) -> bool) {
        self.record
            .wait_for(what, |record| found(record).then_some(()))
            .await;
    }

    /// Waits for an event of this name, counting from 1 over all connections; gives its payload.
    pub async fn event(&self, name: &str, count: usize) -> Value {
        let what = format!("event {name} number {count}");
        self.record
            .wait_for(&what, |r| r.events(name).get(count - 1).cloned())
            .await
    }

    /// A copy of what it noticed so far.
    pub fn record(&self) -> Record {
        self.record.read(Record::clone)
    }

    /// Sends a request and waits for what becomes of it.
    pub async fn request(&self, method: &str, params: Value) -> Outcome {
        let id = self.send_request(method, params);
        self.outcome(&id).await
    }

    /// Sends a request; gives its id.
    pub fn send_request(&self, method: &str, params: Value) -> String {
        let id = format!("r{}", self.requests.fetch_add(1, Ordering::Relaxed) + 1);
        let request = request(&id, method, &params);
        let _ = self.commands.send(Command::Request(id.clone(), request));
        id
    }

    /// Waits for what becomes of a request.
    pub async fn outcome(&self, id: &str) -> Outcome {
        let what = format!("an answer to {id}");
        self.record
            .wait_for(&what, |record| record.outcome(id))
            .await
    }

    /// The same for what may take longer than anything else.
    pub async fn outcome_within(&self, limit: Duration, id: &str) -> Outcome {
        let outcome = self.record.until(|record| record.outcome(id));
        let outcome = tokio::time::timeout(limit, outcome).await;
        outcome.unwrap_or_else(|_| panic!("no answer to {id} within {limit:?}"))
    }

    /// Sends any message.
    pub fn send(&self, message: Message) {
        let _ = self.commands.send(Command::Send(message));
    }

    /// Sends a close frame and does not come back.
    pub fn close(&self, code: u16) {
        let _ = self.commands.send(Command::Close(code));
    }
}
