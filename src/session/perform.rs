//! Doing what the machine wants: words into the streams, what is kept, the gateway let go.
//!
//! A part of the pump without any polling: bytes are queued here and written there.

use std::sync::Arc;

use super::event::{Action, Counted, Event, Torn, Verdict};
use super::open::redial;
use super::pump::{MAX_DEFERRED, Pump};
use crate::protocol::rescue::Cause;
use crate::ws::close::Close;
use crate::ws::frame::{Opcode, write_client_frame, write_server_frame};

impl Pump {
    /// Does what the machine wants, in order.
    pub(super) fn act(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.perform(action);
            }
        }
        if !self.machine.is_handshaking() {
            self.permit = None;
        }
        self.report.state(&self.machine.state);
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::SayToClient(text) => self.say_to_client(Opcode::Text, text.as_bytes()),
            Action::SayToGateway(text) => self.say_to_gateway(Opcode::Text, &text.0),
            Action::SendKept => self.send_kept(u64::MAX),
            Action::SendKeptUntil(end) => self.send_kept(end),
            Action::AskRoom(requests) => self.room.ask(&self.gateway_of.flushes, requests),
            Action::GiveRoom => self.room.give_one(),
            Action::DropKept => self.drop_kept(),
            Action::DropKeptFrames(frames) => {
                if self.kept.cut(&frames) && self.client_message == Verdict::Keep {
                    // The rest of the last one is still on its way.
                    self.client_message = Verdict::Drop;
                }
            }
            Action::CloseClient(close) => {
                let payload = Close::payload(close.code, &close.reason);
                self.report.closing(close.code);
                self.say_to_client(Opcode::Close, &payload);
                self.closing();
            }
            Action::CloseGateway => {
                self.cut_off();
                self.detach();
            }
            Action::TakeTurn { farewell, since } => {
                let gateway = &self.gateway_of;
                let queue = if farewell {
                    &gateway.farewells
                } else {
                    &gateway.returns
                };
                self.turn = Some(queue.turn(since));
            }
            Action::Dial => {
                let gateway = Arc::clone(&self.gateway_of);
                let (ticket, ip) = (self.ticket.clone(), self.admitted.ip());
                self.dial = Some(Box::pin(redial(gateway, ticket, ip, self.agreed.clone())));
            }
            Action::Report(evidence) => {
                self.gateway_of.report(evidence);
                // The state has moved: decide on what it is now, not on what it was.
                let view = self.gateway_of.view();
                self.machine
                    .on(Event::View(view), self.now, &mut self.actions);
            }
            Action::Count(counted) => self.report.count(counted),
            Action::Abort => self.done = true,
        }
    }

    /// Puts a frame of ours into the stream to the client, where one may stand.
    pub(super) fn say_to_client(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::with_capacity(payload.len() + 10);
        write_server_frame(opcode, payload, &mut frame);
        let free = self.gateway.as_ref().is_none_or(|gateway| {
            // What is held back of a message is not in the way: it will not be sent.
            let held_back = self.gateway_message != Verdict::Forward;
            gateway.cutter.between_messages()
                || (gateway.cutter.between_frames() && opcode.is_control())
                || held_back
        });
        if free {
            self.client.queue(&frame);
        } else if self.deferred.len() < MAX_DEFERRED {
            self.deferred.push_back(frame);
        }
    }

    /// Whether frames of ours wait for the end of the gateway's message.
    pub(super) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// What had to wait for the end of a message can go now.
    pub(super) fn undefer(&mut self) {
        for frame in self.deferred.drain(..) {
            self.client.queue(&frame);
        }
    }

    pub(super) fn say_to_gateway(&mut self, opcode: Opcode, payload: &[u8]) {
        if let Some(gateway) = &mut self.gateway {
            let mut frame = Vec::with_capacity(payload.len() + 14);
            write_client_frame(opcode, payload, &mut frame);
            gateway.queue(&frame);
        }
    }

    /// Sends what was kept, up to this offset of it.
    fn send_kept(&mut self, until: u64) {
        if self.is_client_cut() {
            // Not into the middle of a message; the machine will ask again.
            return;
        }
        let Some(gateway) = &mut self.gateway else {
            return;
        };
        self.machine
            .kept_sent(gateway.queued(), until, &mut self.actions);
        gateway.queue(self.kept.first(until));
        self.kept.forget(until);
        // A message whose beginning was kept goes on over the new connection.
        if self.kept.len() == 0 && self.client_message == Verdict::Keep {
            self.client_message = Verdict::Forward;
        }
    }

    fn drop_kept(&mut self) {
        self.kept.take();
        if self.client_message == Verdict::Keep {
            self.client_message = Verdict::Drop;
        }
    }

    /// Keeps a piece of the client's stream.
    pub(super) fn keep(&mut self, raw: &[u8]) {
        if !self.kept.push(raw) {
            self.machine
                .close_for(&Cause::HoldBufferFull, self.now, &mut self.actions);
            self.act();
        }
    }

    /// What the gateway was saying ends here by our own decision. Nothing can follow half a frame,
    /// and nothing but the close that is out already can follow half a message.
    fn cut_off(&mut self) {
        match self.torn() {
            Torn::No => {}
            Torn::Message => self.deferred.clear(),
            Torn::Frame => {
                self.report.count(Counted::Torn);
                self.deferred.clear();
                self.done = true;
            }
        }
    }

    /// What the client has seen of the gateway's last message.
    pub(super) fn torn(&self) -> Torn {
        let Some(gateway) = self.gateway.as_ref() else {
            return Torn::No;
        };
        match self.gateway_message {
            Verdict::Forward if !gateway.cutter.between_frames() => Torn::Frame,
            Verdict::Forward if !gateway.cutter.between_messages() => Torn::Message,
            _ => Torn::No,
        }
    }

    /// Whether the client was in the middle of a message to the gateway.
    pub(super) fn is_client_cut(&self) -> bool {
        !self.client.cutter.between_messages() && self.client_message == Verdict::Forward
    }

    /// Lets go of the gateway's connection; what the client was sending to it ends here.
    pub(super) fn detach(&mut self) {
        self.gateway = None;
        self.dial = None;
        self.permit = None;
        self.room.clear();
        self.gateway_message = Verdict::Drop;
        if self.is_client_cut() {
            self.client_message = Verdict::Drop;
        }
        self.undefer();
    }
}
