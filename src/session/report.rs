//! What a session leaves in the log and in the numbers. Decides nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::Line;
use super::event::Counted;
use super::machine::State;
use super::outage::{Fate, Outage};
use crate::observe::Metrics;
use crate::observe::labels::{ResumeWay, SessionEnd, SessionState, Settled};
use crate::protocol::rescue::{Execution, millis};
use crate::protocol::speech::Resumed;

/// Numbers sessions in the log.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// One session's traces.
#[derive(Debug)]
pub(super) struct Report {
    metrics: Arc<Metrics>,
    route: String,
    id: u64,
    ip: IpAddr,
    since: Instant,
    shown: Option<SessionState>,
    held_since: Option<Instant>,
    outage: Arc<Outage>,
    /// Among those that the outage has counted as held.
    in_outage: bool,
    end: Option<SessionEnd>,
    code: Option<u16>,
}

impl Report {
    pub(super) fn new(line: &Line, ip: IpAddr, now: Instant) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(session = id, route = line.route, client = %ip, "session open");
        Self {
            metrics: Arc::clone(&line.house.metrics),
            route: line.route.clone(),
            id,
            ip,
            since: now,
            shown: None,
            held_since: None,
            outage: Arc::clone(&line.outage),
            in_outage: false,
            end: None,
            code: None,
        }
    }

    /// The state after an event.
    pub(super) fn state(&mut self, state: &State) {
        let shown = match state {
            State::Opening { .. } | State::Live => Some(SessionState::Live),
            State::Away(away) if away.is_greeting() => Some(SessionState::Greeting),
            State::Away(away) if away.is_handshaking() => Some(SessionState::Resuming),
            State::Away(_) => Some(SessionState::Held),
            State::Closing => None,
        };
        if shown == self.shown {
            return;
        }
        self.metrics.sessions.shift(self.shown, shown);
        self.shown = shown;
        if shown == Some(SessionState::Live)
            && let Some(since) = self.held_since.take()
        {
            self.metrics.held_seconds.observe(since.elapsed());
        }
    }

    /// Something worth a number has happened.
    pub(super) fn count(&mut self, counted: Counted) {
        let metrics = &self.metrics;
        match counted {
            Counted::Held => {
                let now = Instant::now();
                self.held_since = Some(now);
                if !std::mem::replace(&mut self.in_outage, true) {
                    self.outage.held(now);
                }
                tracing::debug!(session = self.id, route = self.route, "session held");
            }
            Counted::Resumed(resumed, down) => {
                if let Some(way) = way(resumed) {
                    metrics.resumptions.inc(way);
                }
                if matches!(resumed, Resumed::Reconnect | Resumed::Gap) {
                    self.end.get_or_insert(SessionEnd::Reconnect);
                    self.held_no_more(Fate::SentRound);
                } else {
                    self.held_no_more(Fate::Back);
                }
                let down_ms = millis(down);
                let way = resumed.as_str();
                tracing::debug!(
                    session = self.id,
                    route = self.route,
                    way,
                    down_ms,
                    "session back"
                );
            }
            Counted::ReplayRefused => {
                metrics.replays_refused.inc();
                tracing::info!(session = self.id, route = self.route, "replay not possible");
            }
            Counted::Answered(Execution::NotStarted) => metrics.settled.inc(Settled::NotStarted),
            Counted::Answered(Execution::MayHaveExecuted) => {
                metrics.settled.inc(Settled::MayHaveExecuted);
            }
            Counted::Resent => metrics.settled.inc(Settled::Resent),
            Counted::StillHeld if self.in_outage => self.outage.noticed(&self.route),
            Counted::StillHeld => {}
            Counted::Notice => metrics.notices.inc(),
            Counted::Torn => {
                metrics.frames_torn.inc();
                self.end.get_or_insert(SessionEnd::Torn);
            }
            Counted::Expired => {
                self.end.get_or_insert(SessionEnd::Expired);
            }
            Counted::Drained => {
                self.end.get_or_insert(SessionEnd::Drain);
            }
            Counted::Revoked => {
                self.end.get_or_insert(SessionEnd::Revoked);
            }
        }
    }

    /// A close of ours is being sent.
    pub(super) fn closing(&mut self, code: u16) {
        self.code = Some(code);
        self.held_no_more(match (self.end, code) {
            (Some(SessionEnd::Client | SessionEnd::Dead), _) => Fate::Left,
            (None, 1012) => Fate::SentRound,
            _ => Fate::GivenUp,
        });
        if matches!(code, 1002 | 1009) {
            self.end.get_or_insert(SessionEnd::Limit);
        }
    }

    /// What became of it, if it was held.
    fn held_no_more(&mut self, fate: Fate) {
        if std::mem::take(&mut self.in_outage) {
            self.outage.over(fate, &self.route, Instant::now());
        }
    }

    /// The client did not answer a ping.
    pub(super) fn dead(&mut self) {
        self.end.get_or_insert(SessionEnd::Dead);
    }

    /// The client ended it, or closed or left first; after a close of the other side it is that
    /// side's end.
    pub(super) fn client_left(&mut self) {
        if self.shown.is_some() {
            self.end.get_or_insert(SessionEnd::Client);
        }
    }

    /// The session is over.
    pub(super) fn ended(&self) {
        let end = self.end.unwrap_or(SessionEnd::Gateway);
        self.metrics.session_ends.inc(end);
        tracing::debug!(
            session = self.id,
            route = self.route,
            client = %self.ip,
            end = ?end,
            code = self.code,
            lasted_ms = millis(self.since.elapsed()),
            "session over"
        );
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.held_no_more(Fate::Left);
        self.metrics.sessions.shift(self.shown, None);
    }
}

fn way(resumed: Resumed) -> Option<ResumeWay> {
    Some(match resumed {
        Resumed::Replay => ResumeWay::Replay,
        Resumed::Rechallenge => ResumeWay::Rechallenge,
        Resumed::Gap => ResumeWay::Gap,
        Resumed::Reconnect => ResumeWay::Reconnect,
        Resumed::Splice => ResumeWay::Splice,
        Resumed::Kept => return None,
    })
}
