//! The road of a frame: cut, judged, and sent on in runs as long as nothing of ours comes between.
//!
//! The second half of the pump: what a whole frame or the beginning of a message means is asked of
//! the machine; control frames are dealt with here.

use std::cell::RefCell;
use std::task::Context;

use super::event::{Event, Verdict};
use super::machine::State;
use super::pump::Pump;
use crate::gateway::Reason;
use crate::protocol::rescue::Cause;
use crate::ws::close::Close;
use crate::ws::cutter::{PieceKind, WHOLE};
use crate::ws::frame::{FrameError, FrameHeader, Opcode, mask};

thread_local! {
    /// Where a client's message is unmasked to be read; what is forwarded stays masked.
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Pump {
    // === from the client ===

    pub(super) fn read_from_client(&mut self, cx: &mut Context<'_>, read: &[u8]) {
        if self.client.has_inbox() {
            let bytes = self.client.take_inbox(read);
            let used = self.cut_client(cx, &bytes);
            self.client.restore_inbox(bytes, used);
        } else {
            let used = self.cut_client(cx, read);
            self.client.keep_rest(read.get(used..).unwrap_or_default());
        }
    }

    /// Gives how many of the bytes are dealt with.
    fn cut_client(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        let limits = &self.line.limits;
        let limit = if self.machine.is_opening() {
            limits.preauth_frame
        } else {
            limits.frame
        };
        self.client.cutter.set_limit(limit);
        let (mut at, mut run) = (0, 0);
        while !self.client_said_close() {
            let rest = bytes.get(at..).unwrap_or_default();
            let before = self.client.cutter.clone();
            let piece = match self.client.cutter.next(rest) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    self.send_to_gateway(cx, bytes.get(run..at).unwrap_or_default());
                    self.client_broke(error);
                    return bytes.len();
                }
            };
            let raw = rest.get(..piece.length).unwrap_or_default();
            let verdict = self.judge_client(piece.kind, raw, (at - run) as u64);
            if verdict == Verdict::Wait {
                self.client.cutter = before;
                self.client_waits = true;
                break;
            }
            if verdict != Verdict::Forward {
                self.send_to_gateway(cx, bytes.get(run..at).unwrap_or_default());
                run = at + piece.length;
            }
            if verdict == Verdict::Keep {
                self.keep(raw);
            }
            at += piece.length;
        }
        self.send_to_gateway(cx, bytes.get(run..at).unwrap_or_default());
        // What comes behind a close frame is nothing (RFC 6455, 5.5.1).
        if self.client_said_close() {
            bytes.len()
        } else {
            at
        }
    }

    /// `ahead`: bytes that will be sent to the gateway before this piece.
    fn judge_client(&mut self, kind: PieceKind, raw: &[u8], ahead: u64) -> Verdict {
        match kind {
            PieceKind::Whole(header) if header.opcode.is_control() => {
                self.client_control(&header, raw)
            }
            PieceKind::Whole(header) | PieceKind::Open(header)
                if header.opcode != Opcode::Continuation =>
            {
                let whole = header.fin && header.payload <= WHOLE as u64;
                self.client_begins(&header, raw, ahead, whole)
            }
            _ => {
                if self.client.cutter.between_messages() && self.client_message == Verdict::Forward
                {
                    let end = self.queued_to_gateway() + ahead + raw.len() as u64;
                    self.feed(Event::ClientMessageEnds(end));
                }
                self.client_message
            }
        }
    }

    fn client_begins(
        &mut self,
        header: &FrameHeader,
        raw: &[u8],
        ahead: u64,
        whole: bool,
    ) -> Verdict {
        let end = header
            .fin
            .then(|| self.queued_to_gateway() + ahead + header.total());
        // A fragmented message's length is not known: it is only kept where order is all.
        let kept = match (self.machine.is_splicing(), self.machine.keeps()) {
            (true, _) => Some(self.kept.behind()),
            (false, true) if header.fin => self.kept.reserve(header.total()),
            (false, _) => None,
        };
        let verdict = TEXT.with_borrow_mut(|text| {
            text.clear();
            if header.opcode == Opcode::Text && self.machine.reads_messages() {
                unmask_into(header, raw, text);
            }
            self.machine.on(
                Event::ClientMessage {
                    text,
                    whole,
                    end,
                    kept,
                },
                self.now,
                &mut self.actions,
            )
        });
        if verdict != Verdict::Keep {
            self.kept.release();
        }
        if verdict != Verdict::Wait {
            self.client_message = verdict;
        }
        if verdict == Verdict::Forward {
            self.unmatched = self.unmatched.saturating_add(1);
        }
        self.act();
        verdict
    }

    fn client_control(&mut self, header: &FrameHeader, raw: &[u8]) -> Verdict {
        let mut payload = Vec::new();
        unmask_into(header, raw, &mut payload);
        let passed = if self.is_passing() {
            Verdict::Forward
        } else {
            Verdict::Drop
        };
        match header.opcode {
            Opcode::Pong if self.ping.is_some_and(|ours| ours[..] == payload[..]) => Verdict::Drop,
            Opcode::Ping if passed == Verdict::Drop => {
                self.say_to_client(Opcode::Pong, &payload);
                Verdict::Drop
            }
            Opcode::Close => {
                let close = Close::parse(&payload);
                if !close.is_well_formed(payload.len()) {
                    self.client_broke(FrameError::MalformedClose);
                    return Verdict::Drop;
                }
                self.report.client_left();
                let verdict = self.feed(Event::ClientClose { code: close.code });
                if self.gateway.is_none() {
                    self.finish();
                }
                verdict
            }
            _ => passed,
        }
    }

    fn client_broke(&mut self, error: FrameError) {
        let cause = match error {
            FrameError::TooBig { limit, .. } => Cause::FrameTooBig { limit },
            other => Cause::ProtocolError(other.to_string().into()),
        };
        tracing::debug!(%error, "closing a session for its client's frame");
        self.machine.close_for(&cause, self.now, &mut self.actions);
        self.act();
    }

    fn queued_to_gateway(&self) -> u64 {
        self.gateway.as_ref().map_or(0, |gateway| gateway.queued())
    }

    // === from the gateway ===

    pub(super) fn read_from_gateway(&mut self, cx: &mut Context<'_>, read: &[u8]) {
        match &mut self.gateway {
            Some(gateway) if gateway.has_inbox() => {
                let bytes = gateway.take_inbox(read);
                let used = self.cut_gateway(cx, &bytes);
                if let Some(gateway) = &mut self.gateway {
                    gateway.restore_inbox(bytes, used);
                }
            }
            Some(_) => {
                let used = self.cut_gateway(cx, read);
                if let Some(gateway) = &mut self.gateway {
                    gateway.keep_rest(read.get(used..).unwrap_or_default());
                }
            }
            None => {}
        }
    }

    /// Gives how many of the bytes are dealt with.
    fn cut_gateway(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        let (mut at, mut run) = (0, 0);
        while let Some(gateway) = &mut self.gateway {
            let rest = bytes.get(at..).unwrap_or_default();
            let piece = match gateway.cutter.next(rest) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    self.send_to_client(cx, bytes.get(run..at).unwrap_or_default());
                    tracing::warn!(%error, route = self.line.route, "the gateway broke its own protocol");
                    self.lost(Reason::Reset);
                    return bytes.len();
                }
            };
            let raw = rest.get(..piece.length).unwrap_or_default();
            let verdict = self.judge_gateway(piece.kind, raw);
            if verdict != Verdict::Forward || !self.actions.is_empty() {
                // What we say now comes behind what the gateway said before.
                self.send_to_client(cx, bytes.get(run..at).unwrap_or_default());
                run = if verdict == Verdict::Forward {
                    at
                } else {
                    at + piece.length
                };
            }
            if is_close(piece.kind) {
                // Nothing can follow a close that is passed on.
                self.act();
            }
            at += piece.length;
            if !self.actions.is_empty() {
                self.send_to_client(cx, bytes.get(run..at).unwrap_or_default());
                run = at;
                self.act();
            } else if verdict == Verdict::Forward && self.gateway_between_messages() {
                self.undefer_behind(cx, bytes, &mut run, at);
            }
            if self.last_message && self.gateway_between_messages() {
                self.send_to_client(cx, bytes.get(run..at).unwrap_or_default());
                run = at;
                self.last_message = false;
                self.machine.put_stop(self.now);
                self.feed(Event::Tick);
            }
        }
        self.send_to_client(cx, bytes.get(run..at).unwrap_or_default());
        // A state can change without an action, and a permit hangs on it.
        self.act();
        at
    }

    /// What had to wait for the end of this message follows it.
    fn undefer_behind(&mut self, cx: &mut Context<'_>, bytes: &[u8], run: &mut usize, at: usize) {
        if self.has_deferred() {
            self.send_to_client(cx, bytes.get(*run..at).unwrap_or_default());
            *run = at;
            self.undefer();
        }
    }

    fn gateway_between_messages(&self) -> bool {
        self.gateway
            .as_ref()
            .is_none_or(|gateway| gateway.cutter.between_messages())
    }

    fn judge_gateway(&mut self, kind: PieceKind, raw: &[u8]) -> Verdict {
        match kind {
            PieceKind::Whole(header) if header.opcode.is_control() => {
                self.gateway_control(&header, raw)
            }
            PieceKind::Whole(header) | PieceKind::Open(header)
                if header.opcode != Opcode::Continuation =>
            {
                let text = raw.get(header.length..).unwrap_or_default();
                let text = if header.opcode == Opcode::Text {
                    text
                } else {
                    &[]
                };
                self.unmatched = self.unmatched.saturating_sub(1);
                let event = Event::GatewayMessage(text);
                self.gateway_message = self.machine.on(event, self.now, &mut self.actions);
                self.gateway_message
            }
            _ => self.gateway_message,
        }
    }

    fn gateway_control(&mut self, header: &FrameHeader, raw: &[u8]) -> Verdict {
        let payload = raw.get(header.length..).unwrap_or_default();
        match header.opcode {
            Opcode::Close => {
                let code = Close::parse(payload).code;
                let (written, inside) = match &self.gateway {
                    Some(gateway) => (gateway.written(), !gateway.cutter.between_messages()),
                    None => (0, false),
                };
                let inside = inside && self.gateway_message == Verdict::Forward;
                let cut = self.is_client_cut();
                let event = Event::GatewayClose {
                    code,
                    written,
                    inside,
                    cut,
                };
                self.machine.on(event, self.now, &mut self.actions)
            }
            Opcode::Pong
                if self
                    .gateway_ping
                    .is_some_and(|(ours, _)| ours[..] == *payload) =>
            {
                self.gateway_ping = None;
                Verdict::Drop
            }
            Opcode::Ping if matches!(self.machine.state, State::Away(_)) => {
                self.say_to_gateway(Opcode::Pong, payload);
                Verdict::Drop
            }
            _ if self.is_passing() => Verdict::Forward,
            _ => Verdict::Drop,
        }
    }
}

fn is_close(kind: PieceKind) -> bool {
    matches!(kind, PieceKind::Whole(header) if header.opcode == Opcode::Close)
}

/// Appends the payload's beginning, up to what is ever read of a message.
fn unmask_into(header: &FrameHeader, raw: &[u8], out: &mut Vec<u8>) {
    let payload = raw.get(header.length..).unwrap_or_default();
    out.extend_from_slice(payload.get(..WHOLE).unwrap_or(payload));
    if let Some(key) = header.mask {
        mask(key, out);
    }
}
