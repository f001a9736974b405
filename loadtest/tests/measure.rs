//! Every measurement, briefly, against the echo backend in the same process: the counts add up.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by it"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loadtest::outage::{OutageReport, Restart};
use loadtest::protocol::Protocol;
use loadtest::report::Report;
use loadtest::server::{EchoServer, ServerOptions, Stop};
use loadtest::session::Dialer;
use loadtest::target::Target;
use loadtest::url::Url;
use loadtest::{compare, echo, idle, latency, outage, reload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn dialer(protocol: Protocol) -> Dialer {
    let (token, method) = (String::new(), "health".to_owned());
    Dialer {
        tls: None,
        protocol,
        token,
        method,
        headers: Vec::new(),
    }
}

async fn backend(listen: SocketAddr, protocol: Protocol, starting: Duration) -> EchoServer {
    let challenge = protocol == Protocol::Openclaw;
    EchoServer::start(&ServerOptions {
        listen,
        challenge,
        starting,
    })
    .await
    .unwrap()
}

fn target(server: &EchoServer) -> Target {
    let url = format!("ws://{}/", server.addr()).parse().unwrap();
    Target {
        name: "echo".into(),
        url,
        pids: vec![std::process::id()],
    }
}

/// Each looks at this process and all that it starts: nobody else is to come and go there.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const LATENCY: latency::Plan = latency::Plan {
    sessions: 3,
    rate: 600.0,
    size: 64,
    length: Duration::from_millis(100),
    opening: 4,
};
const ECHO: echo::Plan = echo::Plan {
    sessions: 4,
    size: 100,
    in_flight: 3,
    length: Duration::from_millis(100),
    rounds: 2,
    warm_up: Duration::from_millis(10),
    opening: 4,
};

fn idle_plan() -> idle::Plan {
    idle::Plan {
        sessions: 30,
        first_frame: Some("hello".into()),
        opening: 8,
        look_every: Duration::from_millis(1),
        looks: (1, 3),
    }
}

#[tokio::test]
async fn latency_counts_every_turn_of_every_session() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for protocol in [Protocol::Echo, Protocol::Openclaw] {
        let server = backend(ANY, protocol, Duration::ZERO).await;
        let targets = [target(&server), target(&server)];
        let report = latency::run(&dialer(protocol), &targets, true, &LATENCY)
            .await
            .unwrap();
        // 200 requests a second and session for 100 ms: 20 turns of 3 sessions.
        for measured in &report.targets {
            assert_eq!((measured.latency.count, measured.lost), (60, 0));
            assert!(measured.latency.p50 > 0.0 && measured.latency.p50 <= measured.latency.max);
        }
        assert_eq!(report.added.len(), 1);
        assert!(report.text().contains("added by"));
        server.stop(Stop::Cut).await;
    }
}

#[tokio::test]
async fn echo_counts_messages_and_their_bytes() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for protocol in [Protocol::Echo, Protocol::Openclaw] {
        let server = backend(ANY, protocol, Duration::ZERO).await;
        let report = echo::run(&dialer(protocol), &[target(&server)], &ECHO)
            .await
            .unwrap();
        let measured = &report.targets[0];
        assert!(measured.messages > 0 && measured.lost == 0);
        assert_eq!(measured.bytes, measured.messages * 100);
        assert!(measured.cpu_seconds.is_some());
        assert_eq!(server.stats().handshakes, 8);
        server.stop(Stop::Cut).await;
    }
}

#[tokio::test]
async fn large_messages_go_one_by_one_and_do_not_block() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = backend(ANY, Protocol::Echo, Duration::ZERO).await;
    let plan = echo::Plan {
        size: 3_000_000,
        in_flight: 8,
        ..ECHO
    };
    let report = echo::run(&dialer(Protocol::Echo), &[target(&server)], &plan)
        .await
        .unwrap();
    assert_eq!(report.targets[0].lost, 0);
    server.stop(Stop::Cut).await;
}

#[tokio::test]
async fn idle_opens_exactly_what_was_asked_and_closes_it_again() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = backend(ANY, Protocol::Echo, Duration::ZERO).await;
    let plan = idle_plan();
    let report = idle::run(&dialer(Protocol::Echo), &[target(&server)], &plan)
        .await
        .unwrap();
    assert_eq!(
        (report.targets[0].sessions, report.targets[0].lost),
        (30, 0)
    );
    assert!(report.targets[0].after.rss > 0);
    // 16 for first use, then the 30.
    assert_eq!(server.stats().handshakes, 46);
    server.stop(Stop::Politely).await;
}

#[tokio::test]
async fn compare_has_a_line_for_each_proxy_and_none_for_the_baseline() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = backend(ANY, Protocol::Echo, Duration::ZERO).await;
    let named = |name: &str| Target {
        name: name.into(),
        ..target(&server)
    };
    let plan = compare::Plan {
        axes: vec![
            compare::Axis::Idle,
            compare::Axis::Latency,
            compare::Axis::Echo,
        ],
        latency: LATENCY,
        echo: ECHO,
        idle: idle_plan(),
    };
    let proxies = [named("a"), named("b")];
    let baseline = named("baseline");
    let dialer = dialer(Protocol::Echo);
    let report = Box::pin(compare::run(&dialer, &proxies, Some(&baseline), &plan))
        .await
        .unwrap();
    let names: Vec<_> = report
        .summary
        .iter()
        .map(|line| line.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert!(
        report
            .summary
            .iter()
            .all(|line| line.messages_per_second.is_some())
    );
    assert!(report.text().contains("relative to the first"));
    assert!(report.render(true).unwrap().contains("rssPerSession"));
    server.stop(Stop::Cut).await;
}

fn outage_plan(url: Url, addr: SocketAddr, sessions: usize) -> outage::Plan {
    outage::Plan {
        sessions,
        url,
        every: Duration::from_millis(20),
        size: 64,
        backoff: (Duration::from_millis(5), Duration::from_millis(50)),
        length: Duration::from_secs(60),
        linger: Duration::ZERO,
        ready_url: Some(format!("http://{addr}/startupz").parse().unwrap()),
        stats_url: Some(format!("http://{addr}/stats").parse().unwrap()),
        opening: 8,
    }
}

/// Runs clients straight against a backend that is stopped and started again.
async fn through_restart(
    protocol: Protocol,
    clients: usize,
    how: Stop,
    starting: Duration,
) -> OutageReport {
    let server = backend(ANY, protocol, Duration::ZERO).await;
    let addr = server.addr();
    let url = target(&server).url;
    let second = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&second);
    let restart = Restart::Call(Box::pin(async move {
        server.stop(how).await;
        let again = backend(addr, protocol, starting).await;
        *keep.lock().unwrap() = Some(again);
        Ok(())
    }));
    let plan = outage_plan(url, addr, clients);
    let report = Box::pin(outage::run(&dialer(protocol), &plan, restart))
        .await
        .unwrap();
    let again = second.lock().unwrap().take().unwrap();
    again.stop(Stop::Cut).await;
    report
}

fn requests_add_up(report: &OutageReport) {
    let counts = &report.counts;
    let refused: usize = counts.refused.values().sum();
    assert_eq!(
        counts.requests,
        counts.answered + refused + counts.unanswered,
        "{report:?}"
    );
}

#[tokio::test]
async fn each_client_is_disconnected_exactly_once_by_a_polite_restart() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let report = through_restart(Protocol::Echo, 10, Stop::Politely, Duration::ZERO).await;
    assert_eq!((report.counts.disconnects, report.not_back), (10, 0));
    assert_eq!(report.counts.close_codes.get(&1012), Some(&10));
    assert_eq!(report.backend.unwrap().handshakes, 10);
    assert!(report.ready_to_usable_ms.is_some() && report.gap_ms.is_some());
    requests_add_up(&report);
}

#[tokio::test]
async fn a_hard_end_is_1006_for_everybody() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let report = through_restart(Protocol::Openclaw, 10, Stop::Cut, Duration::ZERO).await;
    assert_eq!((report.counts.disconnects, report.not_back), (10, 0));
    assert_eq!(report.counts.close_codes.get(&1006), Some(&10));
    assert!((1..=10).contains(&report.peak_upgrades_per_second));
    requests_add_up(&report);
}

#[tokio::test]
async fn starting_is_an_invitation_not_a_failure() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let starting = Duration::from_millis(150);
    let report = through_restart(Protocol::Openclaw, 5, Stop::Politely, starting).await;
    assert_eq!((report.counts.disconnects, report.not_back), (5, 0));
    // However many attempts fell into the starting window: none of them is a failure.
    let refused = |cause: &String| cause.contains("startup-sidecars");
    assert!(
        !report.counts.failed_attempts.keys().any(refused),
        "{report:?}"
    );
    requests_add_up(&report);
}

#[tokio::test]
async fn clients_that_cannot_open_are_a_clear_failure() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = backend(ANY, Protocol::Echo, Duration::ZERO).await;
    let target = target(&server);
    server.stop(Stop::Cut).await;
    let failed = latency::run(&dialer(Protocol::Echo), &[target], false, &LATENCY).await;
    assert!(format!("{:#}", failed.unwrap_err()).contains("onnection refused"));
}

fn reload_plan() -> reload::Plan {
    reload::Plan {
        sessions: 10,
        every: Duration::from_millis(5),
        warm_up: 2,
        reloads: 4,
        pace: Duration::from_millis(50),
        churn: 1,
        connectors: 1,
        patience: Duration::from_secs(5),
        opening: 4,
        look_every: Duration::from_millis(5),
        looks: (1, 3),
    }
}

async fn reloaded(target: Target, moving: Option<SocketAddr>) -> reload::Measured {
    let crew = |address: SocketAddr| reload::Crew {
        url: format!("ws://{address}/").parse().unwrap(),
        sessions: 3,
        gateways: vec![address],
    };
    let proxy = reload::Reloadable {
        also: Some(target.url.clone()),
        command: "echo \"key $((N % 2))\"".to_owned(),
        held: None,
        moving: moving.map(crew),
        target,
    };
    let (echo, openclaw) = (dialer(Protocol::Echo), dialer(Protocol::Openclaw));
    let (proxies, plan) = ([proxy], reload_plan());
    let report = Box::pin(reload::run(&echo, &openclaw, &proxies, &plan)).await;
    let mut report = report.unwrap();
    assert_eq!(report.failed, Vec::<String>::new());
    assert!(report.text().contains("4 reloads"));
    report.proxies.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_that_do_nothing_lose_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = backend(ANY, Protocol::Echo, Duration::ZERO).await;
    let free = TcpListener::bind(ANY).await.unwrap().local_addr().unwrap();
    let measured = reloaded(target(&server), Some(free)).await;
    let echoes = &measured.echoes;
    assert!(echoes.is_true() && echoes.drops.sessions == 0, "{echoes:?}");
    // Every shape of every session, at least.
    assert!(
        echoes.sent >= 160 && echoes.sent == echoes.echoed,
        "{echoes:?}"
    );
    assert!(measured.connects.tried > 0 && measured.connects.refused() == 0);
    let changed: Vec<&str> = measured.turns.changed.iter().map(String::as_str).collect();
    assert_eq!(
        (measured.turns.reloads, changed),
        (4, vec!["key 0", "key 1"])
    );
    let moving = measured.moving.unwrap();
    assert!(moving.is_true() && moving.asked == moving.answered && moving.asked > 0);
    assert_eq!((moving.sessions, measured.moves), (3, Some(0)));
    // With each reload one session came anew, and the connector's.
    let handshakes = 10 + 4 + measured.connects.tried as u64;
    assert_eq!(server.stats().handshakes, handshakes);
    server.stop(Stop::Cut).await;
}

/// Passes on so many bytes of a client, then cuts its connection.
async fn short_lived(to: SocketAddr, budget: u64) -> SocketAddr {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await?;
                let (from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let mut bounded = from_client.take(budget);
                tokio::select! {
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                    _ = tokio::io::copy(&mut bounded, &mut to_server) => {}
                }
                to_client.shutdown().await
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_sessions_and_lost_messages_are_faults() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = backend(ANY, Protocol::Echo, Duration::ZERO).await;
    let proxy = short_lived(server.addr(), 200_000).await;
    let mut target = target(&server);
    target.url = format!("ws://{proxy}/").parse().unwrap();
    let measured = reloaded(target, None).await;
    let echoes = &measured.echoes;
    assert!(echoes.drops.sessions > 0 && echoes.lost > 0, "{echoes:?}");
    assert_eq!(echoes.sent, echoes.echoed + echoes.lost);
    let faults = measured.faults(5.0).join("; ");
    assert!(
        faults.contains("sessions dropped") && faults.contains("messages lost"),
        "{faults}"
    );
    server.stop(Stop::Cut).await;
}
