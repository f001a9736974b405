//! The odd forms of HTTP/1.1: HEAD, statuses without body, `Expect`, informational answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::kit::*;

#[tokio::test]
async fn every_method_passes_and_nothing_else_is_touched() {
    let upstream = Scripted::answering(
        "HTTP/1.1 299 Quite Fine\r\nServer: claw\r\nX-Odd: \x7e\r\nSet-Cookie: a=1\r\n\
         Set-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    for method in [
        "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "BREW",
    ] {
        let mut client = Wire::to(&proxy).await;
        let request = format!(
            "{method} /a%2Fb/../c?q=%20&q HTTP/1.1\r\nHost: Claw.Example:8443\r\nAccept: x\r\n\r\n"
        );
        let (head, _) = client.ask(&request).await;
        assert!(head.starts_with("HTTP/1.1 299 Quite Fine\r\n"), "{head}");
        assert_eq!(field(&head, "server"), Some("claw"));
        assert_eq!(head.to_ascii_lowercase().matches("set-cookie").count(), 2);
        let sent = upstream.head(upstream.requests() - 1);
        assert!(
            sent.starts_with(&format!("{method} /a%2Fb/../c?q=%20&q HTTP/1.1\r\n")),
            "{sent}"
        );
        assert_eq!(field(&sent, "host"), Some("Claw.Example:8443"));
        assert_eq!(field(&sent, "accept"), Some("x"));
    }
}

#[tokio::test]
async fn bodyless_answers_keep_their_lengths() {
    let upstream = Scripted::start(|mut wire, head| async move {
        let answer = match head.split(' ').nth(1).unwrap() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1234\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        };
        wire.say(answer).await;
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    for (request, code, length) in [
        ("HEAD / HTTP/1.1", 200, Some("1234")),
        ("GET /204 HTTP/1.1", 204, None),
        ("GET /304 HTTP/1.1", 304, Some("1234")),
        ("HEAD /again HTTP/1.1", 200, Some("1234")),
    ] {
        client.say(&format!("{request}\r\nHost: a\r\n\r\n")).await;
        let head = client.head().await.unwrap();
        assert_eq!(status(&head), code);
        assert_eq!(field(&head, "content-length"), length, "{head}");
        assert!(client.unread.is_empty());
    }
}

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

#[tokio::test]
async fn the_client_is_asked_to_continue_when_the_gateway_asks() {
    let ask = Arc::new(Notify::new());
    let asked = Arc::clone(&ask);
    let upstream = Scripted::start(move |mut wire, head| {
        let asked = Arc::clone(&asked);
        async move {
            assert_eq!(field(&head, "expect"), Some("100-continue"));
            assert!(
                wire.silent_for(Duration::from_millis(300)).await,
                "body before it was asked for"
            );
            asked.notified().await;
            wire.say("HTTP/1.1 100 Continue\r\n\r\n").await;
            assert!(wire.until("body").await.is_some());
            wire.say(OK).await;
        }
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client.say(EXPECTING).await;
    assert!(client.silent_for(Duration::from_millis(400)).await);
    ask.notify_one();
    assert_eq!(status(&client.head().await.unwrap()), 100);
    let (head, body) = client.ask("body").await;
    assert_eq!((status(&head), body.as_str()), (200, "ok"));
    drop(client);
    upstream.played().await;
}

#[tokio::test]
async fn a_refusal_instead_of_continue_reaches_the_client_without_its_body() {
    let upstream = Scripted::start(|mut wire, _| async move {
        wire.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 4\r\n\r\n")
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        wire.say("nope").await;
        assert!(
            wire.rest().await.0.is_empty(),
            "the body was sent all the same"
        );
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    let (head, body) = client.ask(EXPECTING).await;
    assert_eq!((status(&head), body.as_str()), (417, "nope"));
    drop(client);
    upstream.played().await;
}

#[tokio::test]
async fn a_gateway_that_ignores_expect_gets_the_body_after_a_second() {
    let upstream = Scripted::start(|mut wire, _| async move {
        assert!(wire.until("body").await.is_some());
        wire.say(OK).await;
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client.say(EXPECTING).await;
    assert_eq!(status(&client.head().await.unwrap()), 100);
    assert_eq!(status(&client.ask("body").await.0), 200);
    drop(client);
    upstream.played().await;
}

#[tokio::test]
async fn early_hints_end_here_and_the_answer_arrives() {
    let upstream = Scripted::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let (head, body) = Wire::to(&proxy).await.ask(GET).await;
    assert_eq!((status(&head), body.as_str()), (200, "ok"));
}

#[tokio::test]
async fn a_body_without_length_reaches_the_gateway_with_any_method() {
    let upstream = Scripted::start(|mut wire, head| async move {
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
        assert!(wire.until("hi\r\n0\r\n\r\n").await.is_some());
        wire.say(OK).await;
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    for method in ["GET", "POST", "DELETE"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        );
        assert_eq!(
            status(&Wire::to(&proxy).await.ask(&request).await.0),
            200,
            "{method}"
        );
    }
    upstream.played().await;
}

#[tokio::test]
async fn an_old_client_gets_a_body_that_ends_with_the_connection() {
    let upstream = Scripted::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    )
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client.say("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(
        head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"),
        "{head}"
    );
    assert_eq!(field(&head, "transfer-encoding"), None);
    assert_eq!(client.rest().await, ("ok".to_owned(), true));
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_an_error_in_words() {
    let upstream = Scripted::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    )
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let (head, body) = Wire::to(&proxy).await.ask(GET).await;
    assert_eq!(status(&head), 502);
    assert!(body.contains("gateway_protocol_error"), "{body}");
}

#[tokio::test]
async fn other_upgrades_are_stripped_and_websockets_leave_through_the_seam() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let h2c = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
               Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    assert_eq!(status(&Wire::to(&proxy).await.ask(h2c).await.0), 200);
    let sent = upstream.head(0);
    assert_eq!(field(&sent, "upgrade"), None);
    assert_eq!(field(&sent, "http2-settings"), None);
    let websocket = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                     Upgrade: WebSocket\r\n\r\n";
    let (head, body) = Wire::to(&proxy).await.ask(websocket).await;
    assert_eq!(status(&head), 400);
    assert!(body.contains("seam a"), "{body}");
    assert_eq!(upstream.requests(), 1);
}
