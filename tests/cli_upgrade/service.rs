//! A running holdline with all that comes after it, in a folder and a process group of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout_at};

use crate::kit::{DEADLINE, ScriptedGateway, Target, http, ms, within};

pub(crate) const HOLDLINE: &str = env!("CARGO_BIN_EXE_holdline");

/// Quick, and without a limit that a test on one address would meet.
const CONFIG: &str = r#"
[listen]
https = ["127.0.0.1:0"]
[gateway]
url = "GATEWAY"
probe_interval = "50ms"
probe_interval_ready = "200ms"
[hold]
notice_after = "50ms"
[admin]
listen = "127.0.0.1:0"
[limits]
handshakes_per_ip = "100000/s"
sessions_per_ip = 8000
"#;

pub(crate) struct Service {
    /// The process that was started by the test; later ones are its children.
    pub(crate) child: Child,
    log: Lines<BufReader<ChildStderr>>,
    pub(crate) https: SocketAddr,
    /// The plain listener, if the config has one.
    pub(crate) http: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    folder: Folder,
    group: Pid,
    unread: Vec<Value>,
}

/// Where it lives: config, certificate, and `holdline`, a link to the binary.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// With more lines for `[limits]`, which come last.
    pub(crate) fn new(gateway: &ScriptedGateway, limits: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let config = CONFIG.replace("GATEWAY", &gateway.url());
        folder.configure(&format!("{config}{limits}\n"));
        folder.link_to(HOLDLINE);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.path("holdline.toml"), text).unwrap();
    }

    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.path("holdline.toml")).unwrap()
    }

    /// As an installer does it: in one step.
    pub(crate) fn link_to(&self, program: &str) {
        std::os::unix::fs::symlink(program, self.path("next")).unwrap();
        std::fs::rename(self.path("next"), self.path("holdline")).unwrap();
    }

    /// Puts a shell in place of the binary: it gets the same arguments, and does this with them.
    pub(crate) fn break_with(&self, script: &str) {
        self.link_to("/bin/sh");
        // `sh run --config holdline.toml`: the first argument is its script.
        std::fs::write(self.path("run"), script).unwrap();
    }

    /// `holdline run --config holdline.toml`, called by its link.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.path("holdline"));
        command.args(["run", "--config", "holdline.toml"]);
        self.prepare(&mut command);
        command
    }

    pub(crate) fn prepare(&self, command: &mut Command) {
        command
            .current_dir(self.0.path())
            .env_remove("NOTIFY_SOCKET")
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
    }
}

impl Service {
    pub(crate) async fn start(gateway: &ScriptedGateway, limits: &str) -> Self {
        let folder = Folder::new(gateway, limits);
        let command = folder.command();
        Self::run(folder, command).await
    }

    pub(crate) async fn run(folder: Folder, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let group = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut service = Self {
            child,
            log,
            https: nowhere,
            http: None,
            admin: nowhere,
            folder,
            group,
            unread: Vec::new(),
        };
        let running = service.line("running").await;
        service.https = running["https"].as_str().unwrap().parse().unwrap();
        service.http = running["http"].as_str().and_then(|it| it.parse().ok());
        service.admin = running["admin"].as_str().unwrap().parse().unwrap();
        service
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn target(&self) -> Target {
        Target::tls(self.https)
    }

    /// The first line of the log, not yet asked for, whose message begins so, of whichever process:
    /// which of two comes first is nobody's business.
    pub(crate) async fn line(&mut self, message: &str) -> Value {
        let wanted = |entry: &Value| {
            let said = entry["message"].as_str().unwrap_or_default();
            said.starts_with(message)
        };
        if let Some(at) = self.unread.iter().position(wanted) {
            return self.unread.remove(at);
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let Ok(line) = timeout_at(deadline, self.log.next_line()).await else {
                panic!("no line with {message:?} in time: {:#?}", self.unread);
            };
            let Some(line) = line.unwrap() else {
                panic!("the log has ended without {message:?}: {:#?}", self.unread);
            };
            let entry = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if wanted(&entry) {
                return entry;
            }
            self.unread.push(entry);
        }
    }

    /// The process that the test has started.
    pub(crate) fn pid(&self) -> u64 {
        self.child.id().unwrap().into()
    }

    pub(crate) fn signal(&self, pid: u64, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What the process that serves says of itself.
    pub(crate) async fn process(&self) -> Value {
        let admin = Target::plain(self.admin);
        http::get(&admin, "/status", &[]).await.json()["process"].clone()
    }

    /// Waits until so many upgrades of clients wait for the gateway.
    pub(crate) async fn waiting(&self, count: usize) {
        let admin = Target::plain(self.admin);
        let line = format!("{{state=\"waiting\"}} {count}");
        within("clients that wait", async {
            loop {
                let metrics = http::get(&admin, "/metrics", &[]).await.text();
                if metrics.lines().any(|seen| seen.ends_with(&line)) {
                    return;
                }
                tokio::time::sleep(ms(10)).await;
            }
        })
        .await;
    }

    /// Exit code, standard output and standard error of `holdline upgrade`.
    pub(crate) async fn upgrade(&self) -> (Option<i32>, String, String) {
        let mut command = Command::new(HOLDLINE);
        let admin = self.admin.to_string();
        command.args(["upgrade", "--config", "good.toml", "--admin", &admin]);
        self.folder.prepare(&mut command);
        // The one of the service may be broken on purpose.
        std::fs::write(self.folder.path("good.toml"), "").unwrap();
        command.stdout(Stdio::piped());
        let output = within("holdline upgrade", command.output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        within("the end of the process", self.child.wait())
            .await
            .unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Successors are in its group, and nobody else is.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}
