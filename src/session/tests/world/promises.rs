//! What has to hold at all times, and at the end.

use std::time::Duration;

use super::super::super::journal::Place;
use super::super::super::machine::State;
use super::ledger::Asked;
use super::{Said, Step, World};

impl World {
    /// Whether something still waits to go to the gateway.
    pub(in super::super) fn is_flushing(&self) -> bool {
        self.machine.flush.is_some()
    }

    pub(in super::super) fn is_open(&self) -> bool {
        !self.closed && !self.client_closed && matches!(self.machine.state, State::Live)
    }

    pub(in super::super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(in super::super) fn is_away(&self) -> bool {
        !self.closed && matches!(self.machine.state, State::Away(_))
    }

    pub(in super::super) fn check(&mut self) {
        self.kept.check();
        for pending in self.machine.journal.unanswered() {
            if let Place::Kept(span) = pending.place
                && !self.closed
            {
                let id = &pending.request.id;
                assert!(self.kept.is_at(span, id), "{id} is not at {span:?}");
            }
        }
        if self.closed {
            assert!(
                self.client_closed || matches!(self.machine.state, State::Closing),
                "closed, but the machine goes on"
            );
        }
        if matches!(self.machine.state, State::Away(_)) && !self.closed {
            assert!(self.machine.deadline().is_some(), "waits without an end");
            let replays = self.machine.journal.connect().is_some();
            for (id, asked) in &self.ledger {
                let may_wait =
                    (replays && (!asked.mutating || self.kept.holds(id))) || self.is_unheard(id);
                assert!(
                    may_wait || asked.answers == 1,
                    "held without a word: {id} {asked:?}"
                );
                assert!(
                    asked.answers == 1 || !self.is_overdue(asked),
                    "kept waiting: {id} {asked:?}"
                );
            }
        }
    }

    pub(super) fn is_unheard(&self, wanted: &str) -> bool {
        let mut unheard = self.unheard.iter();
        unheard.any(|said| matches!(said, Said::Message { id, .. } if id == wanted))
    }

    /// Its sender has waited for so long that it is about to give up.
    fn is_overdue(&self, asked: &Asked) -> bool {
        let patient = asked.chat && self.machine.is_control_ui();
        let patience = Duration::from_secs(if patient { 60 } else { 23 });
        asked.at.is_some_and(|at| self.now - at > patience)
    }

    /// Lets enough time pass: nothing may be left without an answer on a session that still waits.
    pub(in super::super) fn finish(&mut self) {
        self.flushes_to_its_end();
        self.wait(70_000);
        self.check();
        if !matches!(self.machine.state, State::Away(_)) && !self.closed {
            return;
        }
        let ended_by_us = self.closed && !self.client_closed;
        for (id, asked) in &self.ledger {
            assert!(
                !ended_by_us
                    || asked.answers == 1
                    || self.is_unheard(id)
                    || self.machine.hello.is_none()
                    || self.gave_up(),
                "closed with an unanswered request: {id} {asked:?}"
            );
        }
    }

    /// With a gateway that is there nothing is kept for ever, and nobody waits to be heard.
    pub(in super::super) fn flushes_to_its_end(&mut self) {
        if !self.is_open() || !self.has_gateway {
            return;
        }
        for _ in 0..60 {
            for step in [
                Step::Phase(4),
                Step::Ends,
                Step::Room(200),
                Step::Write,
                Step::Wait(600),
            ] {
                self.step(step);
            }
        }
        if self.is_open() {
            assert!(!self.is_flushing(), "a flush never ends");
            assert!(self.kept.is_empty(), "kept for ever");
            assert!(self.unheard.is_empty(), "never heard: {:?}", self.unheard);
        }
    }

    /// The gateway itself ended the session for good: its requests are its own affair.
    pub(super) fn gave_up(&self) -> bool {
        self.has_gateway
    }
}
