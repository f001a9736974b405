//! Ten thousand wrong passwords, from one address and from a thousand, and honest people meanwhile.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::kit::*;
use crate::auth::lane::{Full, Rank, Slot};
use crate::auth::{Attempt, SignInRefused};

/// Outcomes of one attack.
#[derive(Debug, Default)]
struct Tally {
    looked_at: usize,
    limited: usize,
    busy: usize,
}

async fn guess(world: &World, user: &str, address: IpAddr, number: usize) -> SignInRefused {
    let attempt = Attempt {
        user,
        password: Zeroizing::new(format!("guess {number}")),
        address,
        headers: &HeaderMap::new(),
    };
    let refused = world.desk.sign_in(&world.auth, attempt).await;
    refused.err().unwrap()
}

/// All at once, from so many addresses, for the user that `name` says.
async fn attack(
    world: &Arc<World>,
    addresses: u32,
    name: fn(usize) -> String,
) -> JoinSet<SignInRefused> {
    let mut attempts = JoinSet::new();
    for number in 0..10_000 {
        let world = Arc::clone(world);
        let low = u32::try_from(number).unwrap() % addresses;
        let address = Ipv4Addr::from_bits(0x0a00_0000 + low).into();
        attempts.spawn(async move { guess(&world, &name(number), address, number).await });
    }
    tokio::task::yield_now().await;
    attempts
}

async fn tally(attempts: JoinSet<SignInRefused>) -> Tally {
    let mut tally = Tally::default();
    for refused in attempts.join_all().await {
        match refused {
            SignInRefused::Wrong => tally.looked_at += 1,
            SignInRefused::TooMany { .. } => tally.limited += 1,
            SignInRefused::Busy { .. } => tally.busy += 1,
        }
    }
    tally
}

/// Somebody on a known device, and somebody else at an address that nothing is known of.
async fn honest_people_get_in(world: &World, known: &mut Browser) {
    let known = world.try_in(known, NICK, "nick's password");
    let mut fresh = Browser::at("203.0.113.9");
    let fresh = world.try_in(&mut fresh, MARA, "mara's password");
    let both = async { tokio::join!(known, fresh) };
    let (known, fresh) = timeout(Duration::from_secs(60), both)
        .await
        .expect("promptly");
    known.unwrap();
    fresh.unwrap();
}

#[tokio::test]
async fn one_address_against_one_user() {
    let world = Arc::new(world());
    let mut known = world.nick().await;
    known.address = ip("10.0.0.0");
    let attempts = attack(&world, 1, |_| NICK.to_owned()).await;
    honest_people_get_in(&world, &mut known).await;
    let tally = tally(attempts).await;
    assert!(tally.looked_at <= 12 && tally.limited > 9_900, "{tally:?}");
    // His own address and name are blocked for strangers, but not his device.
    let stranger = guess(&world, NICK, ip("198.51.100.1"), 0).await;
    assert!(
        matches!(stranger, SignInRefused::TooMany { .. }),
        "{stranger:?}"
    );
}

#[tokio::test]
async fn a_thousand_addresses_against_one_user() {
    let world = Arc::new(world());
    let mut known = world.nick().await;
    let attempts = attack(&world, 1_000, |_| NICK.to_owned()).await;
    honest_people_get_in(&world, &mut known).await;
    let tally = tally(attempts).await;
    assert!(tally.looked_at <= 12, "{tally:?}");
}

#[tokio::test]
async fn a_thousand_addresses_against_everybody() {
    let world = Arc::new(world());
    let mut known = world.nick().await;
    let attempts = attack(&world, 1_000, |number| format!("user{number}")).await;
    honest_people_get_in(&world, &mut known).await;
    let tally = tally(attempts).await;
    assert!(tally.looked_at <= 6_000, "{tally:?}");
    assert!(world.desk.guesses.gate.len() <= 20_001);
}

#[tokio::test(start_paused = true)]
async fn guessing_goes_on_at_a_crawl() {
    let world = world();
    let mut known = world.nick().await;
    let (address, start) = (ip("10.0.0.1"), Instant::now());
    let mut looked_at = 0;
    while start.elapsed() < DAY {
        match guess(&world, NICK, address, looked_at).await {
            SignInRefused::Wrong => looked_at += 1,
            SignInRefused::TooMany { retry_after } => tokio::time::advance(retry_after).await,
            busy @ SignInRefused::Busy { .. } => panic!("{busy:?}"),
        }
    }
    assert!(looked_at < 320, "{looked_at}");
    // His own device is not among those who wait.
    assert!(
        world
            .try_in(&mut known, NICK, "nick's password")
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_known_device_has_a_delay_of_its_own() {
    let world = world();
    let mut known = world.nick().await;
    for _ in 0..6 {
        let wrong = world.try_in(&mut known, NICK, "typing error").await;
        assert_eq!(wrong.err(), Some(SignInRefused::Wrong));
    }
    let retry_after = Duration::from_secs(1);
    let limited = world.try_in(&mut known, NICK, "nick's password").await;
    assert_eq!(limited.err(), Some(SignInRefused::TooMany { retry_after }));
    tokio::time::advance(retry_after).await;
    assert!(
        world
            .try_in(&mut known, NICK, "nick's password")
            .await
            .is_ok()
    );
    // It is known for its own user only.
    let mut other = known.clone();
    for _ in 0..6 {
        let _ = world.try_in(&mut other, MARA, "a guess").await;
    }
    let limited = world.try_in(&mut other, MARA, "mara's password").await;
    assert!(matches!(limited.err(), Some(SignInRefused::TooMany { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_device_of_an_older_password_is_a_stranger() {
    let mut world = world();
    let (mut known, mut new) = (world.nick().await, Browser::at("192.0.2.8"));
    // Guesses of others delay every stranger who says to be Nick.
    for number in 0..6 {
        let from = Ipv4Addr::from_bits(0x0a00_0000 + number).into();
        let wrong = guess(&world, NICK, from, 0).await;
        assert_eq!(wrong, SignInRefused::Wrong);
    }
    let right = world.try_in(&mut known, NICK, "nick's password").await;
    assert!(right.is_ok());
    // The same password with another salt is a new one, too.
    world.auth.users = vec![person(NICK, "nick's password")];
    let delayed = world.try_in(&mut known, NICK, "nick's password").await;
    assert!(matches!(delayed.err(), Some(SignInRefused::TooMany { .. })));
    // It is known again once the new one was given there.
    tokio::time::advance(Duration::from_secs(60)).await;
    for browser in [&mut known, &mut new] {
        let right = world.try_in(browser, NICK, "nick's password").await;
        assert!(right.is_ok());
    }
    for number in 0..6 {
        let from = Ipv4Addr::from_bits(0x0a00_0100 + number).into();
        guess(&world, NICK, from, 0).await;
    }
    let right = world.try_in(&mut known, NICK, "nick's password").await;
    assert!(right.is_ok());
}

const NEW: Rank = Rank {
    crowd: 0,
    failures: 0,
};

/// The one hash that strangers have computed at a time.
fn only_slot(world: &World) -> Slot {
    let enter = || world.desk.guesses.strangers.enter(NEW).now_or_never();
    let slot = enter().unwrap().unwrap();
    assert!(enter().is_none());
    slot
}

/// All places of strangers are taken, as by a flood of slow hashes, by some that have not failed before.
async fn taken(world: &World) -> (Vec<Slot>, Vec<tokio::task::JoinHandle<Result<Slot, Full>>>) {
    let slots = vec![only_slot(world)];
    let wait = |_| {
        let lane = world.desk.guesses.strangers.clone();
        tokio::spawn(async move { lane.enter(NEW).await })
    };
    let queue = (0..64).map(wait).collect();
    tokio::task::yield_now().await;
    (slots, queue)
}

#[tokio::test(start_paused = true)]
async fn known_devices_never_wait_behind_strangers() {
    let world = world();
    let mut known = world.nick().await;
    let (_slots, _queue) = taken(&world).await;
    assert!(
        world
            .try_in(&mut known, NICK, "nick's password")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn one_network_of_many_addresses_pushes_nobody_else_aside() {
    let world = Arc::new(world());
    let slot = only_slot(&world);
    let mut attempts = JoinSet::new();
    for number in 0..65_536 {
        let world = Arc::clone(&world);
        // Each from a /64 of its own, all in one /48, each for another user.
        let network = 0x2001_0db8_0001_u128 << 80 | (number as u128) << 64;
        let address = Ipv6Addr::from_bits(network | 1).into();
        attempts.spawn(async move {
            let user = format!("user{number}");
            guess(&world, &user, address, number).await
        });
    }
    while attempts.len() > 64 {
        let refused = attempts.join_next().await.unwrap().unwrap();
        assert!(matches!(refused, SignInRefused::Busy { .. }), "{refused:?}");
    }
    assert!(world.desk.guesses.gate.len() <= 4 * 64);
    let (mut mistyped, mut new) = (Browser::at("2001:db8:2::1"), Browser::at("203.0.113.9"));
    let both = async {
        tokio::join!(
            world.try_in(&mut mistyped, NICK, "typing error"),
            world.try_in(&mut new, MARA, "mara's password"),
            async { drop(slot) }
        )
    };
    let (wrong, right, ()) = timeout(Duration::from_secs(60), both).await.unwrap();
    assert_eq!(wrong.err(), Some(SignInRefused::Wrong));
    assert!(right.is_ok());
}

#[tokio::test(start_paused = true)]
async fn where_no_more_can_wait_it_is_said_and_not_held_against_anybody() {
    let world = world();
    let (slots, queue) = taken(&world).await;
    let mut browser = Browser::at("192.0.2.9");
    let retry_after = Duration::from_secs(2);
    for _ in 0..20 {
        // An unknown user goes the same way, so that neither answer nor time tells.
        for user in [NICK, "nobody"] {
            let busy = world.try_in(&mut browser, user, "nick's password").await;
            assert_eq!(busy.err(), Some(SignInRefused::Busy { retry_after }));
        }
    }
    assert_eq!(world.desk.guesses.gate.len(), 0);
    drop((slots, queue));
    tokio::task::yield_now().await;
    assert!(
        world
            .try_in(&mut browser, NICK, "nick's password")
            .await
            .is_ok()
    );
}

/// Signing in oneself buys no tries at others, and what one mistyped oneself is forgiven.
#[tokio::test(start_paused = true)]
async fn a_success_of_ones_own_is_no_licence_to_guess_at_others() {
    let world = world();
    let (mut insider, mut guesser) = (Browser::at("192.0.2.7"), Browser::at("192.0.2.7"));
    let (mut looked_at, mut sprayed) = (0, 0);
    while sprayed < 100 {
        // Without its cookies: as somebody new each time.
        insider.cookies.clear();
        let _ = world.try_in(&mut insider, NICK, "nick's password").await;
        let user = format!("user {sprayed}");
        let refused = world.try_in(&mut guesser, &user, "x").await.err().unwrap();
        looked_at += usize::from(refused == SignInRefused::Wrong);
        sprayed += 1;
    }
    assert!(looked_at <= 6, "{looked_at}");
    let mut elsewhere = Browser::at("198.51.100.7");
    for _ in 0..20 {
        elsewhere.cookies.clear();
        for _ in 0..4 {
            let refused = world.try_in(&mut elsewhere, MARA, "mistyped").await.err();
            assert_eq!(refused, Some(SignInRefused::Wrong));
        }
        let signed_in = world.try_in(&mut elsewhere, MARA, "mara's password").await;
        signed_in.expect("nobody has to wait for that");
    }
}
