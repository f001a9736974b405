//! The gateway of the world: what it is sent, what it says, and how it goes.

use std::time::Duration;

use proptest::sample::Index;
use tokio::time::Instant;

use super::super::super::event::{Event, Torn, Verdict};
use super::super::super::machine::State;
use super::World;
use crate::gateway::{Evidence, Phase, Reason, View};

impl World {
    /// The socket takes everything that is queued.
    pub(super) fn write(&mut self) {
        if !self.has_gateway {
            return;
        }
        self.written = self.queued;
        for (_, id) in std::mem::take(&mut self.stream) {
            if id.starts_with("other") {
                assert!(!self.deliveries.contains(&id), "sent twice: {id}");
                self.deliveries.push(id);
                continue;
            }
            if let Some(asked) = self.ledger.get_mut(&id) {
                asked.delivered += 1;
                self.deliveries.push(id.clone());
                assert!(
                    !asked.mutating || asked.delivered == 1,
                    "a mutating request was sent twice: {id}"
                );
                assert!(
                    asked.told.as_deref() != Some("not_started"),
                    "told not_started, then sent: {id}"
                );
            }
            self.subscriptions += u32::from(id.starts_with("holdline:"));
            self.at_gateway.push(id);
        }
    }

    pub(super) fn answer(&mut self, index: &Index) {
        if self.at_gateway.is_empty() || !self.has_gateway {
            return;
        }
        self.answer_at(index.index(self.at_gateway.len()));
    }

    /// The gateway answers this one of the requests that it has.
    pub(in super::super) fn answer_at(&mut self, index: usize) {
        let id = self.at_gateway.swap_remove(index);
        if id != "c" {
            self.flushed.retain(|(flushed, _)| *flushed != id);
            self.gateway(&format!(
                r#"{{"type":"res","id":"{id}","ok":true,"payload":{{}}}}"#
            ));
        }
    }

    pub(super) fn refuse_ours(&mut self, error: &str) {
        let mut at_gateway = self.at_gateway.iter();
        if let Some(at) = at_gateway.position(|id| id.starts_with("holdline:")) {
            let id = self.at_gateway.swap_remove(at);
            self.gateway(&format!(
                r#"{{"type":"res","id":"{id}","ok":false,"error":{{{error}}}}}"#
            ));
        }
    }

    pub(super) fn hello(&mut self, kind: u8) {
        let Some(at) = self.at_gateway.iter().position(|id| id == "c") else {
            return;
        };
        self.at_gateway.swap_remove(at);
        let method = match self.client_kind {
            5.. => "trusted-proxy",
            _ => "token",
        };
        match kind {
            0 | 1 => self.gateway(&hello(r#""a","b""#, method)),
            2 => self.gateway(&hello(r#""a""#, method)),
            _ => self.gateway(
                r#"{"type":"res","id":"c","ok":false,"error":{"code":"UNAVAILABLE","retryable":true}}"#,
            ),
        }
    }

    pub(super) fn numbered(&mut self) {
        self.seq += 1;
        let text = format!(
            r#"{{"type":"event","event":"tick","payload":{{}},"seq":{}}}"#,
            self.seq
        );
        self.gateway(&text);
    }

    pub(super) fn gateway(&mut self, text: &str) {
        if !self.has_gateway {
            return;
        }
        if self.feed(Event::GatewayMessage(text.as_bytes())) == Verdict::Forward {
            self.client_hears(text, false);
        }
    }

    pub(super) fn gateway_close(&mut self, code: u16) {
        if !self.has_gateway {
            return;
        }
        let (written, inside) = (self.written, false);
        let event = Event::GatewayClose {
            code: Some(code),
            written,
            inside,
            cut: self.is_cut(),
        };
        if self.feed(event) == Verdict::Forward {
            // Both sides know that it is over.
            self.ends_with_its_gateway();
            self.closed = true;
        }
    }

    pub(super) fn lose(&mut self, torn: Torn) {
        if !self.has_gateway {
            return;
        }
        let (written, cut) = (self.written, self.is_cut());
        self.detach();
        self.feed(Event::GatewayLost {
            reason: Reason::Reset,
            written,
            torn,
            cut,
        });
        self.ends_with_its_gateway();
    }

    pub(super) fn phase(&mut self, phase: u8) {
        let phase = phase_of(phase);
        let generation = self.view.generation + u64::from(phase == Phase::Ready);
        self.view = view_at(self.now, phase, generation);
        self.feed(Event::View(self.view));
    }

    /// A waiting session goes over at once; an open one when the new gateway is ready and both sides
    /// are between messages, whether or not all is answered.
    pub(super) fn moves(&mut self, phase: u8) {
        let view = view_at(self.now, phase_of(phase), self.view.generation + 1);
        let waits = matches!(self.machine.state, State::Away(_));
        if !waits {
            let seam = !self.is_cut() && self.part.is_none() && self.has_gateway;
            if view.phase != Phase::Ready || !seam || !self.machine.can_be_moved() {
                return;
            }
            self.write();
            self.machine.has_turn = true;
        }
        let open = !waits;
        self.turn_wanted = false;
        self.view = view;
        let written = self.written;
        self.feed(Event::Moved { view, written });
        assert!(!open || !self.closed, "a planned move closes nothing");
    }

    pub(super) fn report(&mut self, evidence: Evidence) {
        let phase = match evidence {
            Evidence::Lost(_) => Phase::Down,
            Evidence::Shutdown => Phase::Draining,
            Evidence::Starting => Phase::Starting,
        };
        if self.view.phase == Phase::Ready {
            self.view = View {
                // No probe has seen it yet.
                attempt: 0,
                ..view_at(self.now, phase, self.view.generation)
            };
        }
        let mut actions = Vec::new();
        self.machine
            .on(Event::View(self.view), self.now, &mut actions);
        self.perform(actions);
    }
}

fn phase_of(phase: u8) -> Phase {
    match phase {
        0 => Phase::Down,
        1 => Phase::Starting,
        2 => Phase::Hung,
        3 => Phase::Draining,
        _ => Phase::Ready,
    }
}

fn hello(scopes: &str, method: &str) -> String {
    format!(
        r#"{{"type":"res","id":"c","ok":true,"payload":{{"type":"hello-ok","protocol":4,"auth":{{"role":"operator","method":"{method}","scopes":[{scopes}]}}}}}}"#
    )
}

pub(super) fn view_at(now: Instant, phase: Phase, generation: u64) -> View {
    let ready = phase == Phase::Ready;
    View {
        phase,
        since: now,
        outage_since: (!ready).then_some(now),
        reason: (!ready).then_some(Reason::Refused),
        attempt: u32::from(!ready),
        expected: None,
        expected_starting: Some(Duration::from_secs(3)),
        crash_loop: None,
        generation,
    }
}
