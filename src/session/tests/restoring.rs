//! What is said again for a session's standing, and is refused.

use super::world::{Step, World};
use super::{FORBIDDEN, GOING, RETURN, STARTING};

const SUBSCRIPTION: u8 = 2;
const SETTING: u8 = 4;

fn all(world: &mut World, steps: impl IntoIterator<Item = Step>) {
    for step in steps {
        world.step(step);
        world.check();
    }
}

/// A session that had subscribed to something, in front of a gateway that has just taken it back.
fn back() -> World {
    let mut world = World::new(0, 0, false);
    all(&mut world, [Step::Connect, Step::Write, Step::Hello(0)]);
    let subscription = Step::Ask {
        id: 0,
        kind: SUBSCRIPTION,
    };
    all(&mut world, [subscription, Step::Write]);
    world.answer_at(0);
    all(&mut world, [Step::Wait(6000), Step::Lose]);
    all(&mut world, RETURN);
    world
}

fn returns(world: &mut World) {
    all(world, [Step::Phase(4), Step::Wait(4000)]);
    all(world, RETURN);
    all(world, [Step::Write]);
}

#[test]
fn a_gateway_that_goes_away_again_is_waited_for_and_told_the_rest_then() {
    for error in [GOING, STARTING] {
        let mut world = back();
        let setting = Step::Ask {
            id: 0,
            kind: SETTING,
        };
        all(&mut world, [setting, Step::Write, Step::RefuseOurs(error)]);
        assert!(world.is_away(), "{error}");
        assert_eq!(world.told("0-2"), None, "it was not sent: {error}");
        returns(&mut world);
        assert_eq!(world.subscriptions, 2, "{error}");
        world.answer_at(0);
        all(&mut world, [Step::Room(32), Step::Write]);
        assert_eq!(world.deliveries, ["0-1", "0-2"], "{error}");
        assert!(world.is_open(), "{error}");
    }
}

#[test]
fn a_gateway_that_says_so_at_every_return_and_calls_itself_ready_is_not_asked_for_ever() {
    let mut world = back();
    let mut refusals = 0;
    all(&mut world, [Step::Write]);
    while !world.is_closed() && refusals < 10 {
        all(&mut world, [Step::RefuseOurs(GOING)]);
        refusals += 1;
        returns(&mut world);
    }
    assert_eq!(refusals, 5);
}

#[test]
fn whoever_may_not_have_it_any_more_reconnects() {
    let mut world = back();
    all(&mut world, [Step::Write, Step::RefuseOurs(FORBIDDEN)]);
    assert!(world.is_closed());
}

/// A gateway without a word holds up what is kept for no longer than a tick.
#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let mut world = back();
    let setting = Step::Ask {
        id: 0,
        kind: SETTING,
    };
    all(&mut world, [setting, Step::Room(32), Step::Write]);
    assert_eq!(world.delivered("0-2"), 0);
    all(&mut world, [Step::Wait(600), Step::Room(32), Step::Write]);
    assert_eq!(world.delivered("0-2"), 1);
}
