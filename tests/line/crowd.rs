//! Many sessions at once: none is lost, and the gateway is not stampeded.

use std::time::Duration;

use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::kit::gateway::{Event, Journal, Options, ScriptedGateway, Stop};
use crate::kit::{Client, Proxy, Raw, Role, Target, in_step, ms};

/// Clients at many addresses of this machine, which the gateway sees as one: ours.
fn from(target: &Target, number: usize) -> Target {
    target
        .clone()
        .from(&format!("127.0.{}.{}", 1 + number / 200, 1 + number % 200))
}

async fn connect(role: &Role, target: &Target, count: usize) -> Vec<Client> {
    let clients: Vec<Client> = (0..count)
        .map(|number| Client::start(role.clone(), from(target, number)))
        .collect();
    for client in &clients {
        client.hello(1).await;
    }
    clients
}

async fn ready_gateway() -> ScriptedGateway {
    ScriptedGateway::with(Options {
        long_hello: false,
        ..Options::default()
    })
    .await
}

/// When the `hello-ok`s of the newest process were given.
fn returns(journal: &Journal) -> Vec<Instant> {
    let newest = journal.entries.last().map_or(0, |entry| entry.process);
    let hello = |event: &Event| matches!(event, Event::Connect { error: None, .. });
    let entries = journal.entries.iter();
    entries
        .filter(|e| e.process == newest && hello(&e.event))
        .map(|e| e.at)
        .collect()
}

/// Each is hundreds of open files; together they would be more than some machines allow.
static ONE_CROWD_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_survive_a_restart_and_return_evenly() {
    let _alone = ONE_CROWD_AT_A_TIME.lock().await;
    let gateway = ready_gateway().await;
    let proxy = Proxy::with(
        &gateway,
        "[hold]\nresume_rate = 100\nunfinished_handshakes = 20",
    )
    .await;
    let clients = connect(&Role::backend(), &proxy.target(), 200).await;
    gateway.stop(Stop::Sigterm).await;
    tokio::time::sleep(ms(300)).await;
    gateway.begin_starting().await;
    tokio::time::sleep(ms(300)).await;
    let ready = Instant::now();
    gateway.ready();
    gateway
        .wait_for("everybody's return", |j| returns(j).len() == 200)
        .await;
    for client in &clients {
        client.request("sessions.list", json!({})).await.ok();
        client.record().assert_untouched();
    }
    let returns = returns(&gateway.journal());
    // Later at any time, for a slow machine; never earlier.
    for (number, returned) in (0..).zip(&returns) {
        let after = *returned - ready;
        assert!(
            after >= ms(10 * number),
            "{number} were back after {after:?}"
        );
    }
    assert!(
        gateway.journal().peak_unfinished <= 20,
        "{}",
        gateway.journal().peak_unfinished
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_clients_of_one_address_all_come_back_within_the_gateways_limit() {
    let _alone = ONE_CROWD_AT_A_TIME.lock().await;
    let gateway = ready_gateway().await;
    let proxy = Proxy::start(&gateway).await;
    let target = proxy.target();
    let starting = (0..40).map(|_| Client::start(Role::official(), target.clone()));
    let clients: Vec<Client> = starting.collect();
    for client in &clients {
        client.hello(1).await;
    }
    gateway.outage(Stop::Kill, ms(300), ms(300)).await;
    for client in &clients {
        client.hello(2).await;
        client.record().assert_sound();
        assert_eq!(
            (client.record().attempts, client.record().quiet_retries),
            (2, 0)
        );
    }
    let journal = gateway.journal();
    assert!(
        journal.peak_unfinished_per_ip <= 32,
        "{}",
        journal.peak_unfinished_per_ip
    );
    assert!(journal.upgrades().iter().all(|(_, status)| *status == 101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_of_one_address_wait_their_turn_behind_handshakes_that_dawdle() {
    let _alone = ONE_CROWD_AT_A_TIME.lock().await;
    let gateway = ready_gateway().await;
    let proxy = Proxy::with(&gateway, "[hold]\nunfinished_per_ip = 4").await;
    let target = proxy.target();
    let mut dawdlers = Vec::new();
    for _ in 0..4 {
        dawdlers.push(Raw::open(&target, "/", &[]).await.unwrap());
    }
    let waiting = Client::start(Role::official(), target.clone());
    tokio::time::sleep(ms(500)).await;
    assert_eq!(
        gateway.journal().upgrades().len(),
        4,
        "a fifth unfinished handshake"
    );
    drop(dawdlers.pop());
    waiting.hello(1).await;
    waiting.record().assert_untouched();
}

#[tokio::test]
async fn a_crowd_at_the_door_of_a_gateway_that_is_down_gets_in_at_the_first_attempt() {
    let _alone = ONE_CROWD_AT_A_TIME.lock().await;
    let gateway = ScriptedGateway::stopped(Options {
        long_hello: false,
        ..Options::default()
    });
    let proxy = Proxy::with(&gateway, "[hold]\nresume_rate = 200").await;
    let target = proxy.target();
    // Nobody waits any longer than that, however long a hundred TLS handshakes take.
    in_step(async {
        let clients: Vec<Client> = (0..100)
            .map(|n| Client::start(Role::official(), from(&target, n)))
            .collect();
        for client in &clients {
            client
                .wait_for("its attempt", |record| record.attempts == 1)
                .await;
        }
        tokio::time::sleep(ms(500)).await;
        gateway.begin_starting().await;
        tokio::time::sleep(ms(300)).await;
        gateway.ready();
        for client in &clients {
            client.hello(1).await;
            client.record().assert_untouched();
        }
    })
    .await;
    assert!(gateway.journal().peak_unfinished <= 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_that_never_reads_does_not_keep_the_others_from_coming_back() {
    let _alone = ONE_CROWD_AT_A_TIME.lock().await;
    let gateway = ready_gateway().await;
    let proxy = Proxy::start(&gateway).await;
    let clients = connect(&Role::backend(), &proxy.target(), 10).await;
    let stuck = proxy.target().receive_buffer(4096);
    let (stuck, _) = Raw::connected(&stuck, &Role::backend()).await;
    let big = "x".repeat(100_000);
    for _ in 0..100 {
        gateway.conns()[10].event("flood", json!({"big": big}));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    gateway.outage(Stop::Kill, ms(200), ms(100)).await;
    for client in &clients {
        client.event("gateway.up", 1).await;
        client.request("health", json!({})).await.ok();
        client.record().assert_untouched();
    }
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ready_gateway_takes_a_hundred_newcomers_of_one_address_without_a_wait() {
    let _alone = ONE_CROWD_AT_A_TIME.lock().await;
    let gateway = ready_gateway().await;
    let proxy = Proxy::with(&gateway, "[hold]\nunfinished_per_ip = 4").await;
    let target = proxy.target();
    let starting = (0..100).map(|_| Client::start(Role::official(), target.clone()));
    let clients: Vec<Client> = starting.collect();
    for client in &clients {
        client.hello(1).await;
        client.record().assert_untouched();
        assert_eq!(client.record().events("gateway.down"), [json!(null); 0]);
    }
    drop(clients);
    proxy.is_empty().await;
    gateway
        .wait_for("their ends", |journal| journal.closes().len() == 100)
        .await;
}

#[tokio::test]
async fn whoever_waits_behind_dawdlers_is_not_told_that_the_gateway_is_down() {
    let _alone = ONE_CROWD_AT_A_TIME.lock().await;
    let gateway = ready_gateway().await;
    let settings = "[hold]\nunfinished_per_ip = 1\nupgrade = \"300ms\"\nhandshake = \"1s\"";
    let proxy = Proxy::with(&gateway, settings).await;
    let target = proxy.target();
    let dawdler = Raw::open(&target, "/", &[]).await.unwrap();
    if let Ok(mut raw) = Raw::open(&target, "/", &[]).await {
        let frames = raw
            .until("close", |frame| frame.opcode == crate::kit::frame::CLOSE)
            .await;
        for frame in frames {
            let down = frame.json();
            assert_ne!(down["payload"]["state"], "ready", "{down}");
        }
    }
    drop(dawdler);
}
