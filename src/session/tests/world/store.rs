//! What the client's frames for the next connection are kept in: the real store, and beside it the
//! list of what has to be there.

use std::sync::Arc;

use super::super::super::event::Span;
use super::super::super::registry::{Kept, Sessions};
use crate::config;

/// A frame that has to be there.
#[derive(Debug)]
struct Frame {
    id: String,
    length: u64,
    /// How much of it has come.
    here: u64,
}

pub(super) struct Store {
    sessions: Arc<Sessions>,
    kept: Kept,
    room: u64,
    frames: Vec<Frame>,
}

/// The bytes of a frame: no two have the same.
fn bytes_of(id: &str, length: u64) -> Vec<u8> {
    id.bytes().cycle().take(length as usize).collect()
}

impl Store {
    pub(super) fn new(room: u64) -> Self {
        let text = format!("[hold]\nbuffer = \"{room}B\"\nbuffer_total = \"1MiB\"");
        let config = config::parse(&text, "t").unwrap().config;
        let sessions = Arc::new(Sessions::default());
        let admitted = sessions.admit([10, 0, 0, 1].into(), &config.limits);
        Self {
            kept: admitted.unwrap().kept(&config.hold),
            sessions,
            room,
            frames: Vec::new(),
        }
    }

    pub(super) fn reserve(&mut self, length: u64) -> Option<Span> {
        self.kept.reserve(length)
    }

    pub(super) fn release(&mut self) {
        self.kept.release();
    }

    /// The beginning of a frame, or all of it.
    pub(super) fn push(&mut self, id: &str, length: u64, here: u64) {
        assert!(self.kept.push(&bytes_of(id, here)), "its room was reserved");
        let id = id.to_owned();
        self.frames.push(Frame { id, length, here });
    }

    /// The rest of the last frame.
    pub(super) fn push_rest(&mut self) {
        let last = self.frames.last_mut().unwrap();
        let all = bytes_of(&last.id, last.length);
        assert!(self.kept.push(&all[last.here as usize..]));
        last.here = last.length;
    }

    /// Up to this offset: how many bytes went, and which frames, by where they end.
    pub(super) fn send(&mut self, until: u64) -> (u64, Vec<(u64, String)>) {
        let bytes = self.kept.first(until).len() as u64;
        self.kept.forget(until);
        let (mut end, mut sent) = (0, Vec::new());
        while let Some(frame) = self.frames.first() {
            end += frame.length;
            if end > until {
                break;
            }
            sent.push((end, self.frames.remove(0).id));
        }
        (bytes, sent)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = String> {
        self.frames.iter().map(|frame| frame.id.clone())
    }

    /// These are gone: those that are answered. Whether the rest of one is still to come.
    pub(super) fn cut(&mut self, spans: &[Span], answered: &[String]) -> bool {
        let before = self.frames.len();
        let last = self.frames.last();
        let comes = last.is_some_and(|last| last.here < last.length && answered.contains(&last.id));
        self.frames.retain(|frame| !answered.contains(&frame.id));
        assert_eq!(spans.len(), before - self.frames.len(), "cut: {spans:?}");
        assert_eq!(self.kept.cut(spans), comes);
        comes
    }

    pub(super) fn clear(&mut self) {
        self.kept.take();
        self.frames.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.len() == 0
    }

    pub(super) fn holds(&self, id: &str) -> bool {
        self.frames.iter().any(|frame| frame.id == id)
    }

    /// Exactly those frames, in order, with their room, and no more than may be.
    pub(super) fn check(&self) {
        let wanted: Vec<u8> = self
            .frames
            .iter()
            .flat_map(|frame| bytes_of(&frame.id, frame.here))
            .collect();
        let room: u64 = self.frames.iter().map(|frame| frame.length).sum();
        assert_eq!(self.kept.first(u64::MAX), wanted, "{:?}", self.frames);
        assert_eq!(self.sessions.kept() as u64, room, "room: {:?}", self.frames);
        assert!(room <= self.room, "kept more than allowed");
    }

    /// Whether this is the place of that frame.
    pub(super) fn is_at(&self, span: Span, id: &str) -> bool {
        let mut start = 0;
        self.frames.iter().any(|frame| {
            let this = start == span.start && start + frame.length == span.end && frame.id == id;
            start += frame.length;
            this
        })
    }
}
