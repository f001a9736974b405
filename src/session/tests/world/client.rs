//! The client of the world: what it says, and when it is heard.

use super::super::super::event::{Event, Verdict};
use super::ledger::Asked;
use super::{Part, Said, World, id_of};

impl World {
    pub(super) fn connect(&mut self) {
        if self.connected && !self.machine.is_opening() {
            return;
        }
        self.connected = true;
        self.connect_is_answered = false;
        let params = match self.client_kind {
            0 => r#"{"client":{"id":"gateway-client"}}"#,
            1 => r#"{"client":{"id":"gateway-client"},"device":{"id":"d"}}"#,
            2 | 5 => r#"{"client":{"id":"openclaw-control-ui"},"device":{"id":"d"}}"#,
            6 => r#"{"client":{"id":"gateway-client"},"device":{"id":"d"}}"#,
            3 => r#"{"client":{"id":"x"},"device":{"id":"d"},"userAgent":"openclaw-node/1"}"#,
            _ => r#"{"client":{"id":"openclaw-control-ui"}}"#,
        };
        let text = format!(r#"{{"type":"req","id":"c","method":"connect","params":{params}}}"#);
        self.client(&text);
    }

    pub(super) fn ask(&mut self, id: u8, kind: u8) {
        if self.connected {
            let (_, text) = self.request(id, kind);
            self.client(&text);
        }
    }

    /// Enters a request into the ledger.
    pub(super) fn request(&mut self, id: u8, kind: u8) -> (String, String) {
        let method = match kind {
            0 => "chat.send",
            1 => "sessions.list",
            2 => "sessions.subscribe",
            3 => "chat.startup",
            _ => "config.set",
        };
        self.next += 1;
        let id = format!("{id}-{}", self.next);
        let asked = Asked {
            mutating: matches!(kind, 0 | 4..),
            chat: kind == 0,
            ..Asked::default()
        };
        self.ledger.insert(id.clone(), asked);
        let text = format!(r#"{{"type":"req","id":"{id}","method":"{method}","params":{{}}}}"#);
        (id, text)
    }

    pub(super) fn client(&mut self, text: &str) {
        self.says(Said::Message {
            text: text.to_owned(),
            id: id_of(text),
            length: text.len() as u64,
            whole: true,
            ended: true,
            parts: false,
        });
    }

    pub(super) fn ask_long(&mut self, kind: u8) {
        if self.connected {
            let (id, text) = self.request(0, kind);
            self.says(Said::Message {
                length: 3 * text.len() as u64,
                text,
                id,
                whole: false,
                ended: true,
                parts: true,
            });
        }
    }

    pub(super) fn says(&mut self, said: Said) {
        self.unheard.push_back(said);
        self.hear();
    }

    /// Listens to the client for as long as nothing has to wait.
    pub(super) fn hear(&mut self) {
        while !self.closed {
            if self.waits && self.machine.makes_wait() {
                return;
            }
            self.waits = false;
            match self.unheard.pop_front() {
                Some(Said::Close) => {
                    // A frame may stand inside a message, but not inside a frame.
                    if self.part.as_ref().is_some_and(|part| part.left > 1) {
                        self.part_ends();
                    }
                    self.client_closed = true;
                    self.feed(Event::ClientClose { code: Some(1000) });
                }
                Some(message) => {
                    // A message begins when the one before it has ended.
                    self.part_ends();
                    self.message(message);
                }
                None => return,
            }
        }
    }

    pub(super) fn message(&mut self, message: Said) {
        let Said::Message {
            text,
            id,
            length,
            whole,
            ended,
            parts,
        } = &message
        else {
            return;
        };
        let end = (self.has_gateway && *ended).then_some(self.queued + length);
        let keeps = *ended && self.machine.keeps();
        let kept = keeps.then(|| self.kept.reserve(*length)).flatten();
        // Of a fragmented message the last byte alone is missing, and its length is not known.
        let left = match (*parts, *ended) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => length - length / 3,
        };
        let event = Event::ClientMessage {
            text: text.as_bytes(),
            whole: *whole,
            end,
            kept,
        };
        let verdict = self.feed(event);
        if verdict != Verdict::Keep {
            self.kept.release();
        }
        if matches!(verdict, Verdict::Forward | Verdict::Keep) {
            let now = self.now;
            self.ledger
                .entry(id.clone())
                .and_modify(|asked| asked.at = Some(now));
            self.part = (left > 0).then(|| Part {
                id: id.clone(),
                left,
                verdict,
            });
        }
        match verdict {
            Verdict::Forward => {
                assert!(self.has_gateway, "forwarded to nobody: {text}");
                // A fragment more is never counted before it comes.
                self.queued += if *ended { length - left } else { *length };
                if left == 0 {
                    self.stream.push((self.queued, id.clone()));
                }
            }
            Verdict::Keep => {
                assert!(kept.is_some(), "kept without room");
                self.kept.push(id, *length, length - left);
            }
            Verdict::Drop => {}
            Verdict::Wait => {
                assert!(self.machine.makes_wait(), "waits for nothing");
                self.waits = true;
                self.unheard.push_front(message);
            }
        }
    }

    pub(super) fn part_ends(&mut self) {
        match self.part.take() {
            Some(part) if part.verdict == Verdict::Forward => {
                self.queued += part.left;
                self.stream.push((self.queued, part.id));
                self.feed(Event::ClientMessageEnds(self.queued));
            }
            Some(part) if part.verdict == Verdict::Keep => self.kept.push_rest(),
            _ => {}
        }
    }

    /// Whether the gateway has a part of a message only.
    pub(super) fn is_cut(&self) -> bool {
        let mut part = self.part.iter();
        part.any(|part| part.verdict == Verdict::Forward)
    }
}
