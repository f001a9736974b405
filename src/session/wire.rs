//! The reading and writing of both sides of a session, and what back-pressure there is between them.
//!
//! A part of the pump. What the bytes mean is [`super::judge`]'s affair.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::event::Event;
use super::leg::{Read, SCRATCH};
use super::open::Agreed;
use super::pump::{PROOF, Pump};
use crate::gateway::{Reason, reason_of};
use crate::ws::cutter::WHOLE;

/// Reads per wake-up before other tasks get their turn.
const ROUNDS: u32 = 16;
/// Unwritten bytes to the client over which it is not listened to: answers to it would pile up.
const CLIENT_BACKLOG: usize = 256 * 1024;
/// After the client's half-close, how long the gateway may take to finish.
const HALF_CLOSED: Duration = Duration::from_secs(60);
/// During a handshake the gateway's messages are read whole up to this.
const WHOLE_HELLO: usize = 1024 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

impl Pump {
    /// Moves what can be moved. Ready: the timer is to be set anew, or the session is done.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            let deaf = !self.listens_to_client();
            let moved = self.poll_waits(cx) | self.poll_client(cx) | self.poll_gateway(cx);
            // The gateway took its backlog only now: the client waits to be read, unregistered.
            let moved = moved | (deaf && self.listens_to_client());
            if self.poll_move(cx, moved) || self.done || self.deadline() != self.armed {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The turn, the dial, and room for what is kept.
    fn poll_waits(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(turn) = &mut self.turn
            && let Poll::Ready(turn) = Pin::new(turn).poll(cx)
        {
            self.turn = None;
            if turn.is_ok() {
                self.feed(Event::Turn);
            }
            return true;
        }
        if let Some(room) = self.room.poll(cx) {
            // None of ours into the middle of a message; the machine will ask again.
            let requests = if self.is_client_cut() { 0 } else { room };
            self.feed(Event::Room(requests));
            return true;
        }
        let Some(dial) = &mut self.dial else {
            return false;
        };
        let Poll::Ready(dialled) = dial.as_mut().poll(cx) else {
            return false;
        };
        self.dial = None;
        let result = dialled.map(|upstream| {
            self.agreed
                .get_or_insert_with(|| Agreed::of(&upstream.socket));
            self.attach(upstream);
        });
        self.feed(Event::Dialled(result));
        true
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> bool {
        if let Poll::Ready(Err(_)) = self.client.poll_drain(cx) {
            self.client_gone();
            return false;
        }
        if self.client.has_ended() && (self.half_closed || self.client_said_close()) {
            self.done = true;
            return false;
        }
        if self.half_closed || !self.listens_to_client() {
            return false;
        }
        let waited = std::mem::take(&mut self.client_waits);
        if waited || self.client.take_fresh() {
            self.read_from_client(cx, &[]);
            return true;
        }
        SCRATCH_BUFFER.with_borrow_mut(|scratch| match self.client.poll_read(cx, scratch) {
            Poll::Pending => false,
            Poll::Ready(Ok(Read::Bytes(n))) => {
                self.heard = true;
                self.now = Instant::now();
                self.read_from_client(cx, scratch.get(..n).unwrap_or_default());
                true
            }
            Poll::Ready(Ok(Read::End)) => {
                self.now = Instant::now();
                self.client_ended();
                true
            }
            Poll::Ready(Err(_)) => {
                self.client_gone();
                false
            }
        })
    }

    pub(super) fn listens_to_client(&self) -> bool {
        let full = self.kept.is_full() && self.machine.is_splicing();
        let backed_up = self
            .gateway
            .as_ref()
            .is_some_and(|gateway| gateway.backlog() > 0);
        let waits = self.client_waits && self.machine.makes_wait();
        !backed_up && !full && !waits && self.client.backlog() < CLIENT_BACKLOG
    }

    fn poll_gateway(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(gateway) = &mut self.gateway else {
            return false;
        };
        // A write that fails is seen again by the reader, after what the gateway said last.
        let _ = gateway.poll_drain(cx);
        if self.client.backlog() > 0 {
            return false;
        }
        let whole = if self.machine.is_handshaking() {
            WHOLE_HELLO
        } else {
            WHOLE
        };
        gateway.cutter.set_whole(whole);
        if gateway.take_fresh() {
            self.read_from_gateway(cx, &[]);
            return true;
        }
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let Some(gateway) = &mut self.gateway else {
                return false;
            };
            match gateway.poll_read(cx, scratch) {
                Poll::Pending => return false,
                Poll::Ready(Ok(Read::Bytes(n))) => {
                    self.now = Instant::now();
                    if let Some((_, until)) = &mut self.gateway_ping {
                        // It speaks, so it lives; the pong itself is still to be taken out.
                        *until = self.now + PROOF;
                    }
                    self.read_from_gateway(cx, scratch.get(..n).unwrap_or_default());
                }
                Poll::Ready(Ok(Read::End)) => self.lost(Reason::Closed),
                Poll::Ready(Err(error)) => self.lost(reason_of(&error)),
            }
            true
        })
    }

    /// The client has ended its side of the stream.
    fn client_ended(&mut self) {
        self.half_closed = true;
        if !self.is_passing() {
            self.report.client_left();
        }
        let cut = self.is_client_cut();
        self.machine.client_ends(cut, self.now, &mut self.actions);
        self.act();
        match &mut self.gateway {
            Some(gateway) => {
                gateway.end();
                self.linger.get_or_insert(self.now + HALF_CLOSED);
            }
            None => self.finish(),
        }
    }
}
