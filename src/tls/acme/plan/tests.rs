//! The plan against worlds that behave badly: CAs that fail, limit and lie, clocks that jump,
//! machines that sleep, processes that end at any moment.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::tls::acme::history::LONGEST_PAUSE;
use crate::tls::acme::problem::Failure;

const START: Moment = Moment(1_800_000_000);
const CAS: [&str; 2] = ["https://one/dir", "https://two/dir"];

/// What a CA does with an order.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Issues,
    Refuses,
    /// And wants to hear no more for so many seconds.
    Limits(u64),
    IsDown,
    /// We end in the middle of it.
    WeEnd,
    /// A disk of ours fails in the middle of it.
    WeFail,
}

/// What happens to the clock between two looks.
#[derive(Debug, Clone, Copy)]
enum Tick {
    Minute,
    Sleep(u64),
    SetBack(u64),
    SetAhead(u64),
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => Just(Answer::Issues),
        3 => Just(Answer::Refuses),
        1 => (0..30 * DAY).prop_map(Answer::Limits),
        2 => Just(Answer::IsDown),
        2 => Just(Answer::WeEnd),
        1 => Just(Answer::WeFail),
    ]
}

fn tick() -> impl Strategy<Value = Tick> {
    prop_oneof![
        200 => Just(Tick::Minute),
        3 => (0..3 * DAY).prop_map(Tick::Sleep),
        1 => (0..3 * DAY).prop_map(Tick::SetBack),
        1 => (0..400 * DAY).prop_map(Tick::SetAhead),
    ]
}

/// One certificate, its state directory, and what really happens.
struct World {
    /// Time as it really goes by; the clock is this and an error.
    real: u64,
    now: Moment,
    there: Option<Lifetime>,
    length: u64,
    history: History,
    health: HashMap<&'static str, Health>,
    /// Real times of orders that a CA has counted.
    counted: HashMap<&'static str, Vec<u64>>,
    /// The same of all attempts.
    tried: HashMap<&'static str, Vec<u64>>,
    issued: HashMap<&'static str, Vec<u64>>,
    limited_until: HashMap<&'static str, u64>,
}

impl World {
    fn new(length: u64) -> Self {
        Self {
            real: START.0,
            now: START,
            there: None,
            length,
            history: History::default(),
            health: HashMap::new(),
            counted: HashMap::new(),
            tried: HashMap::new(),
            issued: HashMap::new(),
            limited_until: HashMap::new(),
        }
    }

    fn next(&self) -> Next {
        let healthy = Health::default();
        let cas = CAS.map(|ca| (ca, self.health.get(ca).unwrap_or(&healthy)));
        next(&Situation {
            now: self.now,
            there: self.there,
            window: None,
            unwanted: false,
            history: &self.history,
            cas: &cas,
            seed: 7,
        })
    }

    fn tick(&mut self, tick: Tick) {
        let (by, clock) = match tick {
            Tick::Minute => (60, self.now.after(60)),
            Tick::Sleep(span) => (span, self.now.after(span)),
            Tick::SetBack(span) => (1, self.now.before(span)),
            Tick::SetAhead(span) => (1, self.now.after(span)),
        };
        self.real += by;
        self.now = clock;
        self.history.settle(self.now);
        for health in self.health.values_mut() {
            health.settle(self.now);
        }
    }

    fn order(&mut self, ca: &'static str, answer: Answer) {
        // As the desk does it: written down first.
        self.history.start(ca, self.now);
        self.tried.entry(ca).or_default().push(self.real);
        let health = self.health.entry(ca).or_default();
        let failed = |concerns, not_before| Outcome::Failed {
            concerns,
            reason: "so".to_owned(),
            not_before,
            signed: false,
            unproved: false,
            unreached: false,
        };
        if !matches!(answer, Answer::IsDown) {
            self.counted.entry(ca).or_default().push(self.real);
        }
        let outcome = match answer {
            Answer::Issues => {
                self.issued.entry(ca).or_default().push(self.real);
                *health = Health::default();
                self.history.asked = None;
                self.there = Some(Lifetime {
                    from: self.now.before(HOUR),
                    until: self.now.after(self.length - HOUR),
                });
                Outcome::Issued
            }
            Answer::Refuses => {
                *health = Health::default();
                failed(Concerns::Names, None)
            }
            Answer::Limits(span) => {
                *health = Health::default();
                self.limited_until
                    .insert(ca, self.real + span.min(LONGEST_PAUSE));
                failed(Concerns::Names, Some(self.now.after(span)))
            }
            Answer::IsDown => {
                health.failed(self.now, &Failure::ca("down"));
                failed(Concerns::Ca, None)
            }
            Answer::WeEnd => return,
            Answer::WeFail => failed(Concerns::Here, None),
        };
        self.history.finish(ca, outcome);
        self.history.settle(self.now);
    }
}

/// The most that fell into any span of real time.
fn most_within(times: &[u64], span: u64) -> usize {
    let within = |start: u64| {
        times
            .iter()
            .filter(|at| (start..start + span).contains(at))
            .count()
    };
    times
        .iter()
        .map(|start| within(*start))
        .max()
        .unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// With a clock that is right, whatever else happens.
    #[test]
    fn no_limit_of_a_ca_is_ever_met(
        length in prop_oneof![Just(6 * DAY), Just(90 * DAY), Just(DAY), 2 * HOUR..200 * DAY],
        ticks in prop::collection::vec(prop_oneof![20 => Just(Tick::Minute), 1 => (0..2 * DAY).prop_map(Tick::Sleep)], 600..2000),
        answers in prop::collection::vec(answer(), 64),
        asked in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut world = World::new(length);
        let asked: Vec<usize> = asked.iter().map(|index| index.index(ticks.len())).collect();
        let mut answers = answers.iter().copied().cycle();
        for (index, tick) in ticks.iter().enumerate() {
            world.tick(*tick);
            if asked.contains(&index) {
                world.history.asked = Some(world.now);
            }
            if let Next::Order(at) = world.next() {
                let ca = CAS[at];
                let until = world.limited_until.get(ca).copied().unwrap_or_default();
                prop_assert!(world.real >= until, "ordered {} s too early", until - world.real);
                world.order(ca, answers.next().unwrap());
            }
        }
        for ca in CAS {
            let hour = most_within(world.counted.get(ca).map_or(&[], Vec::as_slice), HOUR);
            prop_assert!(hour as u64 <= ORDERS_AN_HOUR, "{hour} orders within an hour");
            let most = (3 * WEEK).div_ceil(length.min(WEEK)).max(CERTIFICATES_A_WEEK);
            let week = most_within(world.issued.get(ca).map_or(&[], Vec::as_slice), WEEK);
            prop_assert!(week as u64 <= most, "{week} certificates within a week");
        }
    }

    /// A clock that jumps does not make it order more, and not stop for ever either.
    #[test]
    fn a_clock_that_jumps_is_survived(
        ticks in prop::collection::vec(tick(), 300..1200),
        answers in prop::collection::vec(answer(), 64),
        asked in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut world = World::new(90 * DAY);
        let asked: Vec<usize> = asked.iter().map(|index| index.index(ticks.len())).collect();
        let mut answers = answers.iter().copied().cycle();
        let mut jumps_ahead = 0;
        for (index, tick) in ticks.iter().enumerate() {
            jumps_ahead += u64::from(matches!(tick, Tick::SetAhead(_)));
            world.tick(*tick);
            if asked.contains(&index) {
                world.history.asked = Some(world.now);
            }
            if let Next::Order(at) = world.next() {
                world.order(CAS[at], answers.next().unwrap());
            }
        }
        for ca in CAS {
            let hour = most_within(world.counted.get(ca).map_or(&[], Vec::as_slice), HOUR);
            // A clock that says that a day has passed is believed, once each time.
            prop_assert!(hour as u64 <= ORDERS_AN_HOUR * (jumps_ahead + 1), "{hour} orders");
            let tried = most_within(world.tried.get(ca).map_or(&[], Vec::as_slice), HOUR);
            prop_assert!(tried as u64 <= ATTEMPTS_AN_HOUR * (jumps_ahead + 1), "{tried} attempts");
        }
        // From here on everything goes well: there is a certificate within what a CA can ask for.
        for _ in 0..2 * LONGEST_PAUSE / MINUTE {
            world.tick(Tick::Minute);
            if let Next::Order(at) = world.next() {
                world.order(CAS[at], Answer::Issues);
            }
            if world.there.is_some_and(|there| there.from <= world.now && !there.is_over(world.now)) {
                return Ok(());
            }
        }
        prop_assert!(false, "no certificate in the end");
    }

    /// A container that is started again and again, and ends in the middle of each order.
    #[test]
    fn a_crash_loop_orders_ever_more_rarely(every in 1_u64..600) {
        let mut world = World::new(90 * DAY);
        let mut orders = 0;
        while world.real < START.0 + DAY {
            world.tick(Tick::Sleep(every));
            if let Next::Order(at) = world.next() {
                orders += 1;
                world.order(CAS[at], Answer::WeEnd);
            }
        }
        // Two CAs; an hour's worth of short pauses each, then hours.
        prop_assert!(orders <= 2 * 11, "{orders} orders in a day");
    }

    /// Whatever was written down, the wait is bounded, and a wait over is a wait over.
    #[test]
    fn every_wait_ends(
        answers in prop::collection::vec(answer(), 1..80),
        length in 2 * HOUR..400 * DAY,
    ) {
        let mut world = World::new(length);
        for answer in answers {
            let mut looks = 0;
            let at = loop {
                match world.next() {
                    Next::Order(at) => break at,
                    Next::Wait(until, why) => {
                        prop_assert!(until > world.now, "waits for {until}, it is {}", world.now);
                        let most = match why {
                            Why::NotDue => length,
                            Why::Pause | Why::Limit(_) => LONGEST_PAUSE + DAY,
                        };
                        prop_assert!(until.since(world.now) <= most);
                        world.tick(Tick::Sleep(until.since(world.now)));
                    }
                }
                looks += 1;
                prop_assert!(looks < 20, "it only waits");
            };
            world.order(CAS[at], answer);
        }
    }

    /// A renewal falls into the last third, with time enough left for trying again.
    #[test]
    fn renewal_is_due_in_time(length in HOUR..400 * DAY, seed: u64, start in 0..400 * DAY, span in 0..90 * DAY) {
        let there = Lifetime { from: START, until: START.after(length) };
        let due = there.due(None, seed);
        prop_assert!(due >= START.after(length / 2) && due <= START.after(length * 2 / 3));
        let window = Window { start: START.after(start), end: START.after(start + span) };
        let wished = there.due(Some(window), seed);
        prop_assert!(wished <= there.until.before(length / 10), "a CA's wish comes too late");
        if span > 0 && start + span <= length / 10 * 9 {
            prop_assert!(wished >= window.start && wished <= window.end);
        }
        prop_assert_eq!(wished, there.due(Some(window), seed), "the same each time it is asked");
    }
}

#[test]
fn a_second_ca_steps_in_at_once_only_where_there_is_nothing_to_lose() {
    let mut world = World::new(90 * DAY);
    assert_eq!(world.next(), Next::Order(0));
    world.order(CAS[0], Answer::IsDown);
    assert_eq!(world.next(), Next::Order(1), "there is no certificate");
    world.order(CAS[1], Answer::Issues);
    world.health.clear();
    // Two thirds later the first is asked again, and given its time.
    world.tick(Tick::Sleep(60 * DAY));
    for _ in 0..PATIENCE {
        while !matches!(world.next(), Next::Order(_)) {
            world.tick(Tick::Minute);
        }
        assert_eq!(world.next(), Next::Order(0));
        world.order(CAS[0], Answer::IsDown);
    }
    assert_eq!(world.next(), Next::Order(1), "it had its chances");
    world.health.clear();
    world
        .history
        .attempts
        .retain(|attempt| attempt.outcome == Outcome::Issued);
    world.tick(Tick::Sleep(20 * DAY));
    world.order(CAS[0], Answer::Refuses);
    assert_eq!(world.next(), Next::Order(1), "the end is near");
}

#[test]
fn who_asks_gets_a_new_one_but_not_beyond_the_limits() {
    let mut world = World::new(90 * DAY);
    for _ in 0..CERTIFICATES_A_WEEK {
        world.history.asked = Some(world.now);
        assert_eq!(world.next(), Next::Order(0));
        world.order(CAS[0], Answer::Issues);
        world.tick(Tick::Sleep(HOUR));
    }
    world.history.asked = Some(world.now);
    let Next::Wait(until, Why::Limit(limit)) = world.next() else {
        panic!("{:?}", world.next())
    };
    assert_eq!(
        limit.to_string(),
        "4 certificates a week for these names at this CA"
    );
    assert!(
        until > START.after(6 * DAY) && until <= START.after(8 * DAY),
        "{until}"
    );
}

#[test]
fn who_asks_does_not_wait_for_our_patience_but_for_the_ca() {
    let mut world = World::new(90 * DAY);
    for answer in [Answer::Refuses, Answer::IsDown] {
        for ca in CAS {
            world.order(ca, answer);
        }
    }
    assert!(matches!(world.next(), Next::Wait(_, Why::Pause)));
    world.tick(Tick::Sleep(2));
    world.history.asked = Some(world.now);
    assert_eq!(world.next(), Next::Order(0));
    world.order(CAS[0], Answer::Limits(HOUR));
    world.tick(Tick::Sleep(2));
    world.history.asked = Some(world.now);
    assert_eq!(world.next(), Next::Order(1));
    world.order(CAS[1], Answer::Limits(HOUR));
    world.tick(Tick::Sleep(2));
    world.history.asked = Some(world.now);
    let Next::Wait(until, _) = world.next() else {
        panic!("{:?}", world.next())
    };
    assert!(until.since(world.now) > HOUR - 60);
}

#[test]
fn a_certificate_that_never_arrives_counts_by_the_week() {
    let mut world = World::new(90 * DAY);
    let mut signed = 0;
    while world.real < START.0 + 6 * DAY {
        world.tick(Tick::Sleep(10 * MINUTE));
        if let Next::Order(0) = world.next() {
            signed += 1;
            world.order(CAS[0], Answer::IsDown);
            world.history.finish(
                CAS[0],
                Outcome::Failed {
                    concerns: Concerns::Ca,
                    reason: "no certificate".to_owned(),
                    not_before: None,
                    signed: true,
                    unproved: false,
                    unreached: false,
                },
            );
        }
    }
    assert_eq!(signed, CERTIFICATES_A_WEEK);
}

#[test]
fn attempts_that_no_ca_has_heard_of_are_not_counted_against_it() {
    let mut world = World::new(90 * DAY);
    let unreached = Failure {
        unreached: true,
        ..Failure::ca("no network")
    };
    let mut longest = 0;
    let mut last = world.real;
    while world.real < START.0 + DAY {
        world.tick(Tick::Sleep(MINUTE));
        if let Next::Order(0) = world.next() {
            longest = longest.max(world.real - last);
            last = world.real;
            world.history.start(CAS[0], world.now);
            let outcome = Outcome::Failed {
                concerns: Concerns::Ca,
                reason: "no network".to_owned(),
                not_before: None,
                signed: false,
                unproved: false,
                unreached: true,
            };
            world.history.finish(CAS[0], outcome);
            let health = world.health.entry(CAS[0]).or_default();
            health.failed(world.now, &unreached);
        }
    }
    assert!((1..=5 * MINUTE).contains(&longest), "{longest} s");
}

#[test]
fn one_ask_is_one_attempt_whatever_the_clock_does() {
    let mut world = World::new(90 * DAY);
    world.order(CAS[0], Answer::Issues);
    world.tick(Tick::Sleep(DAY));
    world.history.asked = Some(world.now);
    world.tick(Tick::SetBack(3 * HOUR));
    for _ in 0..12 * 60 {
        world.tick(Tick::Sleep(5));
        if let Next::Order(at) = world.next() {
            world.order(CAS[at], Answer::IsDown);
        }
    }
    for ca in CAS {
        let tried = world.tried.get(ca).map_or(0, Vec::len) as u64;
        assert!(tried <= ATTEMPTS_AN_HOUR, "{tried} attempts in an hour");
    }
}

#[test]
fn a_fault_of_this_machine_sends_nobody_to_the_next_ca() {
    let mut world = World::new(90 * DAY);
    for pause in [5 * MINUTE, 15 * MINUTE] {
        assert_eq!(world.next(), Next::Order(0));
        world.order(CAS[0], Answer::WeFail);
        assert_eq!(
            world.next(),
            Next::Wait(world.now.after(pause), Why::Pause),
            "anywhere"
        );
        world.tick(Tick::Sleep(pause));
    }
    world.order(CAS[0], Answer::WeFail);
    world.tick(Tick::Minute);
    assert!(matches!(world.next(), Next::Wait(..)));
    world.history.asked = Some(world.now);
    assert_eq!(world.next(), Next::Order(0), "somebody has mended it");
}

#[test]
fn what_a_newer_one_has_tried_counts_until_it_cannot_any_more() {
    let mut world = World::new(90 * DAY);
    world.history.unknown_until = Some(START.after(8 * DAY));
    let wait = Next::Wait(START.after(8 * DAY), Why::Pause);
    assert_eq!(world.next(), wait);
    world.history.asked = Some(START);
    assert_eq!(world.next(), Next::Order(0), "a person may know better");
    world.order(CAS[0], Answer::Refuses);
    world.order(CAS[1], Answer::Refuses);
    assert_eq!(world.next(), wait, "for one attempt");
    world.history.asked = None;
    world.tick(Tick::Sleep(8 * DAY));
    assert_eq!(world.next(), Next::Order(0));
}

#[test]
fn a_wish_of_the_ca_decides() {
    let there = Lifetime {
        from: START,
        until: START.after(6 * DAY),
    };
    let at_once = Window {
        start: START.before(2 * DAY),
        end: START.before(DAY),
    };
    assert!(there.due(Some(at_once), 3) < START, "in the past: now");
    for senseless in [
        Window {
            start: START.after(DAY),
            end: START.after(DAY),
        },
        Window {
            start: START.after(3 * DAY),
            end: START.after(2 * DAY),
        },
        Window {
            start: START.after(9 * DAY),
            end: START.after(12 * DAY),
        },
    ] {
        assert_eq!(there.due(Some(senseless), 3), there.due(None, 3));
    }
}
