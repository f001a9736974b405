//! Where two things happen at once.

use serde_json::json;

use crate::kit::client::request;
use crate::kit::frame::{CONTINUATION, PONG};
use crate::kit::gateway::{ScriptedGateway, Stop, UpgradeAnswer};
use crate::kit::{Client, Frame, Proxy, Raw, Role, ms};

async fn session(settings: &str) -> (ScriptedGateway, Proxy, Raw) {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, settings).await;
    let (raw, hello) = Raw::connected(&proxy.target(), &Role::backend()).await;
    assert_eq!(hello["ok"], true);
    (gateway, proxy, raw)
}

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    gateway.ready();
}

#[tokio::test]
async fn shutdown_and_close_in_one_segment() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    let shutdown = json!({"type":"event","event":"shutdown","payload":{},"seq":1});
    let mut wire = Frame::text(shutdown.to_string()).encode();
    wire.extend(Frame::close(1012, "service restart").encode());
    let conn = gateway.conn(1).await;
    conn.send_bytes(wire);
    conn.flushed().await;
    gateway.stop(Stop::Fin).await;
    back(&gateway).await;
    client.event("gateway.up", 1).await;
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
}

#[tokio::test]
async fn a_shutdown_event_keeps_its_number() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::official(), proxy.target()).await;
    gateway.broadcast("sessions.changed", &json!({}));
    gateway.restart(ms(200), ms(100)).await;
    client.hello(2).await;
    let record = client.record();
    assert_eq!(record.gaps, [], "a numbered event was swallowed");
    let shutdown = record
        .frames
        .iter()
        .find(|seen| seen.value["event"] == "shutdown")
        .unwrap();
    assert_eq!(shutdown.value["seq"], 2);
    assert!(shutdown.value["payload"]["restartExpectedMs"].as_u64() > Some(1500));
}

#[tokio::test]
async fn a_challenge_that_dribbles_in_is_waited_for() {
    let gateway = ScriptedGateway::start().await;
    gateway.answer_upgrades(UpgradeAnswer::Slow);
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.outage(Stop::Kill, ms(100), ms(100)).await;
    client.event("gateway.up", 1).await;
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
}

#[tokio::test]
async fn events_of_the_new_gateway_pass_from_the_first_on() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    for _ in 0..5 {
        client
            .request("sessions.messages.subscribe", json!({"key": "k"}))
            .await
            .ok();
    }
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    back(&gateway).await;
    gateway
        .wait_for("the replay", |journal| journal.hellos() == 2)
        .await;
    for number in 1..=50 {
        gateway.broadcast("numbered", &json!({"number": number}));
    }
    client.event("numbered", 50).await;
    let numbers = client.record().events("numbered");
    let expected: Vec<_> = (1..=50).map(|number| json!({"number": number})).collect();
    assert_eq!(numbers, expected);
    client.record().assert_untouched();
}

#[tokio::test]
async fn a_long_request_and_a_fragmented_one_while_held() {
    let (gateway, _proxy, mut raw) = session("").await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    raw.request(
        "long",
        "config.set",
        json!({"name": "long", "x": "y".repeat(100_000)}),
    )
    .await;
    let parts = request("parts", "config.set", &json!({"name": "parts"}));
    let (one, two) = parts.split_at(60);
    raw.send(&Frame::text(one).not_final()).await;
    raw.send(&Frame::ping("between")).await;
    raw.send(&Frame::new(CONTINUATION, two.to_owned())).await;
    raw.request("short", "config.set", json!({"name": "short"}))
        .await;
    let mut seen = raw.until("pong", |frame| frame.opcode == PONG).await;
    back(&gateway).await;
    seen.extend(
        raw.until("the last answer", |frame| frame.json()["id"] == "short")
            .await,
    );
    let answers = seen
        .iter()
        .map(Frame::json)
        .filter(|frame| frame["type"] == "res");
    let answers: Vec<_> = answers
        .map(|frame| (frame["id"].clone(), frame["ok"] == true))
        .collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    for (id, ok) in &answers {
        let executions = gateway.journal().executions(id.as_str().unwrap());
        assert_eq!(executions, usize::from(*ok), "{id}: {answers:?}");
    }
    assert!(answers.contains(&(json!("long"), true)), "{answers:?}");
    assert!(answers.contains(&(json!("short"), true)), "{answers:?}");
}

#[tokio::test]
async fn two_requests_of_one_id_get_what_the_gateway_says() {
    let (gateway, _proxy, mut raw) = session("").await;
    raw.request("same", "config.set", json!({"name": "a", "wait": "a"}))
        .await;
    raw.request("same", "config.set", json!({"name": "b", "wait": "b"}))
        .await;
    gateway
        .wait_for("both", |j| j.executions("a") + j.executions("b") == 2)
        .await;
    gateway.release("b");
    assert_eq!(raw.answer("same").await["payload"]["name"], "b");
    gateway.release("a");
    assert_eq!(raw.answer("same").await["payload"]["name"], "a");
}

#[tokio::test]
async fn requests_sent_together_with_connect_are_not_lost() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    let connect = Role::backend().connect("connect", None);
    let request = request("r", "health", &json!({}));
    let mut wire = Frame::text(connect).encode_masked([1, 2, 3, 4]);
    wire.extend(Frame::text(request).encode_masked([4, 3, 2, 1]));
    raw.send_bytes(&wire).await;
    assert_eq!(raw.answer("connect").await["ok"], true);
    assert_eq!(raw.answer("r").await["ok"], true);
    gateway.kill().await;
    raw.event("gateway.down").await;
    back(&gateway).await;
    raw.event("gateway.up").await;
    raw.request("after", "health", json!({})).await;
    assert_eq!(raw.answer("after").await["ok"], true);
}

#[tokio::test]
async fn a_gateway_lost_between_upgrade_and_connect_greets_and_sends_back() {
    for how in [Stop::Kill, Stop::Fin] {
        let gateway = ScriptedGateway::start().await;
        let settings = "[hold]\nupgrade = \"300ms\"\nhandshake = \"3s\"";
        let proxy = Proxy::with(&gateway, settings).await;
        let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
        let nonce = raw.event("connect.challenge").await;
        gateway.stop(how).await;
        let connect = Role::official().connect("c", nonce["nonce"].as_str());
        raw.send(&Frame::text(connect)).await;
        let error = raw.answer("c").await["error"].take();
        assert_eq!(
            error["details"]["reason"], "startup-sidecars",
            "{how:?}: {error}"
        );
        assert_eq!(raw.closed().await.0, 1013);
    }
}

#[tokio::test]
async fn a_gateway_lost_between_connect_and_hello_is_not_a_failure() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    proxy.gateway_is("ready").await;
    gateway.hang();
    let client = Client::start(Role::official(), proxy.target());
    tokio::time::sleep(ms(300)).await;
    gateway.kill().await;
    back(&gateway).await;
    client.hello(1).await;
    client.record().assert_sound();
}

#[tokio::test]
async fn a_gateway_that_hangs_during_the_replay_and_goes_on() {
    let (gateway, _proxy, mut raw) = session("").await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    gateway.answer_upgrades(UpgradeAnswer::Slow);
    back(&gateway).await;
    gateway
        .wait_for("the replay's upgrade", |journal| {
            journal.upgrades().len() == 2
        })
        .await;
    gateway.hang();
    tokio::time::sleep(ms(1000)).await;
    gateway.resume();
    raw.event("gateway.up").await;
    raw.request("r", "health", json!({})).await;
    assert_eq!(raw.answer("r").await["ok"], true);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_replay_leaves_nothing_behind() {
    let (gateway, proxy, mut raw) = session("").await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    gateway.answer_upgrades(UpgradeAnswer::Slow);
    back(&gateway).await;
    gateway
        .wait_for("the replay's upgrade", |journal| {
            journal.upgrades().len() == 2
        })
        .await;
    drop(raw);
    gateway
        .wait_for("its end", |journal| journal.closes().len() == 1)
        .await;
    proxy.is_empty().await;
}

#[tokio::test]
async fn many_pings_of_a_held_client_that_does_not_read_stay_bounded() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let target = proxy.target().receive_buffer(4096);
    let (mut raw, _) = Raw::connected(&target, &Role::backend()).await;
    gateway.kill().await;
    proxy.gateway_is("down").await;
    let ping = Frame::ping("x".repeat(125)).encode_masked([1, 2, 3, 4]);
    let flood: Vec<u8> = ping
        .iter()
        .copied()
        .cycle()
        .take(ping.len() * 500)
        .collect();
    let mut taken = 0;
    let enough = 64 * 1024 * 1024;
    while taken < enough {
        match tokio::time::timeout(ms(500), raw.write_some(&flood)).await {
            Ok(written) => taken += written,
            Err(_) => break,
        }
    }
    assert!(
        taken < enough,
        "{taken} bytes of pings taken from a client that reads no pong"
    );
}

#[tokio::test]
async fn flapping_never_shows_more_than_notices() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    for round in 0..12 {
        gateway
            .outage(Stop::Kill, ms(20 * (round % 4)), ms(10 * (round % 3)))
            .await;
        tokio::time::sleep(ms(30)).await;
    }
    client.request("sessions.list", json!({})).await.ok();
    client.record().assert_untouched();
    let record = client.record();
    let texts = record
        .frames
        .iter()
        .filter(|seen| seen.value["type"] == "res")
        .count();
    assert_eq!(texts, 2, "hello-ok and one answer");
}
