//! The session on its way back: its turn, its dial, its handshake said again, or its client sent
//! round to us.
//!
//! Pure, the last third of [`super::machine`].

use std::time::Duration;

use tokio::time::Instant;

use super::away::{GAP_WAIT, RECHALLENGE_WAIT, STEP_LIMIT, Step};
use super::event::{Action, Counted, Secret, Torn, Verdict};
use super::machine::{Loss, Machine, State};
use super::policy::Way;
use crate::gateway::{Evidence, Phase, Reason};
use crate::protocol::openclaw::{self, GatewaySays, Hello, Restart};
use crate::protocol::rescue::Cause;
use crate::protocol::speech::{self, Resumed, Suspension};

/// Unsuccessful dials of one session after which it is sent back instead.
const MAX_ATTEMPTS: u32 = 5;

impl Machine {
    pub(super) fn away_turn(&mut self, now: Instant, out: &mut Vec<Action>) {
        let view = self.view;
        let replayable = self.is_said_for();
        let openclaw = self.policy.is_openclaw();
        let down = self.down(now);
        let Some(away) = self.away() else { return };
        if away.step != Step::Queued {
            return;
        }
        let ready = view.phase == Phase::Ready;
        let starting = ready || view.phase == Phase::Starting;
        match away.way {
            Way::Reconnect if starting || !openclaw => {
                out.push(Action::Count(Counted::Resumed(Resumed::Reconnect, down)));
                self.send_back(now, out);
            }
            Way::Greet if ready && !replayable => self.say_starting(now, out),
            Way::Gap if ready => {
                away.step = Step::Leaving(now + GAP_WAIT);
                out.push(Action::Count(Counted::Resumed(Resumed::Gap, down)));
                self.say_gap(down, Resumed::Gap, out);
            }
            Way::Replay | Way::Rechallenge | Way::Splice | Way::Greet if ready => {
                away.step = Step::Dialling;
                out.push(Action::Dial);
            }
            // It went away again meanwhile.
            _ => away.step = Step::Waiting,
        }
    }

    /// `gateway.up` with a number that leaves a gap: the client learns that it may have missed
    /// events.
    fn say_gap(&self, down: Duration, resumed: Resumed, out: &mut Vec<Action>) {
        // Without any numbered event before, the first one only sets the base.
        let last = self.last_seq.unwrap_or_else(|| {
            let base = speech::gateway_up(down, resumed, Some(1));
            out.push(Action::SayToClient(base));
            1
        });
        let up = speech::gateway_up(down, resumed, Some(last + 2));
        out.push(Action::SayToClient(up));
    }

    /// The answer that makes a greeted client come back by itself, unseen.
    pub(super) fn say_starting(&mut self, now: Instant, out: &mut Vec<Action>) {
        let after = self.view.retry_after(now);
        if let Some(client) = &self.client {
            out.push(Action::SayToClient(speech::starting(&client.id, after)));
        }
        self.close_as_starting(now, out);
    }

    /// Close 1013, in the words that official clients know.
    pub(super) fn close_as_starting(&mut self, now: Instant, out: &mut Vec<Action>) {
        let mut close = Cause::GatewayAway(self.view).answer(now).close;
        close.reason = speech::STARTING.into();
        self.close(close, out);
    }

    pub(super) fn away_dialled(
        &mut self,
        result: Result<(), Reason>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let down = self.down(now);
        let Some(away) = self.away() else { return };
        match result {
            Err(reason) => {
                if reason != Reason::UpgradeRejected {
                    out.push(Action::Report(Evidence::Lost(reason)));
                }
                self.away_failed(now, out);
            }
            Ok(()) if away.way == Way::Splice => {
                out.push(Action::Count(Counted::Resumed(Resumed::Splice, down)));
                self.state = State::Live;
                self.back = Some(now);
                out.push(Action::SendKept);
            }
            Ok(()) => away.step = Step::Challenge(now + STEP_LIMIT),
        }
    }

    /// The connection that was being put to use ended.
    pub(super) fn away_lost(&mut self, now: Instant) {
        if let Some(away) = self.away()
            && away.is_handshaking()
        {
            away.step = Step::Waiting;
            away.attempts += 1;
            away.retry_at = Some(now + Duration::from_millis(250) * away.attempts);
        }
    }

    pub(super) fn away_failed(&mut self, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::CloseGateway);
        self.away_lost(now);
        if self
            .away()
            .is_some_and(|away| away.attempts >= MAX_ATTEMPTS)
        {
            self.away_refused(now, out);
        }
    }

    /// The gateway does not take this session back as it was: its client has to do it.
    pub(super) fn away_refused(&mut self, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::Count(Counted::ReplayRefused));
        out.push(Action::CloseGateway);
        self.journal.stop_recording();
        if self.away().is_some_and(|away| away.way == Way::Greet) {
            return self.say_starting(now, out);
        }
        self.send_back(now, out);
    }

    pub(super) fn away_gateway_message(
        &mut self,
        says: &GatewaySays<'_>,
        text: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        let Some(away) = self.away() else {
            return Verdict::Drop;
        };
        match (away.step, says) {
            (Step::Challenge(_), GatewaySays::Challenge) if away.way == Way::Rechallenge => {
                away.step = Step::Rechallenged(now + RECHALLENGE_WAIT);
                Verdict::Forward
            }
            (Step::Challenge(_), GatewaySays::Challenge) => {
                away.step = Step::Hello(now + STEP_LIMIT);
                match self.journal.connect() {
                    Some(connect) => out.push(Action::SayToGateway(Secret(connect.to_vec()))),
                    None => self.away_refused(now, out),
                }
                Verdict::Drop
            }
            (Step::Hello(_), GatewaySays::Response { id, ok })
                if self
                    .client
                    .as_ref()
                    .is_some_and(|client| *client.id == **id) =>
            {
                self.hello_answered(*ok, text, now, out)
            }
            (Step::Rechallenged(_), _) => Verdict::Forward,
            _ => Verdict::Drop,
        }
    }

    fn hello_answered(
        &mut self,
        ok: bool,
        text: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        if !ok && openclaw::is_starting_refusal(text) {
            out.push(Action::Report(Evidence::Starting));
            self.away_failed(now, out);
            return Verdict::Drop;
        }
        let again = Hello::parse(text);
        if self.away().is_some_and(|away| away.way == Way::Greet) {
            // Its very first handshake, only later: the answer is the client's.
            if again.is_some() {
                self.greeted_by(text);
            }
            self.state = if ok {
                State::Live
            } else {
                State::Opening { answered: true }
            };
            return Verdict::Forward;
        }
        let covered = match (&self.hello, &again) {
            (Some(first), Some(again)) => first.covered_by(again).is_ok(),
            _ => false,
        };
        if ok && covered {
            self.replayed(now, out);
        } else {
            self.away_refused(now, out);
        }
        Verdict::Drop
    }

    /// The session stands at the new gateway; say again what belongs to it.
    fn replayed(&mut self, now: Instant, out: &mut Vec<Action>) {
        let down = self.down(now);
        self.state = State::Live;
        self.back = Some(now);
        out.push(Action::Count(Counted::Resumed(Resumed::Replay, down)));
        if self.is_control_ui() {
            // It would connect again, which the replay has spared it.
            let up = speech::gateway_up(down, Resumed::Replay, None);
            out.push(Action::SayToClient(up));
        } else {
            self.say_gap(down, Resumed::Replay, out);
        }
        // Numbers start anew with the connection; clients take a lower one as a new beginning.
        self.last_seq = None;
        if self.shows_suspension() {
            out.push(Action::SayToClient(speech::suspension(
                Suspension::Accepting,
                None,
            )));
        }
        let mut unsaid = false;
        for (n, text) in self.journal.standing().enumerate() {
            let id = format!(
                "holdline:{n}:{}",
                now.saturating_duration_since(self.view.since).as_nanos()
            );
            let Some(text) = speech::with_id(text, &id) else {
                unsaid = true;
                break;
            };
            out.push(Action::SayToGateway(Secret(text.into_bytes())));
            self.ours.push(id.into());
        }
        if unsaid {
            return self.send_back(now, out);
        }
        self.journal.repeat();
        self.begin_flush(now, out);
    }

    /// The gateway answers one of the requests that were said again for the session's standing.
    pub(super) fn restored(&mut self, ok: bool, text: &[u8], now: Instant, out: &mut Vec<Action>) {
        if ok {
            return self.flush_on(out);
        }
        if self.client_closes.is_some() || self.client_ended {
            return;
        }
        let evidence = match openclaw::refused_for_restart(text, self.shutdown.is_some()) {
            Some(Restart::Leaving) => Evidence::Shutdown,
            Some(Restart::Starting) => Evidence::Starting,
            // What the client relies on could not be restored: it has to do it itself.
            None => return self.send_back(now, out),
        };
        // It goes away again: what was to be restored still is. Whatever the time since its return,
        // the session was not back; how often that may happen is counted there.
        out.push(Action::Report(evidence));
        out.push(Action::CloseGateway);
        self.hung = None;
        self.back = Some(now);
        let loss = Loss {
            reason: Reason::Closed,
            written: u64::MAX,
            torn: Torn::No,
            cut: false,
        };
        self.hold(loss, now, out);
    }
}
