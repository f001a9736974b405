//! What flows, flows at once, in both directions, and no faster than it is read.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::kit::*;

#[tokio::test]
async fn the_first_chunk_arrives_before_the_last_is_sent() {
    let seen = Arc::new(Notify::new());
    let go = Arc::clone(&seen);
    let upstream = Scripted::start(move |mut wire, _| {
        let go = Arc::clone(&go);
        async move {
            wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
                .await;
            go.notified().await;
            wire.say("4\r\nlast\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client.say(GET).await;
    let head = client.head().await.unwrap();
    assert_eq!(status(&head), 200);
    assert!(client.until("first\r\n").await.is_some());
    seen.notify_one();
    assert!(client.until("last\r\n0\r\n\r\n").await.is_some());
}

#[tokio::test]
async fn a_request_body_flows_as_it_comes() {
    let upstream = Scripted::start(|mut wire, _| async move {
        assert!(wire.until("first\r\n").await.is_some());
        // Answers while the body is still coming.
        wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ngot\r\n")
            .await;
        assert!(wire.until("last\r\n0\r\n\r\n").await.is_some());
        wire.say("3\r\nall\r\n0\r\n\r\n").await;
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .await;
    assert!(client.until("got\r\n").await.is_some());
    client.say("4\r\nlast\r\n0\r\n\r\n").await;
    assert!(client.until("all\r\n0\r\n\r\n").await.is_some());
    assert_eq!(
        field(&upstream.head(0), "transfer-encoding"),
        Some("chunked")
    );
    drop(client);
    upstream.played().await;
}

#[tokio::test]
async fn trailers_pass_both_ways_and_carry_no_claims() {
    let upstream = Scripted::start(|mut wire, head| async move {
        assert_eq!(field(&head, "te"), Some("trailers"));
        let body = wire.until("0\r\n").await.unwrap() + &wire.until("\r\n\r\n").await.unwrap();
        assert!(body.to_ascii_lowercase().contains("checksum: up"), "{body}");
        assert!(!body.to_ascii_lowercase().contains("forwarded"), "{body}");
        wire.say(
            "HTTP/1.1 200 OK\r\nTrailer: checksum\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\nchecksum: down\r\n\r\n",
        )
        .await;
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client
        .say(
            "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\
             Trailer: checksum, x-forwarded-for\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nchecksum: up\r\n\
             x-forwarded-for: 127.0.0.1\r\n\r\n",
        )
        .await;
    let head = client.head().await.unwrap();
    assert_eq!(status(&head), 200, "{head}");
    let rest = client.until("0\r\n").await.unwrap() + &client.until("\r\n\r\n").await.unwrap();
    assert!(rest.ends_with("checksum: down\r\n\r\n"), "{rest}");
    drop(client);
    upstream.played().await;
}

#[tokio::test]
async fn events_flow_without_end_and_a_client_that_leaves_is_noticed() {
    let left = Arc::new(Notify::new());
    let noticed = Arc::clone(&left);
    let upstream = Scripted::start(move |mut wire, _| {
        let noticed = Arc::clone(&noticed);
        async move {
            wire.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                .await;
            for n in 0..3 {
                wire.say(&format!("data: {n}\n\n")).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            assert!(wire.head().await.is_none());
            noticed.notify_one();
        }
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client.say(GET).await;
    for n in 0..3 {
        assert!(client.until(&format!("data: {n}\n\n")).await.is_some());
    }
    drop(client);
    timeout(LONG, left.notified())
        .await
        .expect("the upstream is told");
    upstream.played().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_noticed() {
    let (asked, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, noticed) = (Arc::clone(&asked), Arc::clone(&left));
    let upstream = Scripted::start(move |mut wire, _| {
        let (tell, noticed) = (Arc::clone(&tell), Arc::clone(&noticed));
        async move {
            tell.notify_one();
            assert!(wire.head().await.is_none());
            noticed.notify_one();
        }
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client.say(GET).await;
    timeout(LONG, asked.notified()).await.unwrap();
    drop(client);
    timeout(LONG, left.notified())
        .await
        .expect("the upstream is told");
}

/// Kernel buffers on both hops plus ours; far below what is offered.
const PARKED: usize = 24 << 20;
const OFFERED: usize = 256 << 20;

#[tokio::test]
async fn a_client_that_does_not_read_slows_the_gateway_down() {
    let (count, sent) = tokio::sync::watch::channel(0_usize);
    let upstream = Scripted::start(move |mut wire, _| {
        let count = count.clone();
        async move {
            wire.say(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {OFFERED}\r\n\r\n"
            ))
            .await;
            let block = vec![b'x'; 64 << 10];
            for _ in 0..OFFERED / block.len() {
                if wire.stream.write_all(&block).await.is_err() {
                    return;
                }
                count.send_modify(|count| *count += block.len());
            }
        }
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    client.say(GET).await;
    let parked = settled(sent.clone()).await;
    assert!(
        parked < PARKED,
        "{parked} bytes taken from the gateway for nobody"
    );
    let mut got = vec![0; 1 << 20];
    let mut total = 0;
    while total < OFFERED {
        total += timeout(LONG, client.stream.read(&mut got))
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(*sent.borrow(), OFFERED);
}

#[tokio::test]
async fn a_gateway_that_does_not_read_slows_the_client_down() {
    let read_on = Arc::new(Notify::new());
    let go = Arc::clone(&read_on);
    let upstream = Scripted::start(move |mut wire, _| {
        let go = Arc::clone(&go);
        async move {
            go.notified().await;
            let mut left = OFFERED - wire.unread.len();
            let mut buffer = vec![0; 1 << 20];
            while left > 0 {
                left -= wire.stream.read(&mut buffer).await.unwrap();
            }
            wire.say(OK).await;
        }
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let client = Wire::to(&proxy).await;
    let (mut read, mut write) = client.stream.into_split();
    let (count, sent) = tokio::sync::watch::channel(0_usize);
    let sending = tokio::spawn(async move {
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {OFFERED}\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        let block = vec![b'x'; 64 << 10];
        for _ in 0..OFFERED / block.len() {
            write.write_all(&block).await.unwrap();
            count.send_modify(|count| *count += block.len());
        }
        write
    });
    let parked = settled(sent).await;
    assert!(
        parked < PARKED,
        "{parked} bytes taken from the client for nobody"
    );
    read_on.notify_one();
    let mut answer = [0; 12];
    timeout(LONG, read.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    sending.await.unwrap();
}

/// The count once it has stopped growing.
async fn settled(mut count: tokio::sync::watch::Receiver<usize>) -> usize {
    while timeout(Duration::from_millis(700), count.changed())
        .await
        .is_ok()
    {}
    *count.borrow()
}

#[tokio::test]
async fn safe_requests_share_a_connection_and_others_get_their_own() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    for _ in 0..5 {
        let (head, body) = client.ask(GET).await;
        assert_eq!((status(&head), body.as_str()), (200, "ok"));
    }
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(status(&client.ask(post).await.0), 200);
    assert_eq!(upstream.requests(), 6);
}

#[tokio::test]
async fn a_connection_that_the_gateway_closed_meanwhile_costs_nothing() {
    let upstream = Scripted::start(|mut wire, _| async move { wire.say(OK).await }).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    for _ in 0..20 {
        assert_eq!(status(&client.ask(GET).await.0), 200);
    }
    assert_eq!(
        proxy.gateway.view().generation,
        1,
        "and is no evidence of an outage"
    );
}
