//! Who waits for how long while a session is held, and what becomes of what was given back.

use super::RETURN;
use super::world::{Step, World};

const CONTROL_UI: u8 = 4;
const BACKEND: u8 = 0;
const CHAT: u8 = 0;
const SETTING: u8 = 4;

fn held(client: u8) -> World {
    let mut world = World::new(client, 0, false);
    let steps = [Step::Connect, Step::Write, Step::Hello(0), Step::Lose];
    all(&mut world, steps);
    world
}

fn all(world: &mut World, steps: impl IntoIterator<Item = Step>) {
    for step in steps {
        world.step(step);
        world.check();
    }
}

fn ask(world: &mut World, kind: u8) {
    all(world, [Step::Ask { id: 0, kind }]);
}

/// Its page would say it again only seconds after the return, or reload itself.
#[test]
fn what_a_person_typed_waits_for_the_return_and_what_is_around_it_is_given_back_in_time() {
    let mut world = held(CONTROL_UI);
    for kind in [SETTING, CHAT, SETTING, CHAT] {
        ask(&mut world, kind);
    }
    all(&mut world, [Step::Wait(10_000)]);
    ask(&mut world, SETTING);
    all(&mut world, [Step::Wait(13_000)]);
    for id in ["0-1", "0-3"] {
        assert_eq!(world.told(id), Some("not_started"), "{id}");
    }
    for id in ["0-2", "0-4", "0-5"] {
        assert_eq!(world.told(id), None, "{id}");
    }
    all(&mut world, RETURN);
    all(&mut world, [Step::Room(32), Step::Write]);
    assert_eq!(world.deliveries, ["0-2", "0-4", "0-5"]);
}

#[test]
fn a_long_outage_is_waited_out_but_no_longer_than_the_session_is_held() {
    let mut world = held(CONTROL_UI);
    ask(&mut world, CHAT);
    all(&mut world, [Step::Wait(59_000)]);
    assert_eq!(world.told("0-1"), None);
    all(&mut world, [Step::Wait(2_000)]);
    assert_eq!(world.told("0-1"), Some("not_started"));
    assert!(!world.is_away(), "the hold is over");
}

#[test]
fn another_client_gives_its_message_up_and_is_told_before() {
    let mut world = held(BACKEND);
    ask(&mut world, CHAT);
    all(&mut world, [Step::Wait(23_000)]);
    assert_eq!(world.told("0-1"), Some("not_started"));
}

/// Its client is slow, and its rest comes when nobody wants it any more.
#[test]
fn a_request_that_is_still_coming_is_given_back_too_and_its_rest_is_not_kept() {
    let mut world = held(CONTROL_UI);
    ask(&mut world, CHAT);
    all(&mut world, [Step::AskLong { kind: SETTING }]);
    all(&mut world, [Step::Wait(23_000), Step::Ends]);
    assert_eq!(world.told("0-2"), Some("not_started"));
    ask(&mut world, CHAT);
    all(&mut world, RETURN);
    all(&mut world, [Step::Room(32), Step::Write]);
    assert_eq!(world.deliveries, ["0-1", "0-3"]);
}

#[test]
fn a_hung_gateway_that_has_what_a_person_typed_may_still_answer_it() {
    let mut world = held(CONTROL_UI);
    all(&mut world, RETURN);
    all(&mut world, [Step::Wait(600)]);
    for kind in [CHAT, SETTING] {
        ask(&mut world, kind);
    }
    all(
        &mut world,
        [Step::Write, Step::Phase(2), Step::Wait(30_000)],
    );
    assert_eq!(world.told("0-1"), None);
    assert_eq!(world.told("0-2"), Some("may_have_executed"));
    all(&mut world, [Step::Wait(40_000)]);
    assert_eq!(world.told("0-1"), Some("may_have_executed"));
}
