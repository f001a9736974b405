//! The words between a session's machine and its pump: what happens, and what to do about it.
//!
//! Values only; neither decisions nor I/O.

use std::time::Duration;

use tokio::time::Instant;

use super::policy::Policy;
use crate::gateway::{Evidence, Reason, View};
use crate::protocol::rescue::{Close, Execution};
use crate::protocol::speech::Resumed;

/// A frame's place among the bytes that are kept for the next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Of its first byte.
    pub(super) start: u64,
    /// Behind its last byte, which may still be on its way.
    pub(super) end: u64,
}

/// What happens to a session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// The client begins a message: its text, or the beginning of a long one.
    ClientMessage {
        /// Unmasked.
        text: &'a [u8],
        /// Whether this is all of the message, so that it could be said again.
        whole: bool,
        /// Where its last byte would be in the stream to the gateway; `None`: not known yet.
        end: Option<u64>,
        /// Where it would be among the kept bytes; `None`: they have no room for it.
        kept: Option<Span>,
    },
    /// The message whose end was not known ends here.
    ClientMessageEnds(u64),
    /// The client began the close handshake.
    ClientClose {
        /// Its code.
        code: Option<u16>,
    },
    /// The gateway begins a message.
    GatewayMessage(&'a [u8]),
    /// The gateway began the close handshake.
    GatewayClose {
        /// Its code.
        code: Option<u16>,
        /// Bytes of the stream that it was sent.
        written: u64,
        /// Whether it stands inside an unfinished message.
        inside: bool,
        /// Whether the client was in the middle of a message to it.
        cut: bool,
    },
    /// The gateway's connection ended without one.
    GatewayLost {
        /// How.
        reason: Reason,
        /// Bytes of the stream that it was sent.
        written: u64,
        /// What the client has seen of the last message.
        torn: Torn,
        /// Whether the client was in the middle of a message to it.
        cut: bool,
    },
    /// The gateway's state changed, or is told anew.
    View(View),
    /// Other terms are in force.
    Terms(Policy),
    /// Another gateway takes the place of the one so far, which is let go, having been sent
    /// `written` bytes.
    Moved {
        /// The new one's state.
        view: View,
        /// Bytes of the stream that the old one was sent.
        written: u64,
    },
    /// It is this session's turn.
    Turn,
    /// So many kept requests may go to the gateway now.
    Room(usize),
    /// The dial that was asked for has ended.
    Dialled(Result<(), Reason>),
    /// Nothing but time has passed.
    Tick,
    /// Whoever it is may not be here any more.
    Revoked,
    /// holdline stops; the session may go on until then.
    Stop {
        /// When it has to end.
        at: Instant,
    },
}

/// How far the gateway's last message had got to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Torn {
    /// It was complete, or nothing of it was passed on.
    No,
    /// Some frames of it are out, whole.
    Message,
    /// A frame is out in part: no other can follow.
    Frame,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To the other side.
    Forward,
    /// Kept for the next connection.
    Keep,
    /// Nowhere.
    Drop,
    /// Nowhere yet: it is told again when what is in its way has gone. Nothing has changed.
    Wait,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// A text message to the client.
    SayToClient(String),
    /// A text message to the gateway.
    SayToGateway(Secret),
    /// What was kept, to the gateway.
    SendKept,
    /// The first so many of the kept bytes, to the gateway.
    SendKeptUntil(u64),
    /// Ask for room for so many kept requests at the gateway, among all sessions.
    AskRoom(usize),
    /// One of the requests for which there was room is answered.
    GiveRoom,
    /// Nothing of what was kept is wanted any more.
    DropKept,
    /// These of the kept frames are not wanted any more, in the order in which they are kept.
    DropKeptFrames(Vec<Span>),
    /// Close the client's WebSocket.
    CloseClient(Close),
    /// Let go of the gateway's connection.
    CloseGateway,
    /// Join the queue of those who return, or of those who are sent away to return.
    TakeTurn {
        /// The second of the two.
        farewell: bool,
        /// When the wait began.
        since: Instant,
    },
    /// Connect to the gateway, up to the 101.
    Dial,
    /// Tell the gateway's state what was seen.
    Report(Evidence),
    /// Count it.
    Count(Counted),
    /// End the client's connection without a word: no honest one is left.
    Abort,
}

/// A text that stays out of logs.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub(super) Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// Events worth a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// The gateway of an open session was lost.
    Held,
    /// A session came back, or was sent back.
    Resumed(Resumed, Duration),
    /// A replay was tried and not possible.
    ReplayRefused,
    /// A request was answered in the gateway's place.
    Answered(Execution),
    /// It is held for long enough to be worth a word, or still is.
    StillHeld,
    /// `gateway.down` was said.
    Notice,
    /// A frame was cut off by the gateway's death.
    Torn,
    /// An unanswered request was said again.
    Resent,
    /// The longest wait was over.
    Expired,
    /// holdline stops.
    Drained,
    /// Its client was let in no longer.
    Revoked,
}
