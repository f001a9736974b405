//! Clients that connect while the gateway is away.

use serde_json::json;

use crate::kit::gateway::{Options, ScriptedGateway};
use crate::kit::{Client, Proxy, Raw, Role, ms};

/// Soon greeted, and then with time to say who one is.
const SHORT: &str = "[hold]\nupgrade = \"300ms\"\nhandshake = \"3s\"";

/// A gateway that was never there yet, and a proxy that has noticed.
async fn absent(settings: &str) -> (ScriptedGateway, Proxy) {
    let gateway = ScriptedGateway::stopped(Options::default());
    let proxy = Proxy::with(&gateway, settings).await;
    (gateway, proxy)
}

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    tokio::time::sleep(ms(100)).await;
    gateway.ready();
}

#[tokio::test]
async fn an_upgrade_waits_and_its_first_attempt_just_works() {
    for role in [
        Role::official(),
        Role::backend(),
        Role::control_ui(),
        Role::node(),
    ] {
        let (gateway, proxy) = absent("").await;
        let client = Client::start(role, proxy.target());
        tokio::time::sleep(ms(1000)).await;
        back(&gateway).await;
        client.hello(1).await;
        client.record().assert_untouched();
        assert_eq!(client.record().quiet_retries, 0);
        assert_eq!(
            gateway.journal().refused("startup-sidecars"),
            0,
            "let through too early"
        );
    }
}

#[tokio::test]
async fn an_upgrade_waits_while_the_gateway_starts_and_while_it_drains() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let open = Client::connected(Role::backend(), proxy.target()).await;
    gateway.drain();
    open.request("config.set", json!({})).await.error();
    let newcomer = Client::start(Role::official(), proxy.target());
    tokio::time::sleep(ms(300)).await;
    gateway.restart(ms(300), ms(500)).await;
    newcomer.hello(1).await;
    newcomer.record().assert_untouched();
    assert_eq!(gateway.journal().refused("startup-sidecars"), 0);
}

#[tokio::test]
async fn whoever_waits_too_long_is_greeted_and_told_to_come_back() {
    let (_gateway, proxy) = absent(SHORT).await;
    let mut raw = Raw::open(&proxy.target(), "/", &[])
        .await
        .expect("a greeting");
    let challenge = raw.event("connect.challenge").await;
    assert!(
        challenge["nonce"]
            .as_str()
            .is_some_and(|nonce| !nonce.is_empty())
    );
    let connect = Role::official().connect("c", challenge["nonce"].as_str());
    raw.send(&crate::kit::Frame::text(connect)).await;
    let answer = raw.answer("c").await;
    assert_eq!(answer["ok"], false);
    let error = &answer["error"];
    assert_eq!(
        (&error["code"], &error["retryable"]),
        (&json!("UNAVAILABLE"), &json!(true))
    );
    assert_eq!(error["details"]["reason"], "startup-sidecars");
    assert!(
        error["retryAfterMs"]
            .as_u64()
            .is_some_and(|after| after > 0)
    );
    assert_eq!(raw.closed().await, (1013, "gateway starting".to_owned()));
}

#[tokio::test]
async fn nobody_hears_of_a_failure_however_long_the_gateway_is_away() {
    let (gateway, proxy) = absent(SHORT).await;
    let official = Client::start(Role::official(), proxy.target());
    let control_ui = Client::start(Role::control_ui(), proxy.target());
    for client in [&official, &control_ui] {
        client
            .wait_for("two greetings", |record| record.quiet_retries >= 2)
            .await;
    }
    back(&gateway).await;
    for client in [&official, &control_ui] {
        client.hello(1).await;
        client.record().assert_sound();
        assert_eq!(client.record().disconnects, []);
    }
}

#[tokio::test]
async fn a_greeted_client_is_answered_the_moment_the_gateway_is_ready() {
    let (gateway, proxy) = absent("[hold]\nupgrade = \"300ms\"\nhandshake = \"14s\"").await;
    let mut raw = Raw::open(&proxy.target(), "/", &[])
        .await
        .expect("a greeting");
    let nonce = raw.event("connect.challenge").await;
    let connect = Role::official().connect("c", nonce["nonce"].as_str());
    raw.send(&crate::kit::Frame::text(connect)).await;
    back(&gateway).await;
    let asked = tokio::time::Instant::now();
    let error = raw.answer("c").await["error"].take();
    assert!(
        asked.elapsed() < ms(10_000),
        "it waited for hold.handshake instead"
    );
    assert_eq!(error["details"]["reason"], "startup-sidecars");
    assert!(error["retryAfterMs"].as_u64().unwrap() <= 500, "{error}");
    assert_eq!(raw.closed().await.0, 1013);
}

#[tokio::test]
async fn a_greeted_client_that_never_connects_is_sent_away_in_time() {
    let (_gateway, proxy) = absent(SHORT).await;
    let mut raw = Raw::open(&proxy.target(), "/", &[])
        .await
        .expect("a greeting");
    raw.event("connect.challenge").await;
    assert_eq!(raw.closed().await.0, 1013);
}

#[tokio::test]
async fn a_greeted_client_that_talks_nonsense_is_not_kept() {
    let (_gateway, proxy) = absent(SHORT).await;
    let mut raw = Raw::open(&proxy.target(), "/", &[])
        .await
        .expect("a greeting");
    raw.send(&crate::kit::Frame::text("nonsense")).await;
    raw.send(&crate::kit::Frame::binary(vec![0; 10])).await;
    raw.closed().await;
}

#[tokio::test]
async fn an_upgrade_with_subprotocols_is_not_accepted_on_the_gateways_behalf() {
    let (_gateway, proxy) = absent(SHORT).await;
    let offer = [("Sec-WebSocket-Protocol", "chat")];
    let refusal = Raw::open(&proxy.target(), "/", &offer)
        .await
        .err()
        .expect("a refusal");
    assert_eq!(refusal.status, 503);
    assert!(
        refusal
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    let error = refusal.json()["error"].take();
    assert_eq!(
        (&error["type"], &error["state"]),
        (&json!("gateway_down"), &json!("down"))
    );
    assert_eq!(error["reason"], "refused");
    assert!(error["retryAfterMs"].is_u64());
}

#[tokio::test]
async fn a_client_that_leaves_while_its_upgrade_is_held_costs_the_gateway_nothing() {
    let (gateway, proxy) = absent("").await;
    for _ in 0..5 {
        let target = proxy.target();
        let opening = Raw::open(&target, "/", &[]);
        assert!(
            tokio::time::timeout(ms(200), opening).await.is_err(),
            "not held"
        );
    }
    back(&gateway).await;
    let client = Client::connected(Role::official(), proxy.target()).await;
    client.record().assert_untouched();
    assert_eq!(gateway.journal().upgrades().len(), 1);
}
