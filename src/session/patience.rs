//! How long requests wait for a gateway that is away, and what is given back.
//!
//! Pure, a part of [`super::machine`].

use std::time::Duration;

use tokio::time::Instant;

use super::event::Action;
use super::journal::{Pending, Place};
use super::machine::{CLIENT_PATIENCE, Machine, State};
use crate::protocol::openclaw;
use crate::protocol::rescue::Execution;

/// So long before its sender gives up a request is answered, at the most.
pub(super) const AHEAD: Duration = Duration::from_secs(5);

impl Machine {
    /// How long a request may wait here: most senders give up, and it is answered before that; one
    /// that never does waits for as long as its session is held.
    pub(super) fn patience(&self) -> impl Fn(&Pending) -> Duration + use<> {
        let control_ui = self.is_control_ui();
        let held = self.policy.max.max(CLIENT_PATIENCE);
        let ahead = self.policy.notice_every.min(AHEAD);
        move |pending| {
            if control_ui && openclaw::is_waited_for(&pending.request.method) {
                held
            } else {
                CLIENT_PATIENCE - ahead
            }
        }
    }

    /// When [`Self::give_up_waiting`] has something to do.
    pub(super) fn give_up_at(&self) -> Option<Instant> {
        self.journal.first_to_give_up(self.patience())
    }

    /// Requests whose senders are about to give up are answered before that, and are not sent
    /// later: nobody would know of it.
    pub(super) fn give_up_waiting(&mut self, now: Instant, out: &mut Vec<Action>) {
        // What a gateway has that is there, it may still answer.
        let away = matches!(self.state, State::Away(_));
        let patience = self.patience();
        let mut gone = Vec::new();
        self.settle_in_place(now, out, |pending| {
            if now.saturating_duration_since(pending.asked) < patience(pending) {
                return None;
            }
            if let Place::Kept(frame) = pending.place {
                gone.push(frame);
                return Some(Execution::NotStarted);
            }
            (away || pending.place == Place::Again).then_some(Execution::MayHaveExecuted)
        });
        self.journal.forget(|pending| {
            pending.answered && (away || matches!(pending.place, Place::Kept(_) | Place::Again))
        });
        if !gone.is_empty() {
            self.journal.unkeep_frames(&gone);
            out.push(Action::DropKeptFrames(gone));
        }
    }
}
