//! A new config under open sessions: nobody notices, and everybody is under it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdline::auth::TokenHash;
use holdline::config::Change;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::kit::gateway::{AuthMode, Options, Protocol, ScriptedGateway, Stop, USER};
use crate::kit::{Client, Frame, Proxy, Raw, Role, Target, http, ms, own_ip, own_port};

struct Scene {
    gateway: ScriptedGateway,
    proxy: Proxy,
    settings: Arc<Mutex<String>>,
}

async fn scene(settings: &str) -> Scene {
    let gateway = ScriptedGateway::start().await;
    let settings = Arc::new(Mutex::new(settings.to_owned()));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    Scene {
        gateway,
        proxy,
        settings,
    }
}

impl Scene {
    /// Takes another config.
    async fn reload(&self, settings: &str) -> Vec<Change> {
        *self.settings.lock().unwrap() = settings.to_owned();
        self.proxy.holdline.reload().await.expect("taken").changes
    }

    /// Tries another one, which is refused with these words.
    async fn refused(&self, settings: &str) -> String {
        *self.settings.lock().unwrap() = settings.to_owned();
        let refused = self.proxy.holdline.reload().await;
        refused.expect_err("refused").to_string()
    }

    async fn move_to(&self, other: &ScriptedGateway) {
        self.reload(&format!("[gateway]\nurl = \"{}\"\n", other.url()))
            .await;
    }
}

async fn bounce(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    gateway.ready();
}

// === another gateway ===

#[tokio::test]
async fn a_session_that_can_be_said_again_moves_unseen_and_takes_its_subscriptions_along() {
    // However long a slow machine takes for it.
    let unseen = "[hold]\nnotice_after = \"25s\"\n";
    let (scene, other) = (scene(unseen).await, ScriptedGateway::start().await);
    let client = Client::connected(Role::backend(), scene.proxy.target()).await;
    client.request("sessions.subscribe", json!({})).await.ok();
    let url = other.url();
    scene
        .reload(&format!("{unseen}[gateway]\nurl = \"{url}\"\n"))
        .await;
    other
        .wait_for("the session", |journal| journal.hellos() == 1)
        .await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], other.boot_id());
    other.publish("sessions.subscribe", "sessions.changed", &json!({"n": 1}));
    client.event("sessions.changed", 1).await;
    let record = client.record();
    record.assert_untouched();
    assert!(
        record.events("gateway.down").is_empty(),
        "it never was down"
    );
    let up = client.event("gateway.up", 1).await;
    assert_eq!(up["resumed"], "replay");
}

#[tokio::test]
async fn a_move_waits_for_the_last_answer_of_the_old_gateway() {
    let (scene, other) = (scene("").await, ScriptedGateway::start().await);
    let client = Client::connected(Role::backend(), scene.proxy.target()).await;
    let slow = client.send_request("config.set", json!({"name": "a", "wait": "told"}));
    scene
        .gateway
        .wait_for("the request", |journal| journal.executions("a") == 1)
        .await;
    scene.move_to(&other).await;
    scene.proxy.gateway_is("ready").await;
    assert_eq!(other.journal().hellos(), 0);
    scene.gateway.release("told");
    client.outcome(&slow).await.ok();
    other
        .wait_for("the session", |journal| journal.hellos() == 1)
        .await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], other.boot_id());
    client.record().assert_untouched();
}

/// An answer that does not come is told of as for any loss, when the time of a drain is over.
#[tokio::test]
async fn a_move_does_not_wait_for_ever() {
    let (scene, other) = (scene("").await, ScriptedGateway::start().await);
    let client = Client::connected(Role::backend(), scene.proxy.target()).await;
    let never = client.send_request("config.set", json!({"name": "a", "wait": "never"}));
    scene
        .gateway
        .wait_for("the request", |journal| journal.executions("a") == 1)
        .await;
    let url = other.url();
    let settings = format!("[gateway]\nurl = \"{url}\"\n[limits]\ndrain = \"200ms\"\n");
    scene.reload(&settings).await;
    let told = client.outcome(&never).await.error();
    assert_eq!(told["details"]["execution"], "may_have_executed");
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], other.boot_id());
    assert_eq!(other.journal().executions("a"), 0, "never twice");
    client.record().assert_untouched();
}

/// Nothing moves to a gateway that is not there: blue-green, and not a leap.
#[tokio::test]
async fn sessions_stay_where_they_are_until_the_new_gateway_is_ready() {
    let scene = scene("").await;
    let other = ScriptedGateway::stopped(Options::default());
    let client = Client::connected(Role::backend(), scene.proxy.target()).await;
    scene.move_to(&other).await;
    scene.proxy.gateway_is("down").await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], scene.gateway.boot_id());
    bounce(&other).await;
    other
        .wait_for("the session", |journal| journal.hellos() == 1)
        .await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], other.boot_id());
    client.record().assert_untouched();
}

/// And a change of mind before anything moved is no move at all.
#[tokio::test]
async fn a_move_that_is_taken_back_is_none() {
    let scene = scene("").await;
    let other = ScriptedGateway::stopped(Options::default());
    let client = Client::connected(Role::backend(), scene.proxy.target()).await;
    scene.move_to(&other).await;
    scene.proxy.gateway_is("down").await;
    scene.reload("").await;
    scene.proxy.gateway_is("ready").await;
    bounce(&other).await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], scene.gateway.boot_id());
    assert_eq!(scene.gateway.journal().hellos(), 1);
    client.record().assert_untouched();
}

/// Its signature is for one gateway's challenge: it is left where it is, and sent to the new one
/// when the old one ends.
#[tokio::test]
async fn a_session_with_a_signature_stays_until_its_gateway_ends() {
    let (scene, other) = (scene("").await, ScriptedGateway::start().await);
    let client = Client::connected(Role::official(), scene.proxy.target()).await;
    scene.move_to(&other).await;
    scene.proxy.gateway_is("ready").await;
    let newcomer = Client::connected(Role::official(), scene.proxy.target()).await;
    let answer = newcomer.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], other.boot_id());
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], scene.gateway.boot_id());
    client.record().assert_untouched();

    scene.gateway.stop(Stop::Kill).await;
    client.hello(2).await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], other.boot_id());
    let record = client.record();
    assert_eq!(record.disconnects[0].code, 1012);
    assert!(record.failed.is_empty(), "its first try succeeds");
    newcomer.record().assert_untouched();
}

#[tokio::test]
async fn whoever_waits_for_a_gateway_that_has_moved_is_put_on_the_new_one() {
    let (scene, other) = (scene("").await, ScriptedGateway::start().await);
    let held = Client::connected(Role::backend(), scene.proxy.target()).await;
    scene.gateway.stop(Stop::Kill).await;
    held.event("gateway.down", 1).await;
    let kept = held.send_request("config.set", json!({"name": "kept"}));
    let newcomer = Client::start(Role::backend(), scene.proxy.target());
    scene.proxy.waiting(1).await;
    let target = scene.proxy.target();
    let plain = tokio::spawn(async move { http::get(&target, "/api/x", &[]).await });
    scene.move_to(&other).await;
    held.event("gateway.up", 1).await;
    held.outcome(&kept).await.ok();
    newcomer.hello(1).await;
    assert_eq!(plain.await.unwrap().status, 200);
    assert_eq!(other.journal().executions("kept"), 1);
    for client in [&held, &newcomer] {
        let answer = client.request("sessions.list", json!({})).await.ok();
        assert_eq!(answer["bootId"], other.boot_id());
        client.record().assert_untouched();
    }
}

#[tokio::test]
async fn sessions_of_a_route_that_is_gone_stay_and_new_ones_take_another() {
    let other = ScriptedGateway::start().await;
    let route = format!("[[route]]\npath = \"/x\"\nurl = \"{}\"\n", other.url());
    let scene = scene(&route).await;
    let role = Role::backend().path("/x");
    let client = Client::connected(role.clone(), scene.proxy.target()).await;
    scene.reload("[hold]\nnotice_every = \"300ms\"\n").await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], other.boot_id());
    let newcomer = Client::connected(role, scene.proxy.target()).await;
    let answer = newcomer.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], scene.gateway.boot_id());
    // It is held like any other, under the terms of now.
    other.stop(Stop::Kill).await;
    client.event("gateway.down", 2).await;
    bounce(&other).await;
    client.event("gateway.up", 1).await;
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
}

#[tokio::test]
async fn another_way_to_ask_a_gateway_is_no_other_gateway() {
    let scene = scene("").await;
    let client = Client::connected(Role::official(), scene.proxy.target()).await;
    scene
        .reload(
            "[gateway]\nprobe = \"tcp\"\nprobe_interval_ready = \"1s\"\n[hold]\nresume_rate = 7\n",
        )
        .await;
    let status = scene.proxy.status().await;
    assert_eq!(
        status["gateways"][0]["state"], "ready",
        "it was not forgotten"
    );
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
    assert_eq!(scene.gateway.journal().hellos(), 1);
}

/// Which gateway answers plain requests there.
async fn answers(scene: &Scene, path: &str) -> String {
    let answer = http::get(&scene.proxy.target(), path, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// Plain requests go where their own route says, whatever becomes of others at the same gateway.
#[tokio::test]
async fn routes_that_share_a_gateway_or_trade_theirs_keep_apart() {
    let (a, b) = (
        ScriptedGateway::start().await,
        ScriptedGateway::start().await,
    );
    let config = |route: &ScriptedGateway, default: &ScriptedGateway| {
        format!(
            "[gateway]\nurl = \"{}\"\n[[route]]\npath = \"/r\"\nurl = \"{}\"\n",
            default.url(),
            route.url()
        )
    };
    let scene = Box::pin(scene(&config(&a, &a))).await;
    for (route, default) in [
        (&a, &a),
        (&b, &a),
        (&a, &b),
        (&b, &a),
        (&b, &b),
        (&b, &a),
        (&a, &a),
    ] {
        Box::pin(scene.reload(&config(route, default))).await;
        for (path, gateway) in [("/r/x", route), ("/x", default)] {
            let before = [&a, &b].map(|one| one.journal().http().len());
            answers(&scene, path).await;
            let asked = usize::from(std::ptr::eq(gateway, &a));
            let after = [&a, &b].map(|one| one.journal().http().len());
            let [by_a, by_b] = [after[0] - before[0], after[1] - before[1]];
            assert_eq!((by_a > 0, by_b > 0), (asked == 1, asked == 0), "{path}");
        }
    }
}

/// Which messages of another application are answers, nobody knows: one for each is waited for.
#[tokio::test]
async fn a_spliced_session_moves_without_losing_an_answer() {
    let options = Options {
        protocol: Protocol::Echo,
        ..Options::default()
    };
    let gateways = [
        ScriptedGateway::with(options.clone()).await,
        ScriptedGateway::with(options).await,
    ];
    let at = |gateway: &ScriptedGateway| {
        let url = gateway.url();
        format!("[gateway]\nurl = \"{url}\"\nprotocol = \"generic\"\n[hold]\nresume = \"splice\"\n")
    };
    let settings = Arc::new(Mutex::new(at(&gateways[0])));
    let proxy = Proxy::reloadable(&gateways[0], &settings).await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    let (end, mut ended) = tokio::sync::oneshot::channel::<()>();
    let talking = tokio::spawn(async move {
        let mut number = 0;
        while ended.try_recv().is_err() {
            let said = Frame::text(format!("{number}"));
            raw.send(&said).await;
            assert_eq!(raw.next_but_pings().await, said);
            number += 1;
        }
    });
    for turn in 1..=20 {
        let gateway = &gateways[turn % 2];
        *settings.lock().unwrap() = at(gateway);
        proxy.holdline.reload().await.expect("taken");
        // The first one had it from the beginning.
        let sessions = turn / 2 + 1;
        gateway
            .wait_for("the session", |journal| {
                journal.upgrades().len() >= sessions
            })
            .await;
    }
    end.send(()).unwrap();
    talking.await.expect("every answer");
}

/// In the middle of its handshake nothing can be moved; afterwards it is.
#[tokio::test]
async fn a_session_that_was_shaking_hands_moves_afterwards() {
    let scene = Box::pin(scene("")).await;
    let other = ScriptedGateway::start().await;
    let mut raw = Raw::open(&scene.proxy.target(), "/", &[]).await.unwrap();
    raw.event("connect.challenge").await;
    Box::pin(scene.move_to(&other)).await;
    scene.proxy.gateway_is("ready").await;
    raw.send(&Frame::text(Role::backend().connect("c", None)))
        .await;
    raw.answer("c").await;
    other
        .wait_for("the session", |journal| journal.hellos() == 1)
        .await;
    raw.request("1", "sessions.list", json!({})).await;
    let answer = raw.answer("1").await;
    assert_eq!(answer["payload"]["bootId"], other.boot_id());
}

// === other terms ===

#[tokio::test]
async fn a_wait_that_has_begun_ends_by_the_terms_of_now() {
    let scene = scene("").await;
    let client = Client::connected(Role::backend(), scene.proxy.target()).await;
    scene.gateway.stop(Stop::Kill).await;
    client.event("gateway.down", 1).await;
    scene.reload("[hold]\nmax = \"600ms\"\n").await;
    client
        .wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    let record = client.record();
    assert_eq!(record.disconnects[0].code, 1013);
}

#[tokio::test]
async fn a_longer_wait_reaches_who_is_waiting() {
    let scene = scene("[hold]\nmax = \"8s\"\n").await;
    let client = Client::connected(Role::backend(), scene.proxy.target()).await;
    scene.gateway.stop(Stop::Kill).await;
    client.event("gateway.down", 1).await;
    scene.reload("[hold]\nmax = \"1h\"\n").await;
    tokio::time::sleep(ms(8500)).await;
    bounce(&scene.gateway).await;
    client.event("gateway.up", 1).await;
    client.record().assert_untouched();
}

#[tokio::test]
async fn limits_are_for_whoever_comes_and_for_the_next_frame() {
    let scene = scene("").await;
    let mut open = Raw::connected(&scene.proxy.target(), &Role::backend())
        .await
        .0;
    scene
        .reload("[limits]\nsessions = 1\nsessions_per_ip = 1\nframe = \"64KiB\"\n")
        .await;
    let refused = Raw::open(&scene.proxy.target(), "/", &[]).await;
    assert_eq!(refused.err().expect("a refusal").status, 503);
    open.request("1", "health", json!({})).await;
    open.answer("1").await;
    let pad = "x".repeat(70_000);
    open.request("2", "health", json!({ "pad": pad })).await;
    assert_eq!(open.closed().await.0, 1009);
}

// === doors ===

#[tokio::test]
async fn a_listener_goes_and_its_sessions_stay() {
    let scene = scene(&format!("[listen]\nhttps = [\"{}:0\"]\n", own_ip())).await;
    let old = scene.proxy.target();
    let client = Client::connected(Role::official(), old.clone()).await;
    scene.reload("[listen]\nhttps = [\"127.0.0.2:0\"]\n").await;
    let new = scene.proxy.target();
    assert_ne!(new.addr, old.addr);
    assert!(
        old.dial_tcp().await.is_err(),
        "nobody listens there any more"
    );
    let newcomer = Client::connected(Role::official(), new).await;
    for client in [&client, &newcomer] {
        client.request("health", json!({})).await.ok();
        client.record().assert_untouched();
    }
}

/// From this machine to every address of it, without a moment in which nobody is there.
#[tokio::test]
async fn a_listener_is_widened_under_connects() {
    let port = own_port();
    let scene = scene(&format!("[listen]\nhttps = [\"127.0.0.1:{port}\"]\n")).await;
    let address = scene.proxy.addr();
    let connecting = tokio::spawn(async move {
        for _ in 0..300 {
            let answer = http::get(&Target::tls(address), "/.holdline/status.json", &[]).await;
            assert_eq!(answer.status, 200);
        }
    });
    for _ in 0..10 {
        for host in ["0.0.0.0", "127.0.0.1"] {
            let settings = format!("[listen]\nhttps = [\"{host}:{port}\"]\n");
            scene.reload(&settings).await;
        }
    }
    connecting.await.expect("nobody was refused");
}

#[tokio::test]
async fn the_admin_listener_moves_and_answers_whoever_moved_it() {
    let scene = scene(&format!("[admin]\nlisten = \"{}:0\"\n", own_ip())).await;
    let old = scene.proxy.admin();
    *scene.settings.lock().unwrap() = "[admin]\nlisten = \"127.0.0.2:0\"\n".to_owned();
    let answer = http::request(&old, "POST", "/reload", &[], b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        old.dial_tcp().await.is_err(),
        "nobody listens there any more"
    );
    let metrics = http::get(&scene.proxy.admin(), "/metrics", &[]).await;
    assert_eq!(metrics.status, 200);
    scene.reload("[admin]\nlisten = \"off\"\n").await;
    assert_eq!(scene.proxy.holdline.admin_addr(), None);
    scene.reload("").await;
    assert_eq!(scene.proxy.status().await["draining"], false);
}

// === refused whole ===

#[tokio::test]
async fn a_port_that_is_taken_refuses_all_of_it() {
    let scene = scene("").await;
    let client = Client::connected(Role::official(), scene.proxy.target()).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap();
    let before = scene.proxy.addr();
    for settings in [
        format!("[listen]\nhttps = [\"{taken}\"]\n[limits]\nsessions_per_ip = 1\n"),
        format!(
            "[listen]\nhttps = [\"127.0.0.2:0\", \"{taken}\"]\n[limits]\nsessions_per_ip = 1\n"
        ),
        format!("[admin]\nlisten = \"{taken}\"\n[limits]\nsessions_per_ip = 1\n"),
    ] {
        let told = scene.refused(&settings).await;
        assert!(told.contains(&format!("{taken}")), "{told}");
        assert!(told.contains("is held by"), "{told}");
        assert!(told.contains("the old one is in force"), "{told}");
    }
    assert_eq!(scene.proxy.addr(), before);
    let newcomer = Client::connected(Role::official(), scene.proxy.target()).await;
    for client in [&client, &newcomer] {
        client.request("health", json!({})).await.ok();
        client.record().assert_untouched();
    }
    let status = scene.proxy.status().await;
    let refused = status["lastReload"]["refused"].as_str().unwrap();
    assert!(refused.contains("is held by"), "{refused}");
    scene.reload("").await;
    assert!(scene.proxy.status().await["lastReload"]["refused"].is_null());
}

#[tokio::test]
async fn a_certificate_that_is_none_refuses_all_of_it() {
    let scene = scene("").await;
    let told = scene
        .refused("[tls]\nfiles = [{ cert = \"/nowhere/c.pem\", key = \"/nowhere/k.pem\" }]\n")
        .await;
    assert!(told.contains("/nowhere/c.pem"), "{told}");
    let client = Client::connected(Role::official(), scene.proxy.target()).await;
    client.request("health", json!({})).await.ok();
}

// === again and again ===

/// Everything in turn under traffic and under an outage: nothing is closed, lost or out of order.
#[tokio::test]
async fn sixty_reloads_under_traffic() {
    let (scene, other) = (scene("").await, ScriptedGateway::start().await);
    let live: Vec<Client> = futures_util::future::join_all(
        (0..20).map(|_| Client::connected(Role::backend(), scene.proxy.target())),
    )
    .await;
    let port = own_port();
    let turns = [
        "[hold]\nmax = \"5m\"\nresume_rate = 500\n".to_owned(),
        format!("[listen]\nhttps = [\"0.0.0.0:{port}\"]\n"),
        "[limits]\nping_every = \"off\"\nsessions_per_ip = 4000\n".to_owned(),
        format!("[gateway]\nurl = \"{}\"\n", other.url()),
        "[tls]\nmin_version = \"1.3\"\n[http]\nhold = \"5s\"\n".to_owned(),
        format!("[[route]]\npath = \"/y\"\nurl = \"{}\"\n", other.url()),
    ];
    let mut asked = Vec::new();
    for turn in 0..60 {
        for client in &live {
            asked.push(client.send_request("sessions.list", json!({ "n": turn })));
        }
        scene.reload(&turns[turn % turns.len()]).await;
    }
    for (at, id) in asked.iter().enumerate() {
        live[at % live.len()].outcome(id).await.ok();
    }
    for client in &live {
        let record = client.record();
        record.assert_untouched();
        record.assert_sound();
    }
    tokio::time::sleep(ms(50)).await;
    let status = scene.proxy.status().await;
    assert_eq!(status["sessions"]["open"], 20);
}

/// Who is not let in any more is out at once: without that, a look round every so often ends it.
const SWEEP: Duration = Duration::from_secs(5);

const TOKEN: &str = "hl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

async fn believing_gateway() -> ScriptedGateway {
    let options = Options {
        auth: AuthMode::TrustedProxy,
        ..Options::default()
    };
    ScriptedGateway::with(options).await
}

/// `[auth]` that knows one token.
fn knows(token: &str) -> String {
    let hash = TokenHash::of(token).to_base64url();
    format!(
        "[auth]\nmodes = [\"token\"]\ntokens = [{{ name = \"a\", user = \"{USER}\", hash = \"{hash}\" }}]\n"
    )
}

/// In front of a gateway that is told who somebody is.
async fn known_scene() -> Scene {
    let gateway = believing_gateway().await;
    let settings = Arc::new(Mutex::new(knows(TOKEN)));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    Scene {
        gateway,
        proxy,
        settings,
    }
}

impl Scene {
    /// How many sessions ended for it.
    async fn reload_at(&self, gateway: &ScriptedGateway, auth: &str) -> usize {
        let text = format!("{auth}[gateway]\nurl = \"{}\"\n", gateway.url());
        *self.settings.lock().unwrap() = text;
        self.proxy.holdline.reload().await.expect("taken").ended
    }
}

fn known(role: Role) -> Role {
    role.header("authorization", &format!("Bearer {TOKEN}"))
}

async fn is_put_out(client: &Client) {
    client
        .wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert_eq!(client.record().disconnects[0].code, 1008);
}

#[tokio::test]
async fn a_session_that_has_moved_is_who_it_was_and_can_be_revoked_there() {
    let (scene, other) = (known_scene().await, believing_gateway().await);
    let mut all = Vec::new();
    for role in [Role::control_ui(), Role::official(), Role::backend()] {
        all.push(Client::connected(known(role), scene.proxy.target()).await);
    }
    assert_eq!(scene.reload_at(&other, &knows(TOKEN)).await, 0);
    other
        .wait_for("all of them", |journal| journal.hellos() == 3)
        .await;
    for client in &all {
        client.request("health", json!({})).await.ok();
        client.record().assert_untouched();
    }
    for (head, _) in other.journal().upgrades() {
        assert_eq!(head.header("x-forwarded-user"), Some(USER));
        assert_eq!(head.header("authorization"), None);
    }
    let asked = Instant::now();
    assert_eq!(scene.reload_at(&other, &knows("hl_other")).await, 3);
    for client in &all {
        is_put_out(client).await;
    }
    assert!(asked.elapsed() < SWEEP, "by the next look round");
}

#[tokio::test]
async fn who_is_revoked_on_the_way_never_arrives() {
    let (scene, other) = (known_scene().await, believing_gateway().await);
    let client = Client::connected(known(Role::official()), scene.proxy.target()).await;
    let slow = client.send_request("config.set", json!({"name": "a", "wait": "never"}));
    scene
        .gateway
        .wait_for("the request", |journal| journal.executions("a") == 1)
        .await;
    assert_eq!(scene.reload_at(&other, &knows(TOKEN)).await, 0);
    scene.proxy.gateway_is("ready").await;
    let asked = Instant::now();
    assert_eq!(scene.reload_at(&other, &knows("hl_other")).await, 1);
    is_put_out(&client).await;
    assert!(asked.elapsed() < SWEEP, "by the next look round");
    let told = client.record().outcome(&slow).unwrap().error();
    assert_eq!(told["details"]["execution"], "may_have_executed");
    scene.proxy.is_empty().await;
    assert_eq!(other.journal().upgrades().len(), 0);
}

#[tokio::test]
async fn revoked_and_moved_by_the_same_reload_is_revoked() {
    for held in [false, true] {
        let (scene, other) = (known_scene().await, believing_gateway().await);
        let client = Client::connected(known(Role::official()), scene.proxy.target()).await;
        if held {
            scene.gateway.stop(Stop::Kill).await;
            client.event("gateway.down", 1).await;
        }
        assert_eq!(scene.reload_at(&other, &knows("hl_other")).await, 1);
        is_put_out(&client).await;
        scene.proxy.is_empty().await;
        assert_eq!(other.journal().upgrades().len(), 0, "held: {held}");
    }
}
