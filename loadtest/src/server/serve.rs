//! One connection of the echo backend: a probe's answer, or a session until either side ends it.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Shared, Stop};
use crate::http::{Head, read_head};
use crate::ws::{Connection, Opcode, Role, WsError, accept_key};

const CHALLENGE: &[u8] = br#"{"type":"event","event":"connect.challenge","payload":{"nonce":"00000000-0000-4000-8000-000000000000","ts":0}}"#;
const SHUTDOWN: &[u8] =
    br#"{"type":"event","event":"shutdown","payload":{"reason":"gateway stopping"},"seq":1}"#;
const STARTING: &str = r#"{"code":"UNAVAILABLE","message":"gateway starting; retry shortly","retryable":true,"retryAfterMs":500,"details":{"reason":"startup-sidecars"}}"#;
const HELLO: &str = r#"{"type":"hello-ok","protocol":4,"server":{"version":"echo","bootId":"echo","connId":"echo"},"features":{"methods":[],"events":[]},"snapshot":{},"auth":{"role":"operator","scopes":["operator.admin","operator.read","operator.write"]},"policy":{"maxPayload":26214400,"maxBufferedBytes":52428800,"tickIntervalMs":30000}}"#;

/// A request as clients send it.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
}

/// Serves one connection to its end. Whatever ends it concerns nobody else.
pub(super) async fn serve(mut io: TcpStream, shared: Arc<Shared>, mut stop: watch::Receiver<Stop>) {
    let head = tokio::select! {
        head = read_head(&mut io) => head,
        _ = stop.changed() => return,
    };
    let Ok((head, leftover)) = head else { return };
    let _ = io.set_nodelay(true);
    match head.header("sec-websocket-key") {
        Some(key) => {
            let Ok(ws) = upgrade(io, key, &leftover).await else {
                return;
            };
            shared.counters.opened(Instant::now());
            let _ = session(ws, &shared, stop).await;
            shared.counters.closed();
        }
        None => {
            let _ = answer_probe(io, &head, &shared).await;
        }
    }
}

async fn upgrade(
    mut io: TcpStream,
    key: &str,
    leftover: &[u8],
) -> io::Result<Connection<TcpStream>> {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    );
    io.write_all(answer.as_bytes()).await?;
    Ok(Connection::new(io, Role::Server, leftover))
}

async fn answer_probe(mut io: TcpStream, head: &Head, shared: &Shared) -> io::Result<()> {
    let (status, body) = match (head.path(), shared.ready()) {
        ("/health", _) => ("200 OK", r#"{"ok":true,"status":"live"}"#.to_owned()),
        ("/startupz", true) => ("200 OK", r#"{"ok":true,"status":"started"}"#.to_owned()),
        ("/startupz", false) => (
            "503 Service Unavailable",
            r#"{"ok":false,"status":"starting"}"#.to_owned(),
        ),
        ("/stats", _) => ("200 OK", serde_json::to_string(&shared.counters.stats())?),
        _ => ("404 Not Found", r#"{"ok":false}"#.to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    io.write_all(answer.as_bytes()).await?;
    io.shutdown().await
}

async fn session(
    mut ws: Connection<TcpStream>,
    shared: &Shared,
    mut stop: watch::Receiver<Stop>,
) -> Result<(), WsError> {
    let mut scratch = Vec::new();
    if shared.challenge {
        ws.send(Opcode::Text, CHALLENGE).await?;
    }
    loop {
        let opcode = tokio::select! {
            _ = stop.changed() => break,
            message = ws.next() => keep(&mut scratch, &message?),
        };
        respond(&mut ws, shared, opcode, &scratch).await?;
        while ws.has_buffered() {
            let opcode = keep(&mut scratch, &ws.next().await?);
            respond(&mut ws, shared, opcode, &scratch).await?;
        }
        ws.flush().await?;
    }
    if *stop.borrow() == Stop::Politely {
        if shared.challenge {
            ws.queue(Opcode::Text, SHUTDOWN);
        }
        ws.close(1012, "service restart").await?;
    }
    Ok(())
}

fn keep(scratch: &mut Vec<u8>, message: &crate::ws::Message<'_>) -> Opcode {
    scratch.clear();
    scratch.extend_from_slice(message.payload);
    message.opcode
}

/// Queues the answer to one message.
async fn respond(
    ws: &mut Connection<TcpStream>,
    shared: &Shared,
    opcode: Opcode,
    payload: &[u8],
) -> Result<(), WsError> {
    if !shared.challenge {
        ws.queue(opcode, payload);
        return Ok(());
    }
    let Ok(request) = serde_json::from_slice::<Request<'_>>(payload) else {
        ws.close(1008, "not a request").await?;
        return Err(WsError::Cut);
    };
    if request.kind != "req" {
        return Ok(());
    }
    let connect = request.method == "connect";
    if connect && !shared.ready() {
        queue_answer(ws, &request.id, None, raw(STARTING));
        ws.close(1013, "gateway starting").await?;
        return Err(WsError::Cut);
    }
    let payload = if connect { raw(HELLO) } else { request.params };
    queue_answer(ws, &request.id, payload, None);
    Ok(())
}

fn raw(text: &'static str) -> Option<&'static RawValue> {
    serde_json::from_str(text).ok()
}

fn queue_answer(
    ws: &mut Connection<TcpStream>,
    id: &str,
    payload: Option<&RawValue>,
    error: Option<&RawValue>,
) {
    let answer = Answer {
        kind: "res",
        id,
        ok: error.is_none(),
        payload,
        error,
    };
    // Strings and checked JSON only: there is nothing that could fail to be written.
    ws.queue(
        Opcode::Text,
        &serde_json::to_vec(&answer).unwrap_or_default(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_answers_are_json() {
        assert!(raw(STARTING).is_some() && raw(HELLO).is_some());
        for event in [CHALLENGE, SHUTDOWN] {
            assert!(serde_json::from_slice::<serde_json::Value>(event).is_ok());
        }
    }
}
