//! A WebSocket client down to the byte: sends what no library would send, sees every frame as it
//! came.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::client::{Role, request};
use super::frame::{CLOSE, Decoder, Frame, PING};
use super::http::Response;
use super::net::{Io, Target};
use super::wait::within;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An open WebSocket.
pub struct Raw {
    io: Io,
    decoder: Decoder,
    /// What the upgrade was answered with.
    pub upgrade: Response,
}

/// How a byte stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An orderly end of the stream (FIN, TLS close_notify, or the end of an h2 stream).
    Eof,
    /// Anything else: a reset, or TLS without close_notify.
    Error(std::io::ErrorKind),
}

impl Raw {
    /// Upgrades with these headers besides the necessary ones; `Err` is the refusal.
    pub async fn open(
        target: &Target,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Response> {
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n",
            target.host
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        Self::open_with(target, &(request + "\r\n")).await
    }

    /// Upgrades with exactly this request.
    pub async fn open_with(target: &Target, request: &str) -> Result<Self, Response> {
        let mut io = target.dial().await.expect("dial");
        io.write_all(request.as_bytes())
            .await
            .expect("write the upgrade request");
        let mut buffer = BytesMut::new();
        let mut answer = within(
            "an answer to the upgrade",
            Response::head(&mut io, &mut buffer),
        )
        .await
        .expect("a complete response head");
        if answer.status != 101 {
            let body = within("the refusal's body", answer.read_body(&mut io, &mut buffer)).await;
            answer.body = body.expect("a complete body");
            return Err(answer);
        }
        assert_eq!(
            answer.header("sec-websocket-accept"),
            Some(&*derive_accept_key(KEY.as_bytes()))
        );
        Ok(Self {
            io,
            decoder: Decoder::new(buffer),
            upgrade: answer,
        })
    }

    /// Over a stream that is already a WebSocket.
    pub fn over(io: Io, upgrade: Response) -> Self {
        Self {
            io,
            decoder: Decoder::default(),
            upgrade,
        }
    }

    /// Upgrades and shakes hands as this role; gives `hello-ok` too.
    pub async fn connected(target: &Target, role: &Role) -> (Self, serde_json::Value) {
        let headers: Vec<_> = role
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let mut raw = Self::open(target, &role.path, &headers)
            .await
            .expect("upgraded");
        let hello = raw.handshake(role).await;
        (raw, hello)
    }

    /// Waits for the challenge and answers it; gives the answer to `connect`.
    pub async fn handshake(&mut self, role: &Role) -> serde_json::Value {
        let challenge = self.next().await.json();
        assert_eq!(challenge["event"], "connect.challenge");
        let nonce = challenge["payload"]["nonce"].as_str();
        self.send(&Frame::text(role.connect("connect", nonce)))
            .await;
        self.next().await.json()
    }

    /// Sends a frame, masked.
    pub async fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.encode_masked(MASK)).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("write");
        self.io.flush().await.expect("flush");
    }

    /// Writes as much as is taken now; waits until something is.
    pub async fn write_some(&mut self, bytes: &[u8]) -> usize {
        self.io.write(bytes).await.expect("write")
    }

    /// The two directions apart.
    pub fn split(self) -> (Self, Sender) {
        let (reader, writer) = tokio::io::split(self.io);
        let io: Io = Box::new(tokio::io::join(reader, tokio::io::sink()));
        (Self { io, ..self }, Sender(writer))
    }

    /// Sends a request of the openclaw protocol.
    pub async fn request(&mut self, id: &str, method: &str, params: serde_json::Value) {
        self.send(&Frame::text(request(id, method, &params))).await;
    }

    /// Ends our direction only.
    pub async fn shutdown(&mut self) {
        let _ = self.io.shutdown().await;
    }

    /// The next frame; panics at the end of the stream.
    pub async fn next(&mut self) -> Frame {
        self.frame()
            .await
            .unwrap_or_else(|end| panic!("{end:?} in place of a frame"))
    }

    /// The next frame that is not a ping.
    pub async fn next_but_pings(&mut self) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.opcode != PING {
                return frame;
            }
        }
    }

    /// The next frame or the end of the stream.
    pub async fn frame(&mut self) -> Result<Frame, End> {
        within("a frame", self.frame_unhurried()).await
    }

    /// The same without a deadline; cancel-safe.
    pub async fn frame_unhurried(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.decoder.next_frame() {
                return Ok(frame);
            }
            self.decoder.buffer.reserve(16 * 1024);
            match self.io.read_buf(&mut self.decoder.buffer).await {
                Ok(0) => return Err(End::Eof),
                Ok(_) => {}
                Err(error) => return Err(End::Error(error.kind())),
            }
        }
    }

    /// Skips frames until one satisfies `wanted`; gives those before it and it.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut seen = Vec::new();
        let deadline = tokio::time::Instant::now() + super::wait::DEADLINE;
        loop {
            match tokio::time::timeout_at(deadline, self.frame_unhurried()).await {
                Ok(Ok(frame)) => seen.push(frame),
                Ok(Err(end)) => panic!("{end:?} before {what}; saw {seen:?}"),
                Err(_) => panic!("no {what}; saw {seen:?}"),
            }
            if wanted(&seen[seen.len() - 1]) {
                return seen;
            }
        }
    }

    /// Waits for an event of this name; gives its payload.
    pub async fn event(&mut self, name: &str) -> serde_json::Value {
        let frames = self
            .until(name, |frame| frame.json()["event"] == name)
            .await;
        frames[frames.len() - 1].json()["payload"].take()
    }

    /// Waits for the answer to a request; gives the whole frame.
    pub async fn answer(&mut self, id: &str) -> serde_json::Value {
        let frames = self.until(id, |frame| frame.json()["id"] == id).await;
        frames[frames.len() - 1].json()
    }

    /// Skips frames until the close frame; gives its code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        let frames = self.until("close", |frame| frame.opcode == CLOSE).await;
        let close = &frames[frames.len() - 1];
        (
            close.close_code().expect("a close frame"),
            close.close_reason(),
        )
    }

    /// Skips everything until the end of the stream; gives the frames and how it ended.
    pub async fn end(&mut self) -> (Vec<Frame>, End) {
        let mut seen = Vec::new();
        loop {
            match self.frame().await {
                Ok(frame) => seen.push(frame),
                Err(end) => return (seen, end),
            }
        }
    }

    /// Whether bytes of an incomplete frame have arrived.
    /// Reads until this many bytes of an unfinished frame are here.
    pub async fn partial_frame_of(&mut self, bytes: usize) {
        within("the beginning of a frame", async {
            while self.decoder.buffer.len() < bytes {
                self.decoder.buffer.reserve(16 * 1024);
                let read = self.io.read_buf(&mut self.decoder.buffer).await;
                assert!(read.expect("readable") > 0, "ended too early");
            }
        })
        .await;
    }

    pub fn has_partial_frame(&self) -> bool {
        !self.decoder.buffer.is_empty()
    }
}

/// The sending half of a [`Raw`].
pub struct Sender(tokio::io::WriteHalf<Io>);

impl Sender {
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("write");
        self.0.flush().await.expect("flush");
    }
}
