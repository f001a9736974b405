//! What a reload comes to for an open session: other terms, and perhaps another gateway.
//!
//! The terms are taken at once. A planned move waits for the new gateway, for a turn there, and for
//! the last answers of the old one; a session that could not be put back unseen is left where it is
//! until its gateway ends it. What a move means to the client is decided as for any other loss.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use tokio::time::Instant;

use super::away::Step;
use super::event::{Action, Event, Torn};
use super::machine::{Loss, Machine, State};
use super::policy::{Policy, Way};
use super::pump::{LINGER, Pump};
use crate::gateway::{Gateway, Phase, Reason, View};
use crate::ws::close::Close;
use crate::ws::frame::Opcode;

/// Going away (RFC 6455, 7.4.1): what the old gateway is told.
const GOING_AWAY: u16 = 1001;

/// A planned move to the line's gateway.
pub(super) struct Move {
    to: Arc<Gateway>,
    /// For the gateway to be ready, and for a turn there.
    turn: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// With its turn: answers of the old gateway are waited for until then.
    until: Option<Instant>,
}

impl Move {
    fn to(gateway: &Arc<Gateway>, now: Instant) -> Self {
        Self {
            to: Arc::clone(gateway),
            turn: Box::pin(turn_at(Arc::clone(gateway), now)),
            until: None,
        }
    }

    /// Whether it leads there, and may still be made: a gateway that went away again after the turn
    /// has to be waited for anew.
    fn leads_to(&self, gateway: &Arc<Gateway>) -> bool {
        let there = self.until.is_none() || gateway.view().phase == Phase::Ready;
        Arc::ptr_eq(&self.to, gateway) && there
    }

    /// When the answers of the old gateway are waited for no more.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }
}

async fn turn_at(gateway: Arc<Gateway>, since: Instant) {
    loop {
        gateway.wait_for(|view| view.phase == Phase::Ready).await;
        // The pacer lives as long as the gateway.
        let _ = gateway.returns.turn(since).await;
        if gateway.view().phase == Phase::Ready {
            return;
        }
    }
}

impl Pump {
    /// Takes what a reload has changed, if there was one.
    pub(super) fn follow(&mut self) {
        if let Some(newer) = self.line.newer() {
            self.line = Arc::clone(newer);
            self.take_terms();
        }
        let elsewhere = !Arc::ptr_eq(&self.line.gateway, &self.gateway_of);
        if elsewhere && matches!(self.machine.state, State::Away(_)) {
            // It waits, and for the other one from now on.
            self.go_over();
        }
    }

    fn take_terms(&mut self) {
        let identified = self.machine.policy.identified;
        let policy = Policy::new(&self.line.upstream, &self.line.hold, identified);
        self.kept.set_limits(&self.line.hold);
        let every = self.line.limits.ping_every;
        self.ping_at = every.map(|every| {
            let next = Instant::now() + every;
            self.ping_at.map_or(next, |at| at.min(next))
        });
        self.feed(Event::Terms(policy));
    }

    /// The turn at the new gateway, and the end of what the old one is still asked. Whether the
    /// session has gone over. `moved`: this round has moved bytes, and there may be more.
    pub(super) fn poll_move(&mut self, cx: &mut Context<'_>, moved: bool) -> bool {
        let elsewhere = !Arc::ptr_eq(&self.line.gateway, &self.gateway_of);
        if !elsewhere || !self.machine.can_be_moved() {
            self.moving = None;
            return false;
        }
        let (now, to) = (Instant::now(), &self.line.gateway);
        self.moving.take_if(|moving| !moving.leads_to(to));
        let moving = self.moving.get_or_insert_with(|| Move::to(to, now));
        let until = match moving.until {
            Some(until) => until,
            None if moving.turn.as_mut().poll(cx).is_pending() => return false,
            None => *moving.until.insert(now + self.line.limits.drain),
        };
        // What the old gateway has said already is to be heard.
        if moved && until > now {
            return false;
        }
        if !self.is_at_a_seam() {
            if let Some(moving) = self.moving.as_mut().filter(|_| until <= now) {
                // A message is under way: it ends soon, or the connection does.
                moving.until = Some(now + LINGER);
            }
            return false;
        }
        let silent = self.machine.reads_messages() || self.unmatched == 0;
        if until > now && !(silent && self.machine.is_quiet()) {
            return false;
        }
        self.machine.has_turn = true;
        self.say_to_gateway(Opcode::Close, &Close::payload(GOING_AWAY, ""));
        if let Some(gateway) = &mut self.gateway {
            // As far as it goes: the old gateway's ear is not waited for.
            let _ = gateway.poll_drain(cx);
        }
        self.go_over();
        true
    }

    /// Whether both sides stand between messages, with nothing of ours half said.
    fn is_at_a_seam(&self) -> bool {
        let gateway = self
            .gateway
            .as_ref()
            .is_none_or(|gateway| gateway.cutter.between_messages() && gateway.backlog() == 0);
        gateway && !self.is_client_cut() && self.client.cutter.between_messages()
    }

    fn go_over(&mut self) {
        let written = self.gateway.as_ref().map_or(0, |gateway| gateway.written());
        self.moving = None;
        self.turn = None;
        self.gateway_of = Arc::clone(&self.line.gateway);
        let view = self.gateway_of.view();
        self.feed(Event::Moved { view, written });
    }
}

impl Machine {
    /// Whether a planned move would go unseen.
    pub(super) fn can_be_moved(&self) -> bool {
        let recorded = self.journal.connect().is_some() && self.hello.is_some();
        let way = self.policy.way(self.client.as_deref(), recorded);
        let unseen = matches!(way, Way::Replay | Way::Rechallenge | Way::Splice);
        let leaves = self.client_closes.is_some() || self.client_ended;
        let stays = leaves || self.shutdown.is_some();
        matches!(self.state, State::Live) && unseen && !stays && self.stop_at.is_none()
    }

    /// Whether no answer is outstanding.
    pub(super) fn is_quiet(&self) -> bool {
        self.flush.is_none() && self.ours.is_empty() && self.journal.is_settled()
    }

    /// A wait that has begun is as long as the new terms say, from its beginning.
    pub(super) fn take_terms(&mut self, policy: Policy, now: Instant) {
        self.policy = policy;
        if let Some(away) = self.away() {
            if !away.is_greeting() {
                away.until = away.since + policy.max;
            }
            away.notice_at = away.notice_at.min(now + policy.notice_every);
        }
    }

    /// See [`Event::Moved`].
    pub(super) fn moved(&mut self, view: View, written: u64, now: Instant, out: &mut Vec<Action>) {
        self.view = view;
        match &mut self.state {
            State::Closing | State::Opening { .. } => {}
            State::Away(away) => {
                away.step = Step::Waiting;
                away.attempts = 0;
                away.retry_at = None;
                out.push(Action::CloseGateway);
                self.away_look(now, out);
            }
            State::Live => {
                out.push(Action::CloseGateway);
                // Not the gateway's doing, so it does not count against it.
                self.back = None;
                self.hung = None;
                let loss = Loss {
                    reason: Reason::Closed,
                    written,
                    torn: Torn::No,
                    cut: false,
                };
                self.hold(loss, now, out);
                self.away_look(now, out);
            }
        }
        self.has_turn = false;
    }
}
