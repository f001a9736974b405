//! The session, pure: what happens goes in as an [`Event`], what to do comes out as [`Action`]s
//! and, for a message, what becomes of it as a [`Verdict`].
//!
//! No I/O and no clock. The states:
//!
//! ```text
//! Opening ──hello-ok──▶ Live ──gateway lost──▶ Away ──┬─ replayed, spliced ──▶ Live
//!    └───gateway lost, or accepted without one──▶ Away └─ told to come back ──▶ Closing
//! ```
//!
//! This file holds the states, the events and what happens while the gateway is there; what
//! happens while it is away is in [`super::away`].

use std::time::Duration;

use tokio::time::Instant;

use super::away::Away;
use super::event::{Action, Counted, Event, Span, Torn, Verdict};
use super::flush::Flush;
use super::journal::{Journal, Pending, Place};
use super::patience::AHEAD;
use super::policy::Policy;
use crate::gateway::{Phase, Reason, View};
use crate::protocol::methods::Nature;
use crate::protocol::openclaw::{Connect, Hello, Request};
use crate::protocol::rescue::{Cause, Close, Execution};
use crate::protocol::speech::{self, Resumed, Unavailable};
use crate::ws::close::is_sendable;

/// A request of a hung gateway is answered by us before its client gives up at 30 s.
pub(super) const CLIENT_PATIENCE: Duration = Duration::from_secs(28);
/// After its `shutdown` event a gateway ends its connections within a second; if it does not, it
/// was not meant.
const SHUTDOWN_MEANT: Duration = Duration::from_secs(20);

/// Where a session stands.
pub(super) enum State {
    /// Upgraded at the gateway; its handshake is under way.
    Opening {
        /// The gateway has answered the client's `connect`.
        answered: bool,
    },
    /// Both sides talk.
    Live,
    /// The gateway is away.
    Away(Box<Away>),
    /// A close is on its way, ours or theirs.
    Closing,
}

/// Notices to a client whose gateway is silent though its connection stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hung {
    since: Instant,
    notice_at: Instant,
}

/// A client's message, see [`Event::ClientMessage`].
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) text: &'a [u8],
    pub(super) whole: bool,
    pub(super) end: Option<u64>,
    pub(super) kept: Option<Span>,
}

impl Said<'_> {
    /// The text, where it could be said again.
    pub(super) fn repeatable(&self) -> Option<&[u8]> {
        Some(self.text).filter(|_| self.whole)
    }
}

/// A gateway's end, see [`Event::GatewayLost`].
#[derive(Clone, Copy)]
pub(super) struct Loss {
    pub(super) reason: Reason,
    pub(super) written: u64,
    pub(super) torn: Torn,
    pub(super) cut: bool,
}

/// One session.
pub(super) struct Machine {
    pub(super) policy: Policy,
    pub(super) state: State,
    pub(super) journal: Journal,
    pub(super) view: View,
    pub(super) client: Option<Box<Connect>>,
    pub(super) hello: Option<Box<Hello>>,
    pub(super) last_seq: Option<u64>,
    /// Ids of our own requests whose answers are not for the client.
    pub(super) ours: Vec<Box<str>>,
    /// The client has begun the close handshake.
    pub(super) client_closes: Option<Option<u16>>,
    /// The client sends no more, and still listens.
    pub(super) client_ended: bool,
    /// Since when a client that answers the new challenge itself had been held.
    pub(super) rechallenged: Option<Instant>,
    /// When the session last came back, and how many times in a row it was lost soon after.
    pub(super) back: Option<Instant>,
    pub(super) lost_again: u32,
    /// The gateway has announced its end, then.
    pub(super) shutdown: Option<Instant>,
    pub(super) hung: Option<Hung>,
    /// What was kept is on its way to the gateway.
    pub(super) flush: Option<Flush>,
    /// It has had its turn at the gateway that it moves to.
    pub(super) has_turn: bool,
    pub(super) stop_at: Option<Instant>,
}

impl Machine {
    /// A session whose upgrade the gateway has answered.
    pub(super) fn opened(policy: Policy, view: View) -> Self {
        let state = if policy.is_openclaw() {
            State::Opening { answered: false }
        } else {
            State::Live
        };
        Self {
            policy,
            state,
            journal: Journal::default(),
            view,
            client: None,
            hello: None,
            last_seq: None,
            ours: Vec::new(),
            client_closes: None,
            client_ended: false,
            rechallenged: None,
            back: None,
            lost_again: 0,
            shutdown: None,
            hung: None,
            flush: None,
            has_turn: false,
            stop_at: None,
        }
    }

    /// Whether the gateway still counts this session as an unfinished handshake.
    pub(super) fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Opening { .. } => true,
            State::Away(away) => away.is_handshaking(),
            State::Live | State::Closing => false,
        }
    }

    /// Whether the handshake has not succeeded yet: only small frames then.
    pub(super) fn is_opening(&self) -> bool {
        match &self.state {
            State::Opening { .. } => true,
            State::Away(away) => away.is_greeting(),
            State::Live | State::Closing => false,
        }
    }

    /// Whether what the client says waits for the next connection as it is.
    pub(super) fn is_splicing(&self) -> bool {
        matches!(&self.state, State::Away(away) if away.is_splicing())
    }

    /// Whether a message may be kept now.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.state, State::Away(_)) || self.shutdown.is_some() || self.flush.is_some()
    }

    /// Whether messages are looked into at all.
    pub(super) fn reads_messages(&self) -> bool {
        self.policy.is_openclaw()
    }

    /// Whether the client has sent its `connect`.
    pub(super) fn has_connected(&self) -> bool {
        self.client.is_some()
    }

    /// Takes an event.
    pub(super) fn on(&mut self, event: Event<'_>, now: Instant, out: &mut Vec<Action>) -> Verdict {
        match event {
            Event::ClientMessage {
                text,
                whole,
                end,
                kept,
            } => {
                let said = Said {
                    text,
                    whole,
                    end,
                    kept,
                };
                return self.client_message(said, now, out);
            }
            Event::ClientMessageEnds(end) => self.journal.finish(Place::Sent(end)),
            Event::ClientClose { code } => return self.client_close(code, out),
            Event::Room(requests) => self.flush_window(requests, out),
            Event::GatewayMessage(text) => return self.gateway_message(text, now, out),
            Event::GatewayClose {
                code,
                written,
                inside,
                cut,
            } => {
                let torn = if inside { Torn::Message } else { Torn::No };
                let loss = Loss {
                    reason: Reason::Closed,
                    written,
                    torn,
                    cut,
                };
                return self.gateway_close(code, loss, now, out);
            }
            Event::GatewayLost {
                reason,
                written,
                torn,
                cut,
            } => {
                let loss = Loss {
                    reason,
                    written,
                    torn,
                    cut,
                };
                self.gateway_lost(loss, now, out);
            }
            Event::View(view) => {
                self.view = view;
                self.look(now, out);
            }
            Event::Terms(policy) => self.take_terms(policy, now),
            Event::Moved { view, written } => self.moved(view, written, now, out),
            Event::Turn => self.away_turn(now, out),
            Event::Dialled(result) => self.away_dialled(result, now, out),
            Event::Tick => self.tick(now, out),
            Event::Revoked => self.revoked(now, out),
            Event::Stop { at } => self.stop(at, now, out),
        }
        Verdict::Drop
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Away(away) => [Some(away.deadline()), self.give_up_at()]
                .into_iter()
                .flatten()
                .min(),
            State::Live | State::Opening { .. } => self.live_deadline(),
            State::Closing => return None,
        };
        [own, self.stop_at].into_iter().flatten().min()
    }

    fn live_deadline(&self) -> Option<Instant> {
        let shutdown = self.shutdown.map(|at| at + SHUTDOWN_MEANT);
        let flush = self.flush.as_ref().map(Flush::deadline);
        [shutdown, flush, self.hung.map(|hung| hung.notice_at)]
            .into_iter()
            .flatten()
            .min()
    }

    // === states of the gateway ===

    fn look(&mut self, now: Instant, out: &mut Vec<Action>) {
        match &self.state {
            State::Away(_) => self.away_look(now, out),
            State::Live => match self.hung {
                None if self.view.is_silent() => {
                    let since = self.view.outage_since.unwrap_or(now).min(now);
                    let notice_at = now + self.policy.notice_after;
                    self.hung = Some(Hung { since, notice_at });
                }
                Some(hung) if self.view.phase == Phase::Ready => {
                    self.hung = None;
                    self.flush_on(out);
                    if self.policy.is_openclaw() {
                        let down = now.saturating_duration_since(hung.since);
                        let up = speech::gateway_up(down, Resumed::Kept, None);
                        out.push(Action::SayToClient(up));
                    }
                }
                _ => {}
            },
            // A gateway that hangs in the middle of a handshake: the client's patience is short.
            State::Opening { answered: false } if self.view.phase == Phase::Hung => {
                out.push(Action::CloseGateway);
                self.greet(true, u64::MAX, now, out);
            }
            State::Opening { .. } | State::Closing => {}
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.state, State::Closing) {
            return;
        }
        if self.stop_at.is_some_and(|at| at <= now) {
            return self.end_for_stop(now, out);
        }
        if matches!(self.state, State::Away(_)) {
            return self.away_tick(now, out);
        }
        if self.shutdown.is_some_and(|at| at + SHUTDOWN_MEANT <= now) {
            self.shutdown = None;
            self.begin_flush(now, out);
        }
        self.flush_tick(now, out);
        if let Some(hung) = self.hung
            && hung.notice_at <= now
        {
            self.hung = Some(Hung {
                notice_at: now + self.policy.notice_every,
                ..hung
            });
            self.notice(hung.since, now, out);
            self.answer_impatient(now, out);
        }
    }

    /// Requests that a hung gateway has had for so long that their clients are about to give up.
    fn answer_impatient(&mut self, now: Instant, out: &mut Vec<Action>) {
        let patience = self.patience();
        // It is looked at again only with the next notice.
        let unlooked = self.policy.notice_every.saturating_sub(AHEAD);
        let since = self.hung.map_or(now, |hung| hung.since);
        self.settle_in_place(now, out, |pending| {
            if matches!(pending.place, Place::Kept(_) | Place::Again) {
                // The flush sees to them.
                return None;
            }
            // Whoever had waited for longer than that before the hang can wait for longer still.
            let patient = since.saturating_duration_since(pending.asked) > CLIENT_PATIENCE;
            let waited = now.saturating_duration_since(pending.asked);
            let impatient = waited + unlooked >= patience(pending);
            (impatient && !patient).then_some(Execution::MayHaveExecuted)
        });
    }

    // === words ===

    /// Says `gateway.down`.
    pub(super) fn notice(&self, lost: Instant, now: Instant, out: &mut Vec<Action>) {
        if self.policy.is_openclaw() {
            out.push(Action::SayToClient(speech::gateway_down(
                &self.view, lost, now,
            )));
            out.push(Action::Count(Counted::Notice));
        }
    }

    /// Answers a request in the gateway's place.
    pub(super) fn answer(
        &self,
        request: &Request,
        execution: Execution,
        retryable: bool,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let answer = Unavailable {
            id: &request.id,
            method: &request.method,
            execution,
            retryable,
            retry_after: self.view.retry_after(now),
        };
        out.push(Action::SayToClient(answer.frame()));
        out.push(Action::Count(Counted::Answered(execution)));
    }

    /// Answers those pending requests for which `verdict` says what is known of them, and keeps
    /// them in mind so that a late answer does not follow.
    pub(super) fn settle_in_place(
        &mut self,
        now: Instant,
        out: &mut Vec<Action>,
        mut verdict: impl FnMut(&Pending) -> Option<Execution>,
    ) {
        let mut journal = std::mem::take(&mut self.journal);
        for pending in journal.unanswered() {
            let Some(execution) = verdict(pending) else {
                continue;
            };
            pending.answered = true;
            let harmless = pending.request.nature == Nature::ReadOnly;
            let retryable = harmless || execution == Execution::NotStarted;
            self.answer(&pending.request, execution, retryable, now, out);
        }
        self.journal = journal;
    }

    /// Closes the client's WebSocket; nothing follows.
    pub(super) fn close(&mut self, close: Close, out: &mut Vec<Action>) {
        if matches!(self.state, State::Closing) {
            return;
        }
        self.state = State::Closing;
        out.push(Action::DropKept);
        out.push(Action::CloseClient(close));
        out.push(Action::CloseGateway);
    }

    /// Answers what is unanswered and asks the client to come back.
    pub(super) fn send_back(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.settle_all(now, out);
        self.close_to_return(now, out);
    }

    /// Close 1012.
    pub(super) fn close_to_return(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.close(Cause::GatewayRestarting(self.view).answer(now).close, out);
    }

    /// Answers every unanswered request: nothing will come of them on this socket any more.
    pub(super) fn settle_all(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.settle_in_place(now, out, |pending| {
            Some(match pending.place {
                Place::Sent(_) | Place::Again => Execution::MayHaveExecuted,
                Place::Kept(_) | Place::Unfinished => Execution::NotStarted,
            })
        });
    }

    /// Answers those that wait for their turn: it will not come.
    pub(super) fn settle_unsent(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.settle_in_place(now, out, |pending| match pending.place {
            Place::Kept(_) => Some(Execution::NotStarted),
            Place::Again => Some(Execution::MayHaveExecuted),
            Place::Sent(_) | Place::Unfinished => None,
        });
    }

    /// Answers what is unanswered and ends the session for this.
    pub(super) fn close_for(&mut self, cause: &Cause, now: Instant, out: &mut Vec<Action>) {
        if !matches!(self.state, State::Closing) {
            self.settle_all(now, out);
            self.close(cause.answer(now).close, out);
        }
    }

    /// The sign-in or token that it hangs on is gone: neither held nor put back.
    fn revoked(&mut self, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.state, State::Closing) {
            return;
        }
        out.push(Action::Count(Counted::Revoked));
        self.settle_all(now, out);
        self.close(Cause::SignedOut.answer(now).close, out);
    }

    // === holdline stops ===

    fn stop(&mut self, at: Instant, now: Instant, out: &mut Vec<Action>) {
        match self.state {
            State::Closing => {}
            State::Away(_) => self.end_for_stop(now, out),
            State::Live | State::Opening { .. } => self.stop_at = Some(at),
        }
    }

    /// Whether the session's time is up because holdline stops.
    pub(super) fn has_to_stop(&self, now: Instant) -> bool {
        !matches!(self.state, State::Closing) && self.stop_at.is_some_and(|at| at <= now)
    }

    /// Its end is put off, or on, until then.
    pub(super) fn put_stop(&mut self, at: Instant) {
        self.stop_at = Some(at);
    }

    fn end_for_stop(&mut self, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::Count(Counted::Drained));
        self.settle_all(now, out);
        self.close(Cause::Stopping.answer(now).close, out);
    }
}

pub(super) fn echo(code: Option<u16>) -> Close {
    // Some codes only stand for what was not said, and cannot be said (RFC 6455, 7.4.1).
    Close::new(code.filter(|code| is_sendable(*code)).unwrap_or(1000), "")
}
