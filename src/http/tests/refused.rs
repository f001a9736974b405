//! What is not clearly one request never reaches anything.

use super::kit::*;

/// Shapes that two parsers may read in two ways. Each ends in 400 (or a closed connection).
const SMUGGLED: &[&str] = &[
    // Lengths
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nbody",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nbody",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n\r\nbody",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nbody",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4 4\r\n\r\nbody",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nbody",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\nbody",
    // Codings
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    // Lines
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nbody",
    "GET / HTTP/1.1\r\nHost: a\r\nX\tY: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "GET / HTTP/1.1\rHost: a\r\r",
    "GET  /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET / http/1.1\r\nHost: a\r\n\r\n",
    "GET /\r\nHost: a\r\n\r\n",
    "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\r\n\r\n",
    // Hosts and targets
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\n\r\n",
    "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
];

#[tokio::test]
async fn ambiguous_requests_are_refused_before_anything_sees_them() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    for shape in SMUGGLED {
        let mut client = Wire::to(&proxy).await;
        client.say(shape).await;
        client
            .say("GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        let first = client.head().await;
        assert!(first.is_none_or(|head| status(&head) == 400), "{shape:?}");
        client.rest().await;
    }
    let heads = upstream.heads.lock().unwrap();
    assert!(
        heads.iter().all(|head| head.starts_with("GET /smuggled ")),
        "{heads:?}"
    );
}

/// hyper reads a message with both as chunked and forgets the length (RFC 9112, 6.3, allows it if
/// the connection is closed after it). What the gateway gets is unambiguous: one framing, one
/// request.
#[tokio::test]
async fn length_and_coding_together_leave_one_framing_and_one_request() {
    for shape in [
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5, 9\r\n\r\n0\r\n\r\n",
    ] {
        let upstream = Scripted::start(|mut wire, _| async move {
            assert_eq!(wire.until("0\r\n\r\n").await.as_deref(), Some("0\r\n\r\n"));
            wire.say(OK).await;
            assert_eq!(wire.rest().await.0, "");
        })
        .await;
        let proxy = Setup::to(upstream.address).start_ready().await;
        let mut client = Wire::to(&proxy).await;
        client.say(shape).await;
        client
            .say("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        let (answers, _) = client.rest().await;
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{answers}");
        assert!(upstream.requests() <= 1);
        if upstream.requests() == 1 {
            let head = upstream.head(0);
            assert!(head.starts_with("POST /first "), "{head}");
            assert_eq!(field(&head, "content-length"), None, "{head}");
            assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
        }
        drop(proxy);
        upstream.played().await;
    }
}

/// RFC 9112, 2.2, lets a server read a bare LF as a line's end, and hyper does. What goes on is
/// written anew.
#[tokio::test]
async fn bare_line_feeds_do_not_survive() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client.say("GET /first HTTP/1.1\nHost: a\nX: 1\n\n").await;
    assert_eq!(status(&client.answer().await.0), 200);
    let head = upstream.head(0);
    assert_eq!(
        head.matches('\n').count(),
        head.matches("\r\n").count(),
        "{head:?}"
    );
}

#[tokio::test]
async fn equal_lengths_become_one() {
    let upstream = Scripted::start(|mut wire, _| async move {
        assert!(wire.until("body").await.is_some());
        wire.say(OK).await;
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let twice = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(status(&Wire::to(&proxy).await.ask(twice).await.0), 200);
    assert_eq!(
        upstream
            .head(0)
            .to_ascii_lowercase()
            .matches("content-length")
            .count(),
        1
    );
    upstream.played().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(80_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: 1\r\n".repeat(200)
    );
    for request in [large, many] {
        let mut client = Wire::to(&proxy).await;
        client.say(&request).await;
        assert_eq!(status(&client.head().await.unwrap()), 431);
    }
    assert_eq!(upstream.requests(), 0);
}
