//! What was kept on its way to the gateway: in order, in portions, once, and to its end.

use proptest::prelude::*;

use super::super::flush::WINDOW;
use super::world::{Step, World};
use super::{RETURN, any_long, any_other, any_room};

const MUTATING: u8 = 0;
const READ: u8 = 1;

/// A session that is replayed, in front of a gateway that is lost.
fn held() -> World {
    let mut world = World::new(0, 0, false);
    all(
        &mut world,
        [Step::Connect, Step::Write, Step::Hello(0), Step::Lose],
    );
    world
}

fn all(world: &mut World, steps: impl IntoIterator<Item = Step>) {
    for step in steps {
        world.step(step);
        world.check();
    }
}

fn ask(world: &mut World, requests: usize, kind: u8) {
    for _ in 0..requests {
        world.step(Step::Ask { id: 0, kind });
    }
}

fn number(id: &str) -> u32 {
    id.rsplit('-').next().unwrap().parse().unwrap()
}

#[test]
fn one_window_goes_and_the_next_requests_follow_the_answers() {
    let mut world = held();
    ask(&mut world, 100, MUTATING);
    all(&mut world, RETURN);
    all(&mut world, [Step::Room(200), Step::Write]);
    assert_eq!(world.deliveries.len(), WINDOW);
    all(&mut world, [Step::Room(200), Step::Write]);
    assert_eq!(world.deliveries.len(), WINDOW, "none is answered");
    world.answer_at(0);
    all(&mut world, [Step::Room(200), Step::Write]);
    assert_eq!(world.deliveries.len(), WINDOW + 1);
}

#[test]
fn slow_requests_hold_up_the_rest_only_until_the_tick() {
    let mut world = held();
    ask(&mut world, 2 * WINDOW + 1, MUTATING);
    all(&mut world, RETURN);
    all(&mut world, [Step::Room(200), Step::Write, Step::Wait(600)]);
    all(&mut world, [Step::Room(200), Step::Write]);
    assert_eq!(world.deliveries.len(), 2 * WINDOW);
    all(&mut world, [Step::Wait(600), Step::Room(200), Step::Write]);
    assert_eq!(world.deliveries.len(), 2 * WINDOW + 1);
    assert!(!world.is_flushing());
}

#[test]
fn reads_that_are_said_again_count_and_what_is_asked_meanwhile_comes_behind() {
    let mut world = held();
    all(&mut world, RETURN);
    ask(&mut world, WINDOW, READ);
    all(&mut world, [Step::Write, Step::Wait(6000), Step::Lose]);
    ask(&mut world, 5, MUTATING);
    all(&mut world, RETURN);
    ask(&mut world, 1, MUTATING);
    let before = world.deliveries.len();
    all(&mut world, [Step::Room(200), Step::Write]);
    assert_eq!(world.deliveries.len() - before, WINDOW, "the reads again");
    all(&mut world, [Step::Wait(600), Step::Room(200), Step::Write]);
    let last: Vec<_> = world
        .deliveries
        .iter()
        .rev()
        .take(6)
        .map(|id| number(id))
        .collect();
    assert_eq!(last, [38, 37, 36, 35, 34, 33]);
}

#[test]
fn a_client_that_closes_has_said_everything_before() {
    let mut world = held();
    ask(&mut world, 100, MUTATING);
    all(&mut world, RETURN);
    all(&mut world, [Step::Room(10), Step::ClientClose, Step::Write]);
    assert_eq!(world.deliveries.len(), 100);
}

#[test]
fn what_a_silent_gateway_was_not_sent_is_answered_before_its_sender_gives_up() {
    let mut world = held();
    ask(&mut world, WINDOW + 1, MUTATING);
    all(&mut world, RETURN);
    all(&mut world, [Step::Room(200), Step::Write]);
    all(&mut world, [Step::Phase(2), Step::Wait(24_000)]);
    let waiting = format!("0-{}", WINDOW + 1);
    assert_eq!(world.told(&waiting), Some("not_started"));
    assert_eq!(world.told("0-1"), None, "it may still be answered");
    world.step(Step::Wait(3000));
    assert_eq!(world.told("0-1"), Some("may_have_executed"));
}

/// It would come ahead of what is kept, and no word of ours could tell the two apart.
#[test]
fn an_id_that_is_in_use_is_not_said_again_while_requests_are_kept() {
    let mut world = held();
    ask(&mut world, WINDOW + 2, MUTATING);
    all(&mut world, RETURN);
    all(&mut world, [Step::Room(200), Step::Write]);
    all(
        &mut world,
        [Step::AskAgain(0), Step::AskAgain(33), Step::Write],
    );
    assert_eq!(world.deliveries.len(), WINDOW);
    assert_eq!(world.delivered("0-1"), 1);
    assert_eq!(world.delivered("0-34"), 0);
}

#[test]
fn a_client_that_sends_no_more_has_its_reads_said_again_too() {
    let mut world = held();
    all(&mut world, RETURN);
    ask(&mut world, 3, READ);
    all(&mut world, [Step::Write, Step::Wait(6000), Step::Lose]);
    ask(&mut world, 1, MUTATING);
    all(&mut world, RETURN);
    all(&mut world, [Step::ClientEnds, Step::Write]);
    assert_eq!(world.deliveries[3..], ["0-1", "0-2", "0-3", "0-4"]);
}

#[test]
fn what_is_kept_behind_a_shutdown_is_answered_when_its_sender_sends_no_more() {
    let mut world = held();
    all(&mut world, RETURN);
    world.step(Step::Shutdown);
    ask(&mut world, 1, MUTATING);
    all(&mut world, [Step::ClientEnds, Step::Write]);
    assert_eq!(world.told("0-1"), Some("not_started"));
}

#[test]
fn a_gateway_that_sends_the_client_away_does_not_leave_it_waiting_for_what_was_not_sent() {
    let mut world = held();
    ask(&mut world, WINDOW + 2, MUTATING);
    all(&mut world, RETURN);
    all(&mut world, [Step::Room(200), Step::Write]);
    world.step(Step::GatewayClose(1008));
    assert_eq!(world.told("0-33"), Some("not_started"));
    assert_eq!(world.told("0-1"), None, "that one it had");
}

/// It was told that it was not done.
#[test]
fn what_was_kept_before_a_handshake_broke_off_is_not_sent_by_a_later_one() {
    let mut world = World::new(0, 0, false);
    all(&mut world, [Step::Connect, Step::Write, Step::Shutdown]);
    ask(&mut world, 1, MUTATING);
    world.step(Step::Lose);
    assert_eq!(world.told("0-1"), Some("not_started"));
    for _ in 0..2 {
        all(&mut world, RETURN);
        all(&mut world, [Step::Write, Step::Wait(6000), Step::Lose]);
    }
    assert_eq!(world.delivered("0-1"), 0);
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..40).prop_map(Step::Room),
        4 => any::<prop::sample::Index>().prop_map(Step::Answer),
        4 => Just(Step::Write),
        2 => (0u8..2).prop_map(|kind| Step::Ask { id: 0, kind }),
        2 => (0u32..900).prop_map(Step::Wait),
        1 => Just(Step::Lose),
        1 => Just(Step::Shutdown),
        2 => prop::sample::select(vec![0u8, 1, 2, 3, 4]).prop_map(Step::Phase),
        1 => any_other(),
        1 => any_long(),
        1 => Just(Step::AskInParts),
        1 => Just(Step::Ends),
        1 => prop_oneof![
            4 => Just(Step::NumberedEvent),
            1 => Just(Step::ClientClose),
            1 => Just(Step::ClientEnds),
            1 => Just(Step::Stop),
            1 => Just(Step::Revoked),
        ],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_flush_ends_with_everything_sent_once_and_in_order(
        kept in prop::collection::vec(0u8..2, 1..200),
        room in any_room(),
        steps in prop::collection::vec(any_step(), 0..80),
    ) {
        let mut world = held();
        world.keep_at_most(room);
        for kind in kept {
            world.step(Step::Ask { id: 0, kind });
        }
        all(&mut world, RETURN);
        for step in steps {
            let lost = matches!(step, Step::Lose);
            world.step(step);
            world.check();
            if lost {
                // Lost again soon after a return, it waits for a while.
                world.step(Step::Wait(5000));
                all(&mut world, RETURN);
            }
        }
        all(&mut world, RETURN);
        world.flushes_to_its_end();
        let open = world.is_open();
        for (id, mutating) in world.asked() {
            let (delivered, answers) = (world.delivered(id), world.answers(id));
            prop_assert!(answers <= 1 && (!mutating || delivered <= 1));
            prop_assert!(!open || delivered > 0 || answers == 1, "{} is lost", id);
        }
        let mutating: Vec<u32> = world
            .deliveries
            .iter()
            .filter(|id| {
                let mutating = world.asked().any(|(asked, mutating)| asked == *id && mutating);
                mutating || id.starts_with("other")
            })
            .map(|id| number(id))
            .collect();
        prop_assert!(mutating.is_sorted(), "{:?}", mutating);
    }
}
