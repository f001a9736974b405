//! The `holdline` command as its user meets it: messages and exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "cli/cert.rs"]
mod cert;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/gateway_config.rs"]
mod gateway_config;
#[path = "cli/live.rs"]
mod live;
#[path = "cli/running.rs"]
mod running;

use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);

/// The command in an empty folder of its own, where it may leave a certificate.
fn holdline(folder: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    command
        .args(args)
        .current_dir(folder.path())
        .env_remove("NO_COLOR")
        .kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

async fn ended(folder: &TempDir, args: &[&str]) -> Ended {
    let output = timeout(SOON, holdline(folder, args).output())
        .await
        .expect("ends by itself")
        .unwrap();
    Ended::of(output)
}

async fn run(args: &[&str]) -> Ended {
    ended(&folder(""), args).await
}

/// With this on standard input.
async fn fed(folder: &TempDir, args: &[&str], input: &[u8]) -> Ended {
    let mut command = holdline(folder, args);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have seen enough before the end.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = timeout(SOON, child.wait_with_output()).await.expect("ends");
    Ended::of(output.unwrap())
}

/// An address that refuses every connection for as long as the socket lives.
fn nobody() -> (tokio::net::TcpSocket, String) {
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = reserved.local_addr().unwrap().to_string();
    (reserved, address)
}

fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("holdline.toml"), config).unwrap();
    folder
}

// === usage ===

#[tokio::test]
async fn help_and_version_are_no_errors() {
    let help = run(&["--help"]).await;
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    for word in [
        "--config",
        "--listen",
        "--gateway",
        "--admin",
        "check",
        "78 bad config",
    ] {
        assert!(help.out.contains(word), "no {word} in: {}", help.out);
    }
    let version = run(&["--version"]).await;
    assert_eq!((version.code, version.err.as_str()), (Some(0), ""));
    assert_eq!(
        version.out,
        format!("holdline {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&["check", "--help"]).await.code, Some(0));
    let explain = run(&["explain", "--help"]).await.out;
    assert!(explain.contains("A running holdline may have other values"));
}

#[tokio::test]
async fn a_wrong_call_exits_64_and_says_what_would_be_right() {
    for (args, words) in [
        (&["--nonsense"][..], "unexpected argument '--nonsense'"),
        (&["chekc"], "'check'"),
        (
            &["check", "holdline.toml"],
            "did you mean '--config holdline.toml'?",
        ),
        (&["other.toml"], "did you mean '--config other.toml'?"),
        (&["--listen", ":443"], "write \"0.0.0.0:443\""),
        (&["--admin", "localhost:1"], "write \"127.0.0.1:1\""),
        (&["--admin", "9180"], "write \"127.0.0.1:9180\", or \"off\""),
        (&["--gateway", "https://gw"], "write \"http://gw\""),
    ] {
        let ended = run(args).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(64), ""), "{args:?}");
        assert!(ended.err.contains(words), "no {words} in: {}", ended.err);
    }
}

// === check ===

#[tokio::test]
async fn check_approves_the_defaults_and_a_good_file() {
    let defaults = run(&["check"]).await;
    assert_eq!((defaults.code, defaults.err.as_str()), (Some(0), ""));
    assert_eq!(defaults.out, "the built-in defaults: ok\n");
    let file = ended(
        &folder("[hold]\nmax = \"5m\""),
        &["check", "--config", "holdline.toml"],
    )
    .await;
    assert_eq!(
        (file.code, file.out.as_str()),
        (Some(0), "holdline.toml: ok\n")
    );
}

#[tokio::test]
async fn check_takes_the_settings_of_run_in_any_place() {
    let folder = folder("[hold]\nmax = \"5m\"");
    let config = ["--config", "holdline.toml"];
    let (one, two) = ("127.0.0.1:1", "127.0.0.1:2");
    for args in [
        [&config[..], &["check"]].concat(),
        [
            &["check", "--admin", "off", "--listen", one, "--listen", two],
            &config[..],
        ]
        .concat(),
    ] {
        let ended = ended(&folder, &args).await;
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}");
        assert_eq!(ended.out, "holdline.toml: ok\n");
    }
    let twice = ["check", "--listen", one, "--listen", one];
    let ended = ended(&folder, &twice).await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.err.contains("the address is taken"), "{}", ended.err);
}

#[tokio::test]
async fn check_shows_warnings_and_approves() {
    let folder = folder("[listen]\nhttps = [\"0.0.0.0:8443\"]");
    let ended = ended(&folder, &["check", "--config", "holdline.toml"]).await;
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (Some(0), "holdline.toml: ok, with 1 warning\n")
    );
    assert!(
        ended
            .err
            .starts_with("warning: listen.https[0] = \"0.0.0.0:8443\": "),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn a_bad_config_exits_78_with_every_problem_and_no_colours_in_a_pipe() {
    let folder = folder("[hold]\nupgrade = \"20s\"\nmaxx = \"1m\"\n");
    for args in [
        &["check", "--config", "holdline.toml"][..],
        &["run", "--config", "holdline.toml"],
    ] {
        let ended = ended(&folder, args).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(78), ""));
        let expected = "\
error: hold.upgrade = \"20s\": too large: clients give up at 15 s
 --> holdline.toml:2:11
  |
2 | upgrade = \"20s\"
  |           ^^^^^
  = help: write at most \"14s\"

error: hold.maxx: no such key
 --> holdline.toml:3:1
  |
3 | maxx = \"1m\"
  | ^^^^
  = help: did you mean \"max\"?

2 errors
";
        assert_eq!(ended.err, expected);
    }
}

#[tokio::test]
async fn a_damaged_client_ca_is_a_bad_config() {
    for damaged in ["*not base64*", "aGVsbG8="] {
        let folder = folder("[tls]\nclient_ca = \"ca.pem\"\n");
        let pem = format!("-----BEGIN CERTIFICATE-----\n{damaged}\n-----END CERTIFICATE-----\n");
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        for command in ["check", "run"] {
            let args = [command, "--config", "holdline.toml"];
            let Ended { code, err, .. } = ended(&folder, &args).await;
            assert_eq!(code, Some(78), "{command}: {err}");
            assert!(err.contains("error: tls.client_ca = \"ca.pem\": "), "{err}");
            assert!(err.contains(" --> holdline.toml:2:13\n"), "{err}");
            assert!(err.contains("= help: expected "), "{err}");
        }
    }
}

#[tokio::test]
async fn a_config_that_is_not_there_is_a_bad_config() {
    let ended = run(&["--config", "nowhere.toml"]).await;
    assert_eq!(ended.code, Some(78));
    assert!(
        ended
            .err
            .contains("there is no such file\n  --> nowhere.toml\n"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn a_variable_of_the_environment_reaches_the_config() {
    let folder = folder("[gateway]\nurl = \"${HOLDLINE_TEST_URL}\"");
    let args = ["check", "--config", "holdline.toml"];
    let missing = ended(&folder, &args).await;
    assert_eq!(missing.code, Some(78));
    assert!(
        missing.err.contains("no variable HOLDLINE_TEST_URL"),
        "{}",
        missing.err
    );
    let mut command = holdline(&folder, &args);
    let output = command
        .env("HOLDLINE_TEST_URL", "http://gw:1")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}

// === credentials ===

/// A config with these lines is approved.
async fn approved(auth: &str) {
    let folder = folder(&format!("[auth]\nstate_dir = \"state\"\n{auth}\n"));
    let ended = ended(&folder, &["check", "--config", "holdline.toml"]).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{auth}");
    assert!(!folder.path().join("state").exists(), "nothing is made");
}

#[tokio::test]
async fn a_user_is_added_by_pasting_what_is_printed() {
    let add = ["user", "add", "nick@example.com"];
    let ended = fed(&folder(""), &add, b"correct horse\n").await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let start = "{ name = \"nick@example.com\", hash = \"$argon2id$v=19$m=19456,t=2,p=1$";
    assert!(ended.out.starts_with(start), "{}", ended.out);
    assert!(ended.err.contains("users of [auth]"), "{}", ended.err);
    assert!(!format!("{}{}", ended.out, ended.err).contains("correct horse"));
    let line = ended.out.trim_end();
    approved(&format!("modes = [\"password\"]\nusers = [\n{line},\n]")).await;
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_found_before_the_start() {
    let line = fed(&folder(""), &["user", "add", "nick"], b"correct horse\n").await;
    let line = line.out.trim_end().to_owned();
    let folder = folder(&format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"off\"\n[auth]\n\
         modes = [\"password\"]\nstate_dir = \"state/deep\"\nusers = [\n{line},\n]\n"
    ));
    std::fs::write(folder.path().join("state"), "in the way").unwrap();
    for command in ["check", "run"] {
        let ended = ended(&folder, &[command, "--config", "holdline.toml"]).await;
        assert_eq!(ended.code, Some(1), "{command}: {}", ended.err);
        let said = format!("{}{}", ended.out, ended.err);
        for words in ["state/deep cannot be written", "[auth] state_dir"] {
            assert!(said.contains(words), "{command}: {said}");
        }
        assert_eq!(
            said.matches("os error").count() + said.matches("not a directory").count(),
            1,
            "{said}"
        );
    }
    let args = ["check", "--json", "--config", "holdline.toml"];
    let told = ended(&folder, &args).await;
    assert_eq!((told.code, told.err.as_str()), (Some(1), ""));
    let list: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(list[0]["key"], "auth");
    let remedy = list[0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("another one in [auth] state_dir"), "{list}");
}

#[tokio::test]
async fn a_service_over_tls_that_nobody_could_be_sure_of_is_found_before_the_start() {
    let folder = folder(
        "[auth]\nmodes = [\"forward\"]\n[auth.forward]\nurl = \"https://sso.example.net/auth\"\n",
    );
    // As in an empty container.
    let mut command = holdline(&folder, &["check", "--config", "holdline.toml"]);
    for list in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env(list, folder.path().join("none"));
    }
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["no CA certificates", "ca-certificates", "ca_root"] {
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn a_hash_that_was_not_pasted_whole_is_told() {
    let line = fed(&folder(""), &["user", "add", "nick"], b"correct horse\n").await;
    let line = line.out.trim_end();
    let cut = line.replace(&line[line.len() - 12..], "\" }");
    let folder = folder(&format!(
        "[auth]\nmodes = [\"password\"]\nusers = [\n{cut},\n]\n"
    ));
    let ended = ended(&folder, &["check", "--config", "holdline.toml"]).await;
    assert_eq!(ended.code, Some(78), "{}", ended.err);
    for words in [
        "a part is missing",
        "`holdline user add NAME`",
        "users[0].hash",
    ] {
        assert!(ended.err.contains(words), "{}", ended.err);
    }
    assert!(!ended.err.contains("m=19456"), "{}", ended.err);
}

#[tokio::test]
async fn any_name_that_is_taken_is_printed_so_that_it_is_read_back() {
    let name = "a\"b\\c${HOME}'{}";
    let user = fed(&folder(""), &["user", "add", name], b"12345678").await;
    let line = user.out.trim_end();
    approved(&format!("modes = [\"password\"]\nusers = [{line}]")).await;
    let wrong = run(&["user", "add", "nick of time"]).await;
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(64), ""));
    assert!(wrong.err.contains("visible ASCII"), "{}", wrong.err);
}

#[tokio::test]
async fn a_password_that_is_none_is_refused() {
    for (input, words) in [
        (&b""[..], "none was given"),
        (b"\n", "none was given"),
        (b"short\n", "shorter than 8"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\n", "not UTF-8"),
        (&[b'x'; 5000], "longer than 1024"),
    ] {
        let ended = fed(&folder(""), &["user", "add", "a"], input).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{words}");
        assert!(ended.err.contains(words), "{}", ended.err);
    }
    // Nor is there a way to give it as an argument.
    for args in [
        &["user", "add", "a", "12345678"][..],
        &["user", "add"],
        &["user"],
    ] {
        assert_eq!(run(args).await.code, Some(64), "{args:?}");
    }
}

#[tokio::test]
async fn a_token_is_shown_once_and_its_line_is_for_the_config() {
    let add = ["token", "add", "laptop", "--user", "nick@example.com"];
    let (one, two) = (run(&add).await, run(&add).await);
    assert_eq!(one.code, Some(0), "{}", one.err);
    let [token, line] = one.out.lines().collect::<Vec<_>>()[..] else {
        panic!("{}", one.out)
    };
    assert!(token.starts_with("hl_") && token.len() == 46, "{token}");
    assert!(!line.contains(token) && !two.out.contains(token));
    assert!(one.err.contains("shown this once"), "{}", one.err);
    approved(&format!("modes = [\"token\"]\ntokens = [{line}]")).await;
    assert_eq!(run(&["token", "add", "laptop"]).await.code, Some(64));
}

#[tokio::test]
async fn a_key_is_rotated_in_the_directory_of_the_config() {
    let user = fed(&folder(""), &["user", "add", "a"], b"12345678").await;
    let folder = folder(&format!(
        "[auth]\nmodes = [\"password\"]\nstate_dir = \"state\"\nusers = [{}]\n",
        user.out.trim_end()
    ));
    let rotate = ["key", "rotate", "--config", "holdline.toml"];
    for keys in 1..=3 {
        let ended = ended(&folder, &rotate).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(
            ended.out.starts_with("state/auth.key: a new key"),
            "{}",
            ended.out
        );
        let text = std::fs::read_to_string(folder.path().join("state/auth.key")).unwrap();
        assert_eq!(text.lines().count(), 1 + keys);
    }
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state"), "in the way").unwrap();
    let refused = ended(&folder, &rotate).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("state cannot be written"),
        "{}",
        refused.err
    );
}

#[tokio::test]
async fn a_key_that_nothing_is_signed_with_is_not_made() {
    let ended = run(&["key", "rotate"]).await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.err.contains("no \"password\""), "{}", ended.err);
}

// === run ===

struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// Its last line when it had started.
    started: String,
    folder: TempDir,
}

impl Running {
    /// On free ports, and with the log as JSON since standard error is no terminal here.
    async fn start(config: &str) -> Self {
        Self::start_at(folder(config), "127.0.0.1:0").await
    }

    /// The same in this folder, with the admin listener there.
    async fn start_at(folder: TempDir, admin: &str) -> Self {
        let config = ["--config", "holdline.toml"];
        let addresses = ["--listen", "127.0.0.1:0", "--admin", admin];
        let args = [&config[..], &addresses].concat();
        let mut child = holdline(&folder, &args).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut running = Self {
            child,
            log,
            started: String::new(),
            folder,
        };
        running.started = running.line("\"message\":\"running\"").await;
        running
    }

    /// Where it listens: "https" or "admin".
    fn address(&self, which: &str) -> String {
        let line: serde_json::Value = serde_json::from_str(&self.started).unwrap();
        line[which].as_str().unwrap().to_owned()
    }

    async fn line(&mut self, words: &str) -> String {
        let find = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                if line.contains(words) {
                    return line;
                }
            }
            panic!("no line with {words}")
        };
        timeout(SOON, find)
            .await
            .unwrap_or_else(|_| panic!("no line with {words} in time"))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    async fn exit(&mut self) -> ExitStatus {
        timeout(SOON, self.child.wait())
            .await
            .expect("ends")
            .unwrap()
    }
}

#[tokio::test]
async fn it_drains_and_ends_well_when_asked_to() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut running = Running::start("").await;
        running.signal(signal);
        running.line("draining").await;
        assert_eq!(running.exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_hang_up_ends_nothing() {
    let mut running = Running::start("").await;
    running.signal(rustix::process::Signal::HUP);
    running
        .line("\"message\":\"reloaded\",\"changed\":\"nothing\",\"ended\":0")
        .await;
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.exit().await.code(), Some(0));
}

/// A pager, or a logger that hangs: a pipe takes 64 KiB, and then no more.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let mut running = Running::start("").await;
    let admin = running.address("admin");
    let wrong: String = (0..150).map(|n| format!("[nonsense{n}]\n")).collect();
    std::fs::write(running.folder.path().join("holdline.toml"), wrong).unwrap();
    // Each is many kilobytes of log.
    for _ in 0..20 {
        let asked = ended(&running.folder, &["reload", "--admin", &admin]).await;
        assert_eq!(asked.code, Some(78), "{}", asked.err);
    }
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.exit().await.code(), Some(0));
}

#[tokio::test]
async fn too_few_file_descriptors_are_told_with_what_to_do() {
    let folder = folder("");
    let mut shell = Command::new("sh");
    let script =
        "ulimit -Sn 500; ulimit -Hn 1000; exec \"$0\" --listen 127.0.0.1:0 --admin 127.0.0.1:0";
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_holdline")])
        .current_dir(folder.path());
    let mut child = shell
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut limited = Running {
        child,
        log,
        started: String::new(),
        folder,
    };
    let line = limited.line("file descriptors").await;
    assert!(line.contains("\"limit\":1000,\"needed\":16256"), "{line}");
    assert!(line.contains("lower limits.sessions to 372"), "{line}");
    limited.line("\"message\":\"running\"").await;
    limited.signal(rustix::process::Signal::TERM);
    assert_eq!(limited.exit().await.code(), Some(0));
}
