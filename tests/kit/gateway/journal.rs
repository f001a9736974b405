//! Everything the gateway saw, in order.

use serde_json::Value;
use tokio::time::Instant;

use super::super::frame::Frame;
use super::head::Head;

/// What happened, with when and in which process.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: Instant,
    /// Counts processes from 1.
    pub process: u64,
    pub event: Event,
}

/// One thing the gateway saw. `conn` numbers its WebSocket connections over all processes.
#[derive(Debug, Clone)]
pub enum Event {
    /// A process began to listen.
    Started,
    /// A process ended.
    Stopped,
    /// An upgrade request and the status it was answered with (0: none).
    Upgrade { conn: u64, head: Head, status: u16 },
    /// A `connect` and what became of it: `None` is `hello-ok`, else the error's most telling code.
    Connect {
        conn: u64,
        params: Value,
        error: Option<String>,
    },
    /// A request after `connect`; `executed` says whether it had an effect.
    Request {
        conn: u64,
        id: String,
        method: String,
        params: Value,
        executed: bool,
    },
    /// A frame from the client, control frames included.
    Frame { conn: u64, frame: Frame },
    /// A WebSocket ended: with the client's close code, or without (1006).
    Closed { conn: u64, code: u16 },
    /// A plain HTTP request, probes excluded.
    Http { head: Head, body: Vec<u8> },
}

/// The entries so far.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub entries: Vec<Entry>,
    /// Probes (`/startupz`, `/readyz`, `/health`) are only counted.
    pub probes: u64,
    /// Most unfinished handshakes of one client address at a time, and of all together.
    pub peak_unfinished_per_ip: usize,
    pub peak_unfinished: usize,
    /// Unanswered requests, where [`super::Options::busy_from`] counts them.
    pub unanswered: usize,
}

impl Journal {
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.entries.iter().map(|entry| &entry.event)
    }

    /// Upgrade requests, answered in whatever way.
    pub fn upgrades(&self) -> Vec<(&Head, u16)> {
        self.events()
            .filter_map(|event| match event {
                Event::Upgrade { head, status, .. } => Some((head, *status)),
                _ => None,
            })
            .collect()
    }

    /// `connect`s with what became of them.
    pub fn connects(&self) -> Vec<(&Value, Option<&str>)> {
        self.events()
            .filter_map(|event| match event {
                Event::Connect { params, error, .. } => Some((params, error.as_deref())),
                _ => None,
            })
            .collect()
    }

    /// How many `connect`s got `hello-ok`.
    pub fn hellos(&self) -> usize {
        self.connects()
            .iter()
            .filter(|(_, error)| error.is_none())
            .count()
    }

    /// How many `connect`s were refused with this code.
    pub fn refused(&self, code: &str) -> usize {
        self.connects()
            .iter()
            .filter(|(_, error)| *error == Some(code))
            .count()
    }

    /// The params of every request of this method, in order.
    pub fn requests(&self, method: &str) -> Vec<&Value> {
        self.events()
            .filter_map(|event| match event {
                Event::Request {
                    method: seen,
                    params,
                    ..
                } if seen == method => Some(params),
                _ => None,
            })
            .collect()
    }

    /// How many requests with this `params.name` arrived.
    pub fn arrivals(&self, name: &str) -> usize {
        self.named(name).count()
    }

    /// How many requests with this `params.name` had an effect.
    pub fn executions(&self, name: &str) -> usize {
        self.named(name).filter(|&executed| executed).count()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = bool> {
        self.events().filter_map(move |event| match event {
            Event::Request {
                params, executed, ..
            } if params["name"] == name => Some(*executed),
            _ => None,
        })
    }

    /// Frames from clients, in order.
    pub fn frames(&self) -> Vec<&Frame> {
        self.events()
            .filter_map(|event| match event {
                Event::Frame { frame, .. } => Some(frame),
                _ => None,
            })
            .collect()
    }

    /// How the WebSockets ended.
    pub fn closes(&self) -> Vec<u16> {
        self.events()
            .filter_map(|event| match event {
                Event::Closed { code, .. } => Some(*code),
                _ => None,
            })
            .collect()
    }

    /// Plain HTTP requests.
    pub fn http(&self) -> Vec<(&Head, &[u8])> {
        self.events()
            .filter_map(|event| match event {
                Event::Http { head, body } => Some((head, body.as_slice())),
                _ => None,
            })
            .collect()
    }
}
