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
        // A start that broke off is one more outage of a loop, though nobody was connected.
        if self.view.phase == Phase::Starting && self.confirmed && !self.supposed {
            self.count_fall(now);
        }
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
                self.accepted(now);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn machine_ready(now: Instant) -> Machine {
        let mut machine = Machine::new(now);
        machine.observe(Observation::Started, now);
        machine
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_restart_goes_through_its_phases_and_is_remembered() {
        let t = Instant::now();
        let mut m = machine_ready(t);
        m.note(Evidence::Shutdown, after(t, 10));
        assert_eq!(m.view().phase, Phase::Draining);
        m.observe(Observation::Failed(Reason::Refused), after(t, 11));
        assert_eq!(m.view().phase, Phase::Down);
        assert_eq!(m.view().reason, Some(Reason::Refused));
        m.observe(Observation::Starting, after(t, 20));
        m.observe(Observation::Started, after(t, 23));
        let v = m.view();
        assert_eq!((v.phase, v.generation), (Phase::Ready, 2));
        assert_eq!(v.expected, Some(Duration::from_secs(13)));
        assert_eq!(v.expected_starting, Some(Duration::from_secs(3)));
        assert_eq!((v.outage_since, v.reason, v.crash_loop), (None, None, None));
    }

    #[test]
    fn a_single_lost_socket_is_not_an_outage() {
        let t = Instant::now();
        let mut m = machine_ready(t);
        for i in 0..10 {
            m.note(Evidence::Lost(Reason::Closed), after(t, i));
            assert_eq!(m.view().phase, Phase::Down);
            m.observe(Observation::Started, after(t, i));
        }
        assert_eq!(m.view().expected, None);
        assert_eq!(m.view().crash_loop, None);
    }

    #[test]
    fn hung_needs_three_misses_in_a_row_and_one_answer_ends_it() {
        let t = Instant::now();
        let mut m = machine_ready(t);
        m.observe(Observation::Silent, t);
        m.observe(Observation::Silent, t);
        m.observe(Observation::Started, t);
        m.observe(Observation::Silent, t);
        m.observe(Observation::Silent, t);
        assert_eq!(m.view().phase, Phase::Ready);
        m.observe(Observation::Silent, t);
        assert_eq!(
            (m.view().phase, m.view().reason),
            (Phase::Hung, Some(Reason::Hung))
        );
        m.observe(Observation::Started, after(t, 5));
        assert_eq!(m.view().phase, Phase::Ready);
    }

    #[test]
    fn one_lost_connect_or_name_does_not_take_a_ready_gateway_down() {
        for reason in [Reason::Timeout, Reason::Dns] {
            let (t, lost) = (Instant::now(), Observation::Failed(reason));
            let mut m = machine_ready(t);
            m.observe(lost, t);
            m.observe(lost, t);
            m.observe(Observation::Started, t);
            m.observe(lost, t);
            m.observe(Observation::Silent, t);
            assert_eq!(m.view().phase, Phase::Ready);
            m.observe(lost, t);
            let view = m.view();
            assert_eq!((view.phase, view.reason), (Phase::Down, Some(reason)));
            m.observe(Observation::Silent, t);
            assert_eq!(m.view().phase, Phase::Starting);
        }
    }

    #[test]
    fn one_slow_answer_while_it_starts_changes_nothing() {
        let t = Instant::now();
        let mut m = machine_ready(t);
        m.observe(Observation::Failed(Reason::Refused), t);
        m.observe(Observation::Silent, after(t, 1));
        assert_eq!(m.view().phase, Phase::Starting);
        m.observe(Observation::Starting, after(t, 2));
        m.observe(Observation::Silent, after(t, 3));
        assert_eq!(m.view().phase, Phase::Starting);
    }

    #[test]
    fn an_open_port_is_a_start_and_one_that_closes_again_no_further_outage() {
        let t = Instant::now();
        let mut m = machine_ready(t);
        m.accepted(t);
        assert_eq!(m.view().phase, Phase::Ready, "a slow answer is no news");
        for i in 0..10 {
            m.observe(Observation::Failed(Reason::Closed), after(t, i));
            assert_eq!(m.view().phase, Phase::Down);
            m.accepted(after(t, i));
            assert_eq!(
                (m.view().phase, m.view().since),
                (Phase::Starting, after(t, i))
            );
        }
        assert_eq!(m.view().crash_loop, None);
        m.observe(Observation::Started, after(t, 13));
        assert_eq!(m.view().expected_starting, Some(Duration::from_secs(4)));
    }

    #[test]
    fn three_outages_in_two_minutes_are_a_crash_loop_until_it_is_quiet() {
        let t = Instant::now();
        let mut m = machine_ready(t);
        for i in 0..3 {
            assert_eq!(m.view().crash_loop, None);
            m.observe(Observation::Failed(Reason::Refused), after(t, 10 * i));
            m.observe(Observation::Started, after(t, 10 * i + 5));
        }
        let looping = m.view().crash_loop.unwrap();
        assert_eq!((looping.outages, looping.since), (3, t));
        m.observe(Observation::Started, after(t, 200));
        assert_eq!(m.view().crash_loop, None);
    }

    #[test]
    fn a_start_that_keeps_failing_is_a_crash_loop() {
        let t = Instant::now();
        let mut m = machine_ready(t);
        for i in 0..3 {
            m.observe(Observation::Failed(Reason::Refused), after(t, 10 * i));
            m.observe(Observation::Starting, after(t, 10 * i + 5));
        }
        assert_eq!(m.view().crash_loop.unwrap().outages, 3);
    }

    fn any_step() -> impl Strategy<Value = (u8, u16)> {
        (0u8..11, 0u16..5000)
    }

    proptest! {
        #[test]
        fn whatever_happens_the_view_is_consistent(steps in prop::collection::vec(any_step(), 0..200)) {
            let mut now = Instant::now();
            let mut m = Machine::new(now);
            let mut generation = 0;
            for (kind, ms) in steps {
                now += Duration::from_millis(u64::from(ms));
                match kind {
                    0 => m.observe(Observation::Started, now),
                    1 => m.observe(Observation::Starting, now),
                    2 => m.observe(Observation::Draining, now),
                    3 => m.observe(Observation::Failed(Reason::Refused), now),
                    4 => m.observe(Observation::Failed(Reason::Dns), now),
                    5 => m.observe(Observation::Silent, now),
                    9 => m.observe(Observation::Failed(Reason::Timeout), now),
                    6 => m.note(Evidence::Lost(Reason::Reset), now),
                    7 => m.note(Evidence::Shutdown, now),
                    10 => m.accepted(now),
                    _ => m.note(Evidence::Starting, now),
                }
                let v = m.view();
                prop_assert!(v.since <= now);
                prop_assert!(v.generation >= generation);
                generation = v.generation;
                if v.phase == Phase::Ready {
                    prop_assert_eq!((v.outage_since, v.reason, v.attempt), (None, None, 0));
                }
                prop_assert!(m.falls.len() <= 64);
                let pace = ProbePace { not_ready: Duration::from_millis(500), ready: Duration::from_secs(5) };
                let next = m.next_probe(now, pace);
                prop_assert!(next >= Duration::from_millis(12) && next <= pace.ready);
                prop_assert!(v.retry_after(now) <= Duration::from_secs(5));
            }
        }
    }
}
