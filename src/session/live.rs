//! The session while both sides talk: requests followed, answers settled, losses noticed.
//!
//! Pure, a part of [`super::machine`].

use tokio::time::Instant;

use super::event::{Action, Counted, Torn, Verdict};
use super::journal::{Answer, Place, Settled};
use super::machine::{Loss, Machine, Said, State, echo};
use crate::gateway::Evidence;
use crate::protocol::methods::Nature;
use crate::protocol::openclaw::{self, ClientSays, Connect, GatewaySays, Hello, Request};
use crate::protocol::rescue::Execution;
use crate::protocol::speech::{self, Resumed};
use crate::ws::close::is_going_away;

impl Machine {
    // === the client speaks ===

    pub(super) fn client_message(
        &mut self,
        said: Said<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        if !self.policy.is_openclaw() {
            return match &self.state {
                State::Live | State::Opening { .. } => Verdict::Forward,
                State::Away(_) => self.away_generic_message(said.kept, now, out),
                State::Closing => Verdict::Drop,
            };
        }
        let says = openclaw::client_says(said.text);
        match (&self.state, says) {
            (State::Closing, _) => Verdict::Drop,
            (State::Away(_), says) => self.away_message(says, said, now, out),
            (State::Opening { answered: false }, ClientSays::Connect(connect))
                if self.client.is_none() =>
            {
                self.take_connect(connect, said);
                Verdict::Forward
            }
            (_, ClientSays::Connect(again)) => {
                // Out of turn: the gateway will say so, and it changes nothing here.
                let request = Request {
                    id: again.id,
                    method: "connect".into(),
                    nature: Nature::Mutating,
                    key: None,
                };
                self.live_request(request, said, now, out)
            }
            (_, ClientSays::Request(request)) => self.live_request(request, said, now, out),
            (_, ClientSays::Other) if self.keeps() => self.other_behind_kept(said),
            (_, ClientSays::Other) => Verdict::Forward,
        }
    }

    /// Takes note of who connects, and of how, if that can be said again.
    pub(super) fn take_connect(&mut self, connect: Connect, said: Said<'_>) {
        let text = said.repeatable().filter(|_| self.policy.replays(&connect));
        match text {
            Some(text) if !connect.has_device => self.journal.record_connect(text),
            Some(text) => match openclaw::without_device(text) {
                Some(unsigned) => self.journal.record_connect(unsigned.as_bytes()),
                None => self.journal.stop_recording(),
            },
            None => self.journal.stop_recording(),
        }
        self.client = Some(Box::new(connect));
    }

    fn live_request(
        &mut self,
        request: Request,
        said: Said<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        if self.journal.follows(&request.id) {
            // Two answers of one id could not be told apart: the gateway has to say so, unless it
            // would come ahead of what is kept.
            return if self.keeps() {
                Verdict::Drop
            } else {
                Verdict::Forward
            };
        }
        if self.hung.is_some() || !self.journal.has_room(&request) {
            self.answer(&request, Execution::NotStarted, true, now, out);
            return Verdict::Drop;
        }
        if self.keeps() {
            return self.keep_or_answer(request, said, now, out);
        }
        let place = said.end.map_or(Place::Unfinished, Place::Sent);
        self.journal.ask(request, said.repeatable(), place, now);
        Verdict::Forward
    }

    /// Keeps a request for the next connection where there will be one on this socket and room;
    /// otherwise its sender learns at once that nothing was done.
    pub(super) fn keep_or_answer(
        &mut self,
        request: Request,
        said: Said<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        if self.journal.follows(&request.id) {
            return Verdict::Drop;
        }
        // A flush has its connection already.
        let connection = self.flush.is_some() || self.journal.connect().is_some();
        let room = connection && self.journal.has_room(&request);
        if let (Some(frame), true) = (said.kept, room) {
            self.journal
                .ask(request, said.repeatable(), Place::Kept(frame), now);
            return Verdict::Keep;
        }
        self.answer(&request, Execution::NotStarted, true, now, out);
        Verdict::Drop
    }

    /// What is no request, while requests are kept: in its place among them.
    fn other_behind_kept(&self, said: Said<'_>) -> Verdict {
        if self.flush.is_none() && self.journal.connect().is_none() {
            // Nothing is kept of a session that is not replayed, and the gateway is still there.
            return Verdict::Forward;
        }
        // What is not whole may be a request that nobody could answer.
        if said.whole && said.kept.is_some() {
            Verdict::Keep
        } else {
            Verdict::Wait
        }
    }

    /// Whether what is in the way of a message that waits will go by itself: what is flushed is
    /// sent in the end, and who has announced its end leaves or is taken not to have meant it.
    pub(super) fn makes_wait(&self) -> bool {
        matches!(self.state, State::Live | State::Opening { .. }) && self.keeps()
    }

    pub(super) fn client_close(&mut self, code: Option<u16>, out: &mut Vec<Action>) -> Verdict {
        self.client_closes = Some(code);
        // What was to be said again only reads, and nobody waits for it any more.
        self.journal.forget(|pending| pending.place == Place::Again);
        self.flush_all(out);
        match self.state {
            State::Live | State::Opening { .. } => Verdict::Forward,
            // The gateway's close was passed on; this is the answer to it.
            State::Closing => Verdict::Forward,
            State::Away(_) => {
                self.close(echo(code), out);
                Verdict::Drop
            }
        }
    }

    // === the gateway speaks ===

    pub(super) fn gateway_message(
        &mut self,
        text: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        if !self.policy.is_openclaw() {
            return Verdict::Forward;
        }
        let says = openclaw::gateway_says(text);
        if matches!(self.state, State::Away(_)) {
            return self.away_gateway_message(&says, text, now, out);
        }
        match says {
            GatewaySays::Response { id, ok } => self.response(&id, ok, text, now, out),
            GatewaySays::Shutdown { seq } => {
                self.announced(seq, now, out);
                Verdict::Drop
            }
            GatewaySays::Event { seq } => {
                self.note_seq(seq);
                Verdict::Forward
            }
            GatewaySays::Challenge | GatewaySays::Other => Verdict::Forward,
        }
    }

    /// The gateway's `shutdown`: said in its place, with a length that is true.
    fn announced(&mut self, seq: Option<u64>, now: Instant, out: &mut Vec<Action>) {
        self.shutdown = Some(now);
        self.note_seq(seq);
        out.push(Action::Report(Evidence::Shutdown));
        if self.shows_suspension() {
            let draining = speech::Suspension::Draining;
            out.push(Action::SayToClient(speech::suspension(draining, seq)));
        } else {
            let expected = speech::remaining(&self.view, now);
            out.push(Action::SayToClient(speech::shutdown(expected, seq)));
        }
    }

    fn response(
        &mut self,
        id: &str,
        ok: bool,
        text: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        if let State::Opening { answered } = &mut self.state
            && self.client.as_ref().is_some_and(|client| &*client.id == id)
        {
            *answered = true;
            if ok {
                self.greeted_by(text);
                self.state = State::Live;
                self.welcome_back(now, out);
            } else if openclaw::is_starting_refusal(text) {
                out.push(Action::Report(Evidence::Starting));
            }
            return Verdict::Forward;
        }
        if let Some(at) = self.ours.iter().position(|ours| &**ours == id) {
            self.ours.swap_remove(at);
            self.restored(ok, text, now, out);
            return Verdict::Drop;
        }
        let Answer { settled, flushed } = self.journal.settle(id, ok);
        if let Some(window) = flushed {
            self.flushed_is_answered(window, out);
        }
        match settled {
            Settled::Awaited | Settled::Unknown => Verdict::Forward,
            Settled::Already => Verdict::Drop,
        }
    }

    /// Keeps what the gateway granted, and whether it can be had again without a signature.
    pub(super) fn greeted_by(&mut self, text: &[u8]) {
        self.hello = Hello::parse(text).map(Box::new);
        let signed = self.client.as_ref().is_some_and(|client| client.has_device);
        match &mut self.hello {
            Some(hello) if signed && hello.is_by_proxy() => hello.disregard_device_token(),
            Some(_) if !signed => {}
            _ => self.journal.stop_recording(),
        }
    }

    /// A client that answered the new challenge itself is back.
    fn welcome_back(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Some(since) = self.rechallenged.take() {
            self.back = Some(now);
            let down = now.saturating_duration_since(since);
            out.push(Action::Count(Counted::Resumed(Resumed::Rechallenge, down)));
            let up = speech::gateway_up(down, Resumed::Rechallenge, None);
            out.push(Action::SayToClient(up));
        }
    }

    fn note_seq(&mut self, seq: Option<u64>) {
        self.last_seq = seq.or(self.last_seq);
    }

    pub(super) fn gateway_close(
        &mut self,
        code: Option<u16>,
        loss: Loss,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Verdict {
        let answered = matches!(self.state, State::Opening { answered: true });
        let own = matches!(self.state, State::Closing) || self.client_closes.is_some();
        if self.client_ended && !own {
            // Both sides are done.
            self.ends_behind_its_client(loss, now, out);
            return Verdict::Forward;
        }
        if !is_going_away(code) || answered || own {
            if let State::Away(_) = self.state {
                self.away_refused(now, out);
                return Verdict::Drop;
            }
            if !own {
                self.settle_unsent(now, out);
            }
            self.state = State::Closing;
            self.flush = None;
            return Verdict::Forward;
        }
        out.push(Action::CloseGateway);
        self.gateway_lost(loss, now, out);
        Verdict::Drop
    }

    /// The gateway's side ends after the client's own: no outage, and nothing to come back to. What
    /// has no answer by now will have none.
    fn ends_behind_its_client(&mut self, loss: Loss, now: Instant, out: &mut Vec<Action>) {
        if loss.torn == Torn::No {
            self.settle_in_place(now, out, |pending| {
                let sent = matches!(pending.place, Place::Again);
                Some(if sent || pending.may_have_arrived(loss.written) {
                    Execution::MayHaveExecuted
                } else {
                    Execution::NotStarted
                })
            });
        }
        self.state = State::Closing;
        self.flush = None;
    }

    pub(super) fn gateway_lost(&mut self, loss: Loss, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.state, State::Closing) {
            return;
        }
        if let Some(code) = self.client_closes {
            return self.close(echo(code), out);
        }
        if let State::Away(_) = self.state {
            // A connection that was never in use says little about the gateway; the next dial
            // will say more.
            return self.away_lost(now);
        }
        if self.client_ended {
            return self.ends_behind_its_client(loss, now, out);
        }
        out.push(Action::Report(Evidence::Lost(loss.reason)));
        self.hung = None;
        match (loss.torn, &self.state) {
            (Torn::Frame, _) => {
                out.push(Action::Count(Counted::Torn));
                self.state = State::Closing;
                out.push(Action::Abort);
            }
            // Only control frames may stand inside a message; a close is one.
            (Torn::Message, _) => {
                out.push(Action::Count(Counted::Torn));
                self.close_to_return(now, out);
            }
            // Its `connect` has been answered, and only the close behind that is missing.
            (Torn::No, State::Opening { answered: true }) => self.close_as_starting(now, out),
            (Torn::No, State::Opening { .. }) => self.greet(true, loss.written, now, out),
            (Torn::No, _) => self.hold(loss, now, out),
        }
    }
}
