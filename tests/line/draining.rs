//! holdline itself is told to stop.

use serde_json::json;

use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Proxy, Raw, Role, within};

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
