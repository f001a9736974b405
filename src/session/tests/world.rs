//! Pump, client and gateway for the machine under test, and the ledger of requests.
//!
//! Here is what happens, and when; who does what is in the files beside.

mod client;
mod gateway;
mod ledger;
mod promises;
mod pump;
mod store;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::sample::Index;
use tokio::time::Instant;

use super::super::event::{Action, Event, Span, Torn, Verdict};
use super::super::machine::Machine;
use super::super::policy::Policy;
use crate::config::{ProtocolKind, Resume};
use crate::gateway::{Phase, Reason, View};
use gateway::view_at;
use ledger::Asked;
use store::Store;

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
    /// A request in one long frame, of which the beginning is here.
    AskLong {
        kind: u8,
    },
    /// No request: so long, and whether all of it is seen at once.
    Other {
        length: u16,
        whole: bool,
    },
    /// Under the id of the request of this number, counted from 0.
    AskAgain(u32),
    Answer(Index),
    /// One of the requests that we say for the session's standing is refused with this.
    RefuseOurs(&'static str),
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
    /// Another gateway takes the place of this one, in this phase.
    Move(u8),
    /// Another longest wait is in force.
    Terms {
        max: Duration,
    },
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
        /// Whether only a part of it has come so far, or is told.
        parts: bool,
    },
    Close,
}

/// A message of which a part has come.
#[derive(Debug, PartialEq)]
struct Part {
    id: String,
    /// Bytes still to come.
    left: u64,
    /// What becomes of them.
    verdict: Verdict,
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
    kept: Store,
    /// What waits for its turn at the client's end, and whether the first of it was told to.
    unheard: VecDeque<Said>,
    waits: bool,
    part: Option<Part>,
    ledger: HashMap<String, Asked>,
    /// Requests as they went into a gateway's socket, `connect` left out.
    pub(super) deliveries: Vec<String>,
    /// Times that a gateway was told by us what the client had subscribed to.
    pub(super) subscriptions: u32,
    next: u32,
    turn_wanted: bool,
    dial_wanted: bool,
    room_wanted: usize,
    /// Flushed requests that are unanswered, and when each was sent.
    flushed: Vec<(String, Instant)>,
    /// It says no more: it has closed, or ended its side of the stream.
    client_closed: bool,
    client_ended: bool,
    closed: bool,
    client_kind: u8,
    connected: bool,
    /// By us.
    connect_is_answered: bool,
    seq: u64,
    /// Of the events that the client heard.
    pub(super) numbers: Vec<u64>,
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
            kept: Store::new(20_000),
            unheard: VecDeque::new(),
            waits: false,
            part: None,
            ledger: HashMap::new(),
            deliveries: Vec::new(),
            subscriptions: 0,
            next: 0,
            turn_wanted: false,
            dial_wanted: false,
            room_wanted: 0,
            flushed: Vec::new(),
            client_closed: false,
            client_ended: false,
            closed: false,
            client_kind: client,
            connected: false,
            connect_is_answered: false,
            seq: 0,
            numbers: Vec::new(),
        };
        world.perform(actions);
        world
    }

    /// Before anything is kept: so many bytes may be.
    pub(super) fn keep_at_most(&mut self, room: u64) {
        self.kept = Store::new(room);
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
            // What comes behind a close frame, or the end of the stream, is nothing.
            Step::Ask { .. }
            | Step::AskAgain(_)
            | Step::AskInParts
            | Step::AskLong { .. }
            | Step::Other { .. }
            | Step::Connect
            | Step::ClientClose
                if self.client_closed => {}
            Step::Ends | Step::ClientEnds if self.client_ended => {}
            Step::Ask { id, kind } => self.ask(id, kind),
            Step::AskAgain(number) => self.client(&format!(
                r#"{{"type":"req","id":"0-{}","method":"chat.send","params":{{}}}}"#,
                number + 1
            )),
            Step::Answer(index) => self.answer(&index),
            Step::RefuseOurs(error) => self.refuse_ours(error),
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
                    parts: true,
                });
            }
            Step::AskLong { kind } => self.ask_long(kind),
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
                    parts: false,
                });
            }
            // Whoever is not listened to has not ended yet.
            Step::ClientEnds if self.waits => {}
            Step::ClientEnds => {
                self.client_closed = true;
                self.client_ended = true;
                let mut actions = Vec::new();
                let cut = self.is_cut();
                self.machine.client_ends(cut, self.now, &mut actions);
                self.perform(actions);
            }
            Step::Phase(phase) => self.phase(phase),
            Step::Move(phase) => self.moves(phase),
            Step::Terms { max } => {
                let policy = Policy {
                    max,
                    ..self.machine.policy
                };
                self.feed(Event::Terms(policy));
            }
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
                let room = match self.is_cut() {
                    true => 0,
                    false => self.room_wanted.min(usize::from(n).max(1)),
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
                kept: Some(Span { start: 0, end: 1 }),
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
}

fn id_of(text: &str) -> String {
    let frame: serde_json::Value = serde_json::from_str(text).unwrap();
    frame["id"].as_str().unwrap_or_default().to_owned()
}
