//! WebSocket over HTTP/2 (RFC 8441): the same promises.

use serde_json::json;

use crate::kit::gateway::{Options, Protocol, ScriptedGateway, Stop};
use crate::kit::{Frame, Proxy, Role, h2, ms};

#[tokio::test]
async fn frames_pass_on_several_streams_of_one_connection() {
    let options = Options {
        protocol: Protocol::Echo,
        ..Options::default()
    };
    let gateway = ScriptedGateway::with(options).await;
    let proxy = Proxy::with(&gateway, "[gateway]\nprotocol = \"generic\"").await;
    let mut connection = h2::Connection::open(&proxy.target()).await;
    let mut one = connection.websocket("/one", &[]).await.unwrap();
    let mut two = connection
        .websocket("/two", &[("sec-websocket-protocol", "p")])
        .await
        .unwrap();
    assert_eq!(two.upgrade.header("sec-websocket-protocol"), Some("p"));
    for (raw, text) in [(&mut one, "1"), (&mut two, "2")] {
        raw.send(&Frame::text(text)).await;
        assert_eq!(raw.next().await, Frame::text(text));
    }
    one.send(&Frame::binary(vec![1; 200_000])).await;
    assert_eq!(one.next().await.payload.len(), 200_000);
    one.send(&Frame::close(4000, "done")).await;
    assert_eq!(one.closed().await, (4000, "done".to_owned()));
    one.end().await;
    two.send(&Frame::text("still")).await;
    assert_eq!(two.next().await, Frame::text("still"));
}

#[tokio::test]
async fn a_session_survives_a_restart() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut connection = h2::Connection::open(&proxy.target()).await;
    let mut raw = connection.websocket("/", &[]).await.unwrap();
    assert_eq!(raw.handshake(&Role::backend()).await["ok"], true);
    gateway.outage(Stop::Kill, ms(300), ms(100)).await;
    raw.event("gateway.down").await;
    assert_eq!(raw.event("gateway.up").await["resumed"], "replay");
    raw.request("r", "sessions.list", json!({})).await;
    assert_eq!(
        raw.answer("r").await["payload"]["bootId"],
        gateway.boot_id()
    );
}

#[tokio::test]
async fn an_upgrade_is_held_and_refused_as_over_http1() {
    let gateway = ScriptedGateway::stopped(Options::default());
    let settings = "[hold]\nupgrade = \"300ms\"\nhandshake = \"1s\"";
    let proxy = Proxy::with(&gateway, settings).await;
    let mut connection = h2::Connection::open(&proxy.target()).await;
    let offer = [("sec-websocket-protocol", "p")];
    let refusal = connection
        .websocket("/", &offer)
        .await
        .err()
        .expect("a refusal");
    assert_eq!(
        (refusal.status, &refusal.json()["error"]["type"]),
        (503, &json!("gateway_down"))
    );
    let mut raw = connection.websocket("/", &[]).await.unwrap();
    raw.event("connect.challenge").await;
    assert_eq!(raw.closed().await.0, 1013);
}

/// Node.js 26 (undici) sends a key over HTTP/2, too, and fails without its proof (RFC 6455, 1.3).
#[tokio::test]
async fn a_key_that_http2_does_not_need_is_answered_all_the_same() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut connection = h2::Connection::open(&proxy.target()).await;
    let key = [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
    let raw = connection.websocket("/", &key).await.unwrap();
    assert_eq!(
        raw.upgrade.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
}
