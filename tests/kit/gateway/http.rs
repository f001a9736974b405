//! Plain HTTP at the gateway: probes, a page for every unknown path, and endpoints for tests.
//!
//! | path | answer |
//! |---|---|
//! | `/echo…` | the request as JSON: method, path, headers, body |
//! | `/big/N` | N bytes |
//! | `/slow/KEY` | `slow`, after [`super::ScriptedGateway::release`] of KEY |
//! | `/events` | a stream of server-sent events, fed by [`super::ScriptedGateway::emit`] |
//! | `/count/NAME` | `counted`; the journal has it |

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::head::{Head, read_body, read_head, write_all};
use super::journal::Event;
use super::options::{Phase, Startupz};
use super::process::Process;
use super::{Inner, upgrade};

const JSON: &str = "application/json; charset=utf-8";

/// Serves one connection to its end.
pub(super) async fn serve(
    inner: &Arc<Inner>,
    process: &Arc<Process>,
    stream: &TcpStream,
    peer: SocketAddr,
) {
    let mut buffer = BytesMut::new();
    while let Some(head) = read_head(stream, &mut buffer).await {
        process.thawed().await;
        if head.wants_websocket() {
            return upgrade::serve(inner, process, stream, peer, head, buffer).await;
        }
        let Some(body) = read_body(stream, &mut buffer, &head).await else {
            return;
        };
        process.thawed().await;
        let goes_on = answer(inner, process, stream, &head, body).await;
        let close = head
            .header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"));
        if close || !goes_on {
            return;
        }
    }
}

/// Whether the forwarding headers leave the client's address open, or name loopback.
pub(super) fn misattributed(head: &Head) -> bool {
    let forwarding = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
        "x-real-ip",
    ];
    let any = forwarding.iter().any(|name| head.header(name).is_some());
    let remote = head
        .header("x-forwarded-for")
        .and_then(|ip| ip.parse().ok());
    any && remote.is_none_or(|ip: std::net::IpAddr| ip.is_loopback())
}

async fn answer(
    inner: &Arc<Inner>,
    process: &Arc<Process>,
    stream: &TcpStream,
    head: &Head,
    body: Vec<u8>,
) -> bool {
    let path = head.path.split('?').next().unwrap_or_default();
    if let Some((status, value)) = probe(inner, path) {
        inner.journal.change(|journal| journal.probes += 1);
        return respond(stream, head, status, JSON, value.to_string().as_bytes()).await;
    }
    inner.note(
        process,
        Event::Http {
            head: head.clone(),
            body: body.clone(),
        },
    );
    if misattributed(head) {
        let refusal = json!({"error":{"message":"Proxy client attribution is required.",
            "type":"proxy_attribution_required"}});
        return respond(stream, head, 403, JSON, refusal.to_string().as_bytes()).await;
    }
    match path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or_else(|| (&path[1..], ""))
    {
        ("big", count) => {
            let bytes = vec![b'x'; count.parse().unwrap_or(0)];
            respond(stream, head, 200, "application/octet-stream", &bytes).await
        }
        ("slow", key) => {
            inner.released(key).await;
            process.thawed().await;
            respond(stream, head, 200, "text/plain", b"slow").await
        }
        ("events", _) => stream_events(inner, stream).await,
        ("count", _) => respond(stream, head, 200, "text/plain", b"counted").await,
        ("echo", _) => {
            let echo = echo(process, head, &body).to_string();
            respond(stream, head, 200, JSON, echo.as_bytes()).await
        }
        ("startupz" | "readyz", _) if inner.options.startupz == Startupz::NotFound => {
            respond(stream, head, 404, "text/plain", b"Not Found").await
        }
        _ => respond(stream, head, 200, "text/html; charset=utf-8", &page()).await,
    }
}

fn echo(process: &Process, head: &Head, body: &[u8]) -> Value {
    json!({"method": head.method, "path": head.path, "headers": head.headers,
        "body": String::from_utf8_lossy(body), "bootId": process.boot_id})
}

fn page() -> Vec<u8> {
    let mut page = String::from("<!doctype html><html><title>OpenClaw Control</title><body>");
    for line in 0..400 {
        let _ = writeln!(
            page,
            "<!-- {line:04} the page is as long as the real one -->"
        );
    }
    page.into_bytes()
}

/// What `/startupz`, `/readyz` and `/health` say in this phase.
fn probe(inner: &Inner, path: &str) -> Option<(u16, Value)> {
    let phase = *inner.phase.borrow();
    if path == "/health" {
        return Some((200, json!({"ok":true,"status":"live"})));
    }
    if inner.options.startupz != Startupz::Real {
        return None;
    }
    let status = if phase == Phase::Ready { 200 } else { 503 };
    let (word, failing) = match phase {
        Phase::Ready => ("started", json!([])),
        Phase::Starting => ("starting", json!(["startup-sidecars"])),
        Phase::Draining | Phase::Closing | Phase::Down => ("draining", json!(["gateway-draining"])),
    };
    match path {
        "/startupz" => Some((
            status,
            json!({"ok": status == 200, "status": word, "version": "2026.9.6",
                "pendingReason": failing.get(0)}),
        )),
        "/readyz" => Some((status, json!({"ready": status == 200, "failing": failing}))),
        _ => None,
    }
}

/// Writes a whole answer; says whether the connection goes on.
pub(super) async fn respond(
    stream: &TcpStream,
    head: &Head,
    status: u16,
    content_type: &str,
    body: &[u8],
) -> bool {
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 {status} Kit\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    if head.method != "HEAD" {
        answer.extend_from_slice(body);
    }
    write_all(stream, &answer).await.is_ok()
}

async fn stream_events(inner: &Inner, stream: &TcpStream) -> bool {
    let mut events = inner.events.subscribe();
    let head = "HTTP/1.1 200 Kit\r\ncontent-type: text/event-stream\r\n\
        transfer-encoding: chunked\r\n\r\n";
    if write_all(stream, head.as_bytes()).await.is_err() {
        return false;
    }
    while let Ok(event) = events.recv().await {
        let data = format!("data: {event}\n\n");
        let chunk = format!("{:x}\r\n{data}\r\n", data.len());
        if write_all(stream, chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    false
}
