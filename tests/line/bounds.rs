//! Promise 6: everything is bounded, and over a bound there is a clear refusal.

use serde_json::json;
use tokio::time::Instant;

use crate::kit::gateway::{Options, Protocol, ScriptedGateway};
use crate::kit::{Client, Frame, Outcome, Proxy, Raw, Role, http, ms, within};

#[tokio::test]
async fn over_limits_sessions_an_upgrade_is_refused_in_words_and_a_place_is_free_again() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\nsessions = 2\nsessions_per_ip = 2").await;
    let target = proxy.target();
    let (first, _) = Raw::connected(&target, &Role::backend()).await;
    let (_second, _) = Raw::connected(&target, &Role::backend()).await;
    let other = target.clone().from("127.0.0.9");
    let refusal = Raw::open(&other, "/", &[]).await.err().expect("a refusal");
    assert_eq!(
        (refusal.status, &refusal.json()["error"]["type"]),
        (503, &json!("session_limit"))
    );
    assert!(refusal.header("retry-after").is_some());
    assert_eq!(
        http::get(&target, "/echo", &[]).await.status,
        200,
        "plain requests still pass"
    );
    drop(first);
    gateway
        .wait_for("its end", |journal| journal.closes().len() == 1)
        .await;
    Raw::connected(&target, &Role::backend()).await;
}

#[tokio::test]
async fn over_limits_sessions_per_ip_only_this_address_is_refused() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\nsessions_per_ip = 1").await;
    let target = proxy.target();
    let (_one, _) = Raw::connected(&target, &Role::backend()).await;
    let refusal = Raw::open(&target, "/", &[]).await.err().expect("a refusal");
    assert_eq!(
        (refusal.status, &refusal.json()["error"]["type"]),
        (429, &json!("sessions_per_ip"))
    );
    Raw::connected(&target.from("127.0.0.9"), &Role::backend()).await;
}

#[tokio::test]
async fn connections_over_the_rate_are_refused_and_other_addresses_do_not_notice() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[limits]\nhandshakes_per_ip = \"2/s\"").await;
    let target = proxy.target();
    let before = Instant::now();
    let dials = futures_util::future::join_all((0..40).map(|_| target.dial())).await;
    let served = dials.iter().filter(|dialled| dialled.is_ok()).count();
    // So many at once, and the others as their time comes.
    let most = 2.0 + 2.0 * before.elapsed().as_secs_f64();
    assert!(served as f64 <= most, "{served} of 40 served, not {most}");
    drop(dials);
    assert_eq!(
        http::get(&target.clone().from("127.0.0.9"), "/echo", &[])
            .await
            .status,
        200
    );
    tokio::time::sleep(ms(1100)).await;
    assert_eq!(
        http::get(&target, "/echo", &[]).await.status,
        200,
        "the budget comes back"
    );
}

#[tokio::test]
async fn what_all_held_sessions_keep_together_is_bounded_too() {
    let gateway = ScriptedGateway::start().await;
    let settings = "[hold]\nbuffer = \"8KiB\"\nbuffer_total = \"10KiB\"";
    let proxy = Proxy::with(&gateway, settings).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connected(Role::backend(), proxy.target()).await);
    }
    gateway.kill().await;
    let mut ids = Vec::new();
    for client in &clients {
        client.event("gateway.down", 1).await;
        for _ in 0..6 {
            let params = json!({"name": "n", "filler": "x".repeat(1000)});
            ids.push((client, client.send_request("config.set", params)));
        }
    }
    let (client, last) = &ids[17];
    assert_eq!(
        client.outcome(last).await.error()["details"]["execution"],
        "not_started"
    );
    gateway.begin_starting().await;
    gateway.ready();
    let mut executed = 0;
    for (client, id) in &ids {
        executed += usize::from(matches!(client.outcome(id).await, Outcome::Ok(_)));
    }
    assert_eq!(gateway.journal().executions("n"), executed);
    assert!(
        (1..=10).contains(&executed),
        "{executed} requests of 1 kB in 10 KiB"
    );
    clients
        .iter()
        .for_each(|client| client.record().assert_untouched());
}

const PIECE: usize = 64 * 1024;
/// Kernel buffers on the way take some 20 MiB at most.
const TOO_MUCH: usize = 64 * 1024 * 1024 / PIECE;

async fn echo() -> (ScriptedGateway, Proxy) {
    let options = Options {
        protocol: Protocol::Echo,
        receive_buffer: Some(64 * 1024),
        record_frames: false,
        ..Options::default()
    };
    let gateway = ScriptedGateway::with(options).await;
    let proxy = Proxy::with(&gateway, "[gateway]\nprotocol = \"generic\"").await;
    (gateway, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_read_makes_the_client_wait_and_loses_nothing() {
    let (gateway, proxy) = echo().await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    let conn = gateway.conn(1).await;
    conn.set_reading(false);
    let frame = Frame::binary(vec![5; PIECE]).encode_masked([1, 2, 3, 4]);
    let mut sent = 0;
    let mut rest = &frame[..];
    while sent < TOO_MUCH {
        match tokio::time::timeout(ms(500), raw.write_some(rest)).await {
            Ok(written) => rest = &rest[written..],
            Err(_) => break,
        }
        if rest.is_empty() {
            (sent, rest) = (sent + 1, &frame[..]);
        }
    }
    assert!(
        sent < TOO_MUCH,
        "64 MiB were taken for a gateway that does not read"
    );
    let rest = rest.to_vec();
    conn.set_reading(true);
    let (mut reader, mut writer) = raw.split();
    let torn = rest.len() < frame.len();
    let finish = async {
        if torn {
            writer.send_bytes(&rest).await;
        }
    };
    let expected = sent + usize::from(torn);
    let reading = async {
        for number in 0..expected {
            assert_eq!(reader.next().await.payload.len(), PIECE, "frame {number}");
        }
    };
    within("everything", async { tokio::join!(finish, reading) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_makes_the_gateway_wait_and_loses_nothing() {
    let (gateway, proxy) = echo().await;
    let target = proxy.target().receive_buffer(64 * 1024);
    let mut raw = Raw::open(&target, "/", &[]).await.unwrap();
    let conn = gateway.conn(1).await;
    let wire = Frame::binary(vec![5; PIECE]).encode();
    let mut sent = 0;
    while sent < TOO_MUCH {
        conn.send_bytes(wire.clone());
        if tokio::time::timeout(ms(500), conn.flushed()).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!(
        sent < TOO_MUCH,
        "64 MiB were taken for a client that does not read"
    );
    for number in 0..=sent {
        assert_eq!(raw.next().await.payload.len(), PIECE, "frame {number}");
    }
}

/// Nothing comes back here: the client must be listened to again because the gateway is, not
/// because the gateway spoke.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_read_again_when_a_silent_gateway_reads_again() {
    let options = Options {
        receive_buffer: Some(64 * 1024),
        ..Options::default()
    };
    let gateway = ScriptedGateway::with(options).await;
    let proxy = Proxy::start(&gateway).await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    let conn = gateway.conn(1).await;
    conn.set_reading(false);
    let request = |number: usize| {
        let params = json!({"swallow": true, "pad": "x".repeat(PIECE - 512)});
        let frame = json!({"type": "req", "id": format!("s{number}"), "method": "sessions.list", "params": params});
        Frame::text(frame.to_string()).encode_masked([1, 2, 3, 4])
    };
    let (mut sent, mut rest) = (0, request(0));
    while let Ok(written) = tokio::time::timeout(ms(500), raw.write_some(&rest)).await {
        rest.drain(..written);
        if rest.is_empty() {
            sent += 1;
            rest = request(sent);
        }
        assert!(sent < 900, "it never stopped taking");
    }
    conn.set_reading(true);
    within("the rest being taken", raw.send_bytes(&rest)).await;
    let all = sent + 1;
    gateway
        .wait_for("every request", |journal| {
            journal.requests("sessions.list").len() == all
        })
        .await;
}
