//! Where it is decided here who comes in: what a signed-in client notices of an outage, what the
//! gateway is told, and who is kept out.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdline::auth::TokenHash;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::kit::gateway::{AuthMode, Options, SCOPES, ScriptedGateway, Stop, USER};
use crate::kit::net::Certificate;
use crate::kit::wait::within;
use crate::kit::{Client, Proxy, Raw, Role, h2, http, ms};

const TOKEN: &str = "hl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Without being told, it is found out after so long that somebody is not let in any more.
const SWEEP: Duration = Duration::from_secs(5);
const WAYS: [Stop; 4] = [Stop::Sigterm, Stop::Restart, Stop::Kill, Stop::Fin];

/// `[auth]` that knows these tokens, by name.
fn auth(tokens: &[(&str, &str)]) -> String {
    let tokens: Vec<String> = tokens
        .iter()
        .map(|(name, token)| {
            let hash = TokenHash::of(token).to_base64url();
            format!("{{ name = \"{name}\", user = \"{USER}\", hash = \"{hash}\" }}")
        })
        .collect();
    format!(
        "[auth]\nmodes = [\"token\"]\npublic = [\"/hooks\"]\ntokens = [{}]\n",
        tokens.join(", ")
    )
}

fn bearer() -> String {
    format!("Bearer {TOKEN}")
}

fn signed_in(role: Role) -> Role {
    role.header("authorization", &bearer())
}

async fn believing_gateway() -> ScriptedGateway {
    ScriptedGateway::with(Options {
        auth: AuthMode::TrustedProxy,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn every_operator_survives_every_kind_of_restart_on_its_own_socket() {
    for how in WAYS {
        for role in [Role::control_ui(), Role::official(), Role::backend()] {
            let gateway = believing_gateway().await;
            let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
            let who = role.id;
            let client = Client::connected(signed_in(role), proxy.target()).await;
            client.request("sessions.subscribe", json!({})).await.ok();

            gateway.stop(how).await;
            client.event("gateway.down", 1).await;
            let waiting = client.send_request("config.set", json!({"name": "typed"}));
            gateway.begin_starting().await;
            gateway.ready();
            let up = client.event("gateway.up", 1).await;
            assert_eq!(up["resumed"], "replay", "{who} {how:?}");

            let answer = client.outcome(&waiting).await.ok();
            assert_eq!(answer["bootId"], gateway.boot_id(), "{who} {how:?}");
            assert_eq!(gateway.journal().executions("typed"), 1);
            gateway.publish("sessions.subscribe", "sessions.changed", &json!({"n": 1}));
            assert_eq!(client.event("sessions.changed", 1).await["n"], 1);
            client.record().assert_untouched();
            let journal = gateway.journal();
            let connects = journal.connects();
            let [(_, None), (again, None)] = connects[..] else {
                panic!("{who} {how:?}: {connects:?}");
            };
            assert!(again["device"].is_null(), "its signature is stale");
            assert_eq!(again["scopes"], json!(SCOPES));
        }
    }
}

#[tokio::test]
async fn the_control_ui_shows_a_suspension_that_ends_and_nothing_else() {
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let client = Client::connected(signed_in(Role::control_ui()), proxy.target()).await;
    gateway.broadcast("presence", &json!({}));
    client.event("presence", 1).await;
    gateway.stop(Stop::Kill).await;
    assert_eq!(
        client.event("gateway.suspension", 1).await["phase"],
        "draining"
    );
    gateway.begin_starting().await;
    gateway.ready();
    assert_eq!(
        client.event("gateway.suspension", 2).await["phase"],
        "accepting"
    );
    gateway.broadcast("presence", &json!({}));
    client.event("presence", 2).await;
    let record = client.record();
    record.assert_untouched();
    assert_eq!(record.gaps, []);
    assert_eq!(record.events("shutdown"), [""; 0]);
}

/// A number that never comes would be a gap, at which the Control UI drops its connection.
#[tokio::test]
async fn what_a_stopping_gateway_says_last_leaves_no_gap_in_the_numbers() {
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let client = Client::connected(signed_in(Role::control_ui()), proxy.target()).await;
    gateway.broadcast("presence", &json!({"n": 1}));
    gateway.announce_shutdown(&json!({"reason": "gateway stopping"}));
    gateway.broadcast("presence", &json!({"n": 2}));
    client.event("presence", 2).await;
    let suspension = client.event("gateway.suspension", 1).await;
    assert_eq!(suspension["phase"], "draining");
    let record = client.record();
    record.assert_untouched();
    assert_eq!(record.gaps, []);
}

#[tokio::test]
async fn a_grant_that_shrank_is_not_passed_off_as_the_old_one() {
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let client = Client::connected(signed_in(Role::official()), proxy.target()).await;
    gateway.set_identity_scopes(&["operator.read"]);
    gateway.restart(ms(100), ms(100)).await;
    client.hello(2).await;
    let record = client.record();
    record.assert_sound();
    assert_eq!(record.disconnects.len(), 1);
    assert_eq!(record.disconnects[0].code, 1012);
}

#[tokio::test]
async fn a_gateway_that_believes_no_proxy_is_not_tried_with_an_unsigned_handshake() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let ui = Client::connected(signed_in(Role::control_ui()), proxy.target()).await;
    gateway.restart(ms(200), ms(200)).await;
    ui.hello(2).await;
    let record = ui.record();
    record.assert_sound();
    assert_eq!(record.disconnects, []);
    assert_eq!(record.gaps.len(), 1, "it came back by itself, at once");
    let refused = gateway
        .journal()
        .refused("CONTROL_UI_DEVICE_IDENTITY_REQUIRED");
    assert_eq!(refused, 0);
}

#[tokio::test]
async fn nobody_else_gets_to_the_gateway() {
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let wrong = format!("Bearer {}", TOKEN.replace('A', "B"));
    for headers in [
        &[][..],
        &[("authorization", wrong.as_str())][..],
        &[("authorization", "Bearer hl_")][..],
        &[("authorization", "Basic bmljazpwYXNzd29yZA==")][..],
        &[("cookie", "__Host-holdline=x")][..],
    ] {
        let answer = http::get(&proxy.target(), "/api/sessions", headers).await;
        assert_eq!(answer.status, 401, "{headers:?}");
        assert!(answer.header("www-authenticate").is_some());
        let error = &answer.json()["error"];
        assert!(error["type"].is_string());
        // No advice for ways that are closed.
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("token") && !message.contains("browser"),
            "{message}"
        );
        let mut role = Role::official();
        for (name, value) in headers {
            role = role.header(name, value);
        }
        let client = Client::start(role, proxy.target());
        client
            .wait_for("a refusal", |record| !record.failed.is_empty())
            .await;
        assert_eq!(client.record().failed[0], "upgrade: HTTP 401");
    }
    let journal = gateway.journal();
    assert_eq!((journal.upgrades().len(), journal.http().len()), (0, 0));
}

#[tokio::test]
async fn the_gateway_is_told_who_it_is_and_nothing_that_a_client_says_of_that() {
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let bearer = bearer();
    let spoofed = [
        ("authorization", bearer.as_str()),
        ("X-Forwarded-User", "root@example.com"),
        ("x_forwarded_user", "root@example.com"),
        ("X-Forwarded-User", "second@example.com"),
        ("Remote-User", "root@example.com"),
        ("Connection", "X-Forwarded-User"),
        ("cookie", "a=1; __Host-holdline=secret; b=2"),
    ];
    let answer = http::get(&proxy.target().from("127.0.0.1"), "/x", &spoofed).await;
    // Signs of a proxy on loopback: it is not known whose request this is.
    assert_eq!(answer.status, 403);
    let plain = [
        ("authorization", bearer.as_str()),
        ("cookie", "a=1; __Host-holdline=secret; b=2"),
    ];
    assert_eq!(http::get(&proxy.target(), "/x", &plain).await.status, 200);
    let client = Client::connected(signed_in(Role::official()), proxy.target()).await;
    client.request("health", json!({})).await.ok();
    let journal = gateway.journal();
    let http = journal.http();
    let upgrades = journal.upgrades();
    let heads = http
        .iter()
        .map(|(head, _)| *head)
        .chain(upgrades.iter().map(|(head, _)| *head));
    for head in heads {
        let users: Vec<_> = head
            .headers
            .iter()
            .filter(|(name, _)| name.contains("user") && name != "user-agent")
            .collect();
        assert_eq!(users, [&("x-forwarded-user".to_owned(), USER.to_owned())]);
        assert_eq!(head.header("x-forwarded-for"), Some("192.0.2.1"));
        assert_eq!(head.header("x-forwarded-proto"), Some("https"));
        assert_eq!(
            head.header("authorization"),
            None,
            "it is not for the gateway"
        );
    }
    assert_eq!(http[0].0.header("cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn public_paths_need_no_sign_in_and_carry_no_identity() {
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let bearer = bearer();
    for headers in [&[][..], &[("authorization", bearer.as_str())][..]] {
        let answer = http::get(&proxy.target(), "/hooks/telegram", headers).await;
        assert_eq!(answer.status, 200);
    }
    for elsewhere in [
        "/hooksx",
        "/",
        "/hooks/../api",
        "/hooks/%2e%2e/api",
        "/hooks/..%2fapi",
        "/hooks//../api",
        "/hooks/.;/../api",
        "/HOOKS/a",
    ] {
        let answer = http::get(&proxy.target(), elsewhere, &[]).await;
        assert_eq!(answer.status, 401, "{elsewhere}");
    }
    for (head, _) in gateway.journal().http() {
        assert_eq!(head.header("x-forwarded-user"), None, "{head:?}");
        assert_eq!(
            head.header("authorization"),
            None,
            "a token of ours is never its"
        );
    }
}

#[tokio::test]
async fn whoever_is_let_in_no_longer_is_out_within_a_second_held_or_not() {
    const OTHER: &str = "hl_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";
    let gateway = believing_gateway().await;
    let settings = Arc::new(Mutex::new(auth(&[("laptop", TOKEN), ("phone", OTHER)])));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    let phone = Role::official().header("authorization", &format!("Bearer {OTHER}"));
    let stays = Client::connected(phone, proxy.target()).await;
    let live = Client::connected(signed_in(Role::official()), proxy.target()).await;
    let unanswered = live.send_request("config.set", json!({"name": "a", "wait": "never"}));
    gateway
        .wait_for("the request", |journal| journal.executions("a") == 1)
        .await;

    *settings.lock().unwrap() = auth(&[("phone", OTHER)]);
    let asked = Instant::now();
    let done = proxy.holdline.reload().await.expect("it is taken");
    assert_eq!(done.ended, 1);
    assert!(
        done.changes
            .iter()
            .all(|change| change.key.starts_with("auth."))
    );
    live.wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert!(asked.elapsed() < SWEEP, "by the next look round");
    let record = live.record();
    assert_eq!(record.disconnects[0].code, 1008);
    let told = record.outcome(&unanswered).unwrap().error();
    assert_eq!(told["details"]["execution"], "may_have_executed");
    live.wait_for("a refusal", |record| !record.failed.is_empty())
        .await;
    stays.request("health", json!({})).await.ok();

    // Held: neither fed nor put back.
    gateway.stop(Stop::Kill).await;
    stays.event("gateway.down", 1).await;
    *settings.lock().unwrap() =
        "[auth]\nmodes = [\"token\"]\ntokens = [{ name = \"x\", user = \"y\", hash = \"".to_owned()
            + &TokenHash::of("hl_x").to_base64url()
            + "\" }]\n";
    proxy.holdline.reload().await.expect("it is taken");
    stays
        .wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert_eq!(stays.record().disconnects[0].code, 1008);
    assert_eq!(gateway.journal().hellos(), 2);
}

#[tokio::test]
async fn a_config_with_an_error_is_refused_whole() {
    let gateway = believing_gateway().await;
    let settings = Arc::new(Mutex::new(auth(&[("laptop", TOKEN)])));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    let client = Client::connected(signed_in(Role::official()), proxy.target()).await;
    for (broken, told) in [
        ("[hold]\nmax = \"1 fortnight\"\n", "hold.max"),
        ("[auth]\nmodes = [\"passwrd\"]\n", "not a way to sign in"),
    ] {
        *settings.lock().unwrap() = broken.to_owned();
        let answer = http::request(&proxy.admin(), "POST", "/reload", &[], b"").await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
}

#[tokio::test]
async fn a_node_signs_its_own_handshake_again() {
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let node = Client::connected(signed_in(Role::node()), proxy.target()).await;
    gateway.restart(ms(100), ms(100)).await;
    let up = node.event("gateway.up", 1).await;
    assert_eq!(up["resumed"], "rechallenge");
    let record = node.record();
    assert_eq!(record.disconnects, []);
    let journal = gateway.journal();
    let (again, refused) = journal.connects()[1];
    assert!(again["device"].is_object() && refused.is_none());
}

#[tokio::test]
async fn a_signed_newcomer_during_an_outage_comes_back_by_itself_with_its_signature() {
    let gateway = ScriptedGateway::stopped(Options {
        auth: AuthMode::TrustedProxy,
        ..Options::default()
    });
    let settings = auth(&[("laptop", TOKEN)]) + "[hold]\nupgrade = \"100ms\"\n";
    let proxy = Proxy::with(&gateway, &settings).await;
    proxy.gateway_is("down").await;
    let client = Client::start(signed_in(Role::official()), proxy.target());
    client.event("gateway.down", 1).await;
    gateway.begin_starting().await;
    gateway.ready();
    client.hello(1).await;
    client.record().assert_sound();
    let journal = gateway.journal();
    let (connect, _) = journal.connects()[0];
    assert!(connect["device"].is_object(), "it got what it asked for");
}

/// As another machine, told by a load balancer that is trusted.
const ELSEWHERE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.9 4711 443\r\n";

#[tokio::test]
async fn no_spelling_of_another_identity_gets_past_ours() {
    const NAMES: [&str; 16] = [
        "X-Forwarded-User",
        "x-forwarded-user",
        "X_Forwarded_User",
        "x-forwarded_user",
        "X.Forwarded.User",
        "X-Forwarded-Email",
        "X-Forwarded-Preferred-Username",
        "X-Remote-User",
        "Remote-User",
        "REMOTE_USER",
        "X-Auth-Request-User",
        "X-Auth-Request-Email",
        "X-OpenClaw-Scopes",
        "x_openclaw_scopes",
        "Tailscale-User-Login",
        "Cf-Access-Authenticated-User-Email",
    ];
    let gateway = believing_gateway().await;
    let listen = "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let settings = auth(&[("laptop", TOKEN)]) + listen;
    let proxy = Proxy::with(&gateway, &settings).await;
    let target = proxy.target().preface(ELSEWHERE);
    let bearer = bearer();
    let mut sent = 0;
    for name in NAMES {
        let once = [("authorization", bearer.as_str()), (name, "root")];
        let twice = [once[0], once[1], (name, "operator.admin")];
        let named = [once[0], once[1], ("Connection", name)];
        for headers in [&once[..], &twice, &named] {
            assert_eq!(
                http::get(&target, "/x", headers).await.status,
                200,
                "{name}"
            );
            let raw = Raw::open(&target, "/", headers).await;
            drop(raw.unwrap_or_else(|refusal| panic!("{name}: {}", refusal.status)));
            sent += 2;
        }
        // HTTP/2 has no Connection, and names are in lower case.
        let lower = name.to_ascii_lowercase();
        let headers = [once[0], (lower.as_str(), "root"), (lower.as_str(), "root2")];
        let mut h2 = h2::Connection::open(&target).await;
        assert_eq!(h2.get("/x", &headers).await.status, 200, "{name}");
        drop(
            h2.websocket("/", &headers)
                .await
                .unwrap_or_else(|_| panic!("{name}")),
        );
        sent += 2;
        let folded = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer}\r\nX-A: b\r\n {name}: root\r\n\r\n"
        );
        let answer = http::send_bytes(&target, folded.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 400, "folded lines are no HTTP any more");
    }
    assert!(sent >= 60);
    let journal = gateway.journal();
    let (http, upgrades) = (journal.http(), journal.upgrades());
    assert_eq!(http.len() + upgrades.len(), sent);
    let heads = http
        .iter()
        .map(|(head, _)| *head)
        .chain(upgrades.iter().map(|(head, _)| *head));
    for head in heads {
        let text = format!("{:?}", head.headers);
        assert!(
            !text.contains("root") && !text.contains("operator"),
            "{text}"
        );
        let users = head
            .headers
            .iter()
            .filter(|(name, _)| name == "x-forwarded-user");
        assert_eq!(users.count(), 1, "{text}");
        assert_eq!(head.header("x-forwarded-user"), Some(USER));
        assert_eq!(head.header("x-forwarded-for"), Some("203.0.113.7"));
    }
}

/// A WebSocket reaches everything, whatever path it is asked for on.
#[tokio::test]
async fn public_paths_are_public_for_plain_requests_only() {
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &auth(&[("laptop", TOKEN)])).await;
    let mut h2 = h2::Connection::open(&proxy.target()).await;
    for path in ["/hooks", "/hooks/x", "/hooks?x=1"] {
        assert_eq!(http::get(&proxy.target(), path, &[]).await.status, 200);
        let refused = Raw::open(&proxy.target(), path, &[]).await.err().unwrap();
        assert_eq!(refused.status, 401, "{path}");
        let refused = h2.websocket(path, &[]).await.err().unwrap();
        assert_eq!(refused.status, 401, "{path}");
    }
    assert_eq!(gateway.journal().upgrades().len(), 0);
}

#[tokio::test]
async fn a_request_that_waits_is_not_sent_for_somebody_who_is_out_meanwhile() {
    let gateway = believing_gateway().await;
    let settings = Arc::new(Mutex::new(auth(&[("laptop", TOKEN)])));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    proxy.gateway_is("ready").await;
    gateway.stop(Stop::Kill).await;
    proxy.gateway_is("down").await;
    let target = proxy.target();
    let waits = tokio::spawn(async move {
        let bearer = bearer();
        http::get(&target, "/api", &[("authorization", bearer.as_str())]).await
    });
    let upgrade = Client::start(signed_in(Role::official()), proxy.target());
    // Both are inside: one is counted as waiting, the other among the requests that are held.
    proxy.waiting(1).await;
    *settings.lock().unwrap() = auth(&[("phone", "hl_other")]);
    proxy.holdline.reload().await.expect("it is taken");
    assert_eq!(waits.await.unwrap().status, 401);
    upgrade
        .wait_for("a refusal", |record| !record.failed.is_empty())
        .await;
    assert_eq!(upgrade.record().failed[0], "upgrade: HTTP 401");
    gateway.begin_starting().await;
    gateway.ready();
    proxy.gateway_is("ready").await;
    let journal = gateway.journal();
    assert_eq!((journal.http().len(), journal.upgrades().len()), (0, 0));
}

#[tokio::test]
async fn when_people_are_asked_from_now_on_those_who_were_not_are_out() {
    let gateway = ScriptedGateway::start().await;
    let settings = Arc::new(Mutex::new(String::new()));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    let before = Client::connected(Role::backend(), proxy.target()).await;
    *settings.lock().unwrap() = auth(&[("laptop", TOKEN)]);
    proxy.holdline.reload().await.expect("it is taken");
    before
        .wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert_eq!(before.record().disconnects[0].code, 1008);
    let after = Client::connected(signed_in(Role::backend()), proxy.target()).await;
    // And back again: whoever is known then need not be.
    *settings.lock().unwrap() = String::new();
    proxy.holdline.reload().await.expect("it is taken");
    after
        .wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    Client::connected(Role::backend(), proxy.target()).await;
}

/// A sign-in service that says yes to everybody, until it is told to say no.
struct Sso {
    url: String,
    says_no: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Sso {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/auth", listener.local_addr().unwrap());
        let (says_no, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (no, count) = (Arc::clone(&says_no), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let status = match no.load(SeqCst) {
                    true => "401 Unauthorized",
                    false => "200 OK",
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nx-auth-request-email: {USER}\r\ncontent-length: 0\r\n\r\n"
                );
                count.fetch_add(1, SeqCst);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self {
            url,
            says_no,
            asked,
        }
    }

    fn settings(&self) -> String {
        let url = &self.url;
        format!(
            "[auth]\nmodes = [\"forward\"]\n[auth.forward]\nurl = \"{url}\"\nrecheck = \"5s\"\n"
        )
    }

    /// Time passes, and it is asked again.
    async fn is_asked_again(&self) {
        let before = self.asked.load(SeqCst);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(5)).await;
        tokio::time::resume();
        within("another question", async {
            while self.asked.load(SeqCst) == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn who_is_no_longer_let_in_by_the_service_does_not_stay() {
    let sso = Sso::start().await;
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &sso.settings()).await;
    let live = Client::connected(Role::backend(), proxy.target()).await;
    sso.is_asked_again().await;
    live.request("health", json!({})).await.ok();
    live.record().assert_untouched();
    sso.says_no.store(true, SeqCst);
    sso.is_asked_again().await;
    live.wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert_eq!(live.record().disconnects[0].code, 1008);
    let metrics = http::get(&proxy.admin(), "/metrics", &[]).await.text();
    for line in [
        "holdline_grants_ended_total{way=\"forward\",reason=\"withdrawn\"} 1",
        "holdline_grants{way=\"forward\"} 0",
        "holdline_sign_ins_total{way=\"forward\",outcome=\"ok\"} 1",
    ] {
        assert!(metrics.lines().any(|seen| seen == line), "{line}");
    }
}

#[tokio::test]
async fn who_is_no_longer_let_in_by_the_service_is_neither_held_nor_put_back() {
    let sso = Sso::start().await;
    let gateway = believing_gateway().await;
    let proxy = Proxy::with(&gateway, &sso.settings()).await;
    let held = Client::connected(Role::backend(), proxy.target()).await;
    gateway.stop(Stop::Kill).await;
    held.event("gateway.down", 1).await;
    sso.says_no.store(true, SeqCst);
    sso.is_asked_again().await;
    held.wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert_eq!(held.record().disconnects[0].code, 1008);
    gateway.begin_starting().await;
    gateway.ready();
    proxy.gateway_is("ready").await;
    proxy.is_empty().await;
    assert_eq!(gateway.journal().connects().len(), 1);
}

/// A sign-in service that says yes to everybody, after a word of the test.
async fn yes_service() -> (String, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/auth", listener.local_addr().unwrap());
    let (go, mut wait) = mpsc::channel(64);
    let (asked, was_asked) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            asked.send(()).await.unwrap();
            let () = wait.recv().await.unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nx-auth-request-email: {USER}\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, go, was_asked)
}

#[tokio::test]
async fn a_service_is_asked_and_what_it_does_not_say_nobody_says() {
    let (url, go, _asked) = yes_service().await;
    let gateway = believing_gateway().await;
    let settings = format!(
        "[auth]\nmodes = [\"forward\"]\n[auth.forward]\nurl = \"{url}\"\n\
         copy = [\"x-auth-request-groups\"]\n[listen]\nproxy_protocol = true\n\
         trusted_proxies = [\"127.0.0.1\"]\n"
    );
    let proxy = Proxy::with(&gateway, &settings).await;
    let target = proxy.target().preface(ELSEWHERE);
    go.send(()).await.unwrap();
    let headers = [("cookie", "_s=1"), ("X-Auth-Request-Groups", "admin")];
    assert_eq!(http::get(&target, "/x", &headers).await.status, 200);
    let journal = gateway.journal();
    let [(head, _)] = journal.http()[..] else {
        panic!("one request")
    };
    assert_eq!(head.header("x-forwarded-user"), Some(USER));
    assert_eq!(head.header("x-auth-request-groups"), None);
    assert_eq!(head.header("cookie"), Some("_s=1"));
}

#[tokio::test]
async fn what_changes_while_the_service_is_asked_counts() {
    let (url, go, mut asked) = yes_service().await;
    let gateway = believing_gateway().await;
    let forward = format!("[auth]\nmodes = [\"forward\"]\n[auth.forward]\nurl = \"{url}\"\n");
    let settings = Arc::new(Mutex::new(forward));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    let client = Client::start(Role::official(), proxy.target());
    asked.recv().await.unwrap();
    *settings.lock().unwrap() = auth(&[("laptop", TOKEN)]);
    proxy.holdline.reload().await.expect("it is taken");
    go.send(()).await.unwrap();
    client
        .wait_for("a refusal", |record| !record.failed.is_empty())
        .await;
    assert_eq!(client.record().failed[0], "upgrade: HTTP 401");
    assert_eq!(gateway.journal().upgrades().len(), 0);
}

/// A CA for clients' certificates, all of the same name.
fn client_ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issued_by(ca: &CertifiedIssuer<'static, KeyPair>) -> Certificate {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, USER);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    (certificate.der().clone(), key)
}

#[tokio::test]
async fn who_is_in_by_a_ca_that_is_taken_away_is_out() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (client_ca(), client_ca());
    let believe = |text: String| {
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, text).unwrap();
        format!("[auth]\nmodes = [\"mtls\"]\n[tls]\nclient_ca = {file:?}\n")
    };
    let gateway = believing_gateway().await;
    let settings = Arc::new(Mutex::new(believe(ours.pem())));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    let target = proxy.target().certificate(issued_by(&ours));
    let live = Client::connected(Role::backend(), target.clone()).await;
    let mut kept = h2::Connection::open(&target).await;
    assert!(kept.websocket("/", &[]).await.is_ok());

    // Another one beside it is nothing to those who are in.
    *settings.lock().unwrap() = believe(ours.pem() + &other.pem());
    assert_eq!(proxy.holdline.reload().await.expect("taken").ended, 0);
    live.request("health", json!({})).await.ok();
    live.record().assert_untouched();
    assert!(kept.websocket("/", &[]).await.is_ok());

    let asked = Instant::now();
    *settings.lock().unwrap() = believe(other.pem());
    assert!(proxy.holdline.reload().await.expect("taken").ended >= 1);
    live.wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert!(asked.elapsed() < SWEEP, "by the next look round");
    assert_eq!(live.record().disconnects[0].code, 1008);
    let refused = kept.websocket("/", &[]).await.err().unwrap();
    assert_eq!(refused.status, 401, "on a connection that is still open");
    let newcomer = proxy.target().certificate(issued_by(&other));
    Client::connected(Role::backend(), newcomer).await;
}

#[tokio::test]
async fn another_header_for_the_name_ends_who_is_in_as_it_says() {
    let sso = Sso::start().await;
    let gateway = believing_gateway().await;
    let settings = Arc::new(Mutex::new(sso.settings()));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    let live = Client::connected(Role::backend(), proxy.target()).await;
    *settings.lock().unwrap() = sso.settings() + "user = \"x-auth-request-user\"\n";
    let done = proxy.holdline.reload().await.expect("taken");
    let [change] = &done.changes[..] else {
        panic!("{:?}", done.changes)
    };
    assert_eq!(change.key, "auth.forward.user");
    assert_eq!((change.scope.word(), done.ended), ("everything", 1));
    live.wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
}

#[tokio::test]
async fn a_path_that_is_public_no_longer_is_so_for_new_connections() {
    let gateway = believing_gateway().await;
    let settings = Arc::new(Mutex::new(auth(&[("laptop", TOKEN)])));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    let public = http::get(&proxy.target(), "/hooks", &[]).await;
    assert_eq!(public.status, 200);
    *settings.lock().unwrap() = auth(&[("laptop", TOKEN)]).replace("/hooks", "/other");
    let done = proxy.holdline.reload().await.expect("taken");
    let scopes: Vec<_> = done.changes.iter().map(|each| each.scope.word()).collect();
    assert_eq!(scopes, ["new_connections"], "{:?}", done.changes);
    let refused = http::get(&proxy.target(), "/hooks", &[]).await;
    assert_eq!(refused.status, 401);
}
