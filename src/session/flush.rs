//! What was kept goes to the gateway in small portions, in order.
//!
//! The gateway refuses what it cannot queue, so at most [`WINDOW`] requests of a session are there
//! without an answer. The next ones follow as answers come, and after [`TICK`] in any case: a
//! request that waits for something must not hold up the others. Until the last one is sent, what
//! the client says queues behind them.
//!
//! Pure, a part of [`super::machine`]. The limit over all sessions is the gateway's: the pump asks
//! there for [`Action::AskRoom`] and says what it got with [`super::event::Event::Room`].

use std::time::Duration;

use tokio::time::Instant;

use super::event::{Action, Counted, Secret};
use super::journal::{Pending, Place};
use super::machine::{Machine, State};

/// Flushed requests of one session that may be unanswered.
pub(super) const WINDOW: usize = 32;
/// When those that are still unanswered no longer count.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// A flush under way.
pub(super) struct Flush {
    tick_at: Instant,
    /// Numbers the ticks, so that a late answer does not count for a later window.
    window: u32,
    /// Unanswered requests of this window.
    out: usize,
    /// Room was asked for.
    asked: bool,
}

impl Flush {
    pub(super) fn deadline(&self) -> Instant {
        self.tick_at
    }
}

impl Machine {
    /// The gateway is there: what waits for it may go.
    pub(super) fn begin_flush(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.flush.get_or_insert(Flush {
            tick_at: now + TICK,
            window: 0,
            out: 0,
            asked: false,
        });
        self.flush_on(out);
    }

    /// Whether the session does not stand yet as it stood: what the gateway refuses now because it
    /// goes away again is not lost. A gateway that says nothing to it is waited for until the tick.
    fn is_restoring(&self) -> bool {
        let first = self.flush.as_ref().is_some_and(|flush| flush.window == 0);
        first && !self.ours.is_empty()
    }

    /// Asks for as much room as the window has, or ends the flush.
    pub(super) fn flush_on(&mut self, out: &mut Vec<Action>) {
        if self.is_restoring() {
            return;
        }
        // Whoever is silent or has announced its end gets no more.
        let paused = self.hung.is_some() || self.shutdown.is_some();
        let Some(flush) = &mut self.flush else { return };
        let left = self.journal.unsent().count();
        if left == 0 {
            // Only what is no request may be left, and counts for nothing.
            out.push(Action::SendKept);
            return;
        }
        let wanted = left.min(WINDOW - flush.out.min(WINDOW));
        if !paused && !flush.asked && wanted > 0 {
            flush.asked = true;
            out.push(Action::AskRoom(wanted));
        }
    }

    /// So many more may go.
    pub(super) fn flush_window(&mut self, requests: usize, out: &mut Vec<Action>) {
        let paused = self.hung.is_some() || self.shutdown.is_some();
        let Some(flush) = &mut self.flush else { return };
        flush.asked = false;
        if paused || requests == 0 {
            // Asked for again at the tick, if not before.
            return;
        }
        let requests = requests.min(WINDOW - flush.out.min(WINDOW));
        let mut until = 0;
        let mut unsent = self.journal.unsent();
        for pending in unsent.by_ref().take(requests) {
            match pending.place {
                Place::Kept(frame) => until = frame.end,
                _ => {
                    say_again(pending, flush.window, out);
                    flush.out += 1;
                }
            }
        }
        let more = unsent.next().is_some();
        drop(unsent);
        if !more {
            out.push(Action::SendKept);
        } else if until > 0 {
            out.push(Action::SendKeptUntil(until));
        } else {
            self.flush_on(out);
        }
    }

    /// The first `until` kept bytes were sent; they begin at `base` of the stream.
    pub(super) fn kept_sent(&mut self, base: u64, until: u64, out: &mut Vec<Action>) {
        let window = self.flush.as_ref().map_or(0, |flush| flush.window);
        let (mut sent, mut left) = (0, false);
        for pending in self.journal.unsent() {
            match pending.place {
                Place::Kept(frame) if frame.end <= until => {
                    pending.flush(Place::Sent(base + frame.end), window);
                    sent += 1;
                }
                _ => left = true,
            }
        }
        self.journal.unkeep(until);
        if let Some(flush) = &mut self.flush {
            flush.out += sent;
            if !left {
                self.flush = None;
            }
            // There may have been less room than there is in the window.
            self.flush_on(out);
        }
    }

    /// A request that was sent in this window is answered.
    pub(super) fn flushed_is_answered(&mut self, window: u32, out: &mut Vec<Action>) {
        out.push(Action::GiveRoom);
        if let Some(flush) = &mut self.flush
            && flush.window == window
        {
            flush.out = flush.out.saturating_sub(1);
        }
        self.flush_on(out);
    }

    /// What is still unanswered no longer holds up the rest.
    pub(super) fn flush_tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(flush) = &mut self.flush else { return };
        if flush.tick_at > now {
            return;
        }
        flush.tick_at = now + TICK;
        flush.window += 1;
        flush.out = 0;
        self.give_up_waiting(now, out);
        self.flush_on(out);
    }

    /// The client says no more: whatever it has said goes ahead of its end.
    pub(super) fn flush_all(&mut self, out: &mut Vec<Action>) {
        let Some(flush) = &self.flush else { return };
        let window = flush.window;
        for pending in self.journal.unsent() {
            if pending.place == Place::Again {
                say_again(pending, window, out);
            }
        }
        out.push(Action::SendKept);
    }

    /// The client says no more and still listens. `cut`: it was in the middle of a message to the
    /// gateway.
    pub(super) fn client_ends(&mut self, cut: bool, now: Instant, out: &mut Vec<Action>) {
        self.client_ended = true;
        match self.state {
            State::Closing => return,
            // It could not use a connection that comes back.
            State::Away(_) => return self.send_back(now, out),
            State::Live | State::Opening { .. } if cut => return,
            State::Live | State::Opening { .. } => {}
        }
        if self.flush.is_none() {
            // Kept behind a `shutdown`: there will be no connection for it.
            self.settle_unsent(now, out);
            out.push(Action::DropKept);
        }
        self.flush_all(out);
    }
}

/// Says once more what only reads, or sets what it had set.
fn say_again(pending: &mut Pending, window: u32, out: &mut Vec<Action>) {
    if let Some(text) = pending.repeatable() {
        out.push(Action::SayToGateway(Secret(text.to_vec())));
        out.push(Action::Count(Counted::Resent));
    }
    // Counts as delivered: its offset in the new stream is not known.
    pending.flush(Place::Sent(0), window);
}
