//! How connections end: which closes pass, which are held, and who is let go when.

use serde_json::json;

use crate::kit::frame::{CLOSE, PONG};
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Client, Frame, Proxy, Raw, Role};

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
async fn closes_that_are_a_decision_about_the_client_pass_unchanged() {
    for (code, reason) in [
        (1000, ""),
        (1000, "done"),
        (1008, "policy"),
        (4008, "connect failed"),
    ] {
        let (gateway, _proxy, mut raw) = session("").await;
        gateway.conn(1).await.close(code, reason);
        let frames = raw.until("close", |frame| frame.opcode == CLOSE).await;
        assert_eq!(frames.len(), 1, "something was said before: {frames:?}");
        let close = &frames[0];
        assert_eq!(
            (close.close_code(), close.close_reason()),
            (Some(code), reason.to_owned())
        );
        raw.send(close).await;
        raw.end().await;
        gateway
            .wait_for("its end", |journal| journal.closes().len() == 1)
            .await;
        assert_eq!(
            gateway.journal().upgrades().len(),
            1,
            "held though it was a decision"
        );
    }
}

#[tokio::test]
async fn a_close_frame_without_a_code_passes_as_it_is() {
    let (gateway, _proxy, mut raw) = session("").await;
    gateway.conn(1).await.send(&Frame::new(CLOSE, ""));
    let frames = raw.until("close", |frame| frame.opcode == CLOSE).await;
    assert_eq!(frames[0].payload, "");
}

#[tokio::test]
async fn closes_that_mean_the_gateway_goes_away_are_held() {
    for code in [Some(1001), Some(1012), Some(1013), None] {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let backend = Client::connected(Role::backend(), proxy.target()).await;
        let conn = gateway.conn(1).await;
        match code {
            Some(code) => conn.close(code, "going away"),
            None => conn.fin(),
        }
        gateway
            .wait_for("the replay", |journal| journal.hellos() == 2)
            .await;
        backend.request("sessions.list", json!({})).await.ok();
        backend.record().assert_untouched();

        let official = Client::connected(Role::official(), proxy.target()).await;
        let conn = gateway.conn(2).await;
        match code {
            Some(code) => conn.close(code, "going away"),
            None => conn.reset(),
        }
        official.hello(2).await;
        official.record().assert_sound();
        assert_eq!(official.record().disconnects[0].code, 1012, "{code:?}");
    }
}

#[tokio::test]
async fn a_clients_close_reaches_the_gateway_and_is_answered() {
    let (gateway, _proxy, mut raw) = session("").await;
    raw.send(&Frame::close(4001, "bye")).await;
    assert_eq!(raw.closed().await, (4001, "bye".to_owned()));
    gateway
        .wait_for("the close", |journal| journal.closes() == [4001])
        .await;
    raw.end().await;
}

#[tokio::test]
async fn a_held_client_that_closes_is_answered_and_not_put_back() {
    let (gateway, proxy, mut raw) = session("").await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    raw.send(&Frame::close(1000, "enough")).await;
    assert_eq!(raw.closed().await.0, 1000);
    raw.end().await;
    back(&gateway).await;
    let other = Client::connected(Role::official(), proxy.target()).await;
    other.request("health", json!({})).await.ok();
    assert_eq!(
        gateway.journal().hellos(),
        2,
        "the one that left was put back"
    );
}

#[tokio::test]
async fn a_held_client_that_vanishes_is_not_put_back() {
    for resets in [false, true] {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let target = if resets {
            proxy.target().resets_on_drop()
        } else {
            proxy.target()
        };
        let (mut raw, _) = Raw::connected(&target, &Role::backend()).await;
        gateway.kill().await;
        raw.event("gateway.down").await;
        drop(raw);
        proxy.is_empty().await;
        back(&gateway).await;
        let other = Client::connected(Role::official(), proxy.target()).await;
        other.request("health", json!({})).await.ok();
        assert_eq!(
            gateway.journal().hellos(),
            2,
            "the one that left was put back"
        );
    }
}

#[tokio::test]
async fn a_held_clients_ping_gets_its_pong() {
    let (gateway, _proxy, mut raw) = session("").await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    raw.send(&Frame::ping("still there?")).await;
    let frames = raw.until("pong", |frame| frame.opcode == PONG).await;
    assert_eq!(frames[frames.len() - 1].payload, "still there?");
    back(&gateway).await;
    raw.request("r", "health", json!({})).await;
    assert_eq!(raw.answer("r").await["ok"], true);
}

#[tokio::test]
async fn after_hold_max_the_close_says_try_again_later_and_why() {
    let (gateway, _proxy, mut raw) = session("[hold]\nmax = \"500ms\"").await;
    gateway.kill().await;
    let (code, reason) = raw.closed().await;
    assert_eq!(code, 1013);
    assert!(reason.contains("gateway"), "{reason:?}");
    raw.end().await;
}

#[tokio::test]
async fn a_client_that_vanishes_ends_its_connection_at_the_gateway() {
    for resets in [false, true] {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let target = if resets {
            proxy.target().resets_on_drop()
        } else {
            proxy.target()
        };
        let (raw, _) = Raw::connected(&target, &Role::backend()).await;
        drop(raw);
        gateway
            .wait_for("its end", |journal| journal.closes().len() == 1)
            .await;
    }
}

#[tokio::test]
async fn what_was_sent_before_a_half_close_still_arrives() {
    let (gateway, _proxy, mut raw) = session("").await;
    raw.request("last", "config.set", json!({"name": "last"}))
        .await;
    raw.shutdown().await;
    gateway
        .wait_for("the last request", |journal| {
            journal.executions("last") == 1
        })
        .await;
    gateway
        .wait_for("its end", |journal| journal.closes().len() == 1)
        .await;
}

#[tokio::test]
async fn what_the_gateway_sent_before_it_closed_still_arrives() {
    let (gateway, _proxy, mut raw) = session("").await;
    let conn = gateway.conn(1).await;
    let big = "z".repeat(300_000);
    conn.event("one", json!({"big": big}));
    conn.event("two", json!({}));
    conn.close(4002, "that was all");
    raw.event("one").await;
    raw.event("two").await;
    assert_eq!(raw.closed().await, (4002, "that was all".to_owned()));
}

#[tokio::test]
async fn a_dead_client_is_found_by_ping_and_a_quiet_live_one_stays() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\nping_every = \"3s\"").await;
    let live = Client::connected(Role::backend(), proxy.target()).await;
    let (dead, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    gateway
        .wait_for("the dead one's end", |journal| journal.closes().len() == 1)
        .await;
    drop(dead);
    live.wait_for("more pings", |record| record.pings.len() >= 3)
        .await;
    live.request("health", json!({})).await.ok();
    live.record().assert_untouched();
    let pongs = gateway
        .journal()
        .frames()
        .iter()
        .filter(|f| f.opcode == PONG)
        .count();
    assert_eq!(pongs, 0, "answers to our pings are ours");
}

#[tokio::test]
async fn a_dead_client_is_found_while_held_too() {
    let (gateway, proxy, mut raw) = session("[limits]\nping_every = \"200ms\"").await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    proxy.is_empty().await;
    back(&gateway).await;
    let other = Client::connected(Role::official(), proxy.target()).await;
    other.request("health", json!({})).await.ok();
    assert_eq!(gateway.journal().hellos(), 2, "the dead one was put back");
}

#[tokio::test]
async fn a_ping_on_an_open_session_makes_the_whole_way() {
    let (gateway, _proxy, mut raw) = session("").await;
    raw.send(&Frame::ping("from the client")).await;
    let frames = raw.until("pong", |frame| frame.opcode == PONG).await;
    assert_eq!(frames[0].payload, "from the client");
    gateway.conn(1).await.send(&Frame::ping("from the gateway"));
    let ping = raw.next().await;
    assert_eq!(ping, Frame::ping("from the gateway"));
    raw.send(&Frame::pong("from the gateway")).await;
    gateway
        .wait_for("the pong", |journal| {
            journal
                .frames()
                .iter()
                .any(|f| f.opcode == PONG && f.payload == "from the gateway")
        })
        .await;
}
