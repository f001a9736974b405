//! One question to a gateway: a GET, or a WebSocket with one `connect` as the Control UI says it.
//!
//! On connections of their own, each within a limit; nothing is kept.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::device;
use super::wanted::SCOPES;
use crate::config::Upstream;
use crate::gateway::{UpgradeError, upgrade};
use crate::ws::cutter::{Cutter, PieceKind, Sender};
use crate::ws::frame::{Opcode, write_client_frame};
use crate::ws::handshake::ClientKey;

pub(super) const CLIENT: &str = "openclaw-control-ui";
pub(super) const MODE: &str = "webchat";
pub(super) const ROLE: &str = "operator";
const PLATFORM: &str = "linux";
const CONNECT_ID: &str = "holdline-gateway-config";

/// The client that we speak for: nobody's address (RFC 5737), for no loopback one would be taken.
/// Not one that holdline presents others by: the gateway counts failed sign-ins per address.
const NOBODY: &str = "198.51.100.1";
/// A gateway that starts may stall for seconds.
const LIMIT: Duration = Duration::from_secs(10);
const BODY: usize = 64 * 1024;
/// hello-ok is some 17 kB.
const FRAME: u64 = 4 << 20;

/// How a question is dressed up.
#[derive(Debug, Clone, Default)]
pub(super) struct As<'a> {
    /// On behalf of a client: with forwarding headers, for this host.
    pub(super) host: Option<&'a str>,
    /// Without this one of them.
    pub(super) but: Option<&'a str>,
    /// As somebody who signed in: header and name.
    pub(super) user: Option<(&'a str, &'a str)>,
    /// From a page of this origin.
    pub(super) origin: Option<&'a str>,
    /// With the signature of a device that nobody knows.
    pub(super) device: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no answer within {} s", LIMIT.as_secs())]
    TooSlow,
    #[error("the exchange broke off: {0}")]
    Broken(Box<str>),
}

/// What a `connect` came to.
#[derive(Debug)]
pub(super) enum Connected {
    /// The upgrade was refused.
    Refused(Box<Response<Bytes>>),
    /// hello-ok; its payload.
    Hello(Value),
    /// An error; as it stands in the answer.
    Error(Value),
}

/// GETs a path; also says from which address it was reached.
pub(super) async fn get(
    upstream: &Upstream,
    path: &str,
    dressed: &As<'_>,
) -> Result<(Response<Bytes>, SocketAddr), AskError> {
    limited(async {
        let stream = dial(upstream).await?;
        let from = stream.local_addr().map_err(AskError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = dress(upstream, path, dressed).header(header::CONNECTION, "close");
        let request = request.body(Empty::<Bytes>::new()).map_err(broken)?;
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        // The Control UI's page may be longer; nobody reads it here.
        let body = Limited::new(body, BODY).collect().await;
        let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
        Ok((Response::from_parts(head, body), from))
    })
    .await
}

/// Opens a WebSocket, takes the challenge, says `connect` and reads the answer.
pub(super) async fn connect(upstream: &Upstream, dressed: &As<'_>) -> Result<Connected, AskError> {
    limited(async { Ok(open(upstream, dressed).await?.0) }).await
}

/// The same, and then one request that only reads; `Err` inside: the error of either answer.
pub(super) async fn request(
    upstream: &Upstream,
    dressed: &As<'_>,
    method: &str,
) -> Result<Result<Value, Value>, AskError> {
    limited(async {
        let (error, talk) = match open(upstream, dressed).await? {
            (Connected::Error(error), talk) => (error, talk),
            (Connected::Hello(_) | Connected::Refused(_), talk) => (Value::Null, talk),
        };
        let Some(mut talk) = talk.filter(|_| error.is_null()) else {
            return Ok(Err(error));
        };
        let id = "holdline-asks";
        talk.say(&json!({"type": "req", "id": id, "method": method, "params": {}}))
            .await?;
        talk.answer(id).await
    })
    .await
}

/// No more to talk on where the upgrade was refused.
async fn open(
    upstream: &Upstream,
    dressed: &As<'_>,
) -> Result<(Connected, Option<Talk>), AskError> {
    let stream = dial(upstream).await?;
    let key = ClientKey::random();
    let request = dress(upstream, "/", dressed)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key.as_str())
        .body(Empty::new())
        .map_err(broken)?;
    let socket = match upgrade(stream, request, &key.accept()).await {
        Ok(socket) => socket,
        Err(UpgradeError::Refused(response)) => return Ok((Connected::Refused(response), None)),
        Err(error) => return Err(broken(error)),
    };
    let mut talk = Talk::new(socket.stream, &socket.leftover);
    let challenge = talk
        .message(|message| has(message, "event", "connect.challenge"))
        .await?;
    let device = challenge.get("payload").filter(|_| dressed.device);
    talk.say(&connect_request(device)).await?;
    let connected = match talk.answer(CONNECT_ID).await? {
        Ok(hello) => Connected::Hello(hello),
        Err(error) => Connected::Error(error),
    };
    Ok((connected, Some(talk)))
}

async fn limited<T>(ask: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
    tokio::time::timeout(LIMIT, ask)
        .await
        .unwrap_or(Err(AskError::TooSlow))
}

async fn dial(upstream: &Upstream) -> Result<TcpStream, AskError> {
    TcpStream::connect((upstream.host.as_str(), upstream.port))
        .await
        .map_err(AskError::Connect)
}

fn broken(error: impl std::fmt::Display) -> AskError {
    AskError::Broken(error.to_string().into())
}

fn dress(upstream: &Upstream, path: &str, dressed: &As<'_>) -> http::request::Builder {
    let mut request = Request::get(path)
        // Not the client's host: a page of the gateway's own would have to be of its very build.
        .header(header::HOST, upstream.authority())
        .header(
            header::USER_AGENT,
            concat!("holdline/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(host) = dressed.host {
        let forwarded = [
            ("x-forwarded-for", NOBODY),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", host),
        ];
        for (name, value) in forwarded {
            if dressed.but != Some(name) {
                request = request.header(name, value);
            }
        }
    }
    if let Some((name, user)) = dressed.user {
        request = request.header(name, user);
    }
    if let Some(origin) = dressed.origin {
        request = request.header(header::ORIGIN, origin);
    }
    request
}

fn connect_request(challenge: Option<&Value>) -> Value {
    let mut params = json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": {
            "id": CLIENT, "version": env!("CARGO_PKG_VERSION"), "platform": PLATFORM, "mode": MODE,
        },
        "role": ROLE, "scopes": SCOPES, "caps": [],
    });
    let device = challenge.and_then(|challenge| device::signed(challenge, &SCOPES, PLATFORM));
    if let (Some(device), Some(params)) = (device, params.as_object_mut()) {
        params.insert("device".to_owned(), device);
    }
    json!({"type": "req", "id": CONNECT_ID, "method": "connect", "params": params})
}

fn has(message: &Value, key: &str, value: &str) -> bool {
    message.get(key).is_some_and(|found| found == value)
}

/// Messages over an upgraded socket.
struct Talk {
    stream: TcpStream,
    bytes: BytesMut,
    cutter: Cutter,
    message: Vec<u8>,
}

impl Talk {
    fn new(stream: TcpStream, leftover: &[u8]) -> Self {
        let mut cutter = Cutter::new(Sender::Server, FRAME, false);
        cutter.set_whole(usize::try_from(FRAME).unwrap_or(usize::MAX));
        Self {
            stream,
            bytes: BytesMut::from(leftover),
            cutter,
            message: Vec::new(),
        }
    }

    async fn say(&mut self, message: &Value) -> Result<(), AskError> {
        let mut frame = Vec::new();
        write_client_frame(Opcode::Text, message.to_string().as_bytes(), &mut frame);
        self.stream.write_all(&frame).await.map_err(broken)
    }

    /// The answer to the request with this id: its payload, or its error.
    async fn answer(&mut self, id: &str) -> Result<Result<Value, Value>, AskError> {
        let answers = |message: &Value| has(message, "type", "res") && has(message, "id", id);
        let mut answer = self.message(answers).await?;
        let ok = answer.get("ok").is_some_and(|ok| *ok == true);
        let what = if ok { "payload" } else { "error" };
        let what = answer.get_mut(what).map(Value::take).unwrap_or_default();
        Ok(if ok { Ok(what) } else { Err(what) })
    }

    /// The next message that is wanted; others are passed over.
    async fn message(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value, AskError> {
        loop {
            while let Some(piece) = self.cutter.next(&self.bytes).map_err(broken)? {
                let frame = self.bytes.split_to(piece.length.min(self.bytes.len()));
                let PieceKind::Whole(header) = piece.kind else {
                    return Err(broken("a frame without end"));
                };
                let mut payload = frame.freeze();
                payload.advance(header.length.min(payload.len()));
                if header.opcode == Opcode::Close {
                    return Err(broken("closed before an answer"));
                }
                if header.opcode.is_control() {
                    continue;
                }
                self.message.extend_from_slice(&payload);
                if self.message.len() as u64 > FRAME {
                    return Err(broken("a message without end"));
                }
                if header.fin {
                    let message = std::mem::take(&mut self.message);
                    let message = serde_json::from_slice(&message).map_err(broken)?;
                    if wanted(&message) {
                        return Ok(message);
                    }
                }
            }
            if self
                .stream
                .read_buf(&mut self.bytes)
                .await
                .map_err(broken)?
                == 0
            {
                return Err(broken("ended before an answer"));
            }
        }
    }
}
