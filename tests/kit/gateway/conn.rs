//! One WebSocket at the gateway: what a test can do to it, and its two directions.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::super::frame::Frame;
use super::head::{Head, write_all};
use super::process::Process;

/// What is to be written next.
#[derive(Debug)]
pub(super) enum Out {
    Bytes(Vec<u8>),
    /// A few bytes at a time.
    Slowly(Vec<u8>, usize, Duration),
    /// Tells when everything before it has been given to the kernel.
    Flushed(oneshot::Sender<()>),
    Fin,
    Reset,
}

/// A handle on one WebSocket connection.
#[derive(Debug, Clone)]
pub struct Conn(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: u64,
    nonce: String,
    head: Head,
    out: mpsc::UnboundedSender<Out>,
    seq: AtomicU64,
    reading: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    scopes: Option<Vec<String>>,
    subscriptions: BTreeSet<String>,
}

impl Conn {
    pub(super) fn new(id: u64, nonce: String, head: Head) -> (Self, mpsc::UnboundedReceiver<Out>) {
        let (out, outgoing) = mpsc::unbounded_channel();
        let reading = watch::Sender::new(true);
        let (seq, state) = (AtomicU64::new(0), Mutex::default());
        (
            Self(Arc::new(Shared {
                id,
                nonce,
                head,
                out,
                seq,
                reading,
                state,
            })),
            outgoing,
        )
    }

    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The nonce of its challenge.
    pub fn nonce(&self) -> &str {
        &self.0.nonce
    }

    /// Its upgrade request.
    pub fn head(&self) -> &Head {
        &self.0.head
    }

    pub fn is_authenticated(&self) -> bool {
        self.0.state.lock().unwrap().scopes.is_some()
    }

    pub(super) fn authenticate(&self, scopes: Vec<String>) {
        self.0.state.lock().unwrap().scopes = Some(scopes);
    }

    pub(super) fn scopes(&self) -> Vec<String> {
        self.0
            .state
            .lock()
            .unwrap()
            .scopes
            .clone()
            .unwrap_or_default()
    }

    pub(super) fn subscribe(&self, method: &str) {
        self.0
            .state
            .lock()
            .unwrap()
            .subscriptions
            .insert(method.to_owned());
    }

    /// Whether this subscribing method was called on this connection.
    pub fn is_subscribed(&self, method: &str) -> bool {
        self.0.state.lock().unwrap().subscriptions.contains(method)
    }

    /// Queues these bytes as they are.
    pub fn send_bytes(&self, bytes: impl Into<Vec<u8>>) {
        let _ = self.0.out.send(Out::Bytes(bytes.into()));
    }

    /// Queues these bytes, `piece` of them at a time with `pause` between.
    pub fn send_slowly(&self, bytes: impl Into<Vec<u8>>, piece: usize, pause: Duration) {
        let _ = self.0.out.send(Out::Slowly(bytes.into(), piece, pause));
    }

    pub fn send(&self, frame: &Frame) {
        self.send_bytes(frame.encode());
    }

    pub fn send_json(&self, value: &Value) {
        self.send(&Frame::text(value.to_string()));
    }

    /// A numbered event.
    pub fn event(&self, event: &str, payload: Value) {
        let seq = self.0.seq.fetch_add(1, Ordering::Relaxed) + 1;
        self.send_json(&json!({"type":"event","event":event,"payload":payload,"seq":seq}));
    }

    /// A close frame; the connection ends when the client has answered it.
    pub fn close(&self, code: u16, reason: &str) {
        self.send(&Frame::close(code, reason));
    }

    /// Returns when everything queued before has been given to the kernel.
    pub async fn flushed(&self) {
        let (tell, told) = oneshot::channel();
        let _ = self.0.out.send(Out::Flushed(tell));
        let _ = told.await;
    }

    /// Sends FIN without a close frame.
    pub fn fin(&self) {
        let _ = self.0.out.send(Out::Fin);
    }

    /// Resets the connection.
    pub fn reset(&self) {
        let _ = self.0.out.send(Out::Reset);
    }

    /// Stops or goes on reading what the client sends, so that the socket's buffers fill.
    pub fn set_reading(&self, reading: bool) {
        self.0.reading.send_replace(reading);
    }

    pub(super) async fn may_read(&self) {
        let mut reading = self.0.reading.subscribe();
        reading
            .wait_for(|reading| *reading)
            .await
            .expect("the sender lives in self");
    }
}

/// Writes what is queued until a FIN, a reset or an error.
pub(super) async fn write_out(
    process: &Process,
    stream: &TcpStream,
    mut outgoing: mpsc::UnboundedReceiver<Out>,
) {
    while let Some(out) = outgoing.recv().await {
        process.thawed().await;
        match out {
            Out::Bytes(bytes) => {
                if write_all(stream, &bytes).await.is_err() {
                    return;
                }
            }
            Out::Slowly(bytes, piece, pause) => {
                for piece in bytes.chunks(piece) {
                    if write_all(stream, piece).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                }
            }
            Out::Flushed(tell) => drop(tell.send(())),
            Out::Fin => {
                let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
                return;
            }
            Out::Reset => {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}
