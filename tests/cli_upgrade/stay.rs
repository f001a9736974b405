//! What the old process does for those who stay with it.

use holdline::auth::TokenHash;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::kit::gateway::{AuthMode, Options, USER};
use crate::kit::http::Connection;
use crate::kit::{Raw, Role, ScriptedGateway, Stop, Target, h2, http, ms, within};
use crate::service::Service;

const TOKEN: &str = "hl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// In front of a gateway that is told who somebody is: with the token one comes in.
async fn signed_in() -> (ScriptedGateway, Service) {
    let options = Options {
        auth: AuthMode::TrustedProxy,
        ..Options::default()
    };
    let gateway = ScriptedGateway::with(options).await;
    let hash = TokenHash::of(TOKEN).to_base64url();
    let auth = format!(
        "[auth]\nmodes = [\"token\"]\ntokens = [{{ name = \"a\", user = \"{USER}\", hash = \"{hash}\" }}]"
    );
    let service = Service::start(&gateway, &auth).await;
    (gateway, service)
}

fn without_auth(service: &Service) -> String {
    let config = service.folder().config();
    let (open, _) = config.split_once("[auth]").unwrap();
    open.to_owned()
}

async fn upgraded(service: &Service) -> u64 {
    let (code, out, err) = service.upgrade().await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let pid = service.process().await["pid"].as_u64().unwrap();
    assert!(
        out.contains(&format!("serves now, as process {pid};")),
        "{out}"
    );
    pid
}

#[tokio::test]
async fn the_command_says_what_came_of_it() {
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "handover = \"30m\"").await;
    let (_one, _) = Raw::connected(&service.target(), &Role::backend()).await;
    let (code, out, err) = service.upgrade().await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let words = "1 session is left with the old one, which ends with the last, or after 30 min";
    assert!(out.contains(words), "{out}");
    // Both are asked by their own ids: the old one has nothing to give any more.
    service.signal(service.pid(), Signal::USR2);
    let refused = service.line("not upgraded").await;
    let refused = refused["message"].as_str().unwrap();
    assert!(refused.contains("has taken over already"), "{refused}");
}

#[tokio::test]
async fn a_connection_is_not_used_for_a_second_request() {
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "").await;
    let mut kept = Connection::open(&service.target()).await;
    kept.start("GET", "/health", &[], b"").await;
    assert_eq!(kept.response().await.header("connection"), None);
    let mut many = h2::Connection::open(&service.target()).await;
    assert_eq!(many.get("/health", &[]).await.status, 200);
    // Accepted by the old one, and nothing said yet.
    let mut silent = service.target().dial_tcp().await.unwrap();
    let mut greeted = Connection::open(&service.target()).await;
    upgraded(&service).await;
    for connection in [&mut kept, &mut greeted] {
        connection.start("GET", "/health", &[], b"").await;
        let answer = connection.response().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    many.closed().await;
    // It gets the words of the old one, though late.
    silent.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut silent, &mut answer);
    within("an answer", read).await.unwrap();
    assert!(answer.contains("This port speaks TLS"), "{answer}");
    assert_eq!(service.exit().await.code(), Some(0));
}

#[tokio::test]
async fn an_upgrade_that_waits_for_the_gateway_is_put_through_by_the_old_process() {
    let gateway = ScriptedGateway::stopped(Options::default());
    let mut service = Service::start(&gateway, "").await;
    let target = service.target();
    let waiting = tokio::spawn(async move { Raw::connected(&target, &Role::backend()).await });
    service.waiting(1).await;
    upgraded(&service).await;
    gateway.begin_starting().await;
    gateway.ready();
    let (mut raw, hello) = within("the session", waiting).await.unwrap();
    assert_eq!(hello["ok"], true);
    let connection = raw.upgrade.header("connection").unwrap().to_lowercase();
    assert_eq!(connection, "upgrade");
    raw.request("r", "config.set", json!({})).await;
    assert_eq!(raw.answer("r").await["ok"], true);
    drop(raw);
    assert_eq!(service.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_held_session_is_put_back_by_the_old_process() {
    let gateway = ScriptedGateway::start().await;
    let service = Service::start(&gateway, "").await;
    let (mut raw, _) = Raw::connected(&service.target(), &Role::backend()).await;
    gateway.stop(Stop::Kill).await;
    raw.event("gateway.down").await;
    upgraded(&service).await;
    gateway.begin_starting().await;
    gateway.ready();
    assert_eq!(raw.event("gateway.up").await["resumed"], "replay");
    // And once more after the upgrade.
    gateway.restart(ms(100), ms(50)).await;
    raw.event("gateway.up").await;
    raw.request("r", "config.set", json!({})).await;
    assert_eq!(raw.answer("r").await["ok"], true);
}

#[tokio::test]
async fn an_old_process_that_is_told_to_stop_drains_and_the_new_one_goes_on() {
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "drain = \"500ms\"").await;
    let (mut raw, _) = Raw::connected(&service.target(), &Role::backend()).await;
    upgraded(&service).await;
    service.signal(service.pid(), Signal::TERM);
    assert_eq!(raw.closed().await.0, 1012);
    assert_eq!(service.exit().await.code(), Some(0));
    let answer = http::get(&service.target(), "/health", &[]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_address_that_the_new_config_does_not_list_is_given_up() {
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "").await;
    let gone = service.https;
    let config = service.folder().config();
    // Port 0 again, but of another address: a socket of its own.
    let config = config.replace("https = [\"127.0.0.1:0\"]", "https = [\"127.0.0.2:0\"]");
    service.folder().configure(&config);
    service.signal(service.pid(), Signal::USR2);
    let closed = service.line("closed an inherited https socket").await;
    assert_eq!(closed["address"], gone.to_string());
    let running = service.line("running").await;
    let new = running["https"].as_str().unwrap().to_owned();
    assert!(new.starts_with("127.0.0.2:"), "{new}");
    service.line("the new process serves").await;
    within("the end of the listener", async {
        while Target::tls(gone).dial_tcp().await.is_ok() {
            tokio::time::sleep(ms(10)).await;
        }
    })
    .await;
}

/// Nobody can ask the old process, and what it does not take by itself counts for its sessions, too.
#[tokio::test]
async fn a_commanded_reload_reaches_the_sessions_of_the_old_process() {
    let (_gateway, mut service) = signed_in().await;
    let role = Role::backend().header("authorization", &format!("Bearer {TOKEN}"));
    let (mut raw, hello) = Raw::connected(&service.target(), &role).await;
    assert_eq!(hello["ok"], true);
    upgraded(&service).await;
    service.folder().configure(&without_auth(&service));
    // Of either process: it opens the door.
    for _ in 0..2 {
        let told = service.line("not reloaded").await;
        let told = told["message"].as_str().unwrap();
        assert!(told.contains("token would be gone"), "{told}");
    }
    let admin = Target::plain(service.admin);
    let answer = http::request(&admin, "POST", "/reload", &[], b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(raw.closed().await.0, 1008);
    assert_eq!(service.exit().await.code(), Some(0));
}

/// A file that is not taken without a word is not taken by way of a new process either.
#[tokio::test]
async fn a_file_that_waits_for_a_word_is_not_taken_by_an_upgrade() {
    let (_gateway, mut service) = signed_in().await;
    service.folder().configure(&without_auth(&service));
    service.line("not reloaded").await;
    let (code, _, err) = service.upgrade().await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("token would be gone from [auth] modes"),
        "{err}"
    );
    assert!(err.contains("run `holdline reload --config"), "{err}");
    assert_eq!(service.process().await["pid"], service.pid());
    let admin = Target::plain(service.admin);
    let meant = http::request(&admin, "POST", "/reload", &[], b"").await;
    assert_eq!(meant.status, 200, "{}", meant.text());
    upgraded(&service).await;
}
