//! What breaks off midway never looks complete, and nothing runs twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::kit::*;

#[tokio::test]
async fn a_torn_response_is_torn_for_the_client_too() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        let upstream =
            Scripted::start(move |mut wire, _| async move { wire.say(answer).await }).await;
        let proxy = Setup::to(upstream.address).start_ready().await;
        let mut client = Wire::to(&proxy).await;
        client.say(GET).await;
        assert_eq!(status(&client.head().await.unwrap()), 200);
        let (rest, _) = client.rest().await;
        assert!(
            rest.contains("part") && !rest.contains("0\r\n\r\n"),
            "{rest}"
        );
    }
}

/// Ends every connection after its request's head, or body.
async fn deadly(after: &'static str) -> Scripted {
    Scripted::start(move |mut wire, _| async move {
        if !after.is_empty() {
            wire.until(after).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_post_that_may_have_run_is_not_sent_again() {
    for (request, after) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
            "body",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
            "",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
            "body",
        ),
    ] {
        let upstream = deadly(after).await;
        let proxy = Setup::to(upstream.address).start_ready().await;
        let (head, body) = Wire::to(&proxy).await.ask(request).await;
        assert_eq!(status(&head), 503, "{request}");
        assert!(field(&head, "retry-after").is_some());
        assert!(
            body.contains(r#""execution":"may_have_executed""#),
            "{body}"
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(upstream.requests(), 1, "{request}");
    }
}

#[tokio::test]
async fn a_get_is_sent_again_but_not_for_ever() {
    let count = Arc::new(AtomicUsize::new(0));
    let upstream = Scripted::start(move |mut wire, _| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !first {
                wire.say(OK).await;
            }
        }
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    assert_eq!(status(&Wire::to(&proxy).await.ask(GET).await.0), 200);
    assert_eq!(upstream.requests(), 2);

    let upstream = deadly("").await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let (head, _) = Wire::to(&proxy).await.ask(GET).await;
    assert_eq!(status(&head), 503);
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn nonsense_from_the_gateway_is_an_error_in_words() {
    let upstream = Scripted::answering("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let (head, body) = Wire::to(&proxy).await.ask(GET).await;
    assert_eq!(status(&head), 502);
    assert!(body.contains("gateway_protocol_error"), "{body}");
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn a_client_whose_body_breaks_off_tears_the_request_too() {
    let upstream = Scripted::start(|mut wire, _| async move {
        assert!(wire.until("part").await.is_some());
        let (rest, _) = wire.rest().await;
        assert!(
            !rest.contains("0\r\n\r\n"),
            "a torn body looks complete: {rest}"
        );
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n")
        .await;
    let (answer, _) = client.rest().await;
    assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    assert_eq!(proxy.gateway.view().generation, 1);
    assert!(
        proxy.gateway.view().phase.answers_http(),
        "a client's fault is no evidence"
    );
    upstream.played().await;
}
