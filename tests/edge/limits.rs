//! Bounds on connections: per address, and when descriptors run out.

use std::io;
use std::process::Command;

use holdline::observe::labels::Refusal;
use tokio::net::TcpStream;

use crate::kit::*;

#[tokio::test]
async fn new_connections_are_limited_per_address() {
    let edge = start(|config, _| config.limits.handshakes_per_ip = 3);
    // At once: handshakes in between would take long enough to earn another one.
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(edge.tcp().await);
    }
    let mut admitted = Vec::new();
    for socket in sockets {
        admitted.extend(handshake(socket, modern(&[]), "localhost").await);
    }
    assert_eq!(admitted.len(), 3);
    assert_eq!(edge.metrics().connections_refused.get(Refusal::Rate), 1);
    assert_eq!(edge.metrics().connections_open.get(), 3);
}

#[tokio::test]
async fn open_connections_are_limited_per_address() {
    let edge = start(|config, _| config.limits.sessions_per_ip = 1);
    let mut kept = Vec::new();
    for _ in 0..64 {
        kept.push(edge.connect(modern(&[]), "localhost").await);
    }
    handshake(edge.tcp().await, modern(&[]), "localhost")
        .await
        .unwrap_err();
    assert_eq!(edge.metrics().connections_refused.get(Refusal::Address), 1);
}

/// Runs the next test in a process of its own with few descriptors.
#[cfg(target_os = "linux")]
#[test]
fn survives_a_lack_of_descriptors() {
    let status = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 48; exec \"$0\" --ignored --exact limits::lacking_descriptors",
        ])
        .arg(std::env::current_exe().unwrap())
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
#[ignore = "needs few descriptors: run by survives_a_lack_of_descriptors"]
async fn lacking_descriptors() {
    let edge = start(|_, _| {});
    let mut first = http1(edge.connect(modern(&["http/1.1"]), "localhost").await).await;
    // Each takes one here and one there; the backlog takes the rest.
    let mut hoard = Vec::new();
    let lacking = loop {
        match TcpStream::connect(edge.https).await {
            Ok(socket) => hoard.push(socket),
            Err(error) => break error,
        }
    };
    const EMFILE: i32 = 24;
    assert_eq!(lacking.raw_os_error(), Some(EMFILE));
    // Let it run into the lack as well: our own last descriptor is its last too.
    while edge.metrics().accept_pauses.get() == 0 {
        match TcpStream::connect(edge.https).await {
            Ok(socket) => hoard.push(socket),
            Err(error) => assert_eq!(error.raw_os_error(), Some(EMFILE)),
        }
        tokio::task::yield_now().await;
    }
    // Whoever is in is served on, and whoever comes after the lack is served again.
    patient(first.send_request(get("/"))).await.unwrap();
    hoard.clear();
    let again = patient(async {
        loop {
            let connected = TcpStream::connect(edge.https).await;
            match connected {
                Ok(socket) => break handshake(socket, modern(&["http/1.1"]), "localhost").await,
                Err(error) => assert_eq!(error.raw_os_error(), Some(EMFILE)),
            }
            tokio::task::yield_now().await;
        }
    });
    let again: io::Result<_> = again.await;
    patient(http1(again.unwrap()).await.send_request(get("/")))
        .await
        .unwrap();
}
