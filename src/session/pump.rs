//! The only I/O of a session: moves bytes, cuts frames, asks the machine, does what it says.
//!
//! One task, both directions, no buffer while idle. Nothing is decided here but what belongs to
//! the wire itself: back-pressure, where a frame may be put in between, whether a client still
//! answers pings, and how a connection ends. How frames are judged is in [`super::judge`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::client_io::ClientIo;
use super::event::{Action, Event, Torn, Verdict};
use super::follow::Move;
use super::leg::{Leg, Read, SCRATCH};
use super::machine::{Machine, State};
use super::open::{Agreed, Upstream};
use super::policy::Policy;
use super::registry::{Admitted, Kept};
use super::report::Report;
use super::room::Room;
use super::ticket::Ticket;
use super::{Line, Opening};
use crate::gateway::{Gateway, HandshakePermit, Phase, Reason, Turn, View, reason_of};
use crate::ws::cutter::{Cutter, Sender, WHOLE};
use crate::ws::frame::Opcode;

/// Reads per wake-up before other tasks get their turn.
const ROUNDS: u32 = 16;
/// Unwritten bytes to the client over which it is not listened to: answers to it would pile up.
const CLIENT_BACKLOG: usize = 256 * 1024;
/// What is put off until the gateway's current message ends.
pub(super) const MAX_DEFERRED: usize = 1024;
/// Pings in a row that a client may leave unanswered: the first may still wait behind data that a
/// slow line has not taken yet.
const UNANSWERED: u32 = 2;
/// After our close frame, how long the client may take to answer it.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// When holdline stops, what of that time the gateway may take to finish its last message.
const LAST_MESSAGE: Duration = Duration::from_secs(4);
/// After the client's half-close, how long the gateway may take to finish.
const HALF_CLOSED: Duration = Duration::from_secs(60);
/// A client that has not sent its `connect` by then no longer counts against everybody.
const SILENT: Duration = Duration::from_secs(2);
/// During a handshake the gateway's messages are read whole up to this.
const WHOLE_HELLO: usize = 1024 * 1024;

/// How long a gateway may take to prove that a connection from before its outage still lives.
const PROOF: Duration = Duration::from_secs(5);

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

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
    generation: u64,
    /// Frames that wait for the end of the gateway's current message.
    pub(super) deferred: VecDeque<Vec<u8>>,
    pub(super) admitted: Admitted,
    pub(super) ticket: Ticket,
    pub(super) agreed: Option<Agreed>,
    pub(super) permit: Option<HandshakePermit>,
    silent_at: Option<Instant>,
    /// For kept requests at the gateway.
    pub(super) room: Room,
    pub(super) turn: Option<Turn>,
    pub(super) dial: Option<Dial>,
    heard: bool,
    /// Bytes that the client's connection had taken at the last check, if it took no more then.
    full_pipe: Option<u64>,
    /// Pings since it was last heard.
    unanswered: u32,
    pub(super) ping_at: Option<Instant>,
    /// The client sends no more.
    half_closed: bool,
    /// When the connection ends, answered or not.
    pub(super) linger: Option<Instant>,
    /// The session's time is up, and only the end of the gateway's message is waited for.
    pub(super) last_message: bool,
    /// When the session ends at the latest because holdline stops, its close answered or not.
    end_by: Option<Instant>,
    pub(super) done: bool,
    /// The deadline that the timer is set to.
    armed: Option<Instant>,
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

    fn attach(&mut self, upstream: Upstream) {
        let extensions = self.agreed.as_ref().is_some_and(Agreed::has_extensions);
        // What the gateway may send is its own affair.
        let cutter = Cutter::new(Sender::Server, u64::MAX >> 1, extensions);
        let socket = upstream.socket;
        self.gateway = Some(Leg::new(socket.stream, cutter, &socket.leftover));
        self.gateway_message = Verdict::Drop;
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

    fn stop_slot(&self) -> Instant {
        let [a, b, ..] = random();
        let share = f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX);
        // The last tenth is for the close handshakes.
        Instant::now() + self.line.limits.drain.mul_f64(0.9 * share)
    }

    // === time ===

    fn deadline(&self) -> Option<Instant> {
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

    fn tick(&mut self) {
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

    // === bytes ===

    /// Moves what can be moved. Ready: the timer is to be set anew, or the session is done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    fn listens_to_client(&self) -> bool {
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

/// A ping's payload: nobody else's looks like it.
fn random() -> [u8; 8] {
    let mut payload = [0u8; 8];
    let _ = aws_lc_rs::rand::fill(&mut payload);
    payload
}
