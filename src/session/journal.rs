//! What a session has asked and said that matters once its gateway is lost: requests without an
//! answer, and what must be said again to stand where it stood.
//!
//! Bounded in number and bytes. The texts hold credentials and users' words: they live in memory
//! only, are wiped when dropped, and nothing here has `Debug`.

use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::event::Span;
use crate::protocol::methods::{Nature, Standing};
use crate::protocol::openclaw::Request;
use crate::protocol::speech;

/// Unanswered requests that are followed per session; further ones are refused.
pub(super) const MAX_PENDING: usize = 1024;
/// Bytes of a request's id, method and key together; real ones have some sixty.
const MAX_ADDRESS: usize = 1024;
/// Bytes of recorded texts per session; a session that needs more is not replayed.
const MAX_RECORDED: usize = 256 * 1024;

/// A text that is wiped when dropped.
pub(super) type Secret = Zeroizing<Box<[u8]>>;

/// Where the last byte of a request is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the stream to the gateway, ending before this offset.
    Sent(u64),
    /// Among the bytes kept for the next connection.
    Kept(Span),
    /// Sent to a gateway that is lost, and to be said again to this one.
    Again,
    /// Its message has not ended yet.
    Unfinished,
}

/// A request without an answer.
pub(super) struct Pending {
    pub(super) request: Request,
    pub(super) place: Place,
    pub(super) asked: Instant,
    /// Kept for those that may be said again.
    text: Option<Secret>,
    /// We have answered in the gateway's place: its own answer must not follow.
    pub(super) answered: bool,
    /// The window of a flush in which it was sent.
    flushed: Option<u32>,
}

/// A request that set something which died with the connection.
struct Recorded {
    method: Box<str>,
    key: Option<Box<str>>,
    text: Secret,
}

/// What the gateway's answer for a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) settled: Settled,
    /// The window of a flush in which the request was sent.
    pub(super) flushed: Option<u32>,
}

/// What happened to the gateway's answer for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is awaited: pass it on.
    Awaited,
    /// We have answered already: drop it.
    Already,
    /// Nobody here asked.
    Unknown,
}

/// One session's record.
#[derive(Default)]
pub(super) struct Journal {
    /// In the order of asking. A client has a handful of these at a time; a search is cheaper than
    /// a map.
    pending: Vec<Pending>,
    standing: Vec<Recorded>,
    connect: Option<Secret>,
    recorded: usize,
    /// Whether texts are kept at all: only for a session that can be replayed.
    recording: bool,
    spoiled: bool,
}

impl Journal {
    /// Keeps the handshake, and from now on what else a replay needs.
    pub(super) fn record_connect(&mut self, text: &[u8]) {
        self.recording = true;
        self.recorded += text.len();
        self.connect = Some(Zeroizing::new(text.into()));
    }

    /// Forgets everything that was kept for a replay.
    pub(super) fn stop_recording(&mut self) {
        self.recording = false;
        self.recorded = 0;
        self.connect = None;
        self.standing = Vec::new();
        for pending in &mut self.pending {
            pending.text = None;
        }
    }

    /// The recorded handshake, while everything that a replay needs could be kept.
    pub(super) fn connect(&self) -> Option<&[u8]> {
        self.connect
            .as_ref()
            .filter(|_| !self.spoiled)
            .map(|text| &***text)
    }

    /// Whether one more request can be followed under this id. An id that is in use cannot: its
    /// two answers could not be told apart.
    pub(super) fn has_room(&self, request: &Request) -> bool {
        let key = request.key.as_ref().map_or(0, |key| key.len());
        self.pending.len() < MAX_PENDING
            && request.id.len() + request.method.len() + key <= MAX_ADDRESS
            && !self.follows(&request.id)
    }

    /// Whether a request of this id is followed already.
    pub(super) fn follows(&self, id: &str) -> bool {
        self.position(id).is_some()
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.pending
            .iter()
            .position(|pending| &*pending.request.id == id)
    }

    /// Follows a request from now on. `text`: all of it, where it is known.
    pub(super) fn ask(
        &mut self,
        request: Request,
        text: Option<&[u8]>,
        place: Place,
        asked: Instant,
    ) {
        let repeatable = matches!(request.nature, Nature::ReadOnly | Nature::Standing(_));
        let text = text
            .filter(|text| {
                self.recording && repeatable && self.recorded + text.len() <= MAX_RECORDED
            })
            .map(|text| Secret::new(Box::from(text)));
        self.recorded += text.as_ref().map_or(0, |text| text.len());
        self.pending.push(Pending {
            request,
            place,
            asked,
            text,
            answered: false,
            flushed: None,
        });
    }

    /// The message that was still being sent ends here.
    pub(super) fn finish(&mut self, place: Place) {
        for pending in &mut self.pending {
            if pending.place == Place::Unfinished {
                pending.place = place;
            }
        }
    }

    /// The first `bytes` of what was kept are gone.
    pub(super) fn unkeep(&mut self, bytes: u64) {
        for pending in &mut self.pending {
            if let Place::Kept(frame) = &mut pending.place {
                frame.start = frame.start.saturating_sub(bytes);
                frame.end = frame.end.saturating_sub(bytes);
            }
        }
    }

    /// These frames of what was kept are gone; they are given in their order.
    pub(super) fn unkeep_frames(&mut self, gone: &[Span]) {
        let mut gone = gone.iter().peekable();
        let mut before = 0;
        // Requests were kept in the order in which they were asked.
        for pending in &mut self.pending {
            if let Place::Kept(frame) = &mut pending.place {
                while let Some(gone) = gone.next_if(|gone| gone.end <= frame.start) {
                    before += gone.end - gone.start;
                }
                frame.start -= before;
                frame.end -= before;
            }
        }
    }

    /// The gateway answers `id`.
    pub(super) fn settle(&mut self, id: &str, ok: bool) -> Answer {
        let Some(at) = self.position(id) else {
            return Answer {
                settled: Settled::Unknown,
                flushed: None,
            };
        };
        let pending = self.pending.remove(at);
        if let Some(text) = &pending.text {
            self.recorded -= text.len();
        }
        if ok && self.recording {
            self.take_standing(&pending);
        }
        let settled = if pending.answered {
            Settled::Already
        } else {
            Settled::Awaited
        };
        Answer {
            settled,
            flushed: pending.flushed,
        }
    }

    fn take_standing(&mut self, pending: &Pending) {
        let (method, key) = (&pending.request.method, &pending.request.key);
        let same = |other: &Recorded| other.method == *method && other.key == *key;
        match pending.request.nature {
            Nature::Standing(Standing::As(method)) => {
                self.standing.retain(|other| &*other.method != method);
                self.standing.push(Recorded {
                    method: method.into(),
                    key: None,
                    text: Secret::new(speech::bare(method).into_bytes().into()),
                });
            }
            Nature::Standing(Standing::Remove(undone)) => {
                self.standing
                    .retain(|other| &*other.method != undone || other.key != *key);
            }
            Nature::Standing(Standing::Set | Standing::Add) => {
                self.standing.retain(|other| !same(other));
                match &pending.text {
                    Some(text) => self.standing.push(Recorded {
                        method: method.clone(),
                        key: key.clone(),
                        text: text.clone(),
                    }),
                    // It stands, but could not be said again.
                    None => self.spoiled = true,
                }
            }
            Nature::ReadOnly | Nature::Mutating => {}
        }
        let standing: usize = self
            .standing
            .iter()
            .map(|recorded| recorded.text.len())
            .sum();
        self.spoiled |= standing > MAX_RECORDED / 2;
    }

    /// What must be said again for the session to stand where it stood, in order.
    pub(super) fn standing(&self) -> impl Iterator<Item = &[u8]> {
        self.standing.iter().map(|recorded| &**recorded.text)
    }

    /// Requests still to be answered, in the order of asking.
    pub(super) fn unanswered(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.pending.iter_mut().filter(|pending| !pending.answered)
    }

    /// Whether every request has been answered.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.iter().all(|pending| pending.answered)
    }

    /// When the first of them has waited for as long as `patience` says that it may.
    pub(super) fn first_to_give_up(
        &self,
        patience: impl Fn(&Pending) -> Duration,
    ) -> Option<Instant> {
        self.pending
            .iter()
            .filter(|pending| !pending.answered)
            .map(|pending| pending.asked + patience(pending))
            .min()
    }

    /// Those of them that wait for their turn in a flush.
    pub(super) fn unsent(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.unanswered()
            .filter(|pending| matches!(pending.place, Place::Kept(_) | Place::Again))
    }

    /// Those whose answers were lost with the gateway are to be said again, as far as that is safe.
    pub(super) fn repeat(&mut self) {
        for pending in self.unanswered() {
            pending.flushed = None;
            if let (Place::Sent(_) | Place::Unfinished, true) =
                (pending.place, pending.text.is_some())
            {
                pending.place = Place::Again;
            }
        }
    }

    /// Takes out everything that `gone` says and that we have answered.
    pub(super) fn forget(&mut self, mut gone: impl FnMut(&Pending) -> bool) {
        let recorded = &mut self.recorded;
        self.pending.retain(|pending| {
            let keep = !gone(pending);
            if !keep && let Some(text) = &pending.text {
                *recorded -= text.len();
            }
            keep
        });
    }
}

impl Pending {
    /// The text, where saying it again is safe and it was kept.
    pub(super) fn repeatable(&self) -> Option<&[u8]> {
        self.text.as_ref().map(|text| &***text)
    }

    /// It is sent now, in this window of a flush.
    pub(super) fn flush(&mut self, place: Place, window: u32) {
        self.place = place;
        self.flushed = Some(window);
    }

    /// Whether its last byte may have reached a gateway that was sent `written` bytes.
    pub(super) fn may_have_arrived(&self, written: u64) -> bool {
        matches!(self.place, Place::Sent(end) if end <= written)
    }
}
