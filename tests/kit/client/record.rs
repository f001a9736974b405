//! What a client noticed.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::time::Instant;

/// Everything that the owner of a client could see, in order.
#[derive(Clone, Default)]
pub struct Record {
    /// Whether it has a socket with a `hello-ok` at the moment.
    pub connected: bool,
    /// Sockets it has tried to open.
    pub attempts: usize,
    /// Attempts that its owner heard of: why each failed.
    pub failed: Vec<String>,
    /// `startup-sidecars` answers, after which it tried again without a word.
    pub quiet_retries: usize,
    /// Payloads of the `hello-ok`s.
    pub hellos: Vec<Value>,
    /// Ends of connections that had their `hello-ok`.
    pub disconnects: Vec<Disconnect>,
    /// Every text frame of every connection.
    pub frames: Vec<Seen>,
    /// Answers by request id, `connect` excluded.
    pub answers: BTreeMap<String, Vec<Value>>,
    /// Ids of requests that were sent on a connection that ended, or could not be sent at all.
    pub lost: Vec<String>,
    /// Gaps in `seq`: expected and received.
    pub gaps: Vec<(u64, u64)>,
    /// Payloads of pings and pongs.
    pub pings: Vec<Vec<u8>>,
    pub pongs: Vec<Vec<u8>>,
    /// The code of the answer to its own close; 1006 when the connection just ended.
    pub close_answer: Option<u16>,
    /// It has stopped trying.
    pub gave_up: bool,
    /// What no client may ever see: a request answered twice, an answer to nothing.
    pub violations: Vec<String>,
}

/// One text frame.
#[derive(Clone)]
pub struct Seen {
    pub at: Instant,
    /// The connection, counted as in [`Record::attempts`].
    pub attempt: usize,
    pub value: Value,
}

/// The end of a connection that had its `hello-ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// 1006 without a close frame.
    pub code: u16,
    pub reason: String,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// `ok: true` with this payload.
    Ok(Value),
    /// `ok: false` with this error.
    Error(Value),
    /// Its connection ended, or there was none.
    Lost,
}

impl Outcome {
    #[track_caller]
    pub fn ok(self) -> Value {
        match self {
            Self::Ok(payload) => payload,
            other => panic!("not ok: {other:?}"),
        }
    }

    #[track_caller]
    pub fn error(self) -> Value {
        match self {
            Self::Error(error) => error,
            other => panic!("not an error: {other:?}"),
        }
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{} {:.300}", self.attempt, self.value.to_string())
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("frames", &self.frames)
            .field("connected", &self.connected)
            .field("attempts", &self.attempts)
            .field("failed", &self.failed)
            .field("quiet_retries", &self.quiet_retries)
            .field("hellos", &self.hellos.len())
            .field("disconnects", &self.disconnects)
            .field("lost", &self.lost)
            .field("gaps", &self.gaps)
            .field("pings", &self.pings.len())
            .field("violations", &self.violations)
            .finish_non_exhaustive()
    }
}

impl Record {
    /// Payloads of the events of this name.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let named = self
            .frames
            .iter()
            .filter(|seen| seen.value["event"] == name);
        named.map(|seen| seen.value["payload"].clone()).collect()
    }

    /// Names of all events, in order.
    pub fn event_names(&self) -> Vec<&str> {
        self.frames
            .iter()
            .filter_map(|seen| seen.value["event"].as_str())
            .collect()
    }

    /// What has become of a request, if anything.
    pub fn outcome(&self, id: &str) -> Option<Outcome> {
        if let Some(answer) = self.answers.get(id).and_then(|answers| answers.first()) {
            return Some(match answer["ok"].as_bool() {
                Some(true) => Outcome::Ok(answer["payload"].clone()),
                _ => Outcome::Error(answer["error"].clone()),
            });
        }
        self.lost
            .iter()
            .any(|lost| lost == id)
            .then_some(Outcome::Lost)
    }

    /// Fails the test if its owner noticed any interruption or breach of protocol.
    #[track_caller]
    pub fn assert_untouched(&self) {
        self.assert_sound();
        assert_eq!(self.disconnects, [], "disconnected");
        assert_eq!(
            self.attempts, 1,
            "had to connect again; failed: {:?}",
            self.failed
        );
    }

    /// Fails the test if an attempt failed in a way that its owner hears of, or frames were wrong.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert_eq!(self.violations, [""; 0], "breach of protocol");
        assert_eq!(self.failed, [""; 0], "failed attempts");
    }
}
