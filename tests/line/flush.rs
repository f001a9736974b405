//! What was kept during an outage does not overrun the gateway when it is back.

use serde_json::json;

use crate::kit::client::request;
use crate::kit::frame::CONTINUATION;
use crate::kit::gateway::{Event, Options, ScriptedGateway};
use crate::kit::{Client, Frame, Outcome, Proxy, Raw, Role, in_step, ms};

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    gateway.ready();
}

#[tokio::test]
async fn three_hundred_kept_requests_reach_a_gateway_that_takes_thirty_two_at_a_time() {
    let gateway = ScriptedGateway::with(Options {
        busy_from: Some(32),
        ..Options::default()
    })
    .await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    let send = |name: usize| client.send_request("config.set", json!({"name": name}));
    let mut ids: Vec<String> = (0..300).map(send).collect();
    // An answer that takes long is not waited for with what comes next.
    in_step(async {
        back(&gateway).await;
        // Asked while the others are still on their way, this one comes behind them.
        client.event("gateway.up", 1).await;
        ids.push(send(300));
        for id in &ids {
            client.outcome(id).await.ok();
        }
    })
    .await;
    let journal = gateway.journal();
    let arrived: Vec<_> = journal
        .requests("config.set")
        .iter()
        .filter_map(|params| params["name"].as_u64())
        .collect();
    assert_eq!(arrived, (0..=300).collect::<Vec<_>>());
    client.record().assert_untouched();
    client.close(1000);
    proxy.is_empty().await;
}

#[tokio::test]
async fn many_sessions_together_do_not_overrun_it_either() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connected(Role::backend(), proxy.target()).await);
    }
    gateway.kill().await;
    let mut ids = Vec::new();
    let mut bytes = 0;
    for client in &clients {
        client.event("gateway.down", 1).await;
        for number in 0..40 {
            let params = json!({"name": number, "wait": "answers"});
            let id = client.send_request("config.set", params.clone());
            let frame = Frame::text(request(&id, "config.set", &params));
            bytes += frame.encode_masked([0; 4]).len();
            ids.push((client, id));
        }
    }
    proxy.keeps(bytes).await;
    back(&gateway).await;
    // None is answered, and still the next ones follow in the end.
    gateway
        .wait_for("more than go at a time", |journal| {
            journal.requests("config.set").len() > 128
        })
        .await;
    gateway.release("answers");
    let journal = gateway.journal();
    let arrivals: Vec<_> = journal
        .entries
        .iter()
        .filter(
            |entry| matches!(&entry.event, Event::Request { method, .. } if method == "config.set"),
        )
        .map(|entry| entry.at)
        .collect();
    let apart = arrivals[128] - arrivals[0];
    assert!(apart > ms(250), "129 came within {apart:?}");
    for (client, id) in &ids {
        client.outcome(id).await.ok();
    }
}

#[tokio::test]
async fn requests_that_wait_for_something_do_not_hold_up_those_behind_them() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    let wait = |_| client.send_request("agent.wait", json!({"wait": "run"}));
    let waits: Vec<String> = (0..40).map(wait).collect();
    let quick = client.send_request("config.set", json!({"name": "quick"}));
    back(&gateway).await;
    client.outcome(&quick).await.ok();
    gateway.release("run");
    for id in &waits {
        client.outcome(id).await.ok();
    }
}

#[tokio::test]
async fn what_the_next_outage_catches_unsent_is_kept_for_the_return_after_it() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    let send = |number: usize| {
        let params = json!({"name": number, "wait": "answer"});
        client.send_request("config.set", params)
    };
    let ids: Vec<String> = (0..40).map(send).collect();
    back(&gateway).await;
    gateway
        .wait_for("a window", |j| j.requests("config.set").len() == 32)
        .await;
    gateway.kill().await;
    gateway.release("answer");
    back(&gateway).await;
    for (number, id) in ids.iter().enumerate() {
        match client.outcome(id).await {
            Outcome::Ok(_) => assert!(number >= 32, "{number} was sent twice"),
            Outcome::Error(error) => {
                assert_eq!(error["details"]["execution"], "may_have_executed");
                assert!(number < 32, "{number} was never sent");
            }
            Outcome::Lost => panic!("{number} got no answer"),
        }
    }
    assert_eq!(gateway.journal().requests("config.set").len(), 40);
}

/// A client that has kept requests for two and a half windows says something that is no request
/// behind them, and asks for one thing more.
async fn other_behind(settings: &str, others: &[Frame]) {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, settings).await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    for n in 0..70 {
        raw.request(&format!("r{n}"), "agent.wait", json!({"wait": "never"}))
            .await;
    }
    back(&gateway).await;
    raw.event("gateway.up").await;
    for other in others {
        raw.send(other).await;
    }
    raw.request("last", "config.set", json!({"name": "last"}))
        .await;
    assert_eq!(raw.answer("last").await["ok"], true);
    let heard: Vec<_> = gateway
        .journal()
        .entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Frame { conn: 2, frame } if !frame.is_control() => Some(frame.clone()),
            _ => None,
        })
        .collect();
    let behind = &heard[heard.len() - 1 - others.len()..heard.len() - 1];
    for (frame, other) in behind.iter().zip(others) {
        assert_eq!(frame.payload, other.payload);
    }
    assert_eq!(gateway.journal().requests("agent.wait").len(), 70);
}

#[tokio::test]
async fn what_cannot_be_kept_waits_for_its_turn_and_closes_nothing() {
    let long = Frame::binary(vec![7u8; 100_000]);
    let first = Frame::binary("first").not_final();
    let second = Frame::new(CONTINUATION, "second");
    other_behind("", &[long, first, second]).await;
}

#[tokio::test]
async fn what_finds_the_buffer_full_waits_for_its_turn() {
    let other = Frame::binary(vec![7u8; 8000]);
    other_behind("[hold]\nbuffer = \"10KiB\"", &[other]).await;
}

const KEPT: usize = 200;

/// A session in the middle of a flush.
async fn half_flushed(gateway: &ScriptedGateway, proxy: &Proxy) -> Raw {
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    gateway.kill().await;
    raw.event("gateway.down").await;
    for n in 0..KEPT {
        raw.request(&format!("r{n}"), "config.set", json!({"wait": "never"}))
            .await;
    }
    back(gateway).await;
    gateway
        .wait_for("a window", |j| j.requests("config.set").len() >= 32)
        .await;
    raw.event("gateway.up").await;
    raw
}

/// How many requests got this answer before the session was closed, and the close's code.
async fn answers(raw: &mut Raw, execution: &str) -> (usize, Option<u16>) {
    let frames = raw
        .until("the close", |frame| frame.close_code().is_some())
        .await;
    let (close, said) = frames.split_last().unwrap();
    let told = |frame: &&Frame| frame.json()["error"]["details"]["execution"] == execution;
    (said.iter().filter(told).count(), close.close_code())
}

#[tokio::test]
async fn a_close_that_is_a_decision_comes_behind_the_answers_for_what_was_not_sent() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut raw = half_flushed(&gateway, &proxy).await;
    let close = Frame::close(1008, "no").encode();
    gateway.conn(1).await.send_bytes(close);
    let (answers, code) = answers(&mut raw, "not_started").await;
    let sent = gateway.journal().requests("config.set").len();
    assert_eq!((answers + sent, code), (KEPT, Some(1008)));
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_learns_what_was_not_sent() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut raw = half_flushed(&gateway, &proxy).await;
    raw.send(&Frame::new(3, "")).await;
    let (answers, code) = answers(&mut raw, "not_started").await;
    let sent = gateway.journal().requests("config.set").len();
    assert_eq!((answers + sent, code), (KEPT, Some(1002)));
}
