//! The admin listener as operators, monitoring and lured browsers meet it.

use std::sync::{Arc, Mutex};

use holdline::listen::Listener;
use holdline::observe::{Admin, Command, StatusSource};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::kit::*;

#[derive(Debug, Default)]
struct Source {
    unready: Mutex<Option<String>>,
}

impl StatusSource for Source {
    fn status(&self) -> Value {
        json!({ "gateway": "ready" })
    }

    fn ready(&self) -> Result<(), String> {
        self.unready.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

struct Kit {
    edge: Running,
    source: Arc<Source>,
    address: std::net::SocketAddr,
    commands: mpsc::Receiver<Command>,
    stop: CancellationToken,
}

fn admin() -> Kit {
    let edge = start(|_, _| {});
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, source) = (listener.address(), Arc::new(Source::default()));
    let (sender, commands) = mpsc::channel(4);
    let admin = Admin {
        metrics: Arc::clone(&edge.edge.metrics),
        tls: Arc::clone(&edge.edge.tls),
        status: Arc::clone(&source) as Arc<dyn StatusSource>,
        commands: sender,
    };
    let stop = CancellationToken::new();
    let leave = CancellationToken::new();
    admin.serve(listener, &leave, &stop, &edge.edge.tasks);
    Kit {
        edge,
        source,
        address,
        commands,
        stop,
    }
}

impl Kit {
    async fn ask(&self, method: &str, path: &str, headers: &str) -> String {
        ask(self.address, method, path, headers).await
    }
}

async fn ask(address: std::net::SocketAddr, method: &str, path: &str, headers: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    patient(socket.read_to_string(&mut answer)).await.unwrap();
    answer
}

const HOST: &str = "Host: localhost\r\n";

#[tokio::test]
async fn shows_what_it_knows() {
    let kit = admin();
    for (path, expected) in [
        ("/healthz", "HTTP/1.1 200 "),
        ("/readyz", "HTTP/1.1 200 "),
        ("/status", "\"gateway\": \"ready\""),
        (
            "/metrics",
            "holdline_certificate_not_after_timestamp_seconds 1",
        ),
        ("/status?x=y", "HTTP/1.1 200 "),
        ("/nothing", "HTTP/1.1 404 "),
        ("/drain", "HTTP/1.1 405 "),
    ] {
        let answer = kit.ask("GET", path, HOST).await;
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    assert!(
        kit.ask("POST", "/status", HOST)
            .await
            .contains("\r\nallow: GET, HEAD\r\n")
    );
    *kit.source.unready.lock().unwrap() = Some("draining".to_owned());
    let answer = kit.ask("GET", "/readyz", HOST).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("draining\n"),
        "{answer}"
    );
    assert!(
        kit.ask("GET", "/healthz", HOST)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn turns_lured_browsers_away() {
    let mut kit = admin();
    for path in ["/status", "/metrics"] {
        let answer = kit.ask("GET", path, "Host: evil.example\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    let foreign = format!("Host: {}\r\nOrigin: http://evil.example\r\n", kit.address);
    for path in ["/drain", "/reload"] {
        let answer = kit.ask("POST", path, &foreign).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        let answer = kit.ask("POST", path, "Host: evil.example\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    assert!(kit.commands.try_recv().is_err());
}

#[tokio::test]
async fn passes_commands_on() {
    let mut kit = admin();
    let answer = kit.ask("POST", "/drain", HOST).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert!(matches!(kit.commands.recv().await, Some(Command::Drain)));
    for (result, status, text) in [
        (Ok(json!(["hold.max"])), "200", "hold.max"),
        (Err(json!({"error": "line 3"})), "422", "line 3"),
    ] {
        let asking = tokio::spawn(ask(kit.address, "POST", "/reload", HOST));
        let Some(Command::Reload(answer)) = patient(kit.commands.recv()).await else {
            panic!("expected a reload");
        };
        answer.send(result).unwrap();
        let answer = patient(asking).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains(text), "{answer}");
    }
    drop(kit.commands);
    assert!(
        ask(kit.address, "POST", "/drain", HOST)
            .await
            .starts_with("HTTP/1.1 503 ")
    );
}

#[tokio::test]
async fn outlives_draining_and_then_stops() {
    let kit = admin();
    kit.edge.edge.drain.cancel();
    assert!(
        kit.ask("GET", "/healthz", HOST)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let _idle = TcpStream::connect(kit.address).await.unwrap();
    kit.stop.cancel();
    kit.edge.stopped().await;
    assert!(TcpStream::connect(kit.address).await.is_err());
}
