//! Pump, client and gateway for the machine under test, and the ledger of requests.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::sample::Index;
use tokio::time::Instant;

use super::super::event::{Action, Event, Torn, Verdict};
use super::super::flush::{TICK, WINDOW};
use super::super::machine::{Machine, State};
use super::super::policy::Policy;
use crate::config::{ProtocolKind, Resume};
use crate::gateway::{Evidence, Phase, Reason, View};
use crate::protocol::openclaw::{GatewaySays, gateway_says};

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Ask {
        id: u8,
        kind: u8,
    },
    /// A request in several frames, of which the first is here ...
    AskInParts,
    /// ... and the last.
    Ends,
    /// No request: so long, and whether all of it is seen at once.
    Other {
        length: u16,
        whole: bool,
    },
    /// Under the id of the request of this number, counted from 0.
    AskAgain(u32),
    Answer(Index),
    Write,
    NumberedEvent,
    Lose,
    Shutdown,
    GatewayClose(u16),
    ClientClose,
    /// It sends no more, and still listens.
    ClientEnds,
    Phase(u8),
    Turn,
    Dialled(bool),
    Challenge,
    Hello(u8),
    Connect,
    Wait(u32),
    Stop,
    Revoked,
    /// There is room for so many kept requests.
    Room(u8),
}

/// A request in the ledger.
#[derive(Debug, Default)]
struct Asked {
    mutating: bool,
    /// Times that its last byte went into a gateway's socket.
    delivered: u32,
    /// Answers that the client got.
    answers: u32,
    /// What we told the client about it, if it was we who answered.
    told: Option<String>,
}

/// What the client says, in order.
#[derive(Debug, Clone)]
enum Said {
    Message {
        text: String,
        id: String,
        length: u64,
        whole: bool,
        /// Whether its end is known.
        ended: bool,
    },
    Close,
}

pub(super) struct World {
    machine: Machine,
    now: Instant,
    view: View,
    has_gateway: bool,
    queued: u64,
    written: u64,
    /// Ids in the stream to the gateway, with the offset of their end.
    stream: Vec<(u64, String)>,
    /// Ids that the gateway has whole and has not answered.
    at_gateway: Vec<String>,
    kept: Vec<(u64, String)>,
    kept_bytes: u64,
    /// Bytes that may be kept.
    pub(super) room: u64,
    /// What waits for its turn at the client's end, and whether the first of it was told to.
    unheard: VecDeque<Said>,
    waits: bool,
    /// The request of which the gateway has a part.
    part: Option<String>,
    ledger: HashMap<String, Asked>,
    /// Requests as they went into a gateway's socket, `connect` left out.
    pub(super) deliveries: Vec<String>,
    next: u32,
    turn_wanted: bool,
    dial_wanted: bool,
    room_wanted: usize,
    /// Flushed requests that are unanswered, and when each was sent.
    flushed: Vec<(String, Instant)>,
    client_closed: bool,
    closed: bool,
    client_kind: u8,
    connected: bool,
    seq: u64,
    /// Of the events that the client heard.
    pub(super) numbers: Vec<u64>,
}

fn hello(scopes: &str, method: &str) -> String {
    format!(
        r#"{{"type":"res","id":"c","ok":true,"payload":{{"type":"hello-ok","protocol":4,"auth":{{"role":"operator","method":"{method}","scopes":[{scopes}]}}}}}}"#
    )
}

impl World {
    pub(super) fn new(client: u8, resume: u8, greeted: bool) -> Self {
        let now = Instant::now();
        let resume = match resume {
            0 => Resume::Auto,
            1 => Resume::Replay,
            2 => Resume::Reconnect,
            3 => Resume::Off,
            _ => Resume::Auto,
        };
        let second = Duration::from_secs(1);
        let policy = Policy {
            protocol: ProtocolKind::Openclaw,
            resume,
            max: 60 * second,
            handshake: 12 * second,
            notice_after: second / 2,
            notice_every: 5 * second,
            repeat_requests: true,
            identified: client >= 5,
        };
        let view = view_at(now, if greeted { Phase::Down } else { Phase::Ready }, 1);
        let mut actions = Vec::new();
        let machine = if greeted {
            Machine::greeted(policy, view, now, &mut actions)
        } else {
            Machine::opened(policy, view)
        };
        let mut world = Self {
            machine,
            now,
            view,
            has_gateway: !greeted,
            queued: 0,
            written: 0,
            stream: Vec::new(),
            at_gateway: Vec::new(),
            kept: Vec::new(),
            kept_bytes: 0,
            room: 20_000,
            unheard: VecDeque::new(),
            waits: false,
            part: None,
            ledger: HashMap::new(),
            deliveries: Vec::new(),
            next: 0,
            turn_wanted: false,
            dial_wanted: false,
            room_wanted: 0,
            flushed: Vec::new(),
            client_closed: false,
            closed: false,
            client_kind: client,
            connected: false,
            seq: 0,
            numbers: Vec::new(),
        };
        world.perform(actions);
        world
    }

    pub(super) fn step(&mut self, step: Step) {
        if self.closed {
            // The pump feeds nothing that could lead anywhere; time may still pass.
            return self.feed_quietly(&step);
        }
        self.happens(step);
        // What waited may go now.
        self.hear();
    }

    fn happens(&mut self, step: Step) {
        match step {
            Step::Ask { id, kind } => self.ask(id, kind),
            Step::AskAgain(number) => self.client(&format!(
                r#"{{"type":"req","id":"0-{}","method":"chat.send","params":{{}}}}"#,
                number + 1
            )),
            Step::Answer(index) => self.answer(&index),
            Step::Write => self.write(),
            Step::NumberedEvent => self.numbered(),
            Step::Lose => self.lose(Torn::No),
            Step::Shutdown => {
                self.seq += 1;
                let text = format!(
                    r#"{{"type":"event","event":"shutdown","payload":{{}},"seq":{}}}"#,
                    self.seq
                );
                self.gateway(&text);
            }
            Step::GatewayClose(code) => self.gateway_close(code),
            Step::ClientClose => self.says(Said::Close),
            Step::AskInParts => {
                let (id, text) = self.request(0, 0);
                self.says(Said::Message {
                    length: text.len() as u64,
                    text,
                    id,
                    whole: false,
                    ended: false,
                });
            }
            Step::Ends => self.part_ends(),
            Step::Other { length, whole } => {
                self.next += 1;
                let id = format!("other-{}", self.next);
                self.says(Said::Message {
                    text: String::new(),
                    id,
                    length: u64::from(length),
                    whole,
                    ended: true,
                });
            }
            // Whoever is not listened to has not ended yet.
            Step::ClientEnds if self.waits => {}
            Step::ClientEnds => {
                self.client_closed = true;
                let mut actions = Vec::new();
                self.machine.client_ends(self.now, &mut actions);
                self.perform(actions);
            }
            Step::Phase(phase) => self.phase(phase),
            Step::Turn if self.turn_wanted => {
                self.turn_wanted = false;
                self.feed(Event::Turn);
            }
            Step::Dialled(ok) if self.dial_wanted => self.dialled(ok),
            Step::Challenge => {
                self.gateway(
                    r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"n"}}"#,
                );
            }
            Step::Hello(kind) => self.hello(kind),
            Step::Connect => self.connect(),
            Step::Wait(ms) => self.wait(ms),
            Step::Stop => {
                let at = self.now + Duration::from_secs(3);
                self.feed(Event::Stop { at });
            }
            Step::Revoked => {
                self.feed(Event::Revoked);
            }
            Step::Room(n) if self.room_wanted > 0 => {
                let room = match self.part {
                    Some(_) => 0,
                    None => self.room_wanted.min(usize::from(n).max(1)),
                };
                self.room_wanted = 0;
                self.feed(Event::Room(room));
            }
            Step::Turn | Step::Dialled(_) | Step::Room(_) => {}
        }
    }

    fn feed_quietly(&mut self, step: &Step) {
        let event = match step {
            Step::Phase(_) => Event::View(self.view),
            Step::Wait(_) => Event::Tick,
            Step::Turn => Event::Turn,
            Step::Lose => Event::GatewayLost {
                reason: Reason::Reset,
                written: 0,
                torn: Torn::No,
                cut: false,
            },
            Step::Ask { .. } => Event::ClientMessage {
                text: br#"{"type":"req","id":"late","method":"chat.send"}"#,
                whole: true,
                end: Some(1),
                kept: Some(1),
            },
            _ => return,
        };
        let mut actions = Vec::new();
        let verdict = self.machine.on(event, self.now, &mut actions);
        assert_ne!(verdict, Verdict::Keep, "nothing is kept after a close");
        let loud: Vec<_> = actions
            .iter()
            .filter(|action| !matches!(action, Action::Report(_) | Action::Count(_)))
            .collect();
        assert!(loud.is_empty(), "acted after its close: {loud:?}");
    }

    // === the client ===

    fn connect(&mut self) {
        if self.connected && !self.machine.is_opening() {
            return;
        }
        self.connected = true;
        let params = match self.client_kind {
            0 => r#"{"client":{"id":"gateway-client"}}"#,
            1 => r#"{"client":{"id":"gateway-client"},"device":{"id":"d"}}"#,
            2 | 5 => r#"{"client":{"id":"openclaw-control-ui"},"device":{"id":"d"}}"#,
            6 => r#"{"client":{"id":"gateway-client"},"device":{"id":"d"}}"#,
            3 => r#"{"client":{"id":"x"},"device":{"id":"d"},"userAgent":"openclaw-node/1"}"#,
            _ => r#"{"client":{"id":"openclaw-control-ui"}}"#,
        };
        let text = format!(r#"{{"type":"req","id":"c","method":"connect","params":{params}}}"#);
        self.client(&text);
    }

    fn ask(&mut self, id: u8, kind: u8) {
        if self.connected {
            let (_, text) = self.request(id, kind);
            self.client(&text);
        }
    }

    /// Enters a request into the ledger.
    fn request(&mut self, id: u8, kind: u8) -> (String, String) {
        let method = match kind {
            0 => "chat.send",
            1 => "sessions.list",
            2 => "sessions.subscribe",
            _ => "chat.startup",
        };
        self.next += 1;
        let id = format!("{id}-{}", self.next);
        let asked = Asked {
            mutating: kind == 0,
            ..Asked::default()
        };
        self.ledger.insert(id.clone(), asked);
        let text = format!(r#"{{"type":"req","id":"{id}","method":"{method}","params":{{}}}}"#);
        (id, text)
    }

    fn client(&mut self, text: &str) {
        self.says(Said::Message {
            text: text.to_owned(),
            id: id_of(text),
            length: text.len() as u64,
            whole: true,
            ended: true,
        });
    }

    fn says(&mut self, said: Said) {
        self.unheard.push_back(said);
        self.hear();
    }

    /// Listens to the client for as long as nothing has to wait.
    fn hear(&mut self) {
        while !self.closed {
            if self.waits && self.machine.makes_wait() {
                return;
            }
            self.waits = false;
            match self.unheard.pop_front() {
                Some(Said::Close) => {
                    self.client_closed = true;
                    self.feed(Event::ClientClose { code: Some(1000) });
                }
                Some(message) => {
                    // A message begins when the one before it has ended.
                    self.part_ends();
                    self.message(message);
                }
                None => return,
            }
        }
    }

    fn message(&mut self, message: Said) {
        let Said::Message {
            text,
            id,
            length,
            whole,
            ended,
        } = &message
        else {
            return;
        };
        let end = (self.has_gateway && *ended).then_some(self.queued + length);
        let kept =
            (*ended && self.kept_bytes + length <= self.room).then_some(self.kept_bytes + length);
        let event = Event::ClientMessage {
            text: text.as_bytes(),
            whole: *whole,
            end,
            kept,
        };
        match self.feed(event) {
            Verdict::Forward => {
                assert!(self.has_gateway, "forwarded to nobody: {text}");
                self.queued += length;
                if *ended {
                    self.stream.push((self.queued, id.clone()));
                } else {
                    self.part = Some(id.clone());
                }
            }
            Verdict::Keep => {
                assert!(kept.is_some(), "kept without room");
                self.kept_bytes += length;
                self.kept.push((self.kept_bytes, id.clone()));
            }
            Verdict::Drop => {}
            Verdict::Wait => {
                assert!(self.machine.makes_wait(), "waits for nothing");
                self.waits = true;
                self.unheard.push_front(message);
            }
        }
    }

    fn part_ends(&mut self) {
        if let Some(id) = self.part.take() {
            self.queued += 1;
            self.stream.push((self.queued, id));
            self.feed(Event::ClientMessageEnds(self.queued));
        }
    }

    // === the gateway ===

    /// The socket takes everything that is queued.
    fn write(&mut self) {
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
            self.at_gateway.push(id);
        }
    }

    fn answer(&mut self, index: &Index) {
        if self.at_gateway.is_empty() || !self.has_gateway {
            return;
        }
        self.answer_at(index.index(self.at_gateway.len()));
    }

    /// The gateway answers this one of the requests that it has.
    pub(super) fn answer_at(&mut self, index: usize) {
        let id = self.at_gateway.swap_remove(index);
        if id != "c" {
            self.flushed.retain(|(flushed, _)| *flushed != id);
            self.gateway(&format!(
                r#"{{"type":"res","id":"{id}","ok":true,"payload":{{}}}}"#
            ));
        }
    }

    fn hello(&mut self, kind: u8) {
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

    fn numbered(&mut self) {
        self.seq += 1;
        let text = format!(
            r#"{{"type":"event","event":"tick","payload":{{}},"seq":{}}}"#,
            self.seq
        );
        self.gateway(&text);
    }

    fn gateway(&mut self, text: &str) {
        if !self.has_gateway {
            return;
        }
        if self.feed(Event::GatewayMessage(text.as_bytes())) == Verdict::Forward {
            self.client_hears(text, false);
        }
    }

    fn gateway_close(&mut self, code: u16) {
        if !self.has_gateway {
            return;
        }
        let (written, inside) = (self.written, false);
        let event = Event::GatewayClose {
            code: Some(code),
            written,
            inside,
            cut: self.part.is_some(),
        };
        if self.feed(event) == Verdict::Forward {
            // Both sides know that it is over.
            self.closed = true;
        }
    }

    fn lose(&mut self, torn: Torn) {
        if !self.has_gateway {
            return;
        }
        let (written, cut) = (self.written, self.part.is_some());
        self.detach();
        self.feed(Event::GatewayLost {
            reason: Reason::Reset,
            written,
            torn,
            cut,
        });
    }

    fn detach(&mut self) {
        self.has_gateway = false;
        self.part = None;
        self.dial_wanted = false;
        self.room_wanted = 0;
        self.flushed.clear();
        self.stream.clear();
        self.at_gateway.clear();
        self.queued = 0;
        self.written = 0;
        self.seq = 0;
    }

    fn dialled(&mut self, ok: bool) {
        self.dial_wanted = false;
        self.has_gateway = ok;
        self.feed(Event::Dialled(if ok {
            Ok(())
        } else {
            Err(Reason::Refused)
        }));
    }

    fn phase(&mut self, phase: u8) {
        let phase = match phase {
            0 => Phase::Down,
            1 => Phase::Starting,
            2 => Phase::Hung,
            3 => Phase::Draining,
            _ => Phase::Ready,
        };
        let generation = self.view.generation + u64::from(phase == Phase::Ready);
        self.view = view_at(self.now, phase, generation);
        self.feed(Event::View(self.view));
    }

    fn wait(&mut self, ms: u32) {
        let until = self.now + Duration::from_millis(u64::from(ms));
        for _ in 0..1000 {
            match self.machine.deadline() {
                Some(at) if at <= until && !self.closed => {
                    self.now = self.now.max(at);
                    self.feed(Event::Tick);
                    let again = self.machine.deadline();
                    assert!(
                        self.closed || again.is_none_or(|again| again > self.now),
                        "the timer stands still at {at:?}"
                    );
                }
                _ => break,
            }
        }
        self.now = until;
    }

    // === the pump ===

    fn feed(&mut self, event: Event<'_>) -> Verdict {
        let mut actions = Vec::new();
        let verdict = self.machine.on(event, self.now, &mut actions);
        self.perform(actions);
        verdict
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(
                !self.closed
                    || matches!(
                        action,
                        Action::CloseGateway | Action::Count(_) | Action::Report(_)
                    ),
                "acted after its close: {action:?}"
            );
            match action {
                Action::SayToClient(text) => self.client_hears(&text, true),
                Action::SayToGateway(text) => {
                    assert_eq!(self.part, None, "said into a message");
                    if self.has_gateway {
                        let id = id_of(&String::from_utf8_lossy(&text.0));
                        self.flushing(&id);
                        self.queued += text.0.len() as u64;
                        self.stream.push((self.queued, id));
                    }
                }
                Action::SendKept => self.send_kept(u64::MAX),
                Action::SendKeptUntil(end) => self.send_kept(end),
                Action::AskRoom(requests) => {
                    assert_eq!(self.room_wanted, 0, "asked for room twice");
                    self.room_wanted = requests;
                }
                Action::GiveRoom => {}
                Action::DropKept => {
                    self.kept.clear();
                    self.kept_bytes = 0;
                }
                Action::DropKeptUntil(end) => {
                    self.kept.retain(|(at, _)| *at > end);
                    for (at, _) in &mut self.kept {
                        *at -= end;
                    }
                    self.kept_bytes -= end;
                }
                Action::CloseClient(close) => {
                    let signed_out = close.reason == "signed out";
                    assert!(signed_out || close.code != 1008, "down is never final");
                    self.closed = true;
                }
                Action::Abort => self.closed = true,
                Action::CloseGateway => self.detach(),
                Action::TakeTurn { .. } => self.turn_wanted = true,
                Action::Dial => {
                    assert!(!self.has_gateway, "dialled beside a connection");
                    self.dial_wanted = true;
                }
                Action::Report(evidence) => self.report(evidence),
                Action::Count(_) => {}
            }
        }
    }

    fn send_kept(&mut self, until: u64) {
        if !self.has_gateway || self.part.is_some() {
            return;
        }
        let mut more = Vec::new();
        self.machine.kept_sent(self.queued, until, &mut more);
        let (sent, left) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition::<Vec<_>, _>(|(end, _)| *end <= until);
        let bytes = until.min(self.kept_bytes);
        self.kept = left
            .into_iter()
            .map(|(end, id)| (end - bytes, id))
            .collect();
        for (end, id) in sent {
            self.flushing(&id);
            self.stream.push((self.queued + end, id));
        }
        self.queued += bytes;
        self.kept_bytes -= bytes;
        self.perform(more);
    }

    /// A request of the ledger goes to the gateway in a flush.
    fn flushing(&mut self, id: &str) {
        if !self.ledger.contains_key(id) {
            return;
        }
        self.flushed.push((id.to_owned(), self.now));
        let counting = self
            .flushed
            .iter()
            .filter(|(_, at)| self.now.saturating_duration_since(*at) < TICK)
            .count();
        // A window, and what followed at a tick in between.
        assert!(
            counting <= 2 * WINDOW || self.client_closed,
            "{counting} at once"
        );
    }

    fn report(&mut self, evidence: Evidence) {
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

    fn client_hears(&mut self, text: &str, ours: bool) {
        match gateway_says(text.as_bytes()) {
            GatewaySays::Response { id, .. } if &*id != "c" => {
                let asked = self.ledger.get_mut(&*id);
                let asked = asked.unwrap_or_else(|| panic!("an answer nobody asked for: {text}"));
                asked.answers += 1;
                assert_eq!(asked.answers, 1, "answered twice: {id}");
                if ours {
                    let frame: serde_json::Value = serde_json::from_str(text).unwrap();
                    let told = frame["error"]["details"]["execution"]
                        .as_str()
                        .unwrap()
                        .to_owned();
                    assert!(
                        told != "not_started" || asked.delivered == 0 || !asked.mutating,
                        "told not_started, but it was delivered: {id}"
                    );
                    asked.told = Some(told);
                }
            }
            GatewaySays::Event { seq: Some(seq) } | GatewaySays::Shutdown { seq: Some(seq) } => {
                self.numbers.push(seq);
            }
            _ => {}
        }
    }

    /// What we told the sender of a request in the gateway's place.
    pub(super) fn told(&self, id: &str) -> Option<&str> {
        self.ledger.get(id)?.told.as_deref()
    }

    /// Whether something still waits to go to the gateway.
    pub(super) fn is_flushing(&self) -> bool {
        self.machine.flush.is_some()
    }

    pub(super) fn is_open(&self) -> bool {
        !self.closed && !self.client_closed && matches!(self.machine.state, State::Live)
    }

    pub(super) fn is_away(&self) -> bool {
        !self.closed && matches!(self.machine.state, State::Away(_))
    }

    /// Every request, and whether doing it twice would do harm.
    pub(super) fn asked(&self) -> impl Iterator<Item = (&str, bool)> {
        self.ledger
            .iter()
            .map(|(id, asked)| (id.as_str(), asked.mutating))
    }

    /// How often a request was answered.
    pub(super) fn answers(&self, id: &str) -> u32 {
        self.ledger.get(id).map_or(0, |asked| asked.answers)
    }

    /// How often a request went to a gateway.
    pub(super) fn delivered(&self, id: &str) -> u32 {
        self.ledger.get(id).map_or(0, |asked| asked.delivered)
    }

    // === promises ===

    pub(super) fn check(&self) {
        assert!(self.kept_bytes <= self.room, "kept more than allowed");
        if self.closed {
            assert!(
                self.client_closed || matches!(self.machine.state, State::Closing),
                "closed, but the machine goes on"
            );
        }
        if matches!(self.machine.state, State::Away(_)) && !self.closed {
            assert!(self.machine.deadline().is_some(), "waits without an end");
            let replays = self.machine.journal.connect().is_some();
            for (id, asked) in &self.ledger {
                let may_wait =
                    (replays && (!asked.mutating || self.is_kept(id))) || self.is_unheard(id);
                assert!(
                    may_wait || asked.answers == 1,
                    "held without a word: {id} {asked:?}"
                );
            }
        }
    }

    fn is_unheard(&self, wanted: &str) -> bool {
        let mut unheard = self.unheard.iter();
        unheard.any(|said| matches!(said, Said::Message { id, .. } if id == wanted))
    }

    fn is_kept(&self, id: &str) -> bool {
        self.kept.iter().any(|(_, kept)| kept == id)
    }

    /// Lets enough time pass: nothing may be left without an answer on a session that still waits.
    pub(super) fn finish(&mut self) {
        self.flushes_to_its_end();
        self.wait(70_000);
        self.check();
        if !matches!(self.machine.state, State::Away(_)) && !self.closed {
            return;
        }
        let ended_by_us = self.closed && !self.client_closed;
        for (id, asked) in &self.ledger {
            assert!(
                !ended_by_us
                    || asked.answers == 1
                    || self.is_unheard(id)
                    || self.machine.hello.is_none()
                    || self.gave_up(),
                "closed with an unanswered request: {id} {asked:?}"
            );
        }
    }

    /// With a gateway that is there nothing is kept for ever, and nobody waits to be heard.
    pub(super) fn flushes_to_its_end(&mut self) {
        if !self.is_open() || !self.has_gateway {
            return;
        }
        for _ in 0..60 {
            for step in [
                Step::Phase(4),
                Step::Ends,
                Step::Room(200),
                Step::Write,
                Step::Wait(600),
            ] {
                self.step(step);
            }
        }
        if self.is_open() {
            assert!(!self.is_flushing(), "a flush never ends");
            assert!(self.kept.is_empty(), "kept for ever: {:?}", self.kept);
            assert!(self.unheard.is_empty(), "never heard: {:?}", self.unheard);
        }
    }

    /// The gateway itself ended the session for good: its requests are its own affair.
    fn gave_up(&self) -> bool {
        self.has_gateway
    }
}

fn view_at(now: Instant, phase: Phase, generation: u64) -> View {
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

fn id_of(text: &str) -> String {
    let frame: serde_json::Value = serde_json::from_str(text).unwrap();
    frame["id"].as_str().unwrap_or_default().to_owned()
}
