//! The prober against listeners that behave as gateways, and as what stands before them, do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Core, Gateway, Phase};
use crate::config::{self, LoopbackClients, Probe, ProtocolKind, Resume, Upstream};
use crate::observe::Metrics;
use crate::supervise::supervise;

pub(super) fn upstream_at(port: u16) -> Upstream {
    Upstream {
        host: "127.0.0.1".to_owned(),
        port,
        protocol: ProtocolKind::Openclaw,
        probe: Probe::Auto,
        probe_interval: Duration::from_millis(500),
        probe_interval_ready: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        loopback_clients: LoopbackClients::Local,
        resume: Resume::Auto,
    }
}

/// A gateway that is watched, and where it should listen.
async fn watched() -> (Arc<Gateway>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream_at(listener.local_addr().unwrap().port());
    let hold = config::parse("", "t").unwrap().config.hold;
    let gateway = Gateway::start(upstream, &hold, &Arc::new(Metrics::default()));
    (gateway, listener)
}

async fn answer_started(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let body = r#"{"ok":true,"status":"started"}"#;
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_accepts_and_is_silent_is_starting_before_its_answer_is_there() {
    let (gateway, listener) = watched().await;
    let (mut first, _) = listener.accept().await.unwrap();
    let view = gateway.wait_for(|view| view.phase != Phase::Down).await;
    assert_eq!(view.phase, Phase::Starting);
    // The probe has not been given up meanwhile.
    answer_started(&mut first).await;
    gateway.wait_for(|view| view.phase == Phase::Ready).await;
}

#[tokio::test]
async fn a_proxy_that_accepts_in_the_place_of_nobody_is_no_start() {
    let (gateway, listener) = watched().await;
    let mut seen = gateway.subscribe();
    for _ in 0..10 {
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
        assert_eq!(seen.borrow_and_update().phase, Phase::Down);
    }
}

/// What was known before the panic is still known, and what happens after it is seen.
#[tokio::test]
async fn a_prober_that_panics_in_the_middle_of_a_change_is_started_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream_at(listener.local_addr().unwrap().port());
    let core = Core::new(upstream, &Arc::new(Metrics::default()));
    core.change(|watched, now| watched.machine.accepted(now));
    let (failing, failed) = (Arc::clone(&core), AtomicBool::new(false));
    let _prober = supervise("the prober", move || {
        let (core, fails) = (Arc::clone(&failing), !failed.swap(true, Relaxed));
        async move {
            if fails {
                core.change(|_, _| panic!("in the middle"));
            }
            core.watch().await;
        }
    });
    let mut state = core.published.subscribe();
    let (mut probe, _) = listener.accept().await.unwrap();
    assert_eq!(state.borrow_and_update().phase, Phase::Starting);
    answer_started(&mut probe).await;
    let ready = state.wait_for(|view| view.phase == Phase::Ready).await;
    assert_eq!(ready.unwrap().generation, 1);
}
