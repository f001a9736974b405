//! A client that sends no more (TLS close_notify and FIN) and still listens, at every kind of end.

use serde_json::json;
use tokio::time::Instant;

use crate::kit::gateway::{ScriptedGateway, Stop};
use crate::kit::{Client, End, Frame, Proxy, Raw, Role, ms, within};

/// What it hears up to the end of its stream: our notices left out.
async fn hears(raw: &mut Raw) -> Vec<Frame> {
    let (frames, end) = raw.end().await;
    assert_eq!(end, End::Eof, "{frames:?}");
    let notice = |frame: &Frame| !frame.is_control() && frame.json()["event"] == "gateway.down";
    frames.into_iter().filter(|frame| !notice(frame)).collect()
}

fn execution(frame: &Frame) -> serde_json::Value {
    frame.json()["error"]["details"]["execution"].take()
}

/// Its request is at the gateway, which has not noticed that no more will come.
async fn waits_for_an_answer(settings: &str) -> (ScriptedGateway, Proxy, Raw) {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, settings).await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    // The read that is under way takes the request, and no other follows.
    gateway.conn(1).await.set_reading(false);
    let params = json!({"name": "sent", "wait": "later"});
    raw.request("sent", "config.set", params).await;
    gateway
        .wait_for("the request", |journal| journal.executions("sent") == 1)
        .await;
    raw.shutdown().await;
    (gateway, proxy, raw)
}

#[tokio::test]
async fn held_it_learns_at_once_that_nothing_was_done_and_is_not_put_back() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    raw.request("kept", "config.set", json!({"name": "kept"}))
        .await;
    let from = Instant::now();
    raw.shutdown().await;
    let heard = hears(&mut raw).await;
    assert!(from.elapsed() < ms(15_000), "{:?}", from.elapsed());
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(execution(&heard[0]), "not_started");
    assert_eq!(heard[1].close_code(), Some(1012));
    proxy.is_empty().await;
    gateway.begin_starting().await;
    gateway.ready();
    let other = Client::connected(Role::backend(), proxy.target()).await;
    other.request("health", json!({})).await.ok();
    let journal = gateway.journal();
    assert_eq!((journal.arrivals("kept"), journal.hellos()), (0, 2));
}

#[tokio::test]
async fn a_late_answer_still_arrives_and_the_end_behind_it_is_no_outage() {
    let (gateway, proxy, mut raw) = waits_for_an_answer("").await;
    let other = Client::connected(Role::backend(), proxy.target()).await;
    gateway.release("later");
    assert_eq!(raw.answer("sent").await["ok"], true);
    gateway.conns()[0].fin();
    assert_eq!(hears(&mut raw).await, []);
    other.request("health", json!({})).await.ok();
    other.record().assert_untouched();
    assert_eq!(other.record().events("gateway.down"), [json!(null); 0]);
}

#[tokio::test]
async fn a_gateway_that_dies_leaves_it_with_the_truth() {
    for how in [Stop::Kill, Stop::Fin] {
        let (gateway, proxy, mut raw) = waits_for_an_answer("").await;
        gateway.stop(how).await;
        let heard = hears(&mut raw).await;
        assert_eq!(heard.len(), 1, "{how:?}: {heard:?}");
        assert_eq!(execution(&heard[0]), "may_have_executed", "{how:?}");
        proxy.is_empty().await;
    }
}

#[tokio::test]
async fn a_gateway_that_stops_leaves_it_with_the_truth_and_the_gateways_own_close() {
    for how in [Stop::Sigterm, Stop::Restart] {
        let (gateway, proxy, mut raw) = waits_for_an_answer("").await;
        gateway.stop(how).await;
        let heard = hears(&mut raw).await;
        assert_eq!(heard.len(), 3, "{how:?}: {heard:?}");
        assert_eq!(heard[0].json()["event"], "shutdown", "{how:?}");
        assert_eq!(execution(&heard[1]), "may_have_executed", "{how:?}");
        assert_eq!(heard[2].close_code(), Some(1012), "{how:?}");
        proxy.is_empty().await;
    }
}

#[tokio::test]
async fn our_own_stop_leaves_it_with_the_truth_too() {
    let (_gateway, proxy, mut raw) = waits_for_an_answer("[limits]\ndrain = \"0s\"").await;
    let drained = within("the drain", proxy.holdline.drain());
    let (heard, ()) = tokio::join!(hears(&mut raw), drained);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(execution(&heard[0]), "may_have_executed");
    assert_eq!(heard[1].close_code(), Some(1012));
}
