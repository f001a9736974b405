//! A gateway's lives as its probes and sessions see them.

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
    m.observe(Observation::Failed(Reason::Closed), after(t, 1));
    m.accepted(after(t, 2));
    let starting = m.view();
    assert_eq!(
        (starting.phase, starting.since),
        (Phase::Starting, after(t, 2))
    );
    m.observe(Observation::Started, after(t, 6));
    assert_eq!(m.view().crash_loop, None);
    assert_eq!(m.view().expected_starting, Some(Duration::from_secs(4)));
}

#[test]
fn what_a_dying_process_leaves_open_is_no_start() {
    for evidence in [Evidence::Lost(Reason::Reset), Evidence::Shutdown] {
        let t = Instant::now();
        let mut m = machine_ready(t);
        m.note(evidence, t);
        m.note(Evidence::Lost(Reason::Closed), t);
        m.accepted(t);
        assert_eq!(m.view().phase, Phase::Down, "nobody but a session says so");
        m.observe(Observation::Failed(Reason::Refused), after(t, 1));
        m.accepted(after(t, 2));
        assert_eq!(m.view().phase, Phase::Starting);
    }
}

/// As a proxy does whose gateway cannot be reached.
#[test]
fn a_port_that_closes_again_and_again_is_down_until_something_answers() {
    let t = Instant::now();
    let mut m = machine_ready(t);
    let mut starts = 0;
    for i in 0..10 {
        m.observe(Observation::Failed(Reason::Closed), after(t, i));
        assert_eq!(m.view().phase, Phase::Down);
        m.accepted(after(t, i));
        starts += u32::from(m.view().phase == Phase::Starting);
    }
    assert_eq!((starts, m.view().crash_loop), (1, None));
    m.observe(Observation::Silent, after(t, 12));
    assert_eq!(m.view().phase, Phase::Starting, "that is long");
    m.observe(Observation::Failed(Reason::Closed), after(t, 13));
    m.observe(Observation::Starting, after(t, 14));
    m.observe(Observation::Failed(Reason::Refused), after(t, 15));
    m.accepted(after(t, 16));
    assert_eq!(m.view().phase, Phase::Starting, "it had answered");
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

#[test]
fn a_start_that_only_opens_its_port_and_dies_is_one_of_a_crash_loop_too() {
    let t = Instant::now();
    let mut m = machine_ready(t);
    m.observe(Observation::Failed(Reason::Refused), t);
    for i in 1..3 {
        assert_eq!(m.view().crash_loop, None);
        m.accepted(after(t, 10 * i));
        m.observe(Observation::Failed(Reason::Reset), after(t, 10 * i + 1));
        m.observe(Observation::Failed(Reason::Refused), after(t, 10 * i + 2));
        m.observe(Observation::Failed(Reason::Refused), after(t, 10 * i + 3));
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
