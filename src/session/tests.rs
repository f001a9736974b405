//! The machine under random lives: whatever happens, in whatever order, the promises hold.
//!
//! A small world stands in for the pump and both ends: it hands the machine only events that the
//! pump could hand it, and keeps a ledger of what every request has become.

mod flush;
mod patience;
mod restoring;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use world::{Step, World};

const GOING: &str = r#""code":"UNAVAILABLE","details":{"reason":"gateway-restarting"}"#;
const STARTING: &str = r#""code":"UNAVAILABLE","details":{"reason":"startup-sidecars"}"#;
const FORBIDDEN: &str = r#""code":"FORBIDDEN""#;

/// The gateway is back, and takes the session as it was.
const RETURN: [Step; 6] = [
    Step::Phase(4),
    Step::Turn,
    Step::Dialled(true),
    Step::Challenge,
    Step::Write,
    Step::Hello(0),
];

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6, 0u8..5).prop_map(|(id, kind)| Step::Ask { id, kind }),
        4 => any::<prop::sample::Index>().prop_map(Step::Answer),
        2 => any_refusal(),
        3 => Just(Step::Write),
        3 => Just(Step::NumberedEvent),
        2 => Just(Step::Lose),
        1 => Just(Step::Shutdown),
        1 => prop::sample::select(vec![1000u16, 1001, 1008, 1012, 1013, 4008])
            .prop_map(Step::GatewayClose),
        1 => Just(Step::ClientClose),
        1 => Just(Step::ClientEnds),
        4 => prop::sample::select(vec![0u8, 1, 2, 3, 4]).prop_map(Step::Phase),
        4 => Just(Step::Turn),
        4 => any::<bool>().prop_map(Step::Dialled),
        4 => Just(Step::Challenge),
        4 => (0u8..4).prop_map(Step::Hello),
        2 => Just(Step::Connect),
        3 => (0u32..8000).prop_map(Step::Wait),
        1 => Just(Step::Stop),
        1 => Just(Step::Revoked),
        4 => (1u8..40).prop_map(Step::Room),
        1 => Just(Step::AskInParts),
        1 => any_long(),
        1 => Just(Step::Ends),
        1 => any_other(),
        2 => prop::sample::select(vec![0u8, 1, 4, 4, 4]).prop_map(Step::Move),
        1 => (5u64..60).prop_map(|max| Step::Terms { max: Duration::from_secs(max) }),
    ]
}

fn any_refusal() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![GOING, GOING, STARTING, FORBIDDEN]).prop_map(Step::RefuseOurs)
}

fn any_long() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![0, 1, 4]).prop_map(|kind| Step::AskLong { kind })
}

fn any_other() -> impl Strategy<Value = Step> {
    (1u16..900, any::<bool>()).prop_map(|(length, whole)| Step::Other { length, whole })
}

/// Bytes that may be kept: never too few, and soon too few.
fn any_room() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![20_000, 1000])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_life_breaks_a_promise(
        client in 0u8..7,
        resume in 0u8..5,
        greeted in any::<bool>(),
        room in any_room(),
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut world = World::new(client, resume, greeted);
        world.keep_at_most(room);
        for step in steps {
            world.step(step);
            world.check();
        }
        world.finish();
    }
}

/// A gap is how the official client learns of events that it missed; a Control UI reconnects on it.
#[test]
fn a_replay_leaves_a_gap_in_the_numbers_but_not_for_a_control_ui() {
    for (client, expected) in [(0, vec![1, 2, 4, 1, 3, 1]), (4, vec![1, 2, 1])] {
        let mut world = World::new(client, 0, false);
        let replay = [
            Step::Wait(6000),
            Step::Lose,
            Step::Phase(4),
            Step::Turn,
            Step::Dialled(true),
            Step::Challenge,
            Step::Write,
            Step::Hello(0),
        ];
        let before = [
            Step::Connect,
            Step::Write,
            Step::Hello(0),
            Step::NumberedEvent,
            Step::NumberedEvent,
        ];
        // The second time nothing numbered came before it.
        let steps = before.into_iter().chain(replay.clone()).chain(replay);
        for step in steps.chain([Step::NumberedEvent]) {
            world.step(step);
        }
        assert_eq!(world.numbers, expected, "client {client}");
    }
}

/// Nobody is told "not started" and then finds it done, and nobody waits longer than they would.
#[test]
fn a_kept_request_is_answered_before_its_sender_gives_up_and_is_not_sent_later() {
    let mut world = World::new(0, 0, false);
    for step in [Step::Connect, Step::Write, Step::Hello(0), Step::Lose] {
        world.step(step);
    }
    world.step(Step::Ask { id: 0, kind: 0 });
    world.step(Step::Wait(15_000));
    assert_eq!(world.told("0-1"), None, "it waits");
    world.step(Step::Ask { id: 0, kind: 0 });
    world.step(Step::Wait(13_000));
    assert_eq!(world.told("0-1"), Some("not_started"));
    assert_eq!(world.told("0-2"), None, "it came later");
    for step in [
        Step::Phase(4),
        Step::Turn,
        Step::Dialled(true),
        Step::Challenge,
        Step::Write,
        Step::Hello(0),
        Step::Room(32),
        Step::Write,
    ] {
        world.step(step);
        world.check();
    }
    assert_eq!((world.delivered("0-1"), world.delivered("0-2")), (0, 1));
}

/// Whatever the probes take for a start meanwhile.
#[test]
fn a_return_that_is_refused_at_every_dial_is_not_tried_for_ever() {
    let mut world = World::new(0, 0, false);
    for step in [Step::Connect, Step::Write, Step::Hello(0), Step::Lose] {
        world.step(step);
    }
    let mut dials = 0;
    while world.is_away() && dials < 10 {
        for step in [Step::Phase(4), Step::Wait(2000), Step::Turn] {
            world.step(step);
        }
        world.step(Step::Dialled(false));
        world.step(Step::Phase(1));
        dials += 1;
    }
    assert_eq!(dials, 5);
}
