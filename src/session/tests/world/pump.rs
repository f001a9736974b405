//! The pump of the world: does what the machine wants.

use super::super::super::event::{Action, Event, Verdict};
use super::super::super::flush::{TICK, WINDOW};
use super::{World, id_of};
use crate::gateway::Reason;

impl World {
    pub(super) fn feed(&mut self, event: Event<'_>) -> Verdict {
        let mut actions = Vec::new();
        let verdict = self.machine.on(event, self.now, &mut actions);
        self.perform(actions);
        verdict
    }

    pub(super) fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(
                !self.closed
                    || matches!(
                        action,
                        Action::CloseGateway | Action::Count(_) | Action::Report(_)
                    ),
                "acted after its close: {action:?}"
            );
            match action {
                Action::SayToClient(text) => self.client_hears(&text, true),
                Action::SayToGateway(text) => {
                    assert!(!self.is_cut(), "said into a message");
                    if self.has_gateway {
                        let id = id_of(&String::from_utf8_lossy(&text.0));
                        self.flushing(&id);
                        self.queued += text.0.len() as u64;
                        self.stream.push((self.queued, id));
                    }
                }
                Action::SendKept => self.send_kept(u64::MAX),
                Action::SendKeptUntil(end) => self.send_kept(end),
                Action::AskRoom(requests) => {
                    assert_eq!(self.room_wanted, 0, "asked for room twice");
                    self.room_wanted = requests;
                }
                Action::GiveRoom => {}
                Action::DropKept => {
                    self.kept.clear();
                    self.drop_part(Verdict::Keep);
                }
                Action::DropKeptFrames(frames) => {
                    let mut answered: Vec<String> = self.kept.ids().collect();
                    answered.retain(|id| self.is_answered(id));
                    if self.kept.cut(&frames, &answered) {
                        self.drop_part(Verdict::Keep);
                    }
                }
                Action::CloseClient(close) => {
                    let signed_out = close.reason == "signed out";
                    assert!(signed_out || close.code != 1008, "down is never final");
                    self.closed = true;
                }
                Action::Abort => self.closed = true,
                Action::CloseGateway => self.detach(),
                Action::TakeTurn { .. } => self.turn_wanted = true,
                Action::Dial => {
                    assert!(!self.has_gateway, "dialled beside a connection");
                    self.dial_wanted = true;
                }
                Action::Report(evidence) => self.report(evidence),
                Action::Count(_) => {}
            }
        }
    }

    pub(super) fn send_kept(&mut self, until: u64) {
        if !self.has_gateway || self.is_cut() {
            return;
        }
        let mut more = Vec::new();
        self.machine.kept_sent(self.queued, until, &mut more);
        let (bytes, sent) = self.kept.send(until);
        for (end, id) in sent {
            self.flushing(&id);
            // The rest of one that is still coming goes the same way.
            match &mut self.part {
                Some(part) if part.id == id => part.verdict = Verdict::Forward,
                _ => self.stream.push((self.queued + end, id)),
            }
        }
        self.queued += bytes;
        self.perform(more);
    }

    /// What is still to come of a message is wanted no more, if this would have become of it.
    pub(super) fn drop_part(&mut self, verdict: Verdict) {
        if let Some(part) = self.part.as_mut().filter(|part| part.verdict == verdict) {
            part.verdict = Verdict::Drop;
        }
    }

    /// A request of the ledger goes to the gateway in a flush.
    pub(super) fn flushing(&mut self, id: &str) {
        if !self.ledger.contains_key(id) {
            return;
        }
        self.flushed.push((id.to_owned(), self.now));
        let counting = self
            .flushed
            .iter()
            .filter(|(_, at)| self.now.saturating_duration_since(*at) < TICK)
            .count();
        // A window, and what followed at a tick in between.
        assert!(
            counting <= 2 * WINDOW || self.client_closed,
            "{counting} at once"
        );
    }

    /// Both sides have ended: whoever is still to be answered was.
    pub(super) fn ends_with_its_gateway(&mut self) {
        let closes = self.machine.client_closes.is_some();
        if self.client_ended && !closes && !self.closed {
            self.closed = true;
            for (id, asked) in &self.ledger {
                assert!(
                    asked.answers == 1 || self.is_unheard(id),
                    "left without a word: {id} {asked:?}"
                );
            }
        }
    }

    pub(super) fn detach(&mut self) {
        self.has_gateway = false;
        self.drop_part(Verdict::Forward);
        self.dial_wanted = false;
        self.room_wanted = 0;
        self.flushed.clear();
        self.stream.clear();
        self.at_gateway.clear();
        self.queued = 0;
        self.written = 0;
        self.seq = 0;
    }

    pub(super) fn dialled(&mut self, ok: bool) {
        self.dial_wanted = false;
        self.has_gateway = ok;
        self.feed(Event::Dialled(if ok {
            Ok(())
        } else {
            Err(Reason::Refused)
        }));
    }
}
