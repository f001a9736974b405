//! A plain HTTP/1.1 client, down to the byte.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::net::{Io, Target};
use super::wait::within;

/// A response; header names in lower case.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this (lower case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(seen, _)| seen == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Reads a response head, skipping interim ones.
    pub async fn head(io: &mut Io, buffer: &mut BytesMut) -> io::Result<Self> {
        loop {
            let end = loop {
                if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end;
                }
                more(io, buffer).await?;
            };
            let head = buffer.split_to(end + 4);
            let response = Self::parse(&String::from_utf8_lossy(&head[..end]))
                .ok_or_else(|| io::Error::other("not a response head"))?;
            if response.status >= 200 || response.status == 101 {
                return Ok(response);
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let status = lines
            .next()?
            .strip_prefix("HTTP/1.")?
            .split(' ')
            .nth(1)?
            .parse()
            .ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self {
            status,
            headers,
            body: Vec::new(),
        })
    }

    /// Reads the body that belongs to this head.
    pub async fn read_body(&self, io: &mut Io, buffer: &mut BytesMut) -> io::Result<Vec<u8>> {
        if let Some(length) = self.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            while buffer.len() < length {
                more(io, buffer).await?;
            }
            return Ok(buffer.split_to(length).to_vec());
        }
        let mut body = Vec::new();
        if self.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = next_chunk(io, buffer).await? {
                body.extend(chunk);
            }
            return Ok(body);
        }
        while more(io, buffer).await.is_ok() {}
        Ok(buffer.split().to_vec())
    }
}

/// The next chunk of a chunked body; `None` at its end.
async fn next_chunk(io: &mut Io, buffer: &mut BytesMut) -> io::Result<Option<Vec<u8>>> {
    let end = loop {
        if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
            break end;
        }
        more(io, buffer).await?;
    };
    let size = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
    while buffer.len() < end + 2 + size + 2 {
        more(io, buffer).await?;
    }
    buffer.advance(end + 2);
    let chunk = buffer.split_to(size).to_vec();
    buffer.advance(2);
    Ok((size > 0).then_some(chunk))
}

async fn more(io: &mut Io, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(16 * 1024);
    match io.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// A connection that requests are sent on one after the other.
pub struct Connection {
    target: Target,
    io: Io,
    buffer: BytesMut,
}

impl Connection {
    pub async fn open(target: &Target) -> Self {
        let io = target.dial().await.expect("dial");
        Self {
            target: target.clone(),
            io,
            buffer: BytesMut::new(),
        }
    }

    /// Sends these bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("write");
        self.io.flush().await.expect("flush");
    }

    /// Sends a request with this body.
    pub async fn start(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.target.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let mut request = (head + "\r\n").into_bytes();
        request.extend_from_slice(body);
        self.send(&request).await;
    }

    /// The next response's head; its body is read with [`Self::chunk`].
    pub async fn response_head(&mut self) -> Response {
        self.try_response_head().await.expect("a response head")
    }

    pub async fn try_response_head(&mut self) -> io::Result<Response> {
        within(
            "a response head",
            Response::head(&mut self.io, &mut self.buffer),
        )
        .await
    }

    /// The next chunk of a chunked body.
    pub async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        within("a chunk", next_chunk(&mut self.io, &mut self.buffer)).await
    }

    /// The next response with its body.
    pub async fn response(&mut self) -> Response {
        let mut response = self.response_head().await;
        let body = response.read_body(&mut self.io, &mut self.buffer);
        response.body = within("a response body", body)
            .await
            .expect("a complete body");
        response
    }
}

/// One request on a connection of its own.
pub async fn request(
    target: &Target,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut connection = Connection::open(target).await;
    connection.start(method, path, headers, body).await;
    connection.response().await
}

pub async fn get(target: &Target, path: &str, headers: &[(&str, &str)]) -> Response {
    request(target, "GET", path, headers, b"").await
}

/// Sends these bytes on a connection of their own; gives the response to them.
pub async fn send_bytes(target: &Target, bytes: &[u8]) -> io::Result<Response> {
    let mut connection = Connection::open(target).await;
    connection.send(bytes).await;
    connection.try_response_head().await
}
