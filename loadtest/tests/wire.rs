//! The lean client and server against an independent implementation, plain and over TLS.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by it"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use loadtest::net::{Trust, connector};
use loadtest::protocol::Protocol;
use loadtest::server::{EchoServer, ServerOptions, Stop};
use loadtest::session::{Dialer, OpenError};
use loadtest::ws::{Opcode, UpgradeError};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{accept_async, connect_async};

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

async fn backend(challenge: bool) -> EchoServer {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let starting = Duration::ZERO;
    EchoServer::start(&ServerOptions {
        listen,
        challenge,
        starting,
    })
    .await
    .unwrap()
}

async fn foreign_echo<S: AsyncRead + AsyncWrite + Unpin>(io: S) {
    let mut ws = accept_async(io).await.unwrap();
    while let Some(Ok(message)) = ws.next().await {
        if message.is_close() {
            continue;
        }
        ws.send(Message::Ping("are you there".into()))
            .await
            .unwrap();
        ws.send(message).await.ok();
    }
}

#[tokio::test]
async fn our_client_talks_to_a_foreign_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let server = tokio::spawn(async move {
        foreign_echo(listener.accept().await.unwrap().0).await;
    });
    let mut session = dialer(Protocol::Echo).open(&url).await.unwrap();
    for size in [0, 1, 125, 126, 1000, 65535, 65536, 300_000] {
        let payload = vec![b'a'; size];
        session.ws.send(Opcode::Text, &payload).await.unwrap();
        assert_eq!(session.ws.next().await.unwrap().payload, payload);
    }
    session.bye().await;
    server.await.unwrap();
}

#[tokio::test]
async fn a_foreign_client_talks_to_our_server() {
    let server = backend(false).await;
    let (mut ws, _) = connect_async(format!("ws://{}/", server.addr()))
        .await
        .unwrap();
    for size in [0, 125, 126, 65536, 300_000] {
        let message = Message::Binary(vec![7; size].into());
        ws.send(message.clone()).await.unwrap();
        assert_eq!(ws.next().await.unwrap().unwrap(), message);
    }
    ws.send(Message::Ping("x".into())).await.unwrap();
    assert_eq!(ws.next().await.unwrap().unwrap(), Message::Pong("x".into()));
    let stopping = tokio::spawn(server.stop(Stop::Politely));
    let Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) = ws.next().await else {
        panic!("no close frame");
    };
    assert_eq!(
        (u16::from(code), reason.as_str()),
        (1012, "service restart")
    );
    stopping.await.unwrap();
}

#[tokio::test]
async fn tls_is_checked_unless_told_otherwise() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    let url = url.parse().unwrap();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(io) = acceptor.accept(io).await {
                    foreign_echo(io).await;
                }
            });
        }
    });
    let file = std::env::temp_dir().join(format!("loadtest-ca-{}.pem", std::process::id()));
    std::fs::write(&file, signed.cert.pem()).unwrap();
    let with = |trust| Dialer {
        tls: Some(connector(&trust).unwrap()),
        ..dialer(Protocol::Echo)
    };
    for trust in [Trust::Anyone, Trust::Ca(file.clone())] {
        let mut session = with(trust).open(&url).await.unwrap();
        session.ws.send(Opcode::Text, b"over tls").await.unwrap();
        assert_eq!(session.ws.next().await.unwrap().payload, b"over tls");
    }
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&file, other.cert.pem()).unwrap();
    let refused = with(Trust::Ca(file.clone())).open(&url).await;
    assert!(matches!(refused, Err(OpenError::Connect(_))));
    std::fs::write(&file, "").unwrap();
    assert!(connector(&Trust::Ca(file.clone())).is_err());
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_refused_upgrade_keeps_its_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\ntoo many!";
        io.write_all(answer).await.unwrap();
        std::future::pending::<()>().await;
    });
    let refused = dialer(Protocol::Echo).open(&url).await.unwrap_err();
    assert_eq!(refused.cause(), "HTTP 503");
    let OpenError::Upgrade(UpgradeError::Refused { status: 503, body }) = refused else {
        panic!("{refused}");
    };
    assert_eq!(body, "too many!");
}

#[tokio::test]
async fn the_challenge_server_greets_and_answers_like_a_gateway() {
    let server = backend(true).await;
    let url = format!("ws://{}/", server.addr());
    let mut session = dialer(Protocol::Openclaw)
        .open(&url.parse().unwrap())
        .await
        .unwrap();
    let mut template = session.template(200);
    session.ws.queue_raw(template.with_id(77));
    session.ws.flush().await.unwrap();
    session.answer(77).await.unwrap();
    let (mut plain, _) = connect_async(&url).await.unwrap();
    let first = plain.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(first.contains("connect.challenge"), "{first}");
    drop(plain);
    session.bye().await;
    let stats = server.stats();
    assert_eq!(stats.handshakes, 2);
    server.stop(Stop::Cut).await;
}
