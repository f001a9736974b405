//! What an operator sees on the admin listener.

use serde_json::json;

use crate::kit::gateway::{Options, ScriptedGateway};
use crate::kit::{Client, Proxy, Raw, Role, http, within};

#[tokio::test]
async fn the_process_is_healthy_and_ready_without_its_gateway() {
    let gateway = ScriptedGateway::stopped(Options::default());
    let proxy = Proxy::start(&gateway).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            http::get(&proxy.admin(), path, &[]).await.status,
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn status_tells_the_gateways_state_and_the_sessions() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    proxy.gateway_is("ready").await;
    assert_eq!(proxy.status().await["sessions"]["open"], 1);
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    proxy.gateway_is("down").await;
    let seen = proxy.status().await["gateways"][0].take();
    assert_eq!(
        (&seen["route"], &seen["gateway"]),
        (&json!("default"), &json!(gateway.addr()))
    );
    assert!(
        seen["reason"].is_string() && seen["hint"].is_string(),
        "{seen}"
    );
    client.send_request("config.set", json!({"name": "held"}));
    client.send(tokio_tungstenite::tungstenite::Message::Ping(
        "kept?".into(),
    ));
    client
        .wait_for("the pong", |record| record.pongs.len() == 1)
        .await;
    assert!(proxy.status().await["sessions"]["keptBytes"].as_u64() > Some(0));
    drop(client);
    proxy.is_empty().await;
}

#[tokio::test]
async fn metrics_count_what_happened_to_sessions() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    let metrics = http::get(&proxy.admin(), "/metrics", &[]).await;
    assert!(metrics.header("content-type").unwrap().contains("text"));
    let text = metrics.text();
    let value = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    assert!(value("holdline_connections_total") >= 1.0, "{text}");
    assert!(value("holdline_sessions{state=\"held\"") >= 1.0, "{text}");
}

#[tokio::test]
async fn the_admin_listener_answers_this_machines_programs_only() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let admin = proxy.admin();
    let get = http::get(&admin, "/drain", &[]).await;
    assert!(
        get.status >= 400,
        "a GET must not stop anything: {}",
        get.status
    );
    let rebound = http::get(&admin.clone().host("evil.example"), "/status", &[]).await;
    assert!(rebound.status >= 400, "DNS rebinding: {}", rebound.status);
    let origin = [("Origin", "https://evil.example")];
    let foreign = http::request(&admin, "POST", "/drain", &origin, b"").await;
    assert!(
        foreign.status >= 400,
        "a web page stopped it: {}",
        foreign.status
    );
    proxy.gateway_is("ready").await;
    Raw::connected(&proxy.target(), &Role::backend()).await;
}

#[tokio::test]
async fn a_drain_can_be_asked_for() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\ndrain = \"500ms\"").await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    let answer = http::request(&proxy.admin(), "POST", "/drain", &[], b"").await;
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    assert_eq!(raw.closed().await.0, 1012);
    within("its end", proxy.holdline.wait_for_shutdown()).await;
}
