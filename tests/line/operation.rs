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
    let sessions = |status: &serde_json::Value| {
        let count = |state: &str| status["sessions"][state].as_u64().unwrap();
        (count("open"), count("live"), count("held"))
    };
    assert_eq!(sessions(&proxy.status().await), (1, 1, 0));
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    proxy.gateway_is("down").await;
    let status = proxy.status().await;
    assert_eq!(sessions(&status), (1, 0, 1));
    assert_eq!(status["drain"], json!(null));
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
    assert!(value(&text, "holdline_connections_total") >= 1.0, "{text}");
    assert!(
        value(&text, "holdline_sessions{state=\"held\"") >= 1.0,
        "{text}"
    );
}

#[tokio::test]
async fn a_session_counts_as_ended_by_whoever_closed_first() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    client.close(1000);
    proxy.is_empty().await;
    let text = metrics(&proxy).await;
    let ended = "holdline_sessions_ended_total";
    assert_eq!(value(&text, ended), 1.0, "{text}");
    let by_client = format!("{ended}{{cause=\"client\"}}");
    assert_eq!(value(&text, &by_client), 1.0, "{text}");

    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.conn(1).await.close(1008, "policy");
    proxy.is_empty().await;
    drop(client);
    let text = metrics(&proxy).await;
    let by_gateway = format!("{ended}{{cause=\"gateway\"}}");
    assert_eq!(value(&text, &by_gateway), 1.0, "{text}");
}

/// The sum of all series that begin with `name`.
fn value(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

async fn metrics(proxy: &Proxy) -> String {
    http::get(&proxy.admin(), "/metrics", &[]).await.text()
}

#[tokio::test]
async fn metrics_count_an_outage_and_what_waited_for_its_end() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    proxy.gateway_is("ready").await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    http::get(&proxy.target(), "/health", &[]).await;
    http::get(&proxy.target(), "/.holdline/status.json", &[]).await;
    let text = metrics(&proxy).await;
    for (series, expected) in [
        ("holdline_gateways{state=\"ready\"}", 1.0),
        ("holdline_gateways", 1.0),
        ("holdline_gateway_outages_total", 0.0),
        ("holdline_http_requests_total{outcome=\"forwarded\"}", 1.0),
        ("holdline_http_requests_total{outcome=\"own\"}", 1.0),
        ("holdline_http_requests_total", 2.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series} in {text}");
    }
    for moved in ["probes_total{result=\"ok\"}", "dials_total{result=\"ok\"}"] {
        let series = format!("holdline_gateway_{moved}");
        assert!(value(&text, &series) >= 1.0, "{series} in {text}");
    }

    gateway.kill().await;
    client.event("gateway.down", 1).await;
    proxy.gateway_is("down").await;
    client.send_request("config.set", json!({"name": "held"}));
    let browser = [("Accept", "text/html")];
    assert_eq!(http::get(&proxy.target(), "/", &browser).await.status, 503);
    let text = metrics(&proxy).await;
    for (series, expected) in [
        ("holdline_gateways{state=\"down\"}", 1.0),
        ("holdline_gateways", 1.0),
        ("holdline_gateway_outages_total", 1.0),
        ("holdline_gateway_outage_seconds_count", 0.0),
        ("holdline_http_requests_total{outcome=\"page\"}", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series} in {text}");
    }
    for moved in [
        "holdline_gateway_probes_total{result=\"refused\"}",
        "holdline_buffered_bytes",
        "holdline_notices_total",
    ] {
        assert!(value(&text, moved) > 0.0, "{moved} in {text}");
    }

    let target = proxy.target();
    let waiting = http::get(&target, "/health", &[]);
    let back = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        gateway.begin_starting().await;
        gateway.ready();
    };
    let (answer, ()) = tokio::join!(waiting, back);
    assert_eq!(answer.status, 200);
    proxy.gateway_is("ready").await;
    let text = metrics(&proxy).await;
    for (series, expected) in [
        ("holdline_gateways{state=\"ready\"}", 1.0),
        ("holdline_gateways", 1.0),
        ("holdline_gateway_outages_total", 1.0),
        ("holdline_gateway_outage_seconds_count", 1.0),
        ("holdline_http_requests_total{outcome=\"held\"}", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series} in {text}");
    }
    assert!(value(&text, "holdline_gateway_outage_seconds_sum") > 0.0);
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
