//! Routes of other WebSocket applications: held, never spoken for; and routes apart from each other.

use serde_json::json;

use crate::kit::gateway::{Options, Protocol, ScriptedGateway};
use crate::kit::{Client, Frame, Proxy, Raw, Role, http, ms, within};

fn options() -> Options {
    Options {
        protocol: Protocol::Echo,
        ..Options::default()
    }
}

async fn echo(settings: &str) -> (ScriptedGateway, Proxy) {
    let gateway = ScriptedGateway::with(options()).await;
    let settings = format!("[gateway]\nprotocol = \"generic\"\n{settings}");
    let proxy = Proxy::with(&gateway, &settings).await;
    (gateway, proxy)
}

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    gateway.ready();
}

async fn echoes(raw: &mut Raw, text: &str) {
    raw.send(&Frame::text(text)).await;
    assert_eq!(raw.next_but_pings().await, Frame::text(text));
}

#[tokio::test]
async fn subprotocols_and_extensions_are_between_client_and_gateway() {
    let (gateway, proxy) = echo("").await;
    let offer = [
        ("Sec-WebSocket-Protocol", "graphql-ws, chat"),
        ("X-Custom", "kept"),
    ];
    let raw = Raw::open(&proxy.target(), "/a/b?c=d", &offer)
        .await
        .unwrap();
    assert_eq!(
        raw.upgrade.header("sec-websocket-protocol"),
        Some("graphql-ws")
    );
    let journal = gateway.journal();
    let (head, _) = journal.upgrades()[0];
    assert_eq!(head.path, "/a/b?c=d");
    assert_eq!(
        head.header("sec-websocket-protocol"),
        Some("graphql-ws, chat")
    );
    assert_eq!(head.header("x-custom"), Some("kept"));
}

#[tokio::test]
async fn an_upgrade_waits_before_its_101() {
    let gateway = ScriptedGateway::stopped(options());
    let proxy = Proxy::with(&gateway, "[gateway]\nprotocol = \"generic\"").await;
    let target = proxy.target();
    let opening = Raw::open(&target, "/", &[]);
    let ready = async {
        tokio::time::sleep(ms(500)).await;
        back(&gateway).await;
    };
    let (raw, ()) = tokio::join!(opening, ready);
    echoes(&mut raw.unwrap(), "hello").await;
    assert_eq!(gateway.journal().upgrades().len(), 1);
}

#[tokio::test]
async fn an_upgrade_that_waited_too_long_gets_a_503_in_words() {
    let gateway = ScriptedGateway::stopped(options());
    let settings = "[gateway]\nprotocol = \"generic\"\n[hold]\nupgrade = \"300ms\"";
    let proxy = Proxy::with(&gateway, settings).await;
    let refusal = Raw::open(&proxy.target(), "/", &[])
        .await
        .err()
        .expect("a refusal");
    assert_eq!(
        (refusal.status, &refusal.json()["error"]["type"]),
        (503, &json!("gateway_down"))
    );
    assert!(refusal.header("retry-after").is_some());
}

#[tokio::test]
async fn an_open_session_is_kept_until_the_gateway_is_back_and_then_asked_to_reconnect() {
    let (gateway, proxy) = echo("").await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    echoes(&mut raw, "before").await;
    gateway.kill().await;
    let early = tokio::time::timeout(ms(500), raw.until("words", |f| !f.is_control())).await;
    assert!(
        early.is_err(),
        "nothing is said on behalf of an unknown application: {early:?}"
    );
    back(&gateway).await;
    assert_eq!(raw.closed().await.0, 1012);
}

#[tokio::test]
async fn a_spliced_session_goes_on_where_it_was() {
    let (gateway, proxy) = echo("[hold]\nresume = \"splice\"").await;
    let mut raw = Raw::open(&proxy.target(), "/room?x=1", &[("X-Custom", "kept")])
        .await
        .unwrap();
    echoes(&mut raw, "before").await;
    gateway.kill().await;
    for number in 0..10 {
        raw.send(&Frame::text(format!("held {number}"))).await;
    }
    raw.send(&Frame::ping("alive?")).await;
    assert_eq!(
        raw.next().await,
        Frame::pong("alive?"),
        "held clients get their pongs"
    );
    back(&gateway).await;
    for number in 0..10 {
        assert_eq!(
            raw.next_but_pings().await,
            Frame::text(format!("held {number}"))
        );
    }
    echoes(&mut raw, "after").await;
    let journal = gateway.journal();
    let (again, _) = journal.upgrades()[1];
    assert_eq!(
        (again.path.as_str(), again.header("x-custom")),
        ("/room?x=1", Some("kept"))
    );
}

#[tokio::test]
async fn a_spliced_session_that_sends_more_than_is_kept_loses_nothing() {
    let (gateway, proxy) = echo("[hold]\nresume = \"splice\"\nbuffer = \"4KiB\"").await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    echoes(&mut raw, "before").await;
    gateway.kill().await;
    let sent: Vec<Frame> = (0..40)
        .map(|n| Frame::text(format!("{n:02} {:1000}", "")))
        .collect();
    for frame in &sent {
        raw.send(frame).await;
    }
    back(&gateway).await;
    for frame in &sent {
        assert_eq!(&raw.next_but_pings().await, frame);
    }
}

#[tokio::test]
async fn what_spliced_sessions_keep_together_stays_within_the_limit() {
    let settings = "[hold]\nresume = \"splice\"\nbuffer = \"64KiB\"\nbuffer_total = \"64KiB\"";
    let (gateway, proxy) = echo(settings).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
        echoes(&mut raw, "before").await;
        sessions.push(raw);
    }
    gateway.kill().await;
    for raw in &mut sessions {
        for _ in 0..50 {
            raw.send(&Frame::text("x".repeat(1000))).await;
        }
    }
    let kept = async || {
        let status = proxy.status().await;
        status["sessions"]["keptBytes"].as_u64().unwrap()
    };
    within("something kept", async {
        while kept().await == 0 {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
    // For what is too much.
    tokio::time::sleep(ms(500)).await;
    let kept = kept().await;
    // What one read brings may be kept beyond the limit.
    assert!(kept <= 2 * 64 * 1024, "{kept} bytes kept of 64 KiB");
}

#[tokio::test]
async fn resume_off_ends_with_the_gateway() {
    let (gateway, proxy) = echo("[hold]\nresume = \"off\"").await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    echoes(&mut raw, "before").await;
    gateway.kill().await;
    assert_eq!(raw.closed().await.0, 1012);
}

#[tokio::test]
async fn a_gateway_that_ends_its_stream_after_a_close_of_its_own_is_not_held() {
    let (gateway, proxy) = echo("").await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    let conn = gateway.conn(1).await;
    conn.close(1000, "finished");
    assert_eq!(raw.closed().await, (1000, "finished".to_owned()));
    raw.send(&Frame::close(1000, "finished")).await;
    raw.end().await;
}

#[tokio::test]
async fn routes_by_host_and_by_path_have_gateways_and_states_of_their_own() {
    let main = ScriptedGateway::start().await;
    let by_host = ScriptedGateway::with(options()).await;
    let by_path = ScriptedGateway::with(options()).await;
    let settings = format!(
        "[[route]]\nhost = \"*.preview.test\"\nurl = \"{}\"\nprotocol = \"generic\"\n\
         [[route]]\npath = \"/ws\"\nurl = \"{}\"\nprotocol = \"generic\"\n",
        by_host.url(),
        by_path.url()
    );
    let proxy = Proxy::with(&main, &settings).await;
    let target = proxy.target();
    let client = Client::connected(Role::backend(), target.clone()).await;
    let preview = target.clone().host("a.preview.test");
    let mut a = Raw::open(&preview, "/", &[]).await.unwrap();
    let mut b = Raw::open(&target, "/ws/room", &[]).await.unwrap();
    echoes(&mut a, "by host").await;
    echoes(&mut b, "by path").await;
    assert_eq!(
        (
            by_host.journal().upgrades().len(),
            by_path.journal().upgrades().len()
        ),
        (1, 1)
    );
    assert_eq!(
        http::get(&target, "/wsx/echo", &[]).await.status,
        200,
        "not under /ws"
    );
    assert_eq!(main.journal().http().len(), 1);

    by_host.kill().await;
    echoes(&mut b, "still").await;
    client.request("health", json!({})).await.ok();
    back(&by_host).await;
    assert_eq!(a.closed().await.0, 1012);
    client.record().assert_untouched();
    assert_eq!(client.record().events("gateway.down"), [json!(null); 0]);
}
