//! The kit's clients behave as the real ones were measured to, here straight at the gateway.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::kit::frame::{CONTINUATION, Frame};
use crate::kit::gateway::{Event, Options, Protocol, ScriptedGateway};
use crate::kit::{Client, Outcome, Raw, Role, Target, http};

const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn the_official_client_sees_1012_and_is_back_a_second_later() {
    let gateway = ScriptedGateway::start().await;
    let client = Client::connected(Role::official(), Target::plain(gateway.addr())).await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], gateway.boot_id());
    let slow = client.send_request("config.set", json!({"name":"a","wait":"never"}));
    gateway
        .wait_for("the request", |journal| journal.executions("a") == 1)
        .await;

    let stopped = Instant::now();
    gateway.restart(MOMENT, MOMENT).await;
    assert_eq!(client.outcome(&slow).await, Outcome::Lost);
    client.hello(2).await;
    let record = client.record();
    assert!(stopped.elapsed() > Duration::from_secs(1));
    assert_eq!(record.disconnects[0].code, 1012);
    record.assert_sound();
    assert_eq!(
        client.event("shutdown", 1).await["reason"],
        "gateway stopping"
    );
}

#[tokio::test]
async fn the_official_client_retries_quietly_while_the_gateway_is_starting() {
    let gateway = ScriptedGateway::stopped(Options::default());
    gateway.begin_starting().await;
    let client = Client::start(Role::official(), Target::plain(gateway.addr()));
    client
        .wait_for("two retries", |record| record.quiet_retries == 2)
        .await;
    gateway.ready();
    client.hello(1).await;
    client.record().assert_sound();
}

#[tokio::test]
async fn the_control_ui_is_back_at_once_after_a_gap() {
    let gateway = ScriptedGateway::start().await;
    let client = Client::connected(Role::control_ui(), Target::plain(gateway.addr())).await;
    let gap = json!({"type":"event","event":"x","payload":{},"seq":3});
    gateway.conn(1).await.send_json(&gap);
    client.hello(2).await;
    assert_eq!(client.record().gaps, [(1, 3)]);
}

#[tokio::test]
async fn the_node_client_answers_a_second_challenge_and_the_official_one_does_not() {
    let gateway = ScriptedGateway::start().await;
    let node = Client::connected(Role::node(), Target::plain(gateway.addr())).await;
    let official = Client::connected(Role::official(), Target::plain(gateway.addr())).await;
    for conn in gateway.conns() {
        let nonce = json!({"nonce":conn.nonce()});
        let event = json!({"type":"event","event":"connect.challenge","payload":nonce});
        conn.send_json(&event);
    }
    gateway
        .wait_for("a second connect", |journal| {
            journal.requests("connect").len() == 1
        })
        .await;
    official.request("health", json!({})).await.ok();
    drop((node, official));
    assert_eq!(gateway.journal().requests("connect").len(), 1);
}

#[tokio::test]
async fn a_raw_client_keeps_fragments_apart_and_the_echo_returns_them_so() {
    let options = Options {
        protocol: Protocol::Echo,
        ..Options::default()
    };
    let gateway = ScriptedGateway::with(options).await;
    let target = Target::plain(gateway.addr());
    let mut raw = Raw::open(&target, "/any", &[]).await.unwrap();
    let sent = [
        Frame::text("one").not_final(),
        Frame::ping("between"),
        Frame::new(CONTINUATION, vec![0xff; 70_000]),
        Frame::binary(vec![7; 200]),
    ];
    for frame in &sent {
        raw.send(frame).await;
    }
    let mut seen = Vec::new();
    for _ in &sent {
        seen.push(raw.next().await);
    }
    let expected = [
        sent[0].clone(),
        Frame::pong("between"),
        sent[2].clone(),
        sent[3].clone(),
    ];
    assert_eq!(seen, expected);
    raw.send(&Frame::close(4001, "bye")).await;
    assert_eq!(raw.closed().await, (4001, "bye".to_owned()));
    gateway
        .wait_for("the close", |journal| journal.closes() == [4001])
        .await;
}

#[tokio::test]
async fn plain_http_in_each_phase() {
    let gateway = ScriptedGateway::start().await;
    let target = Target::plain(gateway.addr());
    let echo = http::request(&target, "POST", "/echo/a?b", &[("X-A", "1")], b"hi")
        .await
        .json();
    assert_eq!(
        (&echo["method"], &echo["path"]),
        (&json!("POST"), &json!("/echo/a?b"))
    );
    assert_eq!(echo["body"], "hi");
    assert_eq!(http::get(&target, "/startupz", &[]).await.status, 200);
    gateway.drain();
    let draining = http::get(&target, "/startupz", &[]).await;
    assert_eq!(
        (draining.status, &draining.json()["status"]),
        (503, &json!("draining"))
    );
    let upgrade = Raw::open(&target, "/", &[]).await.err().unwrap();
    assert_eq!(
        (upgrade.status, upgrade.text().as_str()),
        (503, "Gateway websocket admission closed")
    );
    let local = http::get(&target, "/echo", &[("X-Forwarded-For", "127.0.0.1")]).await;
    assert_eq!(local.status, 403);
    assert!(
        gateway
            .journal()
            .events()
            .any(|event| matches!(event, Event::Http { .. }))
    );
}
