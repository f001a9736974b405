//! `holdline status`, `drain` and `reload`: commands that ask a running holdline.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{Ended, Running, SOON, ended, folder, holdline, nobody, run};

async fn ask(running: &Running, args: &[&str]) -> Ended {
    let admin = running.address("admin");
    ended(&running.folder, &[args, &["--admin", &admin]].concat()).await
}

#[tokio::test]
async fn status_tells_what_is_known_in_words_and_as_json() {
    let (_reserved, gateway) = nobody();
    let running = Running::start(&format!("[gateway]\nurl = \"http://{gateway}\"\n")).await;
    let words = ask(&running, &["status"]).await;
    assert_eq!((words.code, words.err.as_str()), (Some(0), ""));
    for part in [
        &format!("default ({gateway}): down for "),
        "refused: nothing listens on the gateway's port: it is probably not running",
        "sessions: 0 live, 0 held, 0 in all\n",
        "outages seen: 0\n",
        "certificate for localhost, *.localhost, 127.0.0.1, ::1: until 20",
    ] {
        assert!(words.out.contains(part), "no {part} in {}", words.out);
    }
    let json = ask(&running, &["status", "--json"]).await;
    let status: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(status["pid"], running.child.id().unwrap());
    assert_eq!(status["sessions"]["live"], 0);
    let pin = status["certificates"][0]["sha256"].as_str().unwrap();
    assert_eq!((pin.len(), pin.split(':').count()), (95, 32));
    assert!(words.out.contains(pin), "{}", words.out);
}

#[tokio::test]
async fn a_new_certificates_fingerprint_is_in_the_log() {
    let folder = folder("");
    let args = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut child = holdline(&folder, &args).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let find = async {
        loop {
            let line = log.next_line().await.unwrap().expect("a line on it");
            if line.contains("serving certificate") {
                break line;
            }
        }
    };
    let line: Value = serde_json::from_str(&timeout(SOON, find).await.unwrap()).unwrap();
    let pem = std::fs::read(folder.path().join("certs-dev/cert.pem")).unwrap();
    let der =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
            &pem,
        );
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der.unwrap());
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02X}"));
    assert_eq!(line["sha256"], hex.collect::<Vec<_>>().join(":"));
}

#[tokio::test]
async fn a_second_one_on_the_same_port_is_told_that_the_first_one_runs() {
    let running = Running::start("").await;
    let (https, pid) = (running.address("https"), running.child.id().unwrap());
    let second = run(&["--listen", &https, "--admin", "off"]).await;
    assert_eq!(second.code, Some(1));
    let words = format!(
        "is held by a holdline (pid {pid}) that runs already (`ps -o args= -p {pid}` shows with which"
    );
    assert!(second.err.contains(&words), "no {words} in {}", second.err);
}

#[tokio::test]
async fn where_nobody_answers_it_is_said_what_to_do() {
    let (_reserved, admin) = nobody();
    for command in ["status", "drain", "reload"] {
        let ended = run(&[command, "--admin", &admin]).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{command}");
        let words = format!("nothing answers on {admin}: holdline is not running");
        assert!(ended.err.contains(&words), "{}", ended.err);
        assert!(
            ended.err.contains("--admin ADDR or --config FILE"),
            "{}",
            ended.err
        );
        let off = run(&[command, "--admin", "off"]).await;
        assert_eq!(off.code, Some(1));
        assert!(off.err.contains("set [admin] listen"), "{}", off.err);
    }
}

#[tokio::test]
async fn the_address_is_that_of_the_config() {
    let running = Running::start("").await;
    let admin = running.address("admin");
    let folder = folder(&format!("[admin]\nlisten = \"{admin}\"\n"));
    let config = ["status", "--config", "holdline.toml"];
    assert_eq!(ended(&folder, &config).await.code, Some(0));
    std::fs::write(folder.path().join("holdline.toml"), "[admin]\nlisten = 7\n").unwrap();
    let bad = ended(&folder, &config).await;
    assert_eq!((bad.code, bad.out.as_str()), (Some(78), ""));
    assert!(
        bad.err
            .contains("cannot be seen in it; say it with --admin ADDR"),
        "{}",
        bad.err
    );
    let by_hand = [&config[..], &["--admin", &admin]].concat();
    assert_eq!(ended(&folder, &by_hand).await.code, Some(0));
}

/// As with secrets of a service manager, which only the service may read.
#[tokio::test]
async fn a_config_that_only_the_running_one_can_read_leads_to_it() {
    let running = Running::start("").await;
    let (admin, pid) = (running.address("admin"), running.child.id().unwrap());
    let token = "[auth]\nmodes = [\"token\"]\ntokens = [{ name = \"phone\", user = \"nick\", \
         hash = \"${file:${HOLDLINE_TESTS_HAVE_NO_SUCH_VARIABLE}/phone}\" }]\n";
    let folder = folder(&format!("{token}[admin]\nlisten = \"{admin}\"\n"));
    let asked = async |command: &[&str]| {
        let config = ["--config", "holdline.toml"];
        ended(&folder, &[command, &config].concat()).await
    };
    let note =
        "note: holdline.toml has problems, which `holdline check --config holdline.toml` shows";
    for (command, words) in [
        (&["status"][..], format!("pid {pid}")),
        (
            &["cert", "list"],
            "is made anew at the first start".to_owned(),
        ),
        (&["cert", "list", "--json"], "\"served\"".to_owned()),
    ] {
        let told = asked(command).await;
        assert_eq!(told.code, Some(0), "{command:?}: {}", told.err);
        assert!(told.out.contains(&words), "{command:?}: {}", told.out);
        assert!(told.err.starts_with(note), "{command:?}: {}", told.err);
        assert_eq!(told.err.lines().count(), 1, "{}", told.err);
    }
    let doctor = asked(&["doctor"]).await;
    assert_eq!(doctor.code, Some(78));
    assert!(doctor.out.contains(&format!("pid {pid}")), "{}", doctor.out);
    let drained = asked(&["drain"]).await;
    assert_eq!(drained.code, Some(0), "{}", drained.err);
    let gone = asked(&["cert", "list"]).await;
    assert_eq!(gone.code, Some(78), "nobody is there who knows");
    assert!(
        gone.err.contains("HOLDLINE_TESTS_HAVE_NO_SUCH_VARIABLE"),
        "{}",
        gone.err
    );
    // Where the address itself cannot be read, no other holdline is asked in its place.
    let path = folder.path().join("holdline.toml");
    std::fs::write(path, "[admin]\nlistne = \"127.0.0.1:9181\"\n").unwrap();
    let doctor = asked(&["doctor"]).await;
    assert!(
        doctor
            .out
            .contains("cannot tell: running: where the admin listener is cannot be seen"),
        "{}",
        doctor.out
    );
    for command in ["status", "drain", "reload", "upgrade"] {
        let refused = asked(&[command]).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(78), ""));
        assert!(refused.err.contains("--admin ADDR"), "{}", refused.err);
    }
}

#[tokio::test]
async fn it_says_what_it_was_started_with_and_reads_nothing_else_anew() {
    let mut running = Running::start("").await;
    let admin = running.address("admin");
    let at = |name: &str| running.folder.path().join(name);
    let file = at("holdline.toml").display().to_string();
    let flags = "--listen 127.0.0.1:0 --admin 127.0.0.1:0";
    let words = ask(&running, &["status"]).await;
    let line = format!("\nconfig: {file}, with {flags}\n");
    assert!(words.out.contains(&line), "no {line} in {}", words.out);
    let json: Value =
        serde_json::from_str(&ask(&running, &["status", "--json"]).await.out).unwrap();
    assert_eq!(json["config"]["source"], file);

    std::fs::write(at("other.toml"), "[hold]\nmax = \"5m\"\n").unwrap();
    std::os::unix::fs::symlink("holdline.toml", at("link.toml")).unwrap();
    let url = "http://127.0.0.1:4001";
    for (args, reason) in [
        (
            &["--config", "other.toml"][..],
            format!("`holdline reload --admin {admin}` reads it again as it is"),
        ),
        (
            &["--config", "none.toml"],
            "that is what a reload reads: edit that file, or start".to_owned(),
        ),
        (
            &["--gateway", url],
            format!("without --gateway {url}, and flags stay as they are: write it into that file"),
        ),
        (
            &["--config", "holdline.toml", "--listen", "127.0.0.1:8444"],
            "without --listen 127.0.0.1:8444, and flags stay as they are: start holdline anew"
                .to_owned(),
        ),
    ] {
        let refused = ask(&running, &[&["reload"], args].concat()).await;
        assert_eq!(
            (refused.code, refused.out.as_str()),
            (Some(1), ""),
            "{args:?}"
        );
        let uses =
            format!("error: not reloaded: the running one was started with {file}, with {flags}");
        assert!(refused.err.starts_with(&uses), "{}", refused.err);
        assert!(refused.err.contains(&reason), "{}", refused.err);
        let json = ask(&running, &[&["reload", "--json"], args].concat()).await;
        let json: Value = serde_json::from_str(&json.out).unwrap();
        assert!(json["error"].as_str().unwrap().contains(&reason), "{json}");
    }
    let status = ask(&running, &["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["lastReload"], Value::Null, "nothing was read");
    for args in [
        &[][..],
        &["--config", "holdline.toml"],
        &["--config", "link.toml", "--listen", "127.0.0.1:0"],
        &["--config", &file],
    ] {
        let taken = ask(&running, &[&["reload"], args].concat()).await;
        assert_eq!(taken.code, Some(0), "{args:?}: {}", taken.err);
    }
    // What doctor looks at is not what runs, and no reload makes it so.
    let doctor = ask(&running, &["doctor", "--config", "other.toml"]).await;
    let line = format!(
        "warning: config in force other.toml: the holdline that answers there was started with another one: {file}"
    );
    assert!(doctor.out.contains(&line), "no {line} in {}", doctor.out);
    running.child.kill().await.unwrap();

    let folder = folder("");
    let args = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut child = holdline(&folder, &args).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap()).lines();
    let started = String::new();
    let mut embedded = Running {
        child,
        log,
        started,
        folder,
    };
    embedded.started = embedded.line("\"message\":\"running\"").await;
    let words = ask(&embedded, &["status"]).await.out;
    assert!(
        words.contains("\nconfig: embedded default, with --listen"),
        "{words}"
    );
    let refused = ask(&embedded, &["reload", "--config", "holdline.toml"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(!refused.err.contains("edit that"), "{}", refused.err);
    assert_eq!(ask(&embedded, &["reload"]).await.code, Some(0));
}

#[tokio::test]
async fn a_stranger_is_not_told_to_drain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = listener.local_addr().unwrap().to_string();
    let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            head.truncate(read);
            asked.send(String::from_utf8(head).unwrap()).unwrap();
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    for command in ["drain", "reload", "status"] {
        let ended = run(&[command, "--admin", &admin]).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
        assert!(
            ended.err.contains("is no admin listener of holdline"),
            "{}",
            ended.err
        );
        assert!(heard.recv().await.unwrap().starts_with("GET /status "));
    }
    assert!(heard.try_recv().is_err(), "a command was given");
}

#[tokio::test]
async fn a_watch_goes_on_through_a_restart_and_ends_on_ctrl_c() {
    let (reserved, admin) = nobody();
    let (_gone, gateway) = nobody();
    let folder = folder(&format!("[gateway]\nurl = \"http://{gateway}\"\n"));
    let mut watch = holdline(&folder, &["status", "--watch", "--admin", &admin])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut line = async || {
        timeout(SOON, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    let first = line().await;
    assert!(first.ends_with("Z not reachable"), "{first}");
    drop(reserved);
    let mut running = Running::start_at(folder, &admin).await;
    let second = line().await;
    assert!(second.contains("0 live, 0 held, 0 in all"), "{second}");
    running.child.start_kill().unwrap();
    running.exit().await;
    // Its gateway may have been seen starting to be away in between.
    while !line().await.ends_with("not reachable") {}
    let id = i32::try_from(watch.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = timeout(SOON, watch.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_drain_is_followed_to_its_end() {
    let mut running = Running::start("").await;
    let drained = ask(&running, &["drain"]).await;
    assert_eq!((drained.code, drained.err.as_str()), (Some(0), ""));
    assert!(drained.out.ends_with("drained\n"), "{}", drained.out);
    assert_eq!(running.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_need_not_be_waited_for() {
    let mut running = Running::start("").await;
    let asked = ask(&running, &["drain", "--no-wait"]).await;
    assert_eq!(
        (asked.code, asked.out.as_str()),
        (Some(0), "draining 0 sessions\n")
    );
    assert_eq!(running.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_reload_says_what_came_of_it() {
    let mut running = Running::start("").await;
    let taken = ask(&running, &["reload"]).await;
    assert_eq!((taken.code, taken.err.as_str()), (Some(0), ""));
    assert!(!taken.out.is_empty());
    let json = ask(&running, &["reload", "--json"]).await;
    assert!(
        serde_json::from_str::<Value>(&json.out)
            .unwrap()
            .is_object(),
        "{}",
        json.out
    );

    let file = running.folder.path().join("holdline.toml");
    std::fs::write(file, "[hold]\nmaxx = \"1m\"\n").unwrap();
    let refused = ask(&running, &["reload"]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(78), ""));
    assert!(
        refused.err.contains("error: not reloaded: "),
        "{}",
        refused.err
    );
    assert!(
        refused.err.contains("hold.maxx: no such key"),
        "{}",
        refused.err
    );
    running.line("not reloaded").await;
    let status = ask(&running, &["status"]).await;
    let line = status
        .out
        .lines()
        .find(|line| line.starts_with("reload refused "));
    let line = line.unwrap_or_else(|| panic!("{}", status.out));
    assert!(line.contains("hold.maxx: no such key"), "{line}");
    let file = running.folder.path().join("holdline.toml");
    let check = format!(" (`holdline check --config {}` says more)", file.display());
    assert!(
        line.ends_with(&check),
        "the file that it was started with: {line}"
    );
}

/// The steps at the head of the unit, in a root of their own; systemd's part is done for it.
#[tokio::test]
async fn the_units_steps_install_what_runs() {
    let unit = include_str!("../../config/holdline.service");
    let folder = folder("");
    let root = folder.path().to_str().unwrap();
    for path in [
        "usr/local/bin",
        "etc/systemd/system",
        "var/lib/holdline/certs-dev",
    ] {
        std::fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    let here = |text: &str| {
        let program = format!("{root}/usr/local/bin/holdline");
        let text = text.replace(" holdline ", &format!(" {program} "));
        let text = text.replace("target/release/holdline", env!("CARGO_BIN_EXE_holdline"));
        ["/usr/", "/etc/", "/var/"].iter().fold(text, |text, path| {
            text.replace(&format!(" {path}"), &format!(" {root}{path}"))
        })
    };
    let steps = unit.lines().take_while(|line| !line.starts_with("# A new"));
    let steps = steps.filter_map(|line| line.strip_prefix("#  "));
    let steps = steps.filter(|step| !step.starts_with(" cargo") && !step.starts_with(" systemctl"));
    let steps: Vec<String> = steps.map(here).collect();
    assert_eq!(steps.len(), 5, "{steps:?}");
    let done = tokio::process::Command::new("sh")
        .args(["-ec", &steps.join("\n")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}");

    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let start = here(&format!(" {}", start.unwrap()));
    let free = " --listen 127.0.0.1:0 --admin 127.0.0.1:0";
    let mut words = start.split_whitespace().chain(free.split_whitespace());
    let mut child = tokio::process::Command::new(words.next().unwrap())
        .args(words)
        .current_dir(folder.path().join("var/lib/holdline"))
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut running = Running {
        child,
        log,
        started: String::new(),
        folder,
    };
    running.line("\"message\":\"running\"").await;
    let at = |path: &str| running.folder.path().join(path);
    assert!(at("var/lib/holdline/certs-dev/key.pem").is_file());
    // What the config's first line names.
    assert!(at("etc/holdline/holdline.schema.json").is_file());
}
