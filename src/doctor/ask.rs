//! Questions over any stream: one GET, or one WebSocket up to its first message.
//!
//! Everything is bounded by a limit and by a size. What is asked leaves nothing behind.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::task::AbortOnDropHandle;

use crate::ws::cutter::{Cutter, PieceKind, Sender};
use crate::ws::frame::{Opcode, write_client_frame};
use crate::ws::handshake::ClientKey;

/// Answers that are looked at are short; of a page only its status counts.
const BODY: usize = 64 * 1024;
/// The challenge is some hundred bytes.
const FRAME: usize = 64 * 1024;
/// 1000 (RFC 6455, 7.4.1): nothing is wrong, we have seen enough.
const NORMAL_CLOSE: [u8; 2] = [0x03, 0xe8];

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AskError {
    #[error("no answer within {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("the connection broke off: {0}")]
    Broken(String),
}

/// A socket that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opened {
    /// Answered with this instead of a 101, and with these words.
    Refused(StatusCode, String),
    /// A WebSocket, and its first message if one was waited for.
    Open(Option<Bytes>),
}

/// What is asked for, and how it is dressed.
#[derive(Debug, Clone, Default)]
pub(super) struct Question {
    pub(super) path: String,
    pub(super) host: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Question {
    pub(super) fn new(host: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            host: host.into(),
            headers: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn request(&self) -> http::request::Builder {
        let mut request = Request::get(&self.path)
            .header(header::HOST, &self.host)
            .header(
                header::USER_AGENT,
                concat!("holdline-doctor/", env!("CARGO_PKG_VERSION")),
            );
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request
    }
}

/// A stream of any kind, TLS or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// GETs.
pub(super) async fn get(
    stream: impl Stream,
    question: &Question,
    limit: Duration,
) -> Result<Response<Bytes>, AskError> {
    within(limit, async {
        let request = question.request().header(header::CONNECTION, "close");
        let request = request.body(Empty::<Bytes>::new()).map_err(broken)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let answer = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let body = read(body).await;
        Ok(Response::from_parts(head, body))
    })
    .await
}

/// Asks for a WebSocket; with `speaks` waits for its first message as well.
pub(super) async fn open(
    stream: impl Stream,
    question: &Question,
    speaks: bool,
    limit: Duration,
) -> Result<Opened, AskError> {
    within(limit, async {
        let key = ClientKey::random();
        let request = question
            .request()
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key.as_str())
            .body(Empty::<Bytes>::new())
            .map_err(broken)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
        let mut answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let body = read(answer.into_body()).await;
            return Ok(Opened::Refused(status, words(&body)));
        }
        let accept = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != key.accept().as_bytes()) {
            return Err(broken("its 101 does not match the request"));
        }
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(broken)?;
        let mut socket = TokioIo::new(upgraded);
        let first = match speaks {
            true => Some(first_message(&mut socket).await?),
            false => None,
        };
        let mut close = Vec::new();
        write_client_frame(Opcode::Close, &NORMAL_CLOSE, &mut close);
        // It may be gone already, and then nothing is owed to it.
        let _ = socket.write_all(&close).await;
        let _ = socket.flush().await;
        Ok(Opened::Open(first))
    })
    .await
}

async fn first_message(socket: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, AskError> {
    let mut cutter = Cutter::new(Sender::Server, FRAME as u64, false);
    cutter.set_whole(FRAME);
    let mut bytes = BytesMut::new();
    loop {
        while let Some(piece) = cutter.next(&bytes).map_err(broken)? {
            let frame = bytes.split_to(piece.length.min(bytes.len())).freeze();
            let PieceKind::Whole(header) = piece.kind else {
                return Err(broken("a frame without end"));
            };
            match header.opcode {
                Opcode::Close => return Err(broken("it was closed before its first message")),
                opcode if opcode.is_control() => {}
                _ => return Ok(frame.slice(header.length.min(frame.len())..)),
            }
        }
        if socket.read_buf(&mut bytes).await.map_err(broken)? == 0 {
            return Err(broken("it ended before its first message"));
        }
    }
}

async fn read(body: hyper::body::Incoming) -> Bytes {
    let body = Limited::new(body, BODY).collect().await;
    body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes)
}

/// The first words of an answer, for people.
pub(super) fn words(body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = said.as_ref().and_then(|said| {
        let error = said.get("error")?;
        let text = |key: &str| error.get(key).and_then(serde_json::Value::as_str);
        text("message")
            .or_else(|| text("type"))
            .or_else(|| error.as_str())
    });
    let text = match message {
        Some(message) => message.to_owned(),
        // A page says nothing in its first words.
        None if body.trim_ascii_start().starts_with(b"<") => String::new(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(printable).take(160).collect()
}

async fn within<T>(
    limit: Duration,
    ask: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    tokio::time::timeout(limit, ask)
        .await
        .unwrap_or(Err(AskError::TooSlow(limit)))
}

fn broken(error: impl std::fmt::Display) -> AskError {
    AskError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_in_a_few_words() {
        let cases = [
            (r#"{"error":{"type":"x","message":"not here"}}"#, "not here"),
            (
                r#"{"error":{"type":"proxy_attribution_required"}}"#,
                "proxy_attribution_required",
            ),
            (r#"{"error":"short"}"#, "short"),
            ("<!doctype html><p>Hello", ""),
            ("  a\x1b[2J\n", "a [2J"),
        ];
        for (body, expected) in cases {
            assert_eq!(words(body.as_bytes()), expected);
        }
        assert_eq!(words("x".repeat(5000).as_bytes()).len(), 160);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_without_end() {
        let limit = Duration::from_secs(3);
        let question = Question::new("gateway", "/health");
        let (here, _there) = tokio::io::duplex(1024);
        assert_eq!(
            get(here, &question, limit).await.unwrap_err(),
            AskError::TooSlow(limit)
        );
        let (here, there) = tokio::io::duplex(1024);
        drop(there);
        let gone = open(here, &question, true, limit).await.unwrap_err();
        assert!(matches!(gone, AskError::Broken(_)), "{gone}");
    }
}
