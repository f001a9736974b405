//! holdline itself is told to stop.

use serde_json::json;
use tokio::time::Instant;

use crate::kit::frame::CONTINUATION;
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Frame, Proxy, Raw, Role, ms, within};

#[tokio::test]
async fn a_held_session_is_closed_with_1012_when_we_stop() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\ndrain = \"10s\"").await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    let (close, ()) = tokio::join!(raw.closed(), within("the drain", proxy.holdline.drain()));
    assert_eq!(close.0, 1012);
}

#[tokio::test]
async fn live_sessions_may_finish_and_are_closed_with_1012_when_their_time_is_up() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\ndrain = \"1s\"").await;
    let target = proxy.target();
    let (mut raw, _) = Raw::connected(&target, &Role::backend()).await;
    let talking = async {
        raw.request("r", "config.set", json!({"name": "last"}))
            .await;
        assert_eq!(raw.answer("r").await["ok"], true);
        raw.closed().await.0
    };
    let (code, ()) = tokio::join!(talking, within("the drain", proxy.holdline.drain()));
    assert_eq!(code, 1012);
    assert_eq!(gateway.journal().executions("last"), 1);
    assert!(target.dial().await.is_err(), "it still accepts");
}

#[tokio::test]
async fn with_nobody_there_it_stops_at_once() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\ndrain = \"1h\"").await;
    within("the drain", proxy.holdline.drain()).await;
}

/// A message of the gateway in two parts, with a stop between them.
async fn stopped_between(one: &[u8], two: &[u8], frames: usize) {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\ndrain = \"0s\"").await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    raw.request("open", "config.set", json!({"wait": "never"}))
        .await;
    gateway
        .wait_for("the request", |j| j.requests("config.set").len() == 1)
        .await;
    let conn = gateway.conn(1).await;
    conn.send_bytes(one);
    conn.flushed().await;
    if frames == 1 {
        raw.partial_frame_of(one.len()).await;
    } else {
        raw.next_but_pings().await;
    }
    let finishing = async {
        proxy.is_draining().await;
        conn.send_bytes(two);
        let mut seen = vec![raw.next().await, raw.next().await, raw.next().await];
        raw.send(&Frame::close(1012, "")).await;
        seen.extend(raw.end().await.0);
        seen
    };
    let (seen, ()) = tokio::join!(finishing, within("the drain", proxy.holdline.drain()));
    assert_eq!(seen[0].payload, vec![b'7'; 200_000]);
    assert_eq!(
        seen[1].json()["error"]["details"]["execution"],
        "may_have_executed"
    );
    assert_eq!(seen[2].close_code(), Some(1012));
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[tokio::test]
async fn a_stop_inside_a_long_frame_waits_for_its_end() {
    let wire = Frame::text("7".repeat(200_000)).encode();
    let (one, two) = wire.split_at(150_000);
    stopped_between(one, two, 1).await;
}

#[tokio::test]
async fn a_stop_inside_a_message_waits_for_its_last_frame() {
    let one = Frame::text("first").not_final().encode();
    let two = Frame::new(CONTINUATION, "7".repeat(200_000)).encode();
    stopped_between(&one, &two, 2).await;
}

#[tokio::test]
async fn a_stop_inside_a_frame_that_never_ends_ends_below_the_websocket_and_never_completes_it() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\ndrain = \"0s\"").await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    let conn = gateway.conn(1).await;
    // All but the last bytes: a close frame of ours would fit exactly into the hole.
    let wire = Frame::binary(vec![7; 200_000]).encode();
    conn.send_bytes(&wire[..wire.len() - 19]);
    conn.flushed().await;
    raw.partial_frame_of(wire.len() - 19).await;
    let (end, ()) = tokio::join!(raw.end(), within("the drain", proxy.holdline.drain()));
    assert_eq!(
        end.0,
        [],
        "nothing of ours may complete the gateway's frame"
    );
}

/// The end of a message and the answer to our close are waited for, together no longer than one.
#[tokio::test]
async fn a_gateway_and_a_client_that_both_never_finish_do_not_outlast_the_drain() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\ndrain = \"0s\"").await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    let conn = gateway.conn(1).await;
    conn.send_bytes(Frame::text("first").not_final().encode());
    raw.next_but_pings().await;
    let from = Instant::now();
    let (end, ()) = tokio::join!(raw.end(), within("the drain", proxy.holdline.drain()));
    let code = end.0.last().and_then(Frame::close_code);
    assert_eq!(code, Some(1012), "{end:?}");
    // One after the other they would be ten seconds.
    assert!(from.elapsed() < ms(9500), "cut off: {:?}", from.elapsed());
}
