//! A gateway that misbehaves: hangs, answers nonsense, moves, crashes in a loop.

use std::net::Ipv6Addr;

use serde_json::json;

use crate::kit::gateway::{Options, ScriptedGateway, Startupz, Stop, UpgradeAnswer};
use crate::kit::{Client, Outcome, Proxy, Raw, Role, ms, stand_still};

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    gateway.ready();
}

#[tokio::test]
async fn a_short_hang_is_nothing_but_slow() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::official(), proxy.target()).await;
    // One that is longer by what the machine is slow would be told of.
    let still = stand_still();
    gateway.hang();
    let set = client.send_request("config.set", json!({"name": "slow"}));
    still.pass(ms(1500)).await;
    assert_eq!(client.record().answers.get(&set), None);
    gateway.resume();
    client.outcome(&set).await.ok();
    drop(still);
    client.record().assert_untouched();
    assert_eq!(client.record().events("gateway.down"), [json!(null); 0]);
    assert_eq!(gateway.journal().executions("slow"), 1);
}

#[tokio::test]
async fn a_long_hang_is_told_and_what_the_gateway_already_has_stays_its_own() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.hang();
    let before = client.send_request("config.set", json!({"name": "before"}));
    let down = client.event("gateway.down", 1).await;
    assert_eq!(
        (&down["state"], &down["reason"]),
        (&json!("hung"), &json!("hung"))
    );

    let during = client
        .request("config.set", json!({"name": "during"}))
        .await
        .error();
    assert_eq!(during["retryable"], true);
    assert_eq!(during["details"]["execution"], "not_started");
    let newcomer = Client::start(Role::official(), proxy.target());

    gateway.resume();
    client.outcome(&before).await.ok();
    client.event("gateway.up", 1).await;
    client
        .request("config.set", json!({"name": "after"}))
        .await
        .ok();
    newcomer.hello(1).await;
    client.record().assert_untouched();
    newcomer.record().assert_sound();
    let journal = gateway.journal();
    let executions = ["before", "during", "after"].map(|name| journal.executions(name));
    assert_eq!(executions, [1, 0, 1]);
}

#[tokio::test]
async fn a_hung_gateway_that_is_killed_and_started_again_is_a_restart() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.hang();
    let before = client.send_request("config.set", json!({"name": "before"}));
    client.event("gateway.down", 1).await;
    gateway.kill().await;
    let error = client.outcome(&before).await.error();
    assert_eq!(error["details"]["execution"], "may_have_executed");
    back(&gateway).await;
    client.event("gateway.up", 1).await;
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
}

/// A client gets an HTTP answer in words or a WebSocket that ends in words, and later all is well.
async fn recovers_from(answer: UpgradeAnswer) -> Option<crate::kit::http::Response> {
    let settings = "[hold]\nupgrade = \"500ms\"\nhandshake = \"500ms\"";
    let gateway = ScriptedGateway::start().await;
    gateway.answer_upgrades(answer);
    let proxy = Proxy::with(&gateway, settings).await;
    let refusal = match Raw::open(&proxy.target(), "/", &[]).await {
        Err(refusal) => {
            assert!(!refusal.body.is_empty(), "a bare {}", refusal.status);
            Some(refusal)
        }
        Ok(mut raw) => {
            raw.event("connect.challenge").await;
            raw.closed().await;
            None
        }
    };
    gateway.answer_upgrades(UpgradeAnswer::Normal);
    let client = Client::connected(Role::official(), proxy.target()).await;
    client.request("health", json!({})).await.ok();
    refusal
}

#[tokio::test]
async fn an_upgrade_that_is_answered_with_a_page_or_a_redirect() {
    recovers_from(UpgradeAnswer::Status(200)).await;
    recovers_from(UpgradeAnswer::Status(302)).await;
}

#[tokio::test]
async fn an_upgrade_that_is_refused_for_good_passes_the_refusal_on() {
    let refusal = recovers_from(UpgradeAnswer::Status(403))
        .await
        .expect("a refusal");
    assert_eq!(refusal.status, 403);
    assert_eq!(refusal.text(), "<html>not a socket");
}

#[tokio::test]
async fn an_upgrade_that_is_answered_500() {
    recovers_from(UpgradeAnswer::Status(500)).await;
}

#[tokio::test]
async fn an_upgrade_that_is_answered_with_a_wrong_accept() {
    recovers_from(UpgradeAnswer::WrongAccept).await;
}

#[tokio::test]
async fn an_upgrade_that_is_answered_with_garbage() {
    recovers_from(UpgradeAnswer::Bytes(
        b"\x16\x03\x01 this is not HTTP\r\n\r\n".to_vec(),
    ))
    .await;
    recovers_from(UpgradeAnswer::Bytes(b"HTTP/1.1 101 Switching".to_vec())).await;
    recovers_from(UpgradeAnswer::Bytes(Vec::new())).await;
}

#[tokio::test]
async fn an_upgrade_that_is_never_answered() {
    recovers_from(UpgradeAnswer::Silence).await;
}

#[tokio::test]
async fn an_upgrade_that_is_answered_with_a_reset() {
    recovers_from(UpgradeAnswer::Reset).await;
}

#[tokio::test]
async fn an_upgrade_without_a_challenge_is_not_passed_to_a_browser_in_vain() {
    let gateway = ScriptedGateway::start().await;
    gateway.answer_upgrades(UpgradeAnswer::NoChallenge);
    let proxy = Proxy::start(&gateway).await;
    let client = Client::start(Role::control_ui(), proxy.target());
    gateway
        .wait_for("the upgrade", |journal| !journal.upgrades().is_empty())
        .await;
    tokio::time::sleep(ms(1500)).await;
    gateway.answer_upgrades(UpgradeAnswer::Normal);
    gateway.kill().await;
    back(&gateway).await;
    client.hello(1).await;
    client.record().assert_sound();
}

#[tokio::test]
async fn outages_that_come_thick_are_called_a_crash_loop() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    for outage in 1..=3 {
        gateway.outage(Stop::Kill, ms(200), ms(100)).await;
        // Without any numbered event it is said twice, to leave a gap.
        client.event("gateway.up", 2 * outage).await;
    }
    gateway.kill().await;
    client
        .wait_for("the word", |record| {
            record
                .events("gateway.down")
                .iter()
                .any(|down| down["crashLoop"] == true)
        })
        .await;
    back(&gateway).await;
    client.event("gateway.up", 8).await;
    let first = &client.record().events("gateway.down")[0];
    assert_eq!(first["crashLoop"], false);
    client.record().assert_untouched();
}

#[tokio::test]
async fn a_gateway_that_comes_back_at_another_address_is_found() {
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: this machine has no ::1");
        return;
    }
    let gateway = ScriptedGateway::start().await;
    let url = format!("http://localhost:{}", gateway.addr().port());
    let proxy = Proxy::in_front_of(&url, "").await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    gateway.listen_at(Ipv6Addr::LOCALHOST.into());
    gateway.ready();
    client.event("gateway.up", 1).await;
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
}

#[tokio::test]
async fn a_name_without_an_address_is_an_outage_with_a_reason() {
    let proxy = Proxy::in_front_of(
        "http://no-such-gateway.invalid:3001",
        "[hold]\nupgrade = \"300ms\"\n[http]\nhold = \"300ms\"",
    )
    .await;
    let offer = [("Sec-WebSocket-Protocol", "chat")];
    let refusal = Raw::open(&proxy.target(), "/", &offer)
        .await
        .err()
        .expect("a refusal");
    assert_eq!(
        (refusal.status, &refusal.json()["error"]["reason"]),
        (503, &json!("dns"))
    );
}

#[tokio::test]
async fn gateways_without_startupz_are_ready_when_they_challenge() {
    for startupz in [Startupz::NotFound, Startupz::Html] {
        let options = Options {
            startupz,
            ..Options::default()
        };
        let gateway = ScriptedGateway::with(options).await;
        let proxy = Proxy::start(&gateway).await;
        let client = Client::connected(Role::backend(), proxy.target()).await;
        gateway.restart(ms(200), ms(0)).await;
        client.event("gateway.up", 1).await;
        client.request("health", json!({})).await.ok();
        client.record().assert_untouched();
    }
}

#[tokio::test]
async fn a_gateway_that_stops_listening_but_keeps_its_connections_cuts_nobody() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.stop_listening();
    proxy.gateway_is("down").await;
    let outcome = client.request("config.set", json!({"name": "still"})).await;
    let executed = gateway.journal().executions("still");
    match outcome {
        Outcome::Ok(_) => assert_eq!(executed, 1),
        Outcome::Error(error) => {
            assert_eq!(error["details"]["execution"], "not_started", "{error}");
            assert_eq!(executed, 0);
        }
        Outcome::Lost => panic!("cut off"),
    }
    client.record().assert_untouched();
}
