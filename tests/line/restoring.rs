//! A gateway that takes a session back and goes away again before it stands there as it stood.

use serde_json::json;

use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Client, Proxy, Role};

/// A client that has subscribed, and a gateway that takes it back but refuses that so many times.
async fn refused(times: usize) -> (ScriptedGateway, Proxy, Client) {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    client.request("sessions.subscribe", json!({})).await.ok();
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    gateway.refuse("sessions.subscribe", times);
    (gateway, proxy, client)
}

#[tokio::test]
async fn its_end_is_waited_for_on_the_same_socket_and_nothing_is_sent_to_it() {
    let (gateway, _proxy, client) = refused(1).await;
    let waiting = client.send_request("config.set", json!({"name": "kept"}));
    gateway.begin_starting().await;
    gateway.ready();
    gateway
        .wait_for("the refusal", |journal| {
            journal.requests("sessions.subscribe").len() == 2
        })
        .await;
    assert_eq!(gateway.journal().arrivals("kept"), 0);
    gateway.kill().await;
    gateway.begin_starting().await;
    gateway.ready();
    client.outcome(&waiting).await.ok();
    let journal = gateway.journal();
    assert_eq!(journal.requests("sessions.subscribe").len(), 3);
    assert_eq!(journal.executions("kept"), 1);
    gateway.publish("sessions.subscribe", "sessions.changed", &json!({"n": 1}));
    assert_eq!(client.event("sessions.changed", 1).await["n"], 1);
    client.record().assert_untouched();
}

#[tokio::test]
async fn one_that_stays_after_all_is_asked_again() {
    let (gateway, _proxy, client) = refused(2).await;
    gateway.begin_starting().await;
    gateway.ready();
    let answer = client.request("config.set", json!({"name": "kept"})).await;
    answer.ok();
    let journal = gateway.journal();
    assert_eq!(journal.requests("sessions.subscribe").len(), 4);
    assert_eq!(journal.executions("kept"), 1);
    client.record().assert_untouched();
}

#[tokio::test]
async fn one_that_never_means_it_is_left_to_the_client() {
    let (gateway, _proxy, client) = refused(usize::MAX).await;
    gateway.begin_starting().await;
    gateway.ready();
    client
        .wait_for("the close", |record| record.disconnects.len() == 1)
        .await;
    assert_eq!(client.record().disconnects[0].code, 1012);
    assert_eq!(gateway.journal().requests("sessions.subscribe").len(), 6);
}
