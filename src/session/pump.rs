//! The only I/O of a session: moves bytes, cuts frames, asks the machine, does what it says.
//!
//! One task, both directions, no buffer while idle. Nothing is decided here but what belongs to
//! the wire itself: back-pressure (`wire`), where a frame may be put in between, whether a client
//! still answers pings (`pulse`), and how a connection ends. How frames are judged is in
//! [`super::judge`].

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use hyper::upgrade::Upgraded;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::client_io::ClientIo;
use super::event::{Action, Event, Torn, Verdict};
use super::follow::Move;
use super::leg::Leg;
use super::machine::{Machine, State};
use super::open::{Agreed, Upstream};
use super::policy::Policy;
use super::pulse::random;
use super::registry::{Admitted, Kept};
use super::report::Report;
use super::room::Room;
use super::ticket::Ticket;
use super::{Line, Opening};
use crate::gateway::{Gateway, HandshakePermit, Phase, Reason, Turn, View};
use crate::ws::cutter::{Cutter, Sender};
use crate::ws::frame::Opcode;

/// What is put off until the gateway's current message ends.
pub(super) const MAX_DEFERRED: usize = 1024;
/// After our close frame, how long the client may take to answer it.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// A client that has not sent its `connect` by then no longer counts against everybody.
const SILENT: Duration = Duration::from_secs(2);
/// How long a gateway may take to prove that a connection from before its outage still lives.
pub(super) const PROOF: Duration = Duration::from_secs(5);

pub(super) type Dial = Pin<Box<dyn Future<Output = Result<Upstream, Reason>> + Send>>;

/// One session's I/O.
pub(super) struct Pump {
    /// The terms in force.
    pub(super) line: Arc<Line>,
    /// Where the session is, or waits to be; the line's, unless it stays behind or has yet to move.
    pub(super) gateway_of: Arc<Gateway>,
    /// On its way to the line's gateway.
    pub(super) moving: Option<Move>,
    pub(super) machine: Machine,
    pub(super) client: Leg<ClientIo>,
    pub(super) gateway: Option<Leg<TcpStream>>,
    /// What becomes of the rest of the client's current message.
    pub(super) client_message: Verdict,
    /// ... and of the gateway's.
    pub(super) gateway_message: Verdict,
    /// The client's next message has come, and waits for its turn.
    pub(super) client_waits: bool,
    /// Messages of the client that went to the gateway, less those that came from there since: where
    /// nobody knows what is an answer, so many may be to come.
    pub(super) unmatched: u32,
    /// The client's frames for the next connection.
    pub(super) kept: Kept,
    pub(super) actions: Vec<Action>,
    pub(super) now: Instant,
    pub(super) report: Report,
    /// The payload of our last ping: its pong is ours, however late.
    pub(super) ping: Option<[u8; 8]>,
    /// What the gateway was asked to prove that its connection still lives, and until when.
    pub(super) gateway_ping: Option<([u8; 8], Instant)>,
    /// The gateway's generation when its connection was made.
    pub(super) generation: u64,
    /// Frames that wait for the end of the gateway's current message.
    pub(super) deferred: VecDeque<Vec<u8>>,
    pub(super) admitted: Admitted,
    pub(super) ticket: Ticket,
    pub(super) agreed: Option<Agreed>,
    pub(super) permit: Option<HandshakePermit>,
    pub(super) silent_at: Option<Instant>,
    /// For kept requests at the gateway.
    pub(super) room: Room,
    pub(super) turn: Option<Turn>,
    pub(super) dial: Option<Dial>,
    pub(super) heard: bool,
    /// Bytes that the client's connection had taken at the last check, if it took no more then.
    pub(super) full_pipe: Option<u64>,
    /// Pings since it was last heard.
    pub(super) unanswered: u32,
    pub(super) ping_at: Option<Instant>,
    /// The client sends no more.
    pub(super) half_closed: bool,
    /// When the connection ends, answered or not.
    pub(super) linger: Option<Instant>,
    /// The session's time is up, and only the end of the gateway's message is waited for.
    pub(super) last_message: bool,
    /// When the session ends at the latest because holdline stops, its close answered or not.
    pub(super) end_by: Option<Instant>,
    pub(super) done: bool,
    /// The deadline that the timer is set to.
    pub(super) armed: Option<Instant>,
}

/// Runs a session to its end.
pub(super) async fn run(line: Arc<Line>, opening: Opening, upgraded: Upgraded) {
    let mut state = line.gateway.subscribe();
    let stopping = line.house.stopping.clone();
    let (mut stopped, mut revoked) = (false, false);
    let grant = Arc::clone(&opening.grant);
    let mut end_of_grant = Box::pin(async move { grant.ended().await });
    let mut pump = Pump::new(line, opening, upgraded);
    let mut watched = Arc::clone(&pump.gateway_of);
    let view = *state.borrow_and_update();
    pump.look(view);
    while !pump.done {
        pump.follow();
        if !Arc::ptr_eq(&watched, &pump.gateway_of) {
            watched = Arc::clone(&pump.gateway_of);
            state = watched.subscribe();
            let view = *state.borrow_and_update();
            pump.look(view);
        }
        pump.armed = pump.deadline();
        let due = pump
            .armed
            .unwrap_or_else(|| pump.now + Duration::from_secs(86_400));
        tokio::select! {
            biased;
            () = poll_fn(|cx| pump.poll(cx)) => {}
            changed = state.changed() => {
                if changed.is_err() {
                    break;
                }
                let view = *state.borrow_and_update();
                pump.look(view);
            }
            () = stopping.cancelled(), if !stopped => {
                stopped = true;
                let at = pump.stop_slot();
                pump.feed(Event::Stop { at });
            }
            () = &mut end_of_grant, if !revoked => {
                revoked = true;
                pump.feed(Event::Revoked);
            }
            () = sleep_until(due) => pump.tick(),
        }
    }
    pump.report.ended();
}

impl Pump {
    fn new(line: Arc<Line>, opening: Opening, upgraded: Upgraded) -> Self {
        let now = Instant::now();
        let identified = opening.grant.identity().is_some();
        let policy = Policy::new(&line.upstream, &line.hold, identified);
        let view = line.gateway.view();
        let mut actions = Vec::new();
        let (machine, upstream) = match opening.upstream {
            Some(upstream) => (Machine::opened(policy, view), Some(upstream)),
            None => (Machine::greeted(policy, view, now, &mut actions), None),
        };
        let agreed = upstream
            .as_ref()
            .map(|upstream| Agreed::of(&upstream.socket));
        let extensions = agreed.as_ref().is_some_and(Agreed::has_extensions);
        let (client, read) = ClientIo::new(upgraded);
        let cutter = Cutter::new(Sender::Client, line.limits.preauth_frame, extensions);
        let ip = opening.admitted.ip();
        let mut pump = Self {
            report: Report::new(&line, ip, now),
            ping_at: line.limits.ping_every.map(|every| now + every),
            kept: opening.admitted.kept(&line.hold),
            gateway_of: Arc::clone(&line.gateway),
            moving: None,
            line,
            machine,
            client: Leg::new(client, cutter, &read),
            gateway: None,
            client_message: Verdict::Drop,
            gateway_message: Verdict::Drop,
            client_waits: false,
            unmatched: 0,
            actions,
            now,
            ping: None,
            gateway_ping: None,
            generation: 0,
            deferred: VecDeque::new(),
            admitted: opening.admitted,
            ticket: opening.ticket,
            agreed,
            permit: None,
            silent_at: Some(now + SILENT),
            room: Room::default(),
            turn: None,
            dial: None,
            heard: true,
            full_pipe: None,
            unanswered: 0,
            half_closed: false,
            linger: None,
            last_message: false,
            end_by: None,
            done: false,
            armed: None,
        };
        if let Some(upstream) = upstream {
            pump.attach(*upstream);
        }
        pump
    }

    pub(super) fn attach(&mut self, upstream: Upstream) {
        let extensions = self.agreed.as_ref().is_some_and(Agreed::has_extensions);
        // What the gateway may send is its own affair.
        let cutter = Cutter::new(Sender::Server, u64::MAX >> 1, extensions);
        let socket = upstream.socket;
        self.gateway = Some(Leg::new(socket.stream, cutter, &socket.leftover));
        self.gateway_message = Verdict::Drop;
        self.unmatched = 0;
        self.gateway_ping = None;
        self.generation = self.gateway_of.view().generation;
        self.permit = Some(upstream.permit);
    }

    /// The gateway's state has changed.
    fn look(&mut self, view: View) {
        if view.phase == Phase::Ready && view.generation != self.generation && self.is_passing() {
            // It is back, and this connection never ended: the host may have gone without a word.
            self.generation = view.generation;
            let payload = random();
            if self.client.cutter.between_frames() {
                self.gateway_ping = Some((payload, Instant::now() + PROOF));
                self.say_to_gateway(Opcode::Ping, &payload);
            }
        }
        self.feed(Event::View(view));
    }

    /// Tells the machine, and does at once what it wants.
    pub(super) fn feed(&mut self, event: Event<'_>) -> Verdict {
        self.now = Instant::now();
        let verdict = self.machine.on(event, self.now, &mut self.actions);
        self.act();
        verdict
    }

    /// The gateway's connection has ended.
    pub(super) fn lost(&mut self, reason: Reason) {
        let Some(gateway) = &self.gateway else { return };
        let written = gateway.written();
        let (torn, cut) = (self.torn(), self.is_client_cut());
        if torn != Torn::No {
            // No message of ours can follow half a message of the gateway's.
            self.deferred.clear();
        }
        self.detach();
        if matches!(self.machine.state, State::Closing) {
            // The connection ends as the gateway ended it.
            return self.finish();
        }
        self.feed(Event::GatewayLost {
            reason,
            written,
            torn,
            cut,
        });
        if self.half_closed {
            self.finish();
        }
    }

    /// A close is on its way to the client, which has a while to answer it.
    pub(super) fn closing(&mut self) {
        let until = self.end_by.unwrap_or_else(|| self.now + LINGER);
        self.linger = Some(self.linger.map_or(until, |at| at.min(until)));
        if self.client_said_close() || self.half_closed {
            self.finish();
        }
    }

    /// Ends the client's connection once everything is written.
    pub(super) fn finish(&mut self) {
        self.client.end();
        self.linger.get_or_insert_with(|| Instant::now() + LINGER);
    }

    pub(super) fn client_gone(&mut self) {
        self.report.client_left();
        self.done = true;
    }

    pub(super) fn client_said_close(&self) -> bool {
        self.machine.client_closes.is_some()
    }

    /// Sends a run of the client's frames on, as they are.
    pub(super) fn send_to_gateway(&mut self, cx: &mut Context<'_>, run: &[u8]) {
        if let Some(gateway) = &mut self.gateway {
            gateway.send(cx, run);
        }
    }

    /// Sends a run of the gateway's frames on, as they are.
    pub(super) fn send_to_client(&mut self, cx: &mut Context<'_>, run: &[u8]) {
        self.client.send(cx, run);
    }

    /// Whether what one side says goes to the other.
    pub(super) fn is_passing(&self) -> bool {
        self.gateway.is_some() && !matches!(self.machine.state, State::Away(_))
    }
}
