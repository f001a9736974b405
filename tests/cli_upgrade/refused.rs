//! A new binary that is no good: the old one goes on, and says why.

use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;

use crate::kit::{Raw, Role, ScriptedGateway, http, within};
use crate::service::{HOLDLINE, Service};

/// Nothing has changed: sessions flow, new ones come in, by the same process.
async fn goes_on(service: &Service, session: &mut Raw) {
    session.request("r", "config.set", json!({})).await;
    assert_eq!(session.answer("r").await["ok"], true);
    let (_, hello) = Raw::connected(&service.target(), &Role::backend()).await;
    assert_eq!(hello["ok"], true);
    assert_eq!(service.process().await["pid"], service.pid());
}

#[tokio::test]
async fn whatever_is_wrong_with_it_is_said_and_nothing_changes() {
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "").await;
    let (mut session, _) = Raw::connected(&service.target(), &Role::backend()).await;
    let good = service.folder().config();
    let bad_key = format!("{good}sesions = 3\n");
    let bad_tls = format!(
        "{good}[tls]\ncertificate = \"files\"\nfiles = [{{ cert = \"no.pem\", key = \"no.key\" }}]\n"
    );
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let in_use = good.replace("https = [", &format!("http = [\"{taken}\"]\nhttps = ["));
    for (script, config, words) in [
        (
            Some("exit 3"),
            &good,
            "ended before it was ready (exit status: 3)",
        ),
        (
            Some("kill -9 $$"),
            &good,
            "ended before it was ready (signal: 9",
        ),
        (None, &bad_key, "did you mean \"sessions\"?"),
        (None, &bad_tls, "no.pem"),
        (None, &in_use, &format!("cannot listen on {taken}")),
    ] {
        service.folder().configure(config);
        match script {
            Some(script) => service.folder().break_with(script),
            None => service.folder().link_to(HOLDLINE),
        }
        let (code, out, err) = service.upgrade().await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.starts_with("error: not upgraded: "), "{err}");
        assert!(err.contains(words), "no {words} in {err}");
        let line = service.line("not upgraded, this process goes on").await;
        assert!(line["message"].as_str().unwrap().contains(words), "{line}");
        let upgrade = &service.process().await["upgrade"];
        assert_eq!(upgrade["state"], "failed");
        let reason = upgrade["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{reason}");
        goes_on(&service, &mut session).await;
    }
    // What was wrong is right again.
    service.folder().configure(&good);
    let (code, _, err) = service.upgrade().await;
    assert_eq!(code, Some(0), "{err}");
    assert_ne!(service.process().await["pid"], service.pid());
    session.request("s", "config.set", json!({})).await;
    assert_eq!(session.answer("s").await["ok"], true);
}

#[tokio::test]
async fn one_at_a_time_and_one_that_hangs_goes_with_a_stop() {
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "drain = \"200ms\"").await;
    let (mut session, _) = Raw::connected(&service.target(), &Role::backend()).await;
    service
        .folder()
        .break_with("echo '{\"message\":\"hanging\"}' >&2; echo $$ >pid; exec sleep 60");
    service.signal(service.pid(), Signal::USR2);
    service.line("hanging").await;
    assert_eq!(service.process().await["upgrade"]["state"], "underWay");
    service.signal(service.pid(), Signal::USR2);
    let line = service.line("not upgraded").await;
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("under way already")
    );
    let (code, _, err) = service.upgrade().await;
    assert_eq!(code, Some(1));
    assert!(err.contains("an upgrade is under way already"), "{err}");
    goes_on(&service, &mut session).await;
    service.signal(service.pid(), Signal::TERM);
    assert_eq!(session.closed().await.0, 1012);
    assert_eq!(service.exit().await.code(), Some(0));
    let pid = std::fs::read_to_string(service.folder().path("pid")).unwrap();
    let process = format!("/proc/{}/cmdline", pid.trim());
    within("its end", async {
        while std::fs::read(&process).is_ok_and(|line| line.starts_with(b"sleep")) {
            tokio::time::sleep(crate::kit::ms(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_command_says_when_there_is_nobody_to_ask() {
    let gateway = ScriptedGateway::start().await;
    let service = Service::start(&gateway, "").await;
    // Bound, and never listening.
    let free = tokio::net::TcpSocket::new_v4().unwrap();
    free.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let free_address = free.local_addr().unwrap().to_string();
    let https = service.https.to_string();
    for (admin, words) in [
        ("off", "the admin listener is off"),
        ("127.0.0.1:0", "on a port of chance"),
        (free_address.as_str(), "holdline is not running"),
        (https.as_str(), "This port speaks TLS"),
    ] {
        let mut command = Command::new(HOLDLINE);
        command.args(["upgrade", "--admin", admin]);
        service.folder().prepare(&mut command);
        let output = within("the command", command.output()).await.unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains(words), "no {words} in {err}");
    }
}

/// A service whose first process is this command, as in a container; `None` where the kernel lets us
/// have none.
async fn contained(gateway: &ScriptedGateway, first: &[&str]) -> Option<Service> {
    let mut probe = Command::new("unshare");
    probe.args(["--pid", "--fork", "true"]);
    let output = probe.output().await;
    if !output.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no process namespaces here");
        return None;
    }
    let folder = crate::service::Folder::new(gateway, "");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(first);
    folder.prepare(&mut command);
    Some(Service::run(folder, command).await)
}

#[tokio::test]
async fn the_first_process_of_a_container_is_not_replaced() {
    let gateway = ScriptedGateway::start().await;
    let first = ["./holdline", "run", "--config", "holdline.toml"];
    let Some(service) = contained(&gateway, &first).await else {
        return;
    };
    let (code, _, err) = service.upgrade().await;
    assert_eq!(code, Some(1));
    assert!(err.contains("this holdline is process 1"), "{err}");
    assert_eq!(
        http::get(&service.target(), "/health", &[]).await.status,
        200
    );
}

/// The init of a container ends with what it has started, and then all else in there is killed.
#[tokio::test]
async fn what_a_containers_init_has_started_is_not_replaced() {
    let gateway = ScriptedGateway::start().await;
    // A shell with more to do does not let its command take its place.
    let first = ["sh", "-c", "./holdline run --config holdline.toml; exit 3"];
    let Some(service) = contained(&gateway, &first).await else {
        return;
    };
    let (code, _, err) = service.upgrade().await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("sh (process 1) has started this holdline"),
        "{err}"
    );
    assert_eq!(
        http::get(&service.target(), "/health", &[]).await.status,
        200
    );
}
