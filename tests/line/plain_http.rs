//! Plain HTTP: it passes, it waits, or it is told why and when to come back.

use serde_json::json;

use crate::kit::gateway::{Options, ScriptedGateway};
use crate::kit::{Proxy, h2, http, ms};

const BROWSER: [(&str, &str); 2] = [
    ("Accept", "text/html,application/xhtml+xml"),
    ("Sec-Fetch-Mode", "navigate"),
];

async fn ready() -> (ScriptedGateway, Proxy) {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    (gateway, proxy)
}

async fn absent(settings: &str) -> (ScriptedGateway, Proxy) {
    let gateway = ScriptedGateway::stopped(Options::default());
    let proxy = Proxy::with(&gateway, settings).await;
    (gateway, proxy)
}

async fn back_soon(gateway: &ScriptedGateway) {
    tokio::time::sleep(ms(400)).await;
    gateway.begin_starting().await;
    gateway.ready();
}

#[tokio::test]
async fn requests_and_answers_pass_as_they_are() {
    let (_gateway, proxy) = ready().await;
    let target = proxy.target();
    let headers = [("X-Mine", "1"), ("Accept-Encoding", "br")];
    let echo = http::request(&target, "PUT", "/echo/%7Ea?q=%20", &headers, b"body").await;
    assert_eq!(
        echo.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    let echo = echo.json();
    assert_eq!(
        (&echo["method"], &echo["path"]),
        (&json!("PUT"), &json!("/echo/%7Ea?q=%20"))
    );
    assert_eq!(echo["body"], "body");
    let sent = echo["headers"].as_array().unwrap();
    assert!(
        sent.contains(&json!(["x-mine", "1"])) && sent.contains(&json!(["accept-encoding", "br"]))
    );
    let big = http::get(&target, "/big/3000000", &[]).await;
    assert_eq!(big.body.len(), 3_000_000);
    let body = vec![b'a'; 2_000_000];
    let echo = http::request(&target, "POST", "/echo", &[], &body)
        .await
        .json();
    assert_eq!(echo["body"].as_str().map(str::len), Some(2_000_000));
    let head = http::request(&target, "HEAD", "/", &[], b"");
    drop(head);
}

#[tokio::test]
async fn several_requests_on_one_connection_and_over_http2() {
    let (_gateway, proxy) = ready().await;
    let mut connection = http::Connection::open(&proxy.target()).await;
    for number in 0..3 {
        connection
            .start("GET", &format!("/echo/{number}"), &[], b"")
            .await;
        assert_eq!(
            connection.response().await.json()["path"],
            format!("/echo/{number}")
        );
    }
    let mut connection = h2::Connection::open(&proxy.target()).await;
    for number in 0..3 {
        let answer = connection.get(&format!("/echo/{number}"), &[]).await;
        assert_eq!(answer.json()["path"], format!("/echo/{number}"));
    }
}

#[tokio::test]
async fn server_sent_events_flow_one_by_one() {
    let (gateway, proxy) = ready().await;
    let mut connection = http::Connection::open(&proxy.target()).await;
    connection
        .start("GET", "/events", &[("Accept", "text/event-stream")], b"")
        .await;
    let head = connection.response_head().await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    for number in 0..3 {
        gateway.emit(&format!("event {number}"));
        let chunk = connection.chunk().await.unwrap().expect("an event");
        assert_eq!(
            String::from_utf8(chunk).unwrap(),
            format!("data: event {number}\n\n")
        );
    }
    gateway.kill().await;
    assert!(
        connection.chunk().await.is_err(),
        "a torn stream must not look complete"
    );
}

#[tokio::test]
async fn a_request_waits_for_the_gateway_and_reaches_it_once() {
    let (gateway, proxy) = absent("").await;
    let target = proxy.target();
    let post = http::request(&target, "POST", "/count/held", &[], b"the body");
    let (answer, ()) = tokio::join!(post, back_soon(&gateway));
    assert_eq!((answer.status, answer.text().as_str()), (200, "counted"));
    let journal = gateway.journal();
    assert_eq!(journal.http().len(), 1);
    assert_eq!(journal.http()[0].1, b"the body");
}

#[tokio::test]
async fn after_http_hold_a_program_is_told_in_json() {
    let (_gateway, proxy) = absent("[http]\nhold = \"300ms\"").await;
    let refusal = http::get(&proxy.target(), "/api", &[("Accept", "*/*")]).await;
    assert_eq!(refusal.status, 503);
    assert!(
        refusal
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    assert!(
        refusal
            .header("content-type")
            .unwrap()
            .starts_with("application/json")
    );
    let error = refusal.json()["error"].take();
    assert_eq!(
        (&error["type"], &error["state"]),
        (&json!("gateway_down"), &json!("down"))
    );
    assert_eq!(error["reason"], "refused");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| message.contains("gateway"))
    );
    assert!(error["retryAfterMs"].is_u64());
}

#[tokio::test]
async fn a_browser_gets_a_page_that_waits_in_its_place() {
    let (gateway, proxy) = absent("[http]\nhold = \"20s\"").await;
    let target = proxy.target();
    let page = http::get(&target, "/", &BROWSER).await;
    assert_eq!(page.status, 503);
    assert!(page.header("retry-after").is_some());
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(
        page.text().contains("/.holdline/"),
        "the page asks for the state by itself"
    );
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let state = http::get(&target, "/.holdline/status.json", &[]).await;
    assert_eq!(
        (state.status, &state.json()["state"]),
        (200, &json!("down"))
    );
    back_soon(&gateway).await;
    let page = http::get(&target, "/", &BROWSER).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("OpenClaw Control"));
}

#[tokio::test]
async fn our_own_paths_say_nothing_else_and_do_not_reach_the_gateway() {
    let (gateway, proxy) = ready().await;
    let target = proxy.target();
    proxy.gateway_is("ready").await;
    let state = http::get(&target, "/.holdline/status.json", &[])
        .await
        .json();
    assert_eq!(state["state"], "ready");
    for path in [
        "/.holdline/",
        "/.holdline/metrics",
        "/.holdline/../admin",
        "/.holdline/reload",
    ] {
        assert_eq!(http::get(&target, path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(gateway.journal().http().len(), 0);
}

#[tokio::test]
async fn a_gateway_that_starts_or_drains_answers_plain_http_itself() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let target = proxy.target();
    gateway.drain();
    assert_eq!(http::get(&target, "/", &BROWSER).await.status, 200);
    assert_eq!(http::get(&target, "/readyz", &[]).await.status, 503);
    gateway.kill().await;
    gateway.begin_starting().await;
    let page = http::get(&target, "/", &[("Accept", "*/*")]).await;
    assert!(page.text().contains("OpenClaw Control"));
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_not_sent_again() {
    let (gateway, proxy) = ready().await;
    let target = proxy.target();
    let post = http::request(&target, "POST", "/slow/never", &[], b"x");
    let kill = async {
        gateway
            .wait_for("the request", |journal| journal.http().len() == 1)
            .await;
        gateway.kill().await;
        back_soon(&gateway).await;
    };
    let (answer, ()) = tokio::join!(post, kill);
    assert!((502..=504).contains(&answer.status), "{answer:?}");
    assert_eq!(answer.json()["error"]["execution"], "may_have_executed");
    assert_eq!(gateway.journal().http().len(), 1);
}

#[tokio::test]
async fn an_answer_torn_by_the_gateways_death_does_not_look_complete() {
    let (gateway, proxy) = ready().await;
    let mut connection = http::Connection::open(&proxy.target()).await;
    connection.start("GET", "/events", &[], b"").await;
    connection.response_head().await;
    gateway.emit("one");
    connection.chunk().await.unwrap().expect("an event");
    gateway.stop(crate::kit::Stop::Fin).await;
    assert!(connection.chunk().await.is_err());
}

#[tokio::test]
async fn connections_kept_by_a_gateway_that_restarted_are_not_used_again() {
    let (gateway, proxy) = ready().await;
    let target = proxy.target();
    for _ in 0..5 {
        assert_eq!(http::get(&target, "/count/a", &[]).await.status, 200);
        gateway.restart(ms(50), ms(0)).await;
        let answer = http::request(&target, "POST", "/count/b", &[], b"x").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let journal = gateway.journal();
    let posts = journal
        .http()
        .iter()
        .filter(|(head, _)| head.method == "POST")
        .count();
    assert_eq!(posts, 5);
}
