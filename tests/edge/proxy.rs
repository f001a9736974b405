//! The PROXY header as it arrives from a load balancer.

use std::time::Duration;

use holdline::config::Config;
use holdline::observe::labels::{Refusal, TlsFailure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::*;

fn behind_a_proxy(config: &mut Config) {
    config.listen.proxy_protocol = true;
    config.listen.trusted_proxies = vec![
        "127.0.0.0/8".parse().unwrap(),
        "203.0.113.0/24".parse().unwrap(),
    ];
}

fn version_2(command: u8, client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, 0x11, 0, 19]);
    header.extend(client);
    header.extend([127, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb]);
    header.extend([0x04, 0, 4, 0, 0, 0, 0]);
    header
}

/// Connects with this header in these pieces and asks who we are.
async fn whoami(edge: &Running, pieces: &[&[u8]]) -> String {
    let mut socket = edge.tcp().await;
    socket.set_nodelay(true).unwrap();
    for piece in pieces {
        socket.write_all(piece).await.unwrap();
    }
    let stream = handshake(socket, modern(&["http/1.1"]), "localhost")
        .await
        .unwrap();
    text(
        patient(http1(stream).await.send_request(get("/")))
            .await
            .unwrap(),
    )
    .await
}

#[tokio::test]
async fn tells_the_clients_address() {
    let edge = start(|config, _| behind_a_proxy(config));
    let line: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 443\r\n";
    let v2 = version_2(0x21, [192, 0, 2, 7]);
    for pieces in [
        vec![line],
        vec![&line[..9], &line[9..]],
        vec![&v2[..]],
        v2.chunks(1).collect(),
    ] {
        let peer = whoami(&edge, &pieces).await;
        assert!(peer.contains("remote: 192.0.2.7:12345"), "{peer}");
        assert!(peer.contains("via_trusted_proxy: false"), "{peer}");
    }
    // A client that is a trusted proxy itself may tell a further address.
    let peer = whoami(&edge, &[&version_2(0x21, [203, 0, 113, 9])]).await;
    assert!(peer.contains("via_trusted_proxy: true"), "{peer}");
}

#[tokio::test]
async fn a_proxy_that_names_nobody_vouches_for_nobody() {
    let edge = start(|config, _| behind_a_proxy(config));
    for header in [&b"PROXY UNKNOWN\r\n"[..], &version_2(0x20, [192, 0, 2, 7])] {
        let peer = whoami(&edge, &[header]).await;
        assert!(peer.contains("remote: 0.0.0.0:"), "{peer}");
        assert!(peer.contains("via_trusted_proxy: false"), "{peer}");
    }
}

#[tokio::test]
async fn is_required_from_a_trusted_proxy() {
    let edge = start(|config, _| {
        behind_a_proxy(config);
        config.limits.tls_timeout = Duration::from_millis(100);
    });
    let silent = edge.tcp().await;
    let mut half = edge.tcp().await;
    half.write_all(b"PROXY TCP4 ").await.unwrap();
    let mut wrong = edge.tcp().await;
    wrong.write_all(b"PROXY TCP4 a b c d\r\n").await.unwrap();
    for mut socket in [silent, half, wrong] {
        let mut rest = Vec::new();
        let _ = patient(socket.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
    }
    handshake(edge.tcp().await, modern(&[]), "localhost")
        .await
        .unwrap_err();
    edge.stop().await;
    assert_eq!(
        edge.metrics().connections_refused.get(Refusal::ProxyHeader),
        4
    );
}

#[tokio::test]
async fn is_not_believed_from_anybody_else() {
    let edge = start(|config, _| {
        behind_a_proxy(config);
        config.listen.trusted_proxies = vec!["203.0.113.0/24".parse().unwrap()];
    });
    let mut socket = edge.tcp().await;
    socket
        .write_all(&version_2(0x21, [192, 0, 2, 7]))
        .await
        .unwrap();
    handshake(socket, modern(&[]), "localhost")
        .await
        .unwrap_err();
    // Nor needed.
    let peer = whoami(&edge, &[]).await;
    assert!(peer.contains("remote: 127.0.0.1:"), "{peer}");
    edge.stop().await;
    assert_eq!(edge.metrics().tls_failures.get(TlsFailure::NotTls), 1);
}

#[tokio::test]
async fn clients_are_limited_by_their_own_address() {
    let edge = start(|config, _| {
        behind_a_proxy(config);
        config.limits.handshakes_per_ip = 1;
    });
    let header = version_2(0x21, [192, 0, 2, 7]);
    let mut sockets = [edge.tcp().await, edge.tcp().await];
    for socket in &mut sockets {
        socket.write_all(&header).await.unwrap();
    }
    let mut admitted = Vec::new();
    for socket in sockets {
        admitted.extend(handshake(socket, modern(&[]), "localhost").await);
    }
    assert_eq!(admitted.len(), 1);
    assert_eq!(edge.metrics().connections_refused.get(Refusal::Rate), 1);
    whoami(&edge, &[&version_2(0x21, [192, 0, 2, 8])]).await;
}

#[tokio::test]
async fn without_the_protocol_a_trusted_proxy_is_exempt_and_vouches() {
    let edge = start(|config, _| {
        config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.limits.handshakes_per_ip = 1;
    });
    for _ in 0..3 {
        let peer = whoami(&edge, &[]).await;
        assert!(peer.contains("via_trusted_proxy: true"), "{peer}");
    }
}

#[tokio::test]
async fn stands_before_plain_http_too() {
    let edge = start(|config, _| {
        behind_a_proxy(config);
        config.listen.http = vec!["127.0.0.1:0".parse().unwrap()];
    });
    let mut socket = TcpStream::connect(edge.http.unwrap()).await.unwrap();
    let request = b"PROXY UNKNOWN\r\nGET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = String::new();
    patient(socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    let mut bare = TcpStream::connect(edge.http.unwrap()).await.unwrap();
    bare.write_all(&request[15..]).await.unwrap();
    let mut answer = Vec::new();
    let _ = patient(bare.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
}
