//! What clients write down while they run.

use tokio::time::Instant;

use crate::protocol::Refusal;

/// One thing that happened to one client.
#[derive(Debug, Clone)]
pub struct Event {
    /// Which client.
    pub client: usize,
    /// When.
    pub at: Instant,
    /// What.
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A session is open and, for OpenClaw, greeted.
    Opened,
    /// An attempt was told "starting, come back": official clients hide this from their user.
    Greeted,
    /// An attempt failed.
    Failed {
        /// A few words that group equal causes.
        cause: String,
        /// Whether the upgrade had succeeded.
        upgraded: bool,
    },
    /// A request went out.
    Sent,
    /// A request was answered with its result.
    Answered,
    /// A request was answered with an error.
    Refused(Refusal),
    /// A request was not answered within a client's patience.
    TimedOut,
    /// An open session ended.
    Ended {
        /// Close code as a browser reports it.
        code: u16,
        /// Requests that will never be answered.
        unanswered: usize,
    },
    /// The run was over and the client left.
    Left {
        /// Requests whose answer had not come.
        unanswered: usize,
    },
}
