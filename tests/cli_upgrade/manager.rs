//! What a service manager is told, on its socket.

use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UnixDatagram;

use crate::kit::{Raw, Role, ScriptedGateway, within};
use crate::service::{Folder, Service};

struct Manager {
    socket: UnixDatagram,
    /// Everything that was said.
    heard: Vec<String>,
}

impl Manager {
    /// Waits for a message with this line; gives it.
    async fn hears(&mut self, line: &str) -> String {
        let hear = async {
            loop {
                let mut bytes = [0; 1024];
                let count = self.socket.recv(&mut bytes).await.unwrap();
                let message = String::from_utf8(bytes[..count].to_vec()).unwrap();
                self.heard.push(message.clone());
                if message.lines().any(|said| said.starts_with(line)) {
                    return message;
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), hear).await {
            Ok(message) => message,
            Err(_) => panic!("no {line}; heard {:?}", self.heard),
        }
    }
}

/// A service as systemd would run it.
async fn managed(gateway: &ScriptedGateway, limits: &str) -> (Service, Manager) {
    let folder = Folder::new(gateway, limits);
    let path = folder.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = folder.command();
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000");
    let service = Service::run(folder, command).await;
    let heard = Vec::new();
    (service, Manager { socket, heard })
}

#[tokio::test]
async fn it_is_told_of_start_reload_and_stop_and_that_we_live() {
    let gateway = ScriptedGateway::start().await;
    let (mut service, mut manager) = managed(&gateway, "drain = \"500ms\"").await;
    assert_eq!(
        manager.hears("READY=1").await,
        "READY=1\nSTATUS=serving 0 sessions\n"
    );
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }
    service.signal(service.pid(), Signal::HUP);
    let reloading = manager.hears("RELOADING=1").await;
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1").await;
    // Also when nothing comes of it, or the manager would wait.
    service.folder().configure("nonsense = 1");
    service.signal(service.pid(), Signal::HUP);
    manager.hears("RELOADING=1").await;
    let ready = manager.hears("READY=1").await;
    let words = "\nSTATUS=not reloaded: nonsense: no such section";
    assert!(ready.contains(words), "{ready}");
    let (mut raw, _) = Raw::connected(&service.target(), &Role::backend()).await;
    manager.hears("STATUS=serving 1 session").await;
    service.signal(service.pid(), Signal::TERM);
    let stopping = manager.hears("STOPPING=1").await;
    assert_eq!(stopping, "STOPPING=1\nSTATUS=draining: 1 session left\n");
    manager.hears("EXTEND_TIMEOUT_USEC=20000000").await;
    assert_eq!(raw.closed().await.0, 1012);
    assert_eq!(service.exit().await.code(), Some(0));
}

#[tokio::test]
async fn it_is_told_which_process_is_the_service_after_an_upgrade() {
    let gateway = ScriptedGateway::start().await;
    let (mut service, mut manager) = managed(&gateway, "drain = \"500ms\"").await;
    manager.hears("READY=1").await;
    let (mut raw, _) = Raw::connected(&service.target(), &Role::backend()).await;
    let (code, _, err) = service.upgrade().await;
    assert_eq!(code, Some(0), "{err}");
    let pid = service.process().await["pid"].as_u64().unwrap();
    manager.hears(&format!("MAINPID={pid}")).await;
    // The new one feeds the watchdog, though that was meant for another id.
    for _ in 0..5 {
        manager.hears("WATCHDOG=1").await;
    }
    assert!(
        manager
            .heard
            .iter()
            .filter(|said| said.starts_with("READY=1"))
            .count()
            >= 2
    );
    // The end of the old one is not that of the service.
    service.signal(service.pid(), Signal::TERM);
    assert_eq!(raw.closed().await.0, 1012);
    assert_eq!(service.exit().await.code(), Some(0));
    service.line("stopped").await;
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }
    let stopping = manager.heard.iter().any(|said| said.contains("STOPPING=1"));
    assert!(!stopping, "{:?}", manager.heard);
    service.signal(pid, Signal::TERM);
    manager.hears("STOPPING=1").await;
    service.line("stopped").await;
}

#[tokio::test]
async fn without_its_ear_there_is_no_upgrade() {
    let gateway = ScriptedGateway::start().await;
    let folder = Folder::new(&gateway, "");
    let mut command = tokio::process::Command::new("sh");
    folder.prepare(&mut command);
    let script = "SYSTEMD_EXEC_PID=$$ exec ./holdline run --config holdline.toml";
    command.args(["-c", script]);
    let service = Service::run(folder, command).await;
    let (code, _, err) = within("the command", service.upgrade()).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("set Type=notify-reload"), "{err}");
}
