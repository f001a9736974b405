//! `holdline doctor` as its user meets it: gateways and ports of every kind.

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Duration, Instant};

use super::gateway_config::Scripted;
use super::{Running, ended, folder, nobody, run};

/// What was found, as `verdict look subject: seen`, and the exit code.
async fn examined(args: &[&str]) -> (Vec<String>, Option<i32>) {
    let ended = run(&[&["doctor", "--json"], args].concat()).await;
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(report["ok"], json!(ended.code == Some(0)));
    let lines = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap();
            let (verdict, look) = (text("verdict"), text("look"));
            format!("{verdict} {look} {}: {}", text("subject"), text("seen"))
        });
    (lines.collect(), ended.code)
}

fn has(lines: &[String], words: &str) {
    assert!(
        lines.iter().any(|line| line.contains(words)),
        "no {words} in {lines:#?}"
    );
}

/// A gateway whose allowed origins are no matter here.
fn gateway() -> Scripted {
    Scripted::token().of_any_origin()
}

#[tokio::test]
async fn where_all_is_well_nothing_is_wrong() {
    let gateway = gateway().start().await;
    let url = format!("http://{}", gateway.address);
    // No more sessions than any machine has open files for.
    let config = format!("[gateway]\nurl = \"{url}\"\n[limits]\nsessions = 100\n");
    let running = Running::start(&config).await;
    let (https, admin) = (running.address("https"), running.address("admin"));
    // Ready for holdline as well as for us.
    let ready = async {
        loop {
            let status = run(&["status", "--json", "--admin", &admin]).await;
            let status: Value = serde_json::from_str(&status.out).unwrap();
            if status["gateways"][0]["state"] == "ready" {
                break;
            }
        }
    };
    tokio::time::timeout(super::SOON, ready)
        .await
        .expect("a gateway that is ready");
    let args = [
        "--listen",
        &https,
        "--admin",
        &admin,
        "--gateway",
        &url,
        "--config",
        "holdline.toml",
    ];
    let ended = ended(&running.folder, &[&["doctor"], &args[..]].concat()).await;
    assert_eq!(
        (ended.code, ended.err.as_str()),
        (Some(0), ""),
        "{}",
        ended.out
    );
    let pid = running.child.id().unwrap();
    for line in [
        "ok: config holdline.toml: valid\n".to_owned(),
        format!("ok: ports {https}: served by the holdline that runs (pid {pid})\n"),
        "cert.pem: it is the one that is served\n".to_owned(),
        format!(
            "ok: gateway answers {}: /startupz says started\n",
            gateway.address
        ),
        format!(
            "ok: gateway WebSocket {}: a WebSocket gets its challenge\n",
            gateway.address
        ),
        format!(
            "ok: gateway settings {} gateway.auth.mode: token\n",
            gateway.address
        ),
        format!("warning: through holdline {https}: it speaks TLS; an ordinary client refuses"),
        "ok: through holdline route default: a WebSocket gets its challenge\n".to_owned(),
        "ok: open files: holdline may open ".to_owned(),
    ] {
        assert!(ended.out.contains(&line), "no {line} in {}", ended.out);
    }
    // What this machine itself lacks is its own affair.
    let warned = ended.out.lines().filter(|line| {
        let of_the_machine = ["memory", "disk", "clock"].map(|look| format!("warning: {look}"));
        let machine = of_the_machine.iter().any(|look| line.starts_with(look));
        line.starts_with("warning: ") && !machine
    });
    assert_eq!(warned.count(), 1, "{}", ended.out);
    assert!(ended.out.contains("\n0 failures, "), "{}", ended.out);
    // In the order in which a person would look.
    let at = |words: &str| ended.out.find(words).expect(words);
    assert!(at(": config ") < at(": ports ") && at(": ports ") < at(": gateway "));
    assert!(
        at(": gateway settings ") < at(": through holdline ") && at(": memory") < at(": clock")
    );
}

#[tokio::test]
async fn without_a_gateway_and_without_holdline_it_says_what_to_start() {
    let ((_one, gateway), (_two, admin)) = (nobody(), nobody());
    let url = format!("http://{gateway}");
    let (lines, code) = examined(&[
        "--gateway",
        &url,
        "--admin",
        &admin,
        "--listen",
        "127.0.0.1:0",
    ])
    .await;
    assert_eq!(code, Some(1));
    has(
        &lines,
        &format!("warning running : holdline is not running: nothing answers on {admin}"),
    );
    has(&lines, "ok ports 127.0.0.1:0: a free port is chosen");
    has(&lines, "cert.pem: it is made at the first start");
    has(
        &lines,
        &format!("failure gateway {gateway}: nothing listens there"),
    );
    has(
        &lines,
        &format!("cannot_tell gateway WebSocket {gateway}: it cannot be reached"),
    );
    let failures = lines.iter().filter(|line| line.starts_with("failure"));
    assert_eq!(failures.count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn what_is_to_be_typed_has_the_flags_of_the_question() {
    let ((_one, gateway), (_two, admin)) = (nobody(), nobody());
    let folder = folder("");
    let url = format!("http://{gateway}");
    let config = ["doctor", "--config", "holdline.toml"];
    let args = [&config[..], &["--gateway", &url, "--admin", &admin]].concat();
    let told = ended(&folder, &args).await.out;
    let start =
        format!("-> start it: holdline run --config holdline.toml --admin {admin} --gateway {url}");
    assert!(told.contains(&start), "no {start} in {told}");
}

#[tokio::test]
async fn ports_of_somebody_else_are_told_with_who_it_is() {
    let (taken, other) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let (https, admin) = (
        taken.local_addr().unwrap().to_string(),
        other.local_addr().unwrap().to_string(),
    );
    let (_reserved, gateway) = nobody();
    let url = format!("http://{gateway}");
    let (lines, code) = examined(&["--listen", &https, "--admin", &admin, "--gateway", &url]).await;
    assert_eq!(code, Some(1));
    let us = format!("(pid {})", std::process::id());
    let held: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("failure") && line.contains(&us))
        .collect();
    let [running, port] = held[..] else {
        panic!("{lines:#?}")
    };
    assert!(
        running.contains(&format!("{admin} accepts connections but has not answered")),
        "{running}"
    );
    assert!(
        port.starts_with(&format!(
            "failure ports {https}: in use by another program, "
        )),
        "{port}"
    );
    has(
        &lines,
        &format!("cannot_tell through holdline {https}: somebody else is on it"),
    );
}

#[tokio::test]
async fn a_gateway_that_hangs_does_not_hold_up_the_rest() {
    // It accepts, since the kernel does, and nobody reads.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hung.local_addr().unwrap());
    let begun = Instant::now();
    let (lines, code) = examined(&[
        "--gateway",
        &url,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
    ])
    .await;
    assert!(
        // Fifteen, and what the machine takes for a process.
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(code, Some(1));
    has(
        &lines,
        "it accepts connections, but /health gets no answer within 3 s: it hangs",
    );
    has(&lines, "cannot_tell running : [admin] listen is off");
    has(&lines, "ok memory kernel: ");
}

/// Or it would only be told to start it, which it does not.
#[tokio::test]
async fn what_keeps_sign_ins_from_being_served_is_found() {
    use std::os::unix::fs::PermissionsExt as _;

    let hash = holdline::auth::hash_password(b"a long password").unwrap();
    let config = format!(
        "[auth]\nmodes = [\"password\"]\nstate_dir = \"state\"\n\
         users = [{{ name = \"nick\", hash = \"{}\" }}]\n",
        hash.to_phc()
    );
    let folder = folder(&config);
    let key = folder.path().join("state/auth.key");
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(&key, "holdline keys 1\nabc\n").unwrap();
    for (mode, seen, remedy) in [
        (
            0o644,
            "auth.key may be read by others (mode 644)",
            "run `holdline key rotate",
        ),
        (
            0o600,
            "auth.key is damaged: line 2 is no key",
            "remove it to begin with a new key",
        ),
    ] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let ended = ended(&folder, &["doctor", "--config", "holdline.toml"]).await;
        let line = ended
            .out
            .lines()
            .find(|line| line.contains(": config [auth]: "));
        let line = line.unwrap_or_else(|| panic!("{}", ended.out));
        assert!(
            line.starts_with("failure: ") && line.ends_with(seen),
            "{line}"
        );
        assert!(
            ended.out.contains(&format!("{line}\n  -> {remedy}")),
            "{}",
            ended.out
        );
        assert_eq!(ended.code, Some(1));
    }
}

#[tokio::test]
async fn a_bad_config_is_told_once_and_the_rest_is_looked_at() {
    let folder = folder("[hold]\nmaxx = \"1m\"\n");
    let config = ["--config", "holdline.toml"];
    let (_reserved, admin) = nobody();
    let args = [&["doctor", "--admin", &admin], &config[..]].concat();
    let ended = ended(&folder, &args).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(78), ""));
    assert_eq!(ended.out.matches("hold.maxx").count(), 1, "{}", ended.out);
    for line in [
        "failure: config holdline.toml:2:1: hold.maxx: no such key\n  -> did you mean \"max\"?\n",
        "cannot tell: ports: there is no good config",
        ": memory kernel: ",
        ": clock: ",
    ] {
        assert!(ended.out.contains(line), "no {line} in {}", ended.out);
    }
    assert!(ended.out.contains("nothing answers on"), "{}", ended.out);
}

#[tokio::test]
async fn every_route_has_a_gateway_that_is_looked_at() {
    let (one, two) = (gateway().start().await, gateway().start().await);
    let generic = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let generic = generic.local_addr().unwrap();
    let folder = folder(&format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"off\"\n\
         [gateway]\nurl = \"http://{}\"\n\
         [[route]]\nhost = \"two.example.net\"\nurl = \"http://{}\"\n\
         [[route]]\npath = \"/app\"\nurl = \"http://{generic}\"\nprotocol = \"generic\"\nprobe = \"tcp\"\n",
        one.address, two.address
    ));
    let ended = ended(&folder, &["doctor", "--config", "holdline.toml"]).await;
    for line in [
        format!(
            "ok: gateway WebSocket {} (default): a WebSocket gets its challenge\n",
            one.address
        ),
        format!(
            "ok: gateway WebSocket {} (two.example.net): a WebSocket gets",
            two.address
        ),
        format!(
            "ok: gateway settings {} gateway.trustedProxies: ",
            two.address
        ),
        format!("gateway answers {generic} (/app): an open port is all that is asked of it\n"),
    ] {
        assert!(ended.out.contains(&line), "no {line} in {}", ended.out);
    }
    assert!(
        !ended.out.contains(&format!("settings {generic}")),
        "{}",
        ended.out
    );
}

#[tokio::test]
async fn a_restricted_person_is_not_to_be_made_more() {
    const READER: &str = "reader@example.com";
    for (scopes, expected) in [
        (
            &["operator.read"][..],
            "ok gateway settings gateway.auth.identityScopes: reader@example.com: operator.read",
        ),
        (
            &[],
            "failure gateway settings gateway.auth.identityScopes: reader@example.com: nothing",
        ),
    ] {
        let gateway = Scripted::restricted(READER, scopes).of_any_origin();
        let gateway = gateway.start().await;
        let folder = folder(&format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"off\"\n\
             [gateway]\nurl = \"http://{}\"\n[limits]\norigins = [\"https://claw.example.com\"]\n\
             [auth]\nmodes = [\"token\"]\nstate_dir = \"state\"\n\
             tokens = [{{ name = \"cli\", user = \"{READER}\", hash = \"{}\" }}]\n",
            gateway.address,
            "A".repeat(43)
        ));
        let args = ["doctor", "--json", "--config", "holdline.toml"];
        let ended = ended(&folder, &args).await;
        let report: Value = serde_json::from_str(&ended.out).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let of_scopes = |finding: &&Value| {
            finding["subject"]
                .as_str()
                .unwrap()
                .ends_with("identityScopes")
        };
        let found: Vec<_> = findings.iter().filter(of_scopes).collect();
        let [finding] = &found[..] else {
            panic!("{report:#}")
        };
        let text = |key: &str| finding[key].as_str().unwrap();
        let subject = text("subject").rsplit(' ').next().unwrap();
        let line = format!(
            "{} {} {subject}: {}",
            text("verdict"),
            text("look"),
            text("seen")
        );
        assert!(line.starts_with(expected), "{line}");
        let command = "config set gateway.auth.identityScopes '{\"reader@example.com\":[";
        assert_eq!(
            text("remedy").contains(command),
            scopes.is_empty(),
            "{finding:#}"
        );
        if scopes.is_empty() {
            assert_eq!(ended.code, Some(1));
        }
    }
}

#[tokio::test]
async fn a_file_that_is_not_in_force_is_a_warning() {
    let mut running = Running::start("[hold]\nmax = \"5m\"\n").await;
    let (https, admin) = (running.address("https"), running.address("admin"));
    // A guard: nothing is set any more.
    std::fs::write(running.folder.path().join("holdline.toml"), "\n").unwrap();
    running.line("not taken by itself").await;
    let config = ["doctor", "--config", "holdline.toml"];
    let args = [&config[..], &["--listen", &https, "--admin", &admin]].concat();
    let doctor = ended(&running.folder, &args).await;
    for line in [
        "ok: config holdline.toml: valid\n",
        "warning: config in force holdline.toml: what was read ",
        "the changed file is not taken by itself: ",
        &format!(
            "if the file is meant as it is: holdline reload --config holdline.toml --admin {admin}\n"
        ),
    ] {
        assert!(doctor.out.contains(line), "no {line} in {}", doctor.out);
    }
    let taken = ended(&running.folder, &["reload", "--admin", &admin]).await;
    assert_eq!(taken.code, Some(0), "{}", taken.err);
    let doctor = ended(&running.folder, &args).await;
    assert!(!doctor.out.contains("config in force"), "{}", doctor.out);
}

#[tokio::test]
async fn another_holdline_on_the_admin_port_is_told() {
    let running = Running::start("").await;
    let (_free, https) = nobody();
    drop(_free);
    let file = running.folder.path().join("holdline.toml");
    let config = ["--config", &file.display().to_string()];
    let at = ["--listen", &https, "--admin", &running.address("admin")];
    let (lines, _) = examined(&at).await;
    has(
        &lines,
        "the holdline that answers there was started with another one: ",
    );
    let (lines, _) = examined(&[config, [at[0], at[1]], [at[2], at[3]]].concat()).await;
    has(
        &lines,
        &format!(
            "the holdline that answers there does not serve this config: nobody is on {https}"
        ),
    );
}

/// Behind a proxy or a port forward no page has an address of ours.
#[tokio::test]
async fn the_origin_in_browsers_can_be_said() {
    let origin = "https://gateway.example.net";
    let gateway = Scripted::token().of_origin(origin).start().await;
    let url = format!("http://{}", gateway.address);
    let refused = "gateway.controlUi.allowedOrigins: pages of https://localhost:8443 are refused";
    let ((_one, admin), args) = (nobody(), ["--gateway", &url]);
    let at = ["--admin", &admin];
    let (lines, code) = examined(&[args, at].concat()).await;
    has(
        &lines,
        &format!("failure gateway settings {} {refused}", gateway.address),
    );
    assert_eq!(code, Some(1));
    let (lines, _) = examined(&[args, at, ["--origin", origin]].concat()).await;
    has(
        &lines,
        &format!("warning gateway settings {} {refused}", gateway.address),
    );
    has(&lines, &format!("allowedOrigins: {origin} is allowed"));
    assert!(
        !lines
            .iter()
            .any(|line| line.starts_with("failure gateway settings")),
        "{lines:#?}"
    );
    let wrong = run(&["doctor", "--origin", "http://plain.example.net"]).await;
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(64), ""));
}
