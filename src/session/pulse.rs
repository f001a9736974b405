//! A session's time: when something is due, and whether its client is still there.
//!
//! A part of the pump. What is due in the protocol is the machine's to say.

use std::time::Duration;

use tokio::time::Instant;

use super::event::{Event, Torn};
use super::follow::Move;
use super::pump::{LINGER, Pump};
use crate::gateway::Reason;
use crate::ws::frame::Opcode;

/// Pings in a row that a client may leave unanswered: the first may still wait behind data that a
/// slow line has not taken yet.
const UNANSWERED: u32 = 2;
/// When holdline stops, what of that time the gateway may take to finish its last message.
const LAST_MESSAGE: Duration = Duration::from_secs(4);

impl Pump {
    pub(super) fn stop_slot(&self) -> Instant {
        let [a, b, ..] = random();
        let share = f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX);
        // The last tenth is for the close handshakes.
        Instant::now() + self.line.limits.drain.mul_f64(0.9 * share)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let silent = self.silent_at.filter(|_| self.permit.is_some());
        let proof = self.gateway_ping.map(|(_, until)| until);
        let own = self.machine.deadline();
        let room = self.room.deadline();
        let moving = self.moving.as_ref().and_then(Move::deadline);
        [own, room, self.ping_at, self.linger, silent, proof, moving]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn tick(&mut self) {
        self.now = Instant::now();
        if self.linger.is_some_and(|at| at <= self.now) {
            self.done = true;
            return;
        }
        if self.silent_at.is_some_and(|at| at <= self.now) {
            self.silent_at = None;
            if let Some(permit) = self
                .permit
                .as_mut()
                .filter(|_| !self.machine.has_connected())
            {
                permit.release_total();
            }
        }
        self.room.expire(self.now);
        self.check_alive();
        if self
            .gateway_ping
            .is_some_and(|(_, until)| until <= self.now)
        {
            self.gateway_ping = None;
            self.lost(Reason::Timeout);
        }
        if self.machine.has_to_stop(self.now) && !self.last_message && self.torn() != Torn::No {
            // No close of ours can follow half a frame: the gateway may finish its message.
            self.last_message = true;
            self.end_by = Some(self.now + LINGER);
            self.machine.put_stop(self.now + LAST_MESSAGE);
        }
        self.feed(Event::Tick);
    }

    /// Pings a silent client, and gives up one that has not answered the last ping.
    fn check_alive(&mut self) {
        let (Some(at), Some(every)) = (self.ping_at, self.line.limits.ping_every) else {
            return;
        };
        if at > self.now {
            return;
        }
        self.ping_at = Some(self.now + every);
        // A full pipe that moves has somebody at its other end; what a pipe with room takes proves
        // nothing.
        let pipe = Some(self.client.written()).filter(|_| self.client.backlog() > 0);
        let before = std::mem::replace(&mut self.full_pipe, pipe);
        let progress = before.is_some_and(|before| before != self.client.written());
        // Whoever is not listened to cannot be heard; whoever is leaving need not be.
        let excused = self.linger.is_some() || !self.listens_to_client();
        if std::mem::take(&mut self.heard) || progress || excused {
            self.unanswered = 0;
        } else if self.unanswered >= UNANSWERED {
            self.report.dead();
            self.done = true;
        } else {
            self.unanswered += 1;
            let payload = random();
            self.ping = Some(payload);
            self.say_to_client(Opcode::Ping, &payload);
        }
    }
}

/// A ping's payload: nobody else's looks like it.
pub(super) fn random() -> [u8; 8] {
    let mut payload = [0u8; 8];
    let _ = aws_lc_rs::rand::fill(&mut payload);
    payload
}
