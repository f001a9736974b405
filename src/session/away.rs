//! The session while its gateway is away: told, fed, settled, and put back.
//!
//! Pure, the other half of [`super::machine`].

use std::time::Duration;

use tokio::time::Instant;

use super::event::{Action, Counted, Span, Verdict};
use super::journal::Place;
use super::machine::{Loss, Machine, Said, State};
use super::policy::Way;
use crate::config::Resume;
use crate::gateway::Phase;
use crate::protocol::openclaw::{CONTROL_UI, ClientSays, Connect};
use crate::protocol::rescue::{Cause, Execution};
use crate::protocol::speech::{self, Suspension};

/// How long a dialled gateway may take for each step of a replayed handshake.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(10);
/// A client that answers challenges does so within this.
pub(super) const RECHALLENGE_WAIT: Duration = Duration::from_millis(300);
/// A client that reconnects on a gap has gone after this.
pub(super) const GAP_WAIT: Duration = Duration::from_millis(1500);
/// The official client's own wait after a close 1012.
const CLIENT_WAIT: Duration = Duration::from_secs(1);
/// A Control UI shows "Restarting…" for at least 15 s after each `shutdown`.
const SHUTDOWN_AGAIN: Duration = Duration::from_secs(12);

/// A session that is lost within this after its return was not really back.
const LOST_SOON: Duration = Duration::from_secs(5);
/// How often in a row that may happen before its client has to reconnect.
const MAX_LOST_AGAIN: u32 = 4;

/// A session without its gateway.
pub(super) struct Away {
    pub(super) since: Instant,
    pub(super) way: Way,
    pub(super) step: Step,
    /// When this ends, whatever happens.
    pub(super) until: Instant,
    pub(super) notice_at: Instant,
    /// When a Control UI is next told that the restart goes on.
    shutdown_at: Option<Instant>,
    /// When a client that has to reconnect is told so.
    leave_at: Option<Instant>,
    pub(super) attempts: u32,
    pub(super) retry_at: Option<Instant>,
}

/// How far the return has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// For the gateway.
    Waiting,
    /// For this session's turn.
    Queued,
    /// For the connection.
    Dialling,
    /// For the gateway's challenge, at the longest until then.
    Challenge(Instant),
    /// For the answer to the recorded `connect`, at the longest until then.
    Hello(Instant),
    /// For the client's answer to the challenge, at the longest until then.
    Rechallenged(Instant),
    /// For the client to leave, at the longest until then.
    Leaving(Instant),
}

impl Away {
    fn new(way: Way, now: Instant, until: Instant, notice_at: Instant) -> Self {
        Self {
            since: now,
            way,
            step: Step::Waiting,
            until,
            notice_at,
            shutdown_at: None,
            leave_at: None,
            attempts: 0,
            retry_at: None,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(
            self.step,
            Step::Dialling | Step::Challenge(_) | Step::Hello(_) | Step::Rechallenged(_)
        )
    }

    pub(super) fn is_greeting(&self) -> bool {
        self.way == Way::Greet
    }

    pub(super) fn is_splicing(&self) -> bool {
        self.way == Way::Splice
    }

    pub(super) fn deadline(&self) -> Instant {
        let step = match self.step {
            Step::Challenge(at) | Step::Hello(at) | Step::Rechallenged(at) | Step::Leaving(at) => {
                Some(at)
            }
            Step::Waiting | Step::Queued | Step::Dialling => None,
        };
        let waiting = self.step == Step::Waiting;
        [
            step,
            self.shutdown_at,
            self.leave_at.filter(|_| waiting),
            self.retry_at.filter(|_| waiting),
        ]
        .into_iter()
        .flatten()
        .fold(self.until.min(self.notice_at), Instant::min)
    }
}

impl Machine {
    /// A session that we accept in the gateway's place.
    pub(super) fn greeted(
        policy: super::policy::Policy,
        view: crate::gateway::View,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Self {
        let mut machine = Self::opened(policy, view);
        machine.greet(false, 0, now, out);
        machine
    }

    /// The gateway is away and the handshake is not done: we speak for it.
    pub(super) fn greet(
        &mut self,
        challenged: bool,
        written: u64,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if !challenged {
            out.push(Action::SayToClient(speech::challenge()));
        }
        // Before its handshake a client should have asked nothing; if it did, it learns the truth.
        self.settle_in_place(now, out, |pending| {
            let arrived = pending.may_have_arrived(written);
            Some(if arrived {
                Execution::MayHaveExecuted
            } else {
                Execution::NotStarted
            })
        });
        self.journal.forget(|pending| pending.answered);
        // What had been kept behind a `shutdown` is answered, too.
        self.shutdown = None;
        out.push(Action::DropKept);
        let until = now + self.policy.handshake;
        let mut away = Away::new(Way::Greet, now, until, now + self.policy.notice_every);
        if self.view.phase != Phase::Ready {
            // A greeted client learns at once what it waits for.
            self.notice(now, now, out);
        }
        away.since = self.view.outage_since.unwrap_or(now).min(now);
        self.state = State::Away(Box::new(away));
    }

    /// An open session has lost its gateway, which had been sent `written` bytes.
    pub(super) fn hold(&mut self, loss: Loss, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::Count(Counted::Held));
        let recorded = self.journal.connect().is_some() && self.hello.is_some();
        let way = self.policy.way(self.client.as_deref(), recorded);
        self.settle_at_loss(way, loss.written, now, out);
        self.ours.clear();
        self.flush = None;
        let shown = self.shutdown.take().is_some();
        self.count_losses(now);
        // Half a message cannot be spliced to the next connection, and who sends no more has no use
        // for one.
        let broken = way == Way::Splice && loss.cut || self.client_ended;
        if self.policy.resume == Resume::Off || broken || self.lost_again > MAX_LOST_AGAIN {
            return self.send_back(now, out);
        }
        let mut away = Away::new(
            way,
            now,
            now + self.policy.max,
            now + self.policy.notice_after,
        );
        if self.shows_suspension() {
            if !shown {
                out.push(Action::SayToClient(speech::suspension(
                    Suspension::Draining,
                    None,
                )));
            }
        } else if self.is_control_ui() {
            away.shutdown_at = Some(if shown { now + SHUTDOWN_AGAIN } else { now });
        }
        if self.lost_again > 0 {
            away.retry_at = Some(now + Duration::from_millis(250) * (1 << self.lost_again));
        }
        self.state = State::Away(Box::new(away));
        self.away_tick(now, out);
    }

    /// A gateway that takes a session back and drops it at once must not be asked for ever.
    fn count_losses(&mut self, now: Instant) {
        let soon = self
            .back
            .is_some_and(|back| now.saturating_duration_since(back) < LOST_SOON);
        self.lost_again = if soon { self.lost_again + 1 } else { 0 };
    }

    pub(super) fn is_control_ui(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| &*client.client == CONTROL_UI)
    }

    /// Whether this client can show an outage that ends on the same socket.
    pub(super) fn shows_suspension(&self) -> bool {
        self.is_control_ui() && self.journal.connect().is_some() && self.hello.is_some()
    }

    /// Every request that had no answer gets one now, or is said again after the replay.
    fn settle_at_loss(&mut self, way: Way, written: u64, now: Instant, out: &mut Vec<Action>) {
        let replay = way == Way::Replay;
        let repeat = replay && self.policy.repeat_requests;
        self.journal.forget(|pending| pending.answered);
        self.settle_in_place(now, out, |pending| match pending.place {
            _ if repeat && pending.repeatable().is_some() => None,
            Place::Kept(_) if replay => None,
            Place::Again => Some(Execution::MayHaveExecuted),
            _ if pending.may_have_arrived(written) => Some(Execution::MayHaveExecuted),
            _ => Some(Execution::NotStarted),
        });
        self.journal.forget(|pending| pending.answered);
        if !replay {
            out.push(Action::DropKept);
        }
    }

    pub(super) fn away(&mut self) -> Option<&mut Away> {
        match &mut self.state {
            State::Away(away) => Some(away),
            _ => None,
        }
    }

    // === the client, meanwhile ===

    pub(super) fn away_generic_message(
        &mut self,
        kept: Option<Span>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        let notice_after = self.policy.notice_after;
        let Some(away) = self.away() else {
            return Verdict::Drop;
        };
        let brief = now.saturating_duration_since(away.since) < notice_after;
        if away.way == Way::Splice && kept.is_some() {
            return Verdict::Keep;
        }
        if away.way == Way::Splice {
            self.close(Cause::HoldBufferFull.answer(now).close, out);
        } else if !brief {
            // It speaks, and nobody hears it: the one honest word of this protocol is a close.
            self.send_back(now, out);
        } else if let Some(away) = self.away() {
            // What was said is lost, so the session has to end; let a brief outage pass first.
            away.leave_at = Some(now + notice_after);
        }
        Verdict::Drop
    }

    pub(super) fn away_message(
        &mut self,
        says: ClientSays,
        said: Said<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        let Some(away) = self.away() else {
            return Verdict::Drop;
        };
        let (way, step, since) = (away.way, away.step, away.since);
        match (way, says) {
            (Way::Greet, ClientSays::Connect(connect)) => {
                self.greeted_connect(connect, said, now, out);
                Verdict::Drop
            }
            (Way::Rechallenge, ClientSays::Connect(connect))
                if matches!(step, Step::Rechallenged(_)) =>
            {
                self.take_connect(connect, said);
                self.hello = None;
                self.rechallenged = Some(since);
                self.state = State::Opening { answered: false };
                Verdict::Forward
            }
            (Way::Replay, ClientSays::Request(request)) => {
                self.keep_or_answer(request, said, now, out)
            }
            (_, ClientSays::Request(request)) => {
                self.answer(&request, Execution::NotStarted, true, now, out);
                Verdict::Drop
            }
            (_, ClientSays::Connect(_)) => Verdict::Drop,
            (Way::Replay, ClientSays::Other) if said.whole && said.kept.is_some() => Verdict::Keep,
            (way, ClientSays::Other) => {
                if way == Way::Replay || !said.whole {
                    // It cannot be kept, or a request may be in it that nobody could answer.
                    self.send_back(now, out);
                }
                Verdict::Drop
            }
        }
    }

    fn greeted_connect(
        &mut self,
        connect: Connect,
        said: Said<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if self.client.is_some() {
            return;
        }
        self.take_connect(connect, said);
        let until = now + self.policy.handshake;
        if let Some(away) = self.away() {
            away.until = until;
        }
        self.away_look(now, out);
    }

    /// Whether a greeted client's first `connect` is said for it. Not a signed one: without its
    /// signature it would get less than it asked for.
    pub(super) fn is_said_for(&self) -> bool {
        let signed = self.client.as_ref().is_some_and(|client| client.has_device);
        self.journal.connect().is_some() && !signed
    }

    pub(super) fn down(&mut self, now: Instant) -> Duration {
        let since = self.away().map_or(now, |away| away.since);
        now.saturating_duration_since(since)
    }

    // === the gateway's state ===

    pub(super) fn away_look(&mut self, now: Instant, out: &mut Vec<Action>) {
        let view = self.view;
        let openclaw = self.policy.is_openclaw();
        let connected = self.client.is_some();
        let replayable = self.is_said_for();
        let Some(away) = self.away() else { return };
        if away.step != Step::Waiting {
            return;
        }
        if view.phase == Phase::Down && view.attempt > 0 {
            // Another outage that a probe has seen, not another refusal.
            away.attempts = 0;
        }
        match (view.phase, away.way) {
            (Phase::Ready, Way::Greet) if !connected => {}
            (Phase::Ready, _) if away.retry_at.is_some_and(|at| at > now) => {}
            (Phase::Ready, way) => {
                away.step = Step::Queued;
                if std::mem::take(&mut self.has_turn) {
                    return self.away_turn(now, out);
                }
                let Some(away) = self.away() else { return };
                let since = away.since;
                let farewell = match way {
                    Way::Reconnect => true,
                    Way::Greet => !replayable,
                    Way::Replay | Way::Rechallenge | Way::Gap | Way::Splice => false,
                };
                out.push(Action::TakeTurn { farewell, since });
            }
            (Phase::Starting, Way::Reconnect) if openclaw => {
                // Its own wait should end just when the gateway is ready.
                let known = view.expected_starting.unwrap_or_default();
                let leave = view.since + known.saturating_sub(CLIENT_WAIT);
                away.leave_at = Some(leave.max(now));
                self.away_leave_if_due(now, out);
            }
            (Phase::Down | Phase::Draining | Phase::Hung, Way::Reconnect) if openclaw => {
                away.leave_at = None;
            }
            _ => {}
        }
    }

    fn away_leave_if_due(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(away) = self.away() else { return };
        if away.step == Step::Waiting && away.leave_at.is_some_and(|at| at <= now) {
            away.leave_at = None;
            away.step = Step::Queued;
            let since = away.since;
            out.push(Action::TakeTurn {
                farewell: true,
                since,
            });
        }
    }

    // === time ===

    pub(super) fn away_tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        let openclaw = self.policy.is_openclaw();
        let notice_every = self.policy.notice_every;
        let view = self.view;
        let Some(away) = self.away() else { return };
        let since = away.since;
        if away.until <= now {
            return self.away_expired(now, out);
        }
        if away.shutdown_at.is_some_and(|at| at <= now) {
            away.shutdown_at = Some(now + SHUTDOWN_AGAIN);
            let expected = speech::remaining(&view, now);
            out.push(Action::SayToClient(speech::shutdown(expected, None)));
        }
        if away.notice_at <= now {
            away.notice_at = now + notice_every;
            out.push(Action::Count(Counted::StillHeld));
            if openclaw {
                self.notice(since, now, out);
            }
        }
        self.give_up_waiting(now, out);
        self.away_step_overdue(now, out);
        self.away_leave_if_due(now, out);
        let retry = self
            .away()
            .and_then(|away| away.retry_at.take_if(|at| *at <= now));
        if retry.is_some() {
            self.away_look(now, out);
        }
    }

    fn away_step_overdue(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(away) = self.away() else { return };
        match away.step {
            Step::Challenge(at) | Step::Hello(at) if at <= now => self.away_failed(now, out),
            Step::Rechallenged(at) | Step::Leaving(at) if at <= now => {
                self.send_back(now, out);
            }
            _ => {}
        }
    }

    fn away_expired(&mut self, now: Instant, out: &mut Vec<Action>) {
        let waited = self.down(now);
        if self.away().is_some_and(|away| away.way == Way::Greet) {
            return self.say_starting(now, out);
        }
        self.settle_all(now, out);
        let view = self.view;
        out.push(Action::Count(Counted::Expired));
        self.close(Cause::HoldExpired { view, waited }.answer(now).close, out);
    }
}
