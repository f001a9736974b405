//! Who comes in, as whom, and with what: upgrades that are none, and headers that say too much.

use serde_json::{Value, json};

use crate::kit::gateway::{Head, ScriptedGateway};
use crate::kit::{Frame, Proxy, Raw, Role, Target, http};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn ready(settings: &str) -> (ScriptedGateway, Proxy) {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, settings).await;
    (gateway, proxy)
}

/// The headers that the gateway saw on the newest plain request.
async fn seen(gateway: &ScriptedGateway, target: &Target, headers: &[(&str, &str)]) -> Head {
    let answer = http::get(target, "/echo", headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let journal = gateway.journal();
    let requests = journal.http();
    requests[requests.len() - 1].0.clone()
}

#[tokio::test]
async fn upgrades_that_break_the_rules_are_refused_with_the_right_status() {
    let (gateway, proxy) = ready("").await;
    let broken = |from: &str, to: &str| UPGRADE.replace(from, to);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let cases = [
        ("no key", broken(key, ""), 400),
        ("two keys", broken(key, &key.repeat(2)), 400),
        (
            "short key",
            broken("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
            400,
        ),
        ("old version", broken("Version: 13", "Version: 8"), 426),
        (
            "no version",
            broken("Sec-WebSocket-Version: 13\r\n", ""),
            426,
        ),
        ("a POST", broken("GET /", "POST /"), 400),
        ("HTTP/1.0", broken("HTTP/1.1", "HTTP/1.0"), 400),
        ("no Host", broken("Host: localhost\r\n", ""), 400),
        (
            "two Hosts",
            broken("Host: localhost\r\n", "Host: localhost\r\nHost: b\r\n"),
            400,
        ),
    ];
    for (what, request, status) in cases {
        let answer = http::send_bytes(&proxy.target(), request.as_bytes()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.status, status, "{what}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        }
    }
    assert_eq!(gateway.journal().upgrades().len(), 0);
}

#[tokio::test]
async fn requests_that_two_parsers_would_read_differently_never_reach_the_gateway() {
    let (gateway, proxy) = ready("").await;
    let cases: [&[u8]; 6] = [
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for request in cases {
        let what = String::from_utf8_lossy(request);
        let before = gateway.journal().http().len();
        // Ambiguous framing may also be resolved as RFC 9112, 6.3 says; then one reading passes.
        let answer = http::send_bytes(&proxy.target(), request).await;
        let passed = gateway.journal().http().len() - before;
        assert!(passed == 0 || what.contains("chunked"), "{what}");
        assert!(
            answer.is_err() || answer.is_ok_and(|a| a.status >= 400 || passed == 1),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_or_never_complete_ends() {
    let (_gateway, proxy) = ready("[limits]\nheader_timeout = \"500ms\"").await;
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(1_000_000)
    );
    let answer = http::send_bytes(&proxy.target(), large.as_bytes()).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));
    let mut connection = http::Connection::open(&proxy.target()).await;
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n").await;
    let end = connection.try_response_head().await;
    assert!(end.is_err() || end.is_ok_and(|answer| answer.status == 408));
}

#[tokio::test]
async fn a_local_client_is_presented_without_forwarding_headers() {
    let (gateway, proxy) = ready("").await;
    let head = seen(&gateway, &proxy.target(), &[]).await;
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
    ] {
        assert_eq!(head.header(name), None, "{name}");
    }
    assert_eq!(head.header("host"), Some(proxy.target().host.as_str()));
    let (_raw, hello) = Raw::connected(&proxy.target(), &Role::backend()).await;
    let scopes = hello["payload"]["auth"]["scopes"].as_array().map(Vec::len);
    assert_eq!(scopes, Some(6), "the gateway must see it as local");
}

#[tokio::test]
async fn a_remote_client_is_presented_with_the_truth() {
    let settings = "[listen]\ntrusted_proxies = [\"127.0.0.7\"]";
    let (gateway, proxy) = ready(settings).await;
    let from_proxy = proxy.target().from("127.0.0.7");
    let headers = [("X-Forwarded-For", "10.0.0.1, 203.0.113.9")];
    let head = seen(&gateway, &from_proxy, &headers).await;
    assert_eq!(head.header("x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(head.header("x-forwarded-proto"), Some("https"));

    let mut raw = Raw::open(&from_proxy, "/", &headers).await.unwrap();
    let hello = raw.handshake(&Role::backend()).await;
    assert_eq!(
        hello["payload"]["auth"]["scopes"],
        json!([]),
        "remote: no trust without a device"
    );
}

#[tokio::test]
async fn a_client_of_the_proxy_protocol_is_known_by_the_address_in_its_header() {
    let settings = "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.7\"]";
    let (gateway, proxy) = ready(settings).await;
    let header = b"PROXY TCP4 198.51.100.4 127.0.0.1 4000 443\r\n";
    let behind = proxy.target().from("127.0.0.7").preface(header);
    let head = seen(&gateway, &behind, &[]).await;
    assert_eq!(head.header("x-forwarded-for"), Some("198.51.100.4"));
    let liar = proxy.target().from("127.0.0.8").preface(header);
    assert!(
        liar.dial().await.is_err(),
        "only trusted proxies may say who somebody is"
    );
    let garbage = proxy
        .target()
        .from("127.0.0.7")
        .preface(b"PROXY nonsense\r\n");
    assert!(garbage.dial().await.is_err());
}

#[tokio::test]
async fn signs_of_a_tunnel_that_is_not_trusted_are_refused_with_the_setting_to_make() {
    let (gateway, proxy) = ready("").await;
    for (name, value) in [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Real-IP", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
        ("CF-Connecting-IP", "203.0.113.9"),
        ("Tailscale-User-Login", "x@example.com"),
    ] {
        let answer = http::get(&proxy.target(), "/echo", &[(name, value)]).await;
        assert_eq!(answer.status, 403, "{name}");
        assert!(
            answer.text().contains("trusted_proxies"),
            "{name}: {}",
            answer.text()
        );
        let upgrade = Raw::open(&proxy.target(), "/", &[(name, value)])
            .await
            .err();
        assert_eq!(upgrade.map(|refusal| refusal.status), Some(403), "{name}");
    }
    assert_eq!(gateway.journal().entries.len(), 1, "only its start");
}

#[tokio::test]
async fn identity_headers_of_clients_never_reach_the_gateway() {
    let settings = "[listen]\ntrusted_proxies = [\"127.0.0.7\"]";
    let (gateway, proxy) = ready(settings).await;
    let headers = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-User", "root@example.com"),
        ("X-Forwarded-Email", "root@example.com"),
        ("Remote-User", "root"),
        ("X-Remote-User", "root"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "evil.example"),
    ];
    let head = seen(&gateway, &proxy.target().from("127.0.0.7"), &headers).await;
    let all: Value = json!(head.headers);
    let text = all.to_string();
    assert!(!text.contains("root") && !text.contains("evil"), "{text}");
}

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop() {
    let (gateway, proxy) = ready("").await;
    let headers = [
        ("Connection", "X-Once"),
        ("X-Once", "1"),
        ("Keep-Alive", "3"),
        ("X-Kept", "1"),
    ];
    let head = seen(&gateway, &proxy.target(), &headers).await;
    assert_eq!(
        (head.header("x-once"), head.header("keep-alive")),
        (None, None)
    );
    assert_eq!(head.header("x-kept"), Some("1"));
}

#[tokio::test]
async fn only_listed_origins_may_connect_where_there_is_a_list() {
    let settings = "[limits]\norigins = [\"https://good.example\"]";
    let (gateway, proxy) = ready(settings).await;
    let bad = [("Origin", "https://evil.example")];
    let refusal = Raw::open(&proxy.target(), "/", &bad)
        .await
        .err()
        .expect("a refusal");
    assert_eq!(
        (refusal.status, &refusal.json()["error"]["type"]),
        (403, &json!("origin_refused"))
    );
    assert_eq!(gateway.journal().upgrades().len(), 0);
    let mut good = Raw::open(&proxy.target(), "/", &[("Origin", "https://good.example")])
        .await
        .unwrap();
    assert_eq!(good.next().await.json()["event"], "connect.challenge");
    good.send(&Frame::close(1000, "")).await;
}

#[tokio::test]
async fn loopback_clients_can_be_refused() {
    let (gateway, proxy) = ready("[gateway]\nloopback_clients = \"refuse\"").await;
    assert_eq!(http::get(&proxy.target(), "/echo", &[]).await.status, 403);
    assert_eq!(gateway.journal().http().len(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_tls_handshake_is_let_go() {
    use tokio::io::AsyncReadExt;
    let (_gateway, proxy) = ready("[limits]\ntls_timeout = \"300ms\"").await;
    let mut tcp = Target::plain(proxy.addr()).dial_tcp().await.unwrap();
    let mut end = Vec::new();
    let ended = crate::kit::within("the end of the connection", tcp.read_to_end(&mut end)).await;
    drop(ended);
}
