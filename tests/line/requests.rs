//! Promise 3: nothing runs twice, and every request gets exactly one answer that is true.

use serde_json::{Value, json};

use crate::kit::client::request;
use crate::kit::gateway::{ScriptedGateway, Stop};
use crate::kit::{Client, Frame, Outcome, Proxy, Raw, Role, ms};

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    gateway.ready();
}

fn execution(error: &Value) -> &Value {
    &error["details"]["execution"]
}

#[tokio::test]
async fn an_unanswered_request_that_may_have_run_is_not_said_again_and_its_sender_is_told() {
    for role in [Role::backend(), Role::official(), Role::control_ui()] {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let client = Client::connected(role, proxy.target()).await;
        let set = client.send_request("config.set", json!({"name": "set", "wait": "never"}));
        let send = client.send_request(
            "chat.send",
            json!({"name": "send", "wait": "never", "idempotencyKey": "k"}),
        );
        gateway
            .wait_for("both", |j| j.executions("set") + j.executions("send") == 2)
            .await;
        gateway.kill().await;
        for id in [&set, &send] {
            let error = client.outcome(id).await.error();
            assert_eq!(error["code"], "UNAVAILABLE");
            assert_eq!(error["retryable"], false, "{error}");
            assert_eq!(execution(&error), "may_have_executed");
        }
        back(&gateway).await;
        gateway
            .wait_for("its return", |journal| journal.hellos() == 2)
            .await;
        client.request("health", json!({})).await;
        assert_eq!(
            (
                gateway.journal().arrivals("set"),
                gateway.journal().arrivals("send")
            ),
            (1, 1)
        );
        client.record().assert_sound();
    }
}

#[tokio::test]
async fn an_unanswered_read_is_said_again_after_a_replay_and_answered_once() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    let read = client.send_request("sessions.list", json!({"name": "read", "wait": "later"}));
    gateway
        .wait_for("the read", |journal| journal.arrivals("read") == 1)
        .await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    gateway.release("later");
    back(&gateway).await;
    assert_eq!(
        client.outcome(&read).await.ok()["bootId"],
        gateway.boot_id()
    );
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
    assert_eq!(client.record().answers[&read].len(), 1);
}

#[tokio::test]
async fn with_replay_requests_never_even_a_read_is_answered_with_an_error() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[hold]\nreplay_requests = \"never\"").await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    let read = client.send_request("sessions.list", json!({"name": "read", "wait": "never"}));
    gateway
        .wait_for("the read", |journal| journal.arrivals("read") == 1)
        .await;
    gateway.kill().await;
    let error = client.outcome(&read).await.error();
    assert_eq!(execution(&error), "may_have_executed");
    back(&gateway).await;
    client.request("health", json!({})).await.ok();
    assert_eq!(gateway.journal().arrivals("read"), 1);
}

#[tokio::test]
async fn what_a_session_that_will_be_replayed_sends_while_held_arrives_in_order_and_once() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    let names: Vec<String> = (0..20).map(|number| format!("held-{number}")).collect();
    let send = |name| client.send_request("config.set", json!({"name": name}));
    let ids: Vec<String> = names.iter().map(send).collect();
    back(&gateway).await;
    for id in &ids {
        client.outcome(id).await.ok();
    }
    let journal = gateway.journal();
    let arrived: Vec<_> = journal.requests("config.set");
    let arrived: Vec<_> = arrived
        .iter()
        .filter_map(|params| params["name"].as_str())
        .collect();
    assert_eq!(arrived, names);
    client.record().assert_untouched();
}

#[tokio::test]
async fn what_any_other_session_sends_while_held_gets_a_retryable_error_at_once() {
    for role in [Role::official(), Role::control_ui(), Role::node()] {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let client = Client::connected(role, proxy.target()).await;
        gateway.kill().await;
        client.event("gateway.down", 1).await;
        let error = client
            .request("config.set", json!({"name": "held"}))
            .await
            .error();
        assert_eq!(
            (&error["code"], &error["retryable"]),
            (&json!("UNAVAILABLE"), &json!(true))
        );
        assert!(error["retryAfterMs"].is_u64(), "{error}");
        assert_eq!(error["details"]["reason"], "gateway-restarting");
        assert_eq!(error["details"]["method"], "config.set");
        assert_eq!(execution(&error), "not_started");
        back(&gateway).await;
        client.hello(2).await;
        client.request("health", json!({})).await.ok();
        assert_eq!(gateway.journal().arrivals("held"), 0);
    }
}

#[tokio::test]
async fn more_than_the_hold_buffer_takes_is_refused_in_words_and_the_rest_arrives() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[hold]\nbuffer = \"4KiB\"").await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    let filler = "x".repeat(1000);
    let send = |n| client.send_request("config.set", json!({"name": n, "filler": filler}));
    let ids: Vec<String> = (0..10).map(|number| send(format!("f{number}"))).collect();
    let last = client.outcome(&ids[9]).await.error();
    assert_eq!(
        (&last["retryable"], execution(&last)),
        (&json!(true), &json!("not_started"))
    );
    back(&gateway).await;
    let mut executed = 0;
    for (number, id) in ids.iter().enumerate() {
        let expected = match client.outcome(id).await {
            Outcome::Ok(_) => 1,
            Outcome::Error(error) => {
                assert_eq!(execution(&error), "not_started");
                0
            }
            Outcome::Lost => panic!("{id} got no answer"),
        };
        assert_eq!(gateway.journal().arrivals(&format!("f{number}")), expected);
        executed += expected;
    }
    assert!((1..=4).contains(&executed), "{executed} fit into 4 KiB");
    client.record().assert_untouched();
}

#[tokio::test]
async fn while_it_drains_the_gateways_own_answers_pass() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::official(), proxy.target()).await;
    gateway.drain();
    for _ in 0..3 {
        let error = client
            .request("config.set", json!({"name": "late"}))
            .await
            .error();
        assert_eq!(error["retryAfterMs"], 1000);
        assert_eq!(
            execution(&error),
            &Value::Null,
            "this one is not ours: {error}"
        );
        tokio::time::sleep(ms(100)).await;
    }
    client.record().assert_untouched();
}

#[tokio::test]
async fn after_the_shutdown_event_errors_say_that_a_retry_helps() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::official(), proxy.target()).await;
    gateway.announce_shutdown(&json!({"reason": "gateway stopping"}));
    client.event("shutdown", 1).await;
    let error = client
        .request("sessions.list", json!({"name": "late"}))
        .await
        .error();
    assert_eq!(
        (&error["retryable"], execution(&error)),
        (&json!(true), &json!("not_started"))
    );
    assert_eq!(gateway.journal().arrivals("late"), 0);
}

#[tokio::test]
async fn whatever_the_gateway_suffers_each_request_is_answered_once_and_runs_at_most_once() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    let asking = async {
        let mut ids = Vec::new();
        for number in 0..400 {
            let name = format!("n{number}");
            ids.push((
                client.send_request("config.set", json!({"name": name})),
                name,
            ));
            tokio::time::sleep(ms(5)).await;
        }
        ids
    };
    let suffering = async {
        for how in [
            Stop::Kill,
            Stop::Sigterm,
            Stop::Fin,
            Stop::Kill,
            Stop::Restart,
        ] {
            tokio::time::sleep(ms(150)).await;
            gateway.outage(how, ms(100), ms(100)).await;
        }
    };
    let (ids, ()) = tokio::join!(asking, suffering);
    for (id, name) in &ids {
        let outcome = client.outcome(id).await;
        let executions = gateway.journal().executions(name);
        match &outcome {
            Outcome::Ok(_) => assert_eq!(executions, 1, "{name}"),
            Outcome::Error(e) if execution(e) == "may_have_executed" => {
                assert!(executions <= 1, "{name}: {executions}");
            }
            Outcome::Error(_) => assert_eq!(executions, 0, "{name}: {outcome:?}"),
            Outcome::Lost => panic!("{name} got no answer"),
        }
    }
    client.record().assert_untouched();
    assert!(
        client
            .record()
            .answers
            .values()
            .all(|answers| answers.len() == 1)
    );
}

/// A client's frame of this length, cut in two where `at` of its bytes are sent.
fn cut(length: usize, at: usize) -> (Vec<u8>, Vec<u8>) {
    let params = json!({"name": "torn", "filler": "y".repeat(length)});
    let frame = Frame::text(request("torn", "config.set", &params));
    let mut wire = frame.encode_masked([1, 2, 3, 4]);
    let rest = wire.split_off(at);
    (wire, rest)
}

#[tokio::test]
async fn a_short_request_cut_in_two_by_the_gateways_death_arrives_whole_and_once() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    let (one, two) = cut(50_000, 20_000);
    raw.send_bytes(&one).await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    raw.send_bytes(&two).await;
    back(&gateway).await;
    assert_eq!(raw.answer("torn").await["ok"], true);
    assert_eq!(gateway.journal().executions("torn"), 1);
}

#[tokio::test]
async fn a_long_request_cut_in_two_by_the_gateways_death_never_started() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    let (one, two) = cut(300_000, 200_000);
    raw.send_bytes(&one).await;
    tokio::time::sleep(ms(200)).await;
    gateway.kill().await;
    let answer = raw.answer("torn").await;
    assert_eq!(
        execution(&answer["error"]),
        "not_started",
        "its last byte never left us"
    );
    raw.send_bytes(&two).await;
    raw.request("after", "config.set", json!({"name": "after"}))
        .await;
    back(&gateway).await;
    assert_eq!(raw.answer("after").await["ok"], true);
    let journal = gateway.journal();
    assert_eq!(
        (journal.arrivals("torn"), journal.arrivals("after")),
        (0, 1)
    );
}
