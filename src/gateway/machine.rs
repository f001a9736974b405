//! How a gateway's state changes: observations and evidence in, a [`View`] out.
//!
//! Pure: time comes in as an argument, nothing waits and nothing is sent. The prober and the
//! sessions feed it; it never asks who they are.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::state::{CrashLoop, Phase, Reason, View};

/// What one probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// Start-up is finished.
    Started,
    /// It answers, but start-up is not finished.
    Starting,
    /// It says that it is going down.
    Draining,
    /// No connection, or one that broke.
    Failed(Reason),
    /// Connected, but no answer in time.
    Silent,
}

/// What a session or a request saw of the gateway: as good as a probe, and earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A connection that was in use ended in a way that means the gateway is going or gone.
    Lost(Reason),
    /// It announced its end.
    Shutdown,
    /// It answered that it is still starting.
    Starting,
}

/// Probes without an answer before a ready gateway counts as hung, or without a connection or an
/// address before it counts as down.
const MISSES_READY: u32 = 3;
/// The same while it starts or drains, when its event loop stalls for a second at a time.
const MISSES_BUSY: u32 = 8;
/// Outages within [`CRASH_WINDOW`] that make a crash loop.
const CRASH_OUTAGES: usize = 3;
/// See [`CRASH_OUTAGES`].
const CRASH_WINDOW: Duration = Duration::from_secs(120);
/// Lengths remembered for the medians: enough to forget an odd one.
const HISTORY: usize = 9;

/// The state of one gateway and what is remembered of its past outages.
#[derive(Debug)]
pub struct Machine {
    view: View,
    misses: u32,
    /// Whether anything but a session's word confirmed the current outage.
    confirmed: bool,
    /// It is taken to be starting because it accepts connections; it has not said so.
    supposed: bool,
    /// In this outage such a start broke off: what accepts may be a proxy in front of nobody.
    doubted: bool,
    /// Its port was open for a while since it fell, and nothing more was heard.
    opened: bool,
    falls: VecDeque<Instant>,
    outages: Lengths,
    startings: Lengths,
}

impl Machine {
    /// Nothing is known yet: down, without a reason and without an outage.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            view: View {
                phase: Phase::Down,
                since: now,
                outage_since: None,
                reason: None,
                attempt: 0,
                expected: None,
                expected_starting: None,
                crash_loop: None,
                generation: 0,
            },
            misses: 0,
            confirmed: false,
            supposed: false,
            doubted: false,
            opened: false,
            falls: VecDeque::new(),
            outages: Lengths::default(),
            startings: Lengths::default(),
        }
    }

    /// The state as of the last event.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// Takes a probe's result.
    pub fn observe(&mut self, seen: Observation, now: Instant) {
        if self.may_pass(seen) {
            self.misses = self.misses.saturating_add(1);
            if self.misses < MISSES_READY {
                return self.judge_crash_loop(now);
            }
        }
        if seen != Observation::Silent {
            self.misses = 0;
        }
        match seen {
            Observation::Started => self.become_ready(now),
            Observation::Starting => {
                self.confirm_outage(now);
                // It answers: why it did not before is history.
                self.view.reason = None;
                self.supposed = false;
                self.doubted = false;
                self.opened = false;
                self.enter(Phase::Starting, now);
            }
            Observation::Draining => self.enter(Phase::Draining, now),
            Observation::Failed(reason) => self.fall(reason, now),
            Observation::Silent => self.missed(now),
        }
        self.judge_crash_loop(now);
    }

    /// A probe's connection was accepted, and neither answered nor ended for a while: its port is
    /// open again, which is all that "starting" means. The probe goes on.
    pub fn accepted(&mut self, now: Instant) {
        // After no more than a session's word it may be the old process, busy with its end.
        let gone = self.confirmed || self.view.generation == 0;
        self.opened |= self.confirmed && self.view.phase == Phase::Down;
        if gone && !self.doubted {
            self.suppose_start(now);
        }
    }

    fn suppose_start(&mut self, now: Instant) {
        if self.view.phase == Phase::Down {
            self.supposed = true;
            self.enter(Phase::Starting, now);
        }
    }

    /// Takes what a session or request saw.
    pub fn note(&mut self, evidence: Evidence, now: Instant) {
        match evidence {
            Evidence::Lost(reason) => {
                if matches!(
                    self.view.phase,
                    Phase::Ready | Phase::Draining | Phase::Hung
                ) {
                    self.view.outage_since.get_or_insert(now);
                    self.view.reason = Some(reason);
                    self.enter(Phase::Down, now);
                }
            }
            Evidence::Shutdown => {
                if self.view.phase == Phase::Ready {
                    self.view.outage_since.get_or_insert(now);
                    self.enter(Phase::Draining, now);
                }
            }
            Evidence::Starting => {
                if self.view.phase == Phase::Ready {
                    self.view.outage_since.get_or_insert(now);
                    self.enter(Phase::Starting, now);
                }
            }
        }
    }

    /// How long to wait before the next probe: short at first, when an answer is near.
    #[must_use]
    pub fn next_probe(&self, now: Instant, limits: ProbePace) -> Duration {
        const SOON: Duration = Duration::from_millis(25);
        const AT_ONCE: Duration = Duration::from_millis(12);
        let elapsed = now.saturating_duration_since(self.view.since);
        match self.view.phase {
            Phase::Ready if self.misses > 0 => limits.not_ready,
            Phase::Ready => limits.ready,
            Phase::Down | Phase::Draining => (elapsed / 20).clamp(SOON, limits.not_ready.max(SOON)),
            // The moment of readiness is what everybody waits for.
            Phase::Starting => (elapsed / 200).clamp(AT_ONCE, limits.not_ready.max(AT_ONCE)),
            Phase::Hung => limits
                .not_ready
                .max(Duration::from_secs(1))
                .min(limits.ready),
        }
    }

    /// Whether this says little of a ready gateway: a lost SYN or a name server's bad moment.
    fn may_pass(&self, seen: Observation) -> bool {
        let vague = matches!(seen, Observation::Failed(Reason::Timeout | Reason::Dns));
        vague && self.view.phase == Phase::Ready
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        if self.view.phase != phase {
            self.view.phase = phase;
            self.view.since = now;
        }
    }

    fn become_ready(&mut self, now: Instant) {
        if self.view.phase == Phase::Ready {
            return;
        }
        if self.view.phase == Phase::Starting && self.confirmed {
            self.startings
                .push(now.saturating_duration_since(self.view.since));
        }
        // The wait for a very first start says nothing about how long a restart takes.
        if let (true, Some(since), 1..) =
            (self.confirmed, self.view.outage_since, self.view.generation)
        {
            self.outages.push(now.saturating_duration_since(since));
        }
        // One lost socket is no new gateway.
        let anew = self.confirmed || self.view.generation == 0;
        self.confirmed = false;
        self.supposed = false;
        self.doubted = false;
        self.opened = false;
        self.view = View {
            phase: Phase::Ready,
            since: now,
            outage_since: None,
            reason: None,
            attempt: 0,
            expected: self.outages.median(),
            expected_starting: self.startings.median(),
            crash_loop: self.view.crash_loop,
            generation: self.view.generation + u64::from(anew),
        };
    }

    fn fall(&mut self, reason: Reason, now: Instant) {
        // A start that broke off is one more outage of a loop, though nobody was connected. One that
        // only showed an open port was one if the port is closed now: a proxy's stays open.
        let said = self.view.phase == Phase::Starting && self.confirmed && !self.supposed;
        let shown = self.opened && reason == Reason::Refused;
        if said || shown {
            self.opened = false;
            self.count_fall(now);
        }
        self.doubted |= self.view.phase == Phase::Starting && self.supposed;
        self.confirm_outage(now);
        self.view.reason = Some(reason);
        self.view.attempt = self.view.attempt.saturating_add(1);
        self.enter(Phase::Down, now);
    }

    fn missed(&mut self, now: Instant) {
        self.misses = self.misses.saturating_add(1);
        let allowed = match self.view.phase {
            Phase::Ready => MISSES_READY,
            Phase::Down => {
                self.suppose_start(now);
                MISSES_BUSY
            }
            Phase::Starting | Phase::Draining | Phase::Hung => MISSES_BUSY,
        };
        self.view.attempt = self
            .view
            .attempt
            .saturating_add(u32::from(self.view.phase != Phase::Ready));
        if self.misses >= allowed && self.view.phase != Phase::Hung {
            self.confirm_outage(now);
            self.view.reason = Some(Reason::Hung);
            self.enter(Phase::Hung, now);
        }
    }

    fn confirm_outage(&mut self, now: Instant) {
        self.view.outage_since.get_or_insert(now);
        if !self.confirmed {
            self.confirmed = true;
            // The very first start is not an outage: nothing had been there.
            if self.view.generation > 0 {
                self.count_fall(now);
            }
        }
    }

    fn count_fall(&mut self, now: Instant) {
        self.falls.push_back(now);
        while self.falls.len() > 64 {
            self.falls.pop_front();
        }
    }

    fn judge_crash_loop(&mut self, now: Instant) {
        while self
            .falls
            .front()
            .is_some_and(|fall| now.saturating_duration_since(*fall) > CRASH_WINDOW)
        {
            self.falls.pop_front();
        }
        self.view.crash_loop = match self.falls.front() {
            Some(first) if self.falls.len() >= CRASH_OUTAGES => Some(CrashLoop {
                outages: u32::try_from(self.falls.len()).unwrap_or(u32::MAX),
                since: *first,
            }),
            _ => None,
        };
    }
}

/// The prober's two configured intervals.
#[derive(Debug, Clone, Copy)]
pub struct ProbePace {
    /// Longest interval while not ready.
    pub not_ready: Duration,
    /// Interval while ready.
    pub ready: Duration,
}

/// The last few lengths of something, for their median.
#[derive(Debug, Default)]
struct Lengths(VecDeque<Duration>);

impl Lengths {
    fn push(&mut self, length: Duration) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(length);
    }

    fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests;
