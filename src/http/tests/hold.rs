//! While the gateway is away: wait, then succeed, or say so in the right form.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::kit::*;
use crate::config::{Probe, ProtocolKind};
use crate::gateway::{Evidence, Phase, Reason};

const BROWSER: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: navigate\r\n\
                       Accept: text/html,*/*;q=0.8\r\n\r\n";

#[tokio::test]
async fn a_request_waits_and_succeeds() {
    let reserved = Reserved::new();
    let address = reserved.address;
    let proxy = Setup::to(address).start().await;
    let get = async { Wire::to(&proxy).await.ask(GET).await };
    let post = async {
        let request = "POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
        Wire::to(&proxy).await.ask(request).await
    };
    let come_back = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Scripted::start_on(address, |mut wire, head| async move {
            if head.starts_with("POST") {
                assert!(wire.until("body").await.is_some());
            }
            wire.say(OK).await;
        })
        .await
    };
    let (get, post, upstream) = tokio::join!(get, post, come_back);
    assert_eq!((status(&get.0), status(&post.0)), (200, 200));
    assert_eq!(upstream.requests(), 2, "each once");
}

#[tokio::test]
async fn a_gateway_that_goes_between_probes_is_noticed_and_waited_for() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    upstream.stop_listening();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(proxy.gateway.view().phase, Phase::Ready, "not known yet");
    let mut client = Wire::to(&proxy).await;
    let ask = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let come_back = async {
        let told = proxy.gateway.wait_for(|view| view.phase == Phase::Down);
        timeout(LONG, told).await.expect("the dial told");
        Scripted::start_on(
            upstream.address,
            |mut wire, _| async move { wire.say(OK).await },
        )
        .await
    };
    let ((head, _), again) = tokio::join!(ask, come_back);
    assert_eq!(status(&head), 200);
    assert_eq!(again.requests(), 1);
}

#[tokio::test]
async fn patience_ends_in_json_for_programs() {
    let nobody = Reserved::new();
    let mut setup = Setup::to(nobody.address);
    setup.http.hold = Duration::from_millis(600);
    let proxy = setup.start().await;
    let began = Instant::now();
    let (head, body) = Wire::to(&proxy).await.ask(GET).await;
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_millis(600) && waited < LONG,
        "{waited:?}"
    );
    assert_eq!(status(&head), 503);
    assert_eq!(field(&head, "content-type"), Some("application/json"));
    assert_eq!(field(&head, "cache-control"), Some("no-store"));
    assert!(field(&head, "retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let error = &body["error"];
    assert_eq!(
        (error["type"].as_str(), error["state"].as_str()),
        (Some("gateway_down"), Some("down"))
    );
    assert_eq!(error["reason"], "refused");
    assert!(error["retryAfterMs"].as_u64().unwrap() > 0);
    let mut head_client = Wire::to(&proxy).await;
    head_client
        .say("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status(&head_client.head().await.unwrap()), 503);
    assert_eq!(head_client.rest().await, (String::new(), true));
}

#[tokio::test]
async fn a_browser_gets_the_waiting_page_soon_and_status_while_it_waits() {
    let nobody = Reserved::new();
    let mut setup = Setup::to(nobody.address);
    setup.upstream.protocol = ProtocolKind::Openclaw;
    let proxy = setup.start().await;
    let began = Instant::now();
    let mut client = Wire::to(&proxy).await;
    let (head, body) = client.ask(BROWSER).await;
    assert!(began.elapsed() < LONG / 2, "long before patience ends");
    assert_eq!(status(&head), 503);
    assert_eq!(
        field(&head, "content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        field(&head, "content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
    assert!(field(&head, "retry-after").is_some());
    assert!(body.contains("The gateway is down") && body.contains("data-go=\"ready starting\""));

    let ask = "GET /.holdline/status.json?path=%2Fchat HTTP/1.1\r\nHost: a\r\n\r\n";
    let (head, body) = client.ask(ask).await;
    assert_eq!(
        (status(&head), field(&head, "cache-control")),
        (200, Some("no-store"))
    );
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["state"], "down");
    assert_eq!(body["reason"], "refused");
    let known = ["state", "reason", "retryAfterMs", "downMs"];
    assert!(
        body.as_object()
            .unwrap()
            .keys()
            .all(|key| known.contains(&key.as_str())),
        "{body}"
    );
}

#[tokio::test]
async fn our_own_surface_never_touches_the_gateway() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = Wire::to(&proxy).await;
    for (request, code) in [
        ("GET /.holdline/status.json", 200),
        ("HEAD /.holdline/status.json", 200),
        ("POST /.holdline/status.json", 404),
        ("GET /.holdline", 404),
        ("GET /.holdline/", 404),
        ("GET /.holdline/../x", 404),
        ("GET /.holdline/metrics", 404),
    ] {
        client
            .say(&format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let head = client.head().await.unwrap();
        assert_eq!(status(&head), code, "{request}");
        if !request.starts_with("HEAD") {
            let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
            while client.unread.len() < length {
                client.until("}").await;
                if client.unread.is_empty() {
                    break;
                }
            }
            client.unread.clear();
        }
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_starting_gateway_answers_for_itself() {
    let upstream = Scripted::start(|mut wire, head| async move {
        if head.starts_with("GET /ready ") {
            wire.say("HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .await;
        } else {
            wire.say(OK).await;
        }
    })
    .await;
    let mut setup = Setup::to(upstream.address);
    setup.upstream.probe = Probe::Path("/ready".into());
    let proxy = setup.start_ready().await;
    assert_eq!(proxy.gateway.view().phase, Phase::Starting);
    assert_eq!(status(&Wire::to(&proxy).await.ask(GET).await.0), 200);
}

#[tokio::test]
async fn our_own_end_ends_all_waits() {
    let nobody = Reserved::new();
    let proxy = Setup::to(nobody.address).start().await;
    let mut client = Wire::to(&proxy).await;
    client.say(GET).await;
    assert!(client.silent_for(Duration::from_millis(200)).await);
    proxy.stop.cancel();
    let (head, body) = client.answer().await;
    assert_eq!(status(&head), 503);
    assert!(body.contains("proxy_stopping"), "{body}");
}

#[tokio::test]
async fn waits_are_bounded_in_number() {
    let nobody = Reserved::new();
    let mut setup = Setup::to(nobody.address);
    setup.places = 2;
    let proxy = setup.start().await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = Wire::to(&proxy).await;
        client.say(GET).await;
        assert!(client.silent_for(Duration::from_millis(150)).await);
        waiting.push(client);
    }
    let (head, body) = Wire::to(&proxy).await.ask(GET).await;
    assert_eq!(status(&head), 503);
    assert!(body.contains("too many requests wait"), "{body}");
    // A client that gives up makes room.
    waiting.pop();
    let waits = async {
        loop {
            let mut next = Wire::to(&proxy).await;
            next.say(GET).await;
            if next.silent_for(Duration::from_millis(300)).await {
                return;
            }
        }
    };
    timeout(LONG, waits).await.expect("a place");
}

#[tokio::test]
async fn a_sent_request_is_not_waited_for_when_the_gateway_stays_away() {
    let upstream = Scripted::start(|mut wire, _| async move {
        wire.head().await;
    })
    .await;
    let mut setup = Setup::to(upstream.address);
    setup.http.hold = Duration::from_millis(500);
    let proxy = setup.start_ready().await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let mut clients = [Wire::to(&proxy).await, Wire::to(&proxy).await];
    clients[0].say(post).await;
    clients[1].say(GET).await;
    assert!(clients[0].silent_for(Duration::from_millis(300)).await);
    upstream.stop_listening();
    tokio::time::sleep(Duration::from_millis(50)).await;
    proxy.gateway.report(Evidence::Lost(Reason::Timeout));
    let (head, body) = clients[0].answer().await;
    assert_eq!(status(&head), 503);
    assert!(body.contains("may_have_executed"), "{body}");
    let (head, body) = clients[1].answer().await;
    assert_eq!(status(&head), 503);
    assert!(!body.contains("may_have_executed"), "{body}");
    assert_eq!(upstream.requests(), 2);
}
