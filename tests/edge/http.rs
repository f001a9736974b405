//! HTTP/1.1 and HTTP/2 connections: limits, upgrades, drain; and the redirect to https.

use std::time::Duration;

use bytes::Bytes;
use holdline::observe::labels::{HttpError, HttpOutcome};
use http::header::{CONNECTION, LOCATION, UPGRADE};
use http::{Method, Request, StatusCode, Version};
use http_body_util::{Empty, Full};
use hyper::client::conn::http2::handshake;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::*;

/// What comes back for these bytes over TLS until the connection ends.
async fn say(edge: &Running, request: &[u8]) -> String {
    let mut stream = edge.connect(modern(&["http/1.1"]), "localhost").await;
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = patient(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn an_upgrade_leaves_with_its_own_socket() {
    let edge = start(|_, _| {});
    let mut send = http1(edge.connect(modern(&["http/1.1"]), "localhost").await).await;
    let mut request = get("/upgrade");
    request
        .headers_mut()
        .insert(CONNECTION, "upgrade".parse().unwrap());
    request
        .headers_mut()
        .insert(UPGRADE, "websocket".parse().unwrap());
    let mut response = patient(send.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = patient(hyper::upgrade::on(&mut response)).await.unwrap();
    let mut stream = TokioIo::new(upgraded);
    // Draining waits for HTTP only: the upgraded socket is somebody else's.
    edge.stop().await;
    assert_eq!(edge.metrics().connections_open.get(), 1);
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    patient(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"hello");
}

#[tokio::test]
async fn http2_carries_extended_connect() {
    let edge = start(|_, _| {});
    let mut send = http2(edge.connect(modern(&["h2"]), "localhost").await).await;
    // Taking in an answer means that the server's settings are there.
    text(patient(send.send_request(get("/"))).await.unwrap()).await;
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://localhost/socket")
        .version(Version::HTTP_2)
        .body(Empty::<Bytes>::new())
        .unwrap();
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    let mut response = patient(send.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut stream = TokioIo::new(patient(hyper::upgrade::on(&mut response)).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    patient(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"hello");
}

#[tokio::test]
async fn uploads_that_wait_leave_http2_to_the_others() {
    const MOST_AHEAD: usize = 256 * 1024;
    let edge = start(|_, _| {});
    let io = TokioIo::new(edge.connect(modern(&["h2"]), "localhost").await);
    let (mut send, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let post = |path: &str, length: usize| {
        let request = Request::post(format!("https://localhost{path}"));
        let body = Full::new(Bytes::from(vec![b'x'; length]));
        request.version(Version::HTTP_2).body(body).unwrap()
    };
    // Nobody reads these; each takes all that a stream may.
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let waits = send.send_request(post("/wait", 4 * MOST_AHEAD));
        stalled.push(tokio::spawn(waits));
        patient(edge.waiting.notified()).await;
    }
    let answer = patient(send.send_request(post("/read", MOST_AHEAD))).await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    drop(stalled);
}

#[tokio::test]
async fn heads_are_bounded() {
    let edge = start(|_, _| {});
    let long = "x".repeat(40_000);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
    let answer = say(&edge, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "X: y\r\n".repeat(200);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    let answer = say(&edge, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut send = http2(edge.connect(modern(&["h2"]), "localhost").await).await;
    let mut request = get("/");
    request.headers_mut().insert("x", long.parse().unwrap());
    let response = patient(send.send_request(request)).await.unwrap();
    assert_eq!(
        response.status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
}

#[tokio::test]
async fn malformed_requests_are_answered() {
    let edge = start(|_, _| {});
    for request in [
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ] {
        let answer = say(&edge, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
    edge.stop().await;
    assert_eq!(edge.metrics().http_errors.get(HttpError::Malformed), 5);
}

#[tokio::test]
async fn a_slow_head_is_closed() {
    let edge = start(|config, _| config.limits.header_timeout = Duration::from_millis(250));
    say(&edge, b"GET / HTTP/1.1\r\nHost:").await;
    say(&edge, b"").await;
    // After an answer as well.
    let answer = say(&edge, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    // HTTP/2 without its preface.
    let mut stream = edge.connect(modern(&["h2"]), "localhost").await;
    let mut rest = Vec::new();
    let _ = patient(stream.read_to_end(&mut rest)).await;
    edge.stop().await;
    assert_eq!(edge.metrics().connections_open.get(), 0);
}

#[tokio::test]
async fn draining_finishes_what_runs_and_closes_what_idles() {
    let edge = start(|_, _| {});
    let mut idle = edge.connect(modern(&["http/1.1"]), "localhost").await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 15];
    patient(idle.read_exact(&mut first)).await.unwrap();
    let unasked = edge.connect(modern(&["http/1.1"]), "localhost").await;
    let mut busy1 = http1(edge.connect(modern(&["http/1.1"]), "localhost").await).await;
    let mut busy2 = http2(edge.connect(modern(&["h2"]), "localhost").await).await;
    let answer1 = tokio::spawn(async move { busy1.send_request(get("/wait")).await });
    patient(edge.waiting.notified()).await;
    let answer2 = tokio::spawn(async move { busy2.send_request(get("/wait")).await });
    patient(edge.waiting.notified()).await;
    edge.edge.drain.cancel();
    let mut rest = Vec::new();
    patient(idle.read_to_end(&mut rest)).await.unwrap();
    edge.go.notify_waiters();
    assert_eq!(
        patient(answer1).await.unwrap().unwrap().status(),
        StatusCode::OK
    );
    assert_eq!(
        patient(answer2).await.unwrap().unwrap().status(),
        StatusCode::OK
    );
    edge.stopped().await;
    drop(unasked);
    assert!(TcpStream::connect(edge.https).await.is_err());
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_request_up() {
    let edge = start(|_, _| {});
    for alpn in ["http/1.1", "h2"] {
        let stream = edge.connect(modern(&[alpn]), "localhost").await;
        let asking = if alpn == "h2" {
            let mut send = http2(stream).await;
            tokio::spawn(async move { send.send_request(get("/wait")).await })
        } else {
            let mut send = http1(stream).await;
            tokio::spawn(async move { send.send_request(get("/wait")).await })
        };
        patient(edge.waiting.notified()).await;
        asking.abort();
    }
    // Nobody lets them go on: only their clients' absence ends them.
    edge.stop().await;
    assert_eq!(edge.metrics().connections_open.get(), 0);
}

#[tokio::test]
async fn plain_listeners_redirect() {
    let edge = start(|config, _| config.listen.http = vec!["127.0.0.1:0".parse().unwrap()]);
    let mut socket = TcpStream::connect(edge.http.unwrap()).await.unwrap();
    let request = b"POST /a?b=c HTTP/1.1\r\nHost: a.example:8080\r\nContent-Length: 2\r\n\r\nhi";
    socket.write_all(request).await.unwrap();
    let mut answer = String::new();
    patient(socket.read_to_string(&mut answer)).await.unwrap();
    let location = format!("https://a.example:{}/a?b=c", edge.https.port());
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(
        answer.contains(&format!("{}: {location}\r\n", LOCATION.as_str())),
        "{answer}"
    );
    assert_eq!(edge.metrics().http_requests.get(HttpOutcome::Redirected), 1);
}
