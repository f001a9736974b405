//! The upgrade, and the life of a WebSocket at the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::super::frame::{self, Decoder, Frame};
use super::conn::{Conn, Out, write_out};
use super::head::{Head, read_some, write_all};
use super::http::{misattributed, respond};
use super::journal::Event;
use super::options::{Phase, Protocol, UpgradeAnswer};
use super::process::Process;
use super::{Inner, openclaw};

/// Answers an upgrade request and, if it is accepted, serves the WebSocket to its end.
pub(super) async fn serve(
    inner: &Arc<Inner>,
    process: &Arc<Process>,
    stream: &TcpStream,
    peer: SocketAddr,
    head: Head,
    buffer: BytesMut,
) {
    let conn = inner.next_conn();
    let answer = inner.upgrade_answer.lock().unwrap().clone();
    let seen = |status| Event::Upgrade {
        conn,
        head: head.clone(),
        status,
    };
    let mut accept = derive_accept_key(head.header("sec-websocket-key").unwrap_or("").as_bytes());
    match answer {
        UpgradeAnswer::Normal | UpgradeAnswer::NoChallenge | UpgradeAnswer::Slow => {
            let client = head
                .header("x-forwarded-for")
                .map_or_else(|| peer.ip().to_string(), Into::into);
            let admission = match Admission::new(inner, process, &head, client) {
                Ok(admission) => Some(admission),
                Err((status, body)) => {
                    inner.note(process, seen(status));
                    let _ = respond(stream, &head, status, "text/plain", body.as_bytes()).await;
                    return;
                }
            };
            inner.note(process, seen(101));
            let socket = WebSocket {
                inner,
                process,
                stream,
                admission,
            };
            return socket.run(conn, head, &accept, buffer, &answer).await;
        }
        UpgradeAnswer::Status(status) => {
            inner.note(process, seen(status));
            let _ = respond(stream, &head, status, "text/html", b"<html>not a socket").await;
        }
        UpgradeAnswer::WrongAccept => {
            inner.note(process, seen(101));
            accept.insert(0, 'x');
            let _ = write_all(stream, switching(&head, &accept).as_bytes()).await;
            process.died().await;
        }
        UpgradeAnswer::Bytes(bytes) => {
            inner.note(process, seen(0));
            let _ = write_all(stream, &bytes).await;
        }
        UpgradeAnswer::Silence => {
            inner.note(process, seen(0));
            let _ = read_some(stream, &mut BytesMut::new()).await;
        }
        UpgradeAnswer::Reset => {
            inner.note(process, seen(0));
            let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

fn switching(head: &Head, accept: &str) -> String {
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(offers) = head.header("sec-websocket-protocol") {
        let first = offers.split(',').next().unwrap_or_default().trim();
        answer.push_str(&format!("Sec-WebSocket-Protocol: {first}\r\n"));
    }
    answer + "\r\n"
}

/// A place among the unfinished handshakes of one client address, given back on drop.
pub(super) struct Admission {
    process: Arc<Process>,
    client: String,
}

impl Admission {
    fn new(
        inner: &Inner,
        process: &Arc<Process>,
        head: &Head,
        client: String,
    ) -> Result<Self, (u16, &'static str)> {
        if inner.options.protocol == Protocol::Openclaw && misattributed(head) {
            return Err((403, "Proxy client attribution is required."));
        }
        if matches!(*inner.phase.borrow(), Phase::Draining | Phase::Closing) {
            return Err((503, "Gateway websocket admission closed"));
        }
        let mut unauthenticated = process.unauthenticated.lock().unwrap();
        let count = unauthenticated.entry(client.clone()).or_default();
        if *count >= inner.options.unauthenticated_per_ip {
            return Err((503, "Too many unauthenticated sockets"));
        }
        *count += 1;
        let (of_one, of_all) = (*count, unauthenticated.values().sum());
        inner.journal.change(|journal| {
            journal.peak_unfinished_per_ip = journal.peak_unfinished_per_ip.max(of_one);
            journal.peak_unfinished = journal.peak_unfinished.max(of_all);
        });
        Ok(Self {
            process: Arc::clone(process),
            client,
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut unauthenticated = self.process.unauthenticated.lock().unwrap();
        *unauthenticated.entry(self.client.clone()).or_default() -= 1;
    }
}

struct WebSocket<'a> {
    inner: &'a Arc<Inner>,
    process: &'a Arc<Process>,
    stream: &'a TcpStream,
    admission: Option<Admission>,
}

/// Takes a connection off the process's list, however it ends.
struct Listed<'a>(&'a Process, u64);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.conns.lock().unwrap().remove(&self.1);
    }
}

impl WebSocket<'_> {
    async fn run(
        mut self,
        id: u64,
        head: Head,
        accept: &str,
        buffer: BytesMut,
        answer: &UpgradeAnswer,
    ) {
        let nonce = format!(
            "c0ffee00-0000-4000-8000-{:06}{id:06}",
            self.inner.addr.port()
        );
        let mut first = switching(&head, accept).into_bytes();
        let openclaw = self.inner.options.protocol == Protocol::Openclaw;
        if openclaw && !matches!(answer, UpgradeAnswer::NoChallenge) {
            let challenge = json!({"type":"event","event":"connect.challenge","payload":{
                "nonce":nonce,"ts":1_795_290_202_130_u64,
                "capabilities":["model-catalog-snapshot"]}});
            first.extend(Frame::text(challenge.to_string()).encode());
        }
        if !openclaw {
            self.admission = None;
        }
        let (conn, outgoing) = Conn::new(id, nonce, head);
        match answer {
            UpgradeAnswer::Slow => conn.send_slowly(first, 1, std::time::Duration::from_millis(1)),
            _ => conn.send_bytes(first),
        }
        self.process.conns.lock().unwrap().insert(id, conn.clone());
        let _listed = Listed(self.process, id);
        self.inner.journal.change(|_| ());
        let code = self.talk(&conn, outgoing, Decoder::new(buffer)).await;
        self.inner
            .note(self.process, Event::Closed { conn: id, code });
    }

    /// Reads and writes until the end; gives the client's close code.
    async fn talk(
        &mut self,
        conn: &Conn,
        outgoing: mpsc::UnboundedReceiver<Out>,
        frames: Decoder,
    ) -> u16 {
        let (process, stream) = (self.process, self.stream);
        let writing = write_out(process, stream, outgoing);
        let reading = self.read(conn, frames);
        tokio::pin!(writing);
        tokio::pin!(reading);
        tokio::select! {
            () = &mut writing => 1006,
            code = &mut reading => {
                conn.fin();
                writing.await;
                code
            }
        }
    }

    async fn read(&mut self, conn: &Conn, mut frames: Decoder) -> u16 {
        let options = &self.inner.options;
        let preauth = Instant::now() + options.preauth_timeout;
        let mut ping = tokio::time::interval(options.ping_every);
        ping.tick().await;
        let mut message = Vec::new();
        loop {
            while let Some(frame) = frames.next_frame() {
                self.process.thawed().await;
                if let Some(code) = self.take(conn, &frame, &mut message) {
                    return code;
                }
            }
            let more = async {
                conn.may_read().await;
                read_some(self.stream, &mut frames.buffer).await
            };
            tokio::select! {
                count = more => if !matches!(count, Ok(1..)) { return 1006 },
                _ = ping.tick() => conn.send(&Frame::ping("")),
                () = tokio::time::sleep_until(preauth), if self.admission.is_some() => {
                    self.admission = None;
                    conn.close(1000, "");
                }
            }
        }
    }

    /// One frame from the client; the close code when it ends the connection.
    fn take(&mut self, conn: &Conn, frame: &Frame, message: &mut Vec<u8>) -> Option<u16> {
        if self.inner.options.record_frames {
            let frame = frame.clone();
            self.inner.note(
                self.process,
                Event::Frame {
                    conn: conn.id(),
                    frame,
                },
            );
        }
        match frame.opcode {
            frame::CLOSE => {
                let code = frame.close_code().unwrap_or(1005);
                conn.send(&Frame::new(frame::CLOSE, frame.payload.clone()));
                return Some(code);
            }
            frame::PING => conn.send(&Frame::pong(frame.payload.clone())),
            frame::PONG => {}
            _ if self.inner.options.protocol == Protocol::Echo => conn.send(frame),
            _ => {
                message.extend_from_slice(&frame.payload);
                if frame.fin {
                    openclaw::on_text(self.inner, self.process, conn, &std::mem::take(message));
                    if conn.is_authenticated() {
                        self.admission = None;
                    }
                }
            }
        }
        None
    }
}
