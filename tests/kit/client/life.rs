//! A client's life: attempt, handshake, frames, end, wait, attempt.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::super::net::{Io, Target};
use super::super::wait::Shared;
use super::Command;
use super::habits::{Role, Startup};
use super::record::{Disconnect, Record, Seen};

type Socket = WebSocketStream<Io>;

/// How one connection ended.
enum End {
    /// An attempt that its owner hears of.
    Failed(String),
    /// `startup-sidecars`: try again after this, without a word.
    Quietly(Duration),
    /// After `hello-ok`.
    Disconnected(u16, String),
    /// It dropped the socket itself, because of a gap in `seq`.
    Gap,
    /// The test told it to close.
    Told,
}

pub(super) struct Life {
    role: Role,
    target: Target,
    record: Shared<Record>,
    orders: mpsc::UnboundedReceiver<Command>,
}

/// What one connection has come to.
#[derive(Default)]
struct Talk {
    attempt: usize,
    connect_id: Option<String>,
    connects: usize,
    greeted: bool,
    told_to_close: bool,
    seq: u64,
    pending: BTreeSet<String>,
    silence: Option<Duration>,
}

impl Life {
    pub(super) fn new(
        role: Role,
        target: Target,
        record: Shared<Record>,
        orders: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            role,
            target,
            record,
            orders,
        }
    }

    pub(super) async fn run(mut self) {
        let mut retry = 0;
        loop {
            let attempt = self.record.change(|record| {
                record.attempts += 1;
                record.attempts
            });
            let mut talk = Talk {
                attempt,
                ..Talk::default()
            };
            let end = self.connection(&mut talk).await;
            if talk.greeted {
                retry = 0;
            }
            self.note_end(&end, &talk);
            let wait = match end {
                End::Told => return,
                End::Gap => Duration::from_millis(30),
                End::Quietly(after) => after,
                End::Failed(_) | End::Disconnected(..) => {
                    retry += 1;
                    if self
                        .role
                        .backoff
                        .attempts
                        .is_some_and(|attempts| retry > attempts)
                    {
                        return self.record.change(|record| record.gave_up = true);
                    }
                    self.role.backoff.wait(retry)
                }
            };
            if self.idle(Instant::now() + wait).await {
                return;
            }
        }
    }

    fn note_end(&self, end: &End, talk: &Talk) {
        self.record.change(|record| {
            record.connected = false;
            record.lost.extend(talk.pending.iter().cloned());
            match end {
                End::Failed(why) => record.failed.push(why.clone()),
                End::Quietly(_) => record.quiet_retries += 1,
                End::Disconnected(code, reason) => {
                    let (code, reason) = (*code, reason.clone());
                    record.disconnects.push(Disconnect { code, reason });
                }
                End::Gap | End::Told => {}
            }
        });
    }

    /// Waits without a connection; says whether it was told to stop.
    async fn idle(&mut self, until: Instant) -> bool {
        loop {
            let order = tokio::select! {
                () = sleep_until(until) => return false,
                order = self.orders.recv() => order,
            };
            match order {
                Some(Command::Request(id, _)) => self.record.change(|r| r.lost.push(id)),
                Some(Command::Send(_)) => {}
                Some(Command::Close(_)) | None => return true,
            }
        }
    }

    async fn upgrade(&self) -> Result<Socket, String> {
        let mut request = self
            .target
            .ws_url(&self.role.path)
            .into_client_request()
            .unwrap();
        for (name, value) in &self.role.headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let opening = async {
            let io = self
                .target
                .dial()
                .await
                .map_err(|error| format!("dial: {error}"))?;
            let (socket, _) = client_async(request, io)
                .await
                .map_err(|error| match error {
                    Error::Http(answer) => format!("upgrade: HTTP {}", answer.status().as_u16()),
                    other => format!("upgrade: {other}"),
                })?;
            Ok(socket)
        };
        let late = |_| Err("upgrade: Opening handshake has timed out".to_owned());
        timeout(self.role.patience, opening)
            .await
            .unwrap_or_else(late)
    }

    async fn connection(&mut self, talk: &mut Talk) -> End {
        let mut socket = match self.upgrade().await {
            Ok(socket) => socket,
            Err(why) => return End::Failed(why),
        };
        let opened = Instant::now();
        let mut deadline = opened + self.role.patience;
        let mut heard = Instant::now();
        loop {
            let fallback = self.role.challenge_fallback.filter(|_| talk.connects == 0);
            let silence = talk.silence.map(|limit| heard + limit);
            let end = tokio::select! {
                // What has arrived is heard before any patience ends.
                biased;
                message = socket.next() => {
                    heard = Instant::now();
                    let connects = talk.connects;
                    let end = self.message(talk, &mut socket, message).await;
                    if talk.connects > connects {
                        deadline = Instant::now() + self.role.patience;
                    }
                    end
                }
                order = self.orders.recv() => self.order(talk, &mut socket, order).await,
                () = sleep_until(opened + fallback.unwrap_or_default()), if fallback.is_some() => {
                    self.connect(talk, &mut socket, None).await;
                    None
                }
                () = sleep_until(deadline), if !talk.greeted => {
                    let what = if talk.connects == 0 { "connect challenge timeout" }
                        else { "connect timeout" };
                    Some(End::Failed(what.to_owned()))
                }
                () = sleep_until(silence.unwrap_or(heard)), if silence.is_some() => {
                    let _ = close(&mut socket, 4000, "tick timeout").await;
                    Some(End::Disconnected(4000, "tick timeout".to_owned()))
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn order(
        &self,
        talk: &mut Talk,
        socket: &mut Socket,
        order: Option<Command>,
    ) -> Option<End> {
        match order {
            Some(Command::Request(id, _)) if !talk.greeted => {
                self.record.change(|record| record.lost.push(id));
            }
            Some(Command::Request(id, request)) => {
                talk.pending.insert(id);
                let _ = socket.send(Message::text(request)).await;
            }
            Some(Command::Send(message)) => drop(socket.send(message).await),
            Some(Command::Close(code)) => {
                talk.told_to_close = true;
                let _ = close(socket, code, "").await;
            }
            None => return Some(End::Told),
        }
        None
    }

    async fn message(
        &self,
        talk: &mut Talk,
        socket: &mut Socket,
        message: Option<Result<Message, Error>>,
    ) -> Option<End> {
        let (code, reason) = match message {
            Some(Ok(Message::Text(text))) => {
                let value = serde_json::from_str(&text).unwrap_or(Value::Null);
                return self.frame(talk, socket, value).await;
            }
            Some(Ok(Message::Ping(payload))) => {
                self.record
                    .change(|record| record.pings.push(payload.to_vec()));
                return None;
            }
            Some(Ok(Message::Pong(payload))) => {
                self.record
                    .change(|record| record.pongs.push(payload.to_vec()));
                return None;
            }
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => return None,
            Some(Ok(Message::Close(frame))) => {
                let _ = socket.flush().await;
                frame.map_or((1005, String::new()), |f| {
                    (f.code.into(), f.reason.to_string())
                })
            }
            Some(Err(error)) => (1006, error.to_string()),
            None => (1006, "no close frame".to_owned()),
        };
        Some(if talk.told_to_close {
            self.record
                .change(|record| record.close_answer = Some(code));
            End::Told
        } else if talk.greeted {
            End::Disconnected(code, reason)
        } else {
            End::Failed(format!("closed before hello: {code} {reason}"))
        })
    }

    async fn frame(&self, talk: &mut Talk, socket: &mut Socket, value: Value) -> Option<End> {
        self.record.change(|record| {
            let seen = Seen {
                at: Instant::now(),
                attempt: talk.attempt,
                value: value.clone(),
            };
            record.frames.push(seen);
        });
        match value["type"].as_str() {
            Some("event") => self.event(talk, socket, &value).await,
            Some("res") if value["id"].as_str() == talk.connect_id.as_deref() => {
                self.connect_answer(talk, socket, &value).await
            }
            Some("res") => {
                self.answer(talk, &value);
                None
            }
            _ => {
                let violation = format!("unknown frame {value}");
                self.record
                    .change(|record| record.violations.push(violation));
                None
            }
        }
    }

    async fn event(&self, talk: &mut Talk, socket: &mut Socket, value: &Value) -> Option<End> {
        if value["event"] == "connect.challenge" {
            if talk.connects == 0 || self.role.answers_second_challenge {
                self.connect(talk, socket, value["payload"]["nonce"].as_str())
                    .await;
            }
            return None;
        }
        let seq = value["seq"].as_u64()?;
        let expected = talk.seq + 1;
        talk.seq = seq;
        if seq <= expected {
            return None;
        }
        self.record
            .change(|record| record.gaps.push((expected, seq)));
        self.role.reconnects_on_gap.then_some(End::Gap)
    }

    async fn connect(&self, talk: &mut Talk, socket: &mut Socket, nonce: Option<&str>) {
        talk.connects += 1;
        let id = format!("connect-{}-{}", talk.attempt, talk.connects);
        let connect = self.role.connect(&id, nonce);
        talk.connect_id = Some(id);
        let _ = socket.send(Message::text(connect)).await;
    }

    async fn connect_answer(
        &self,
        talk: &mut Talk,
        socket: &mut Socket,
        value: &Value,
    ) -> Option<End> {
        talk.connect_id = None;
        if value["ok"] == true {
            let payload = &value["payload"];
            let tick = payload["policy"]["tickIntervalMs"]
                .as_u64()
                .unwrap_or(30_000);
            talk.silence = Some(Duration::from_millis(2 * tick));
            talk.greeted = true;
            self.record.change(|record| {
                record.connected = true;
                record.hellos.push(payload.clone());
            });
            return None;
        }
        let error = &value["error"];
        let starting = error["details"]["reason"] == "startup-sidecars";
        match self.role.startup {
            Startup::Ignore => None,
            Startup::Retry {
                close: code,
                longest,
            } if starting => {
                let _ = close(socket, code, "gateway starting").await;
                let asked = Duration::from_millis(error["retryAfterMs"].as_u64().unwrap_or(500));
                Some(End::Quietly(
                    asked.clamp(Duration::from_millis(100), longest),
                ))
            }
            Startup::Retry { .. } => {
                let _ = close(socket, 1008, "connect failed").await;
                Some(End::Failed(format!("connect: {error}")))
            }
        }
    }

    fn answer(&self, talk: &mut Talk, value: &Value) {
        let id = value["id"].as_str().unwrap_or_default().to_owned();
        let awaited = talk.pending.remove(&id);
        self.record.change(|record| {
            if !awaited {
                record
                    .violations
                    .push(format!("answer to nothing: {value}"));
            }
            record.answers.entry(id).or_default().push(value.clone());
        });
    }
}

async fn close(socket: &mut Socket, code: u16, reason: &'static str) -> Result<(), Error> {
    socket
        .close(Some(CloseFrame {
            code: code.into(),
            reason: reason.into(),
        }))
        .await
}
