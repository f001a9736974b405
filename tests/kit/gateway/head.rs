//! HTTP/1.1 request heads and bodies, read byte by byte as they are on the wire.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::net::TcpStream;

/// A request head as it arrived: header names in lower case, order kept.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of this (lower case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(seen, _)| seen == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn wants_websocket(&self) -> bool {
        self.header("upgrade")
            .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut request = lines.next()?.split(' ');
        let (method, path) = (request.next()?.to_owned(), request.next()?.to_owned());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self {
            method,
            path,
            headers,
        })
    }
}

/// Reads some bytes; cancel-safe. 0 is the end.
pub async fn read_some(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    buffer.reserve(16 * 1024);
    loop {
        stream.readable().await?;
        match stream.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Writes everything; on cancellation an unknown part has been written.
pub async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(written) => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// The next request head; `None` at the end of the connection.
pub async fn read_head(stream: &TcpStream, buffer: &mut BytesMut) -> Option<Head> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            return Head::parse(std::str::from_utf8(&head[..end]).ok()?);
        }
        if read_some(stream, buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// The body that belongs to `head`; `None` when the connection ends inside it.
pub async fn read_body(stream: &TcpStream, buffer: &mut BytesMut, head: &Head) -> Option<Vec<u8>> {
    if head
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    {
        write_all(stream, b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .ok()?;
    }
    if head
        .header("transfer-encoding")
        .is_some_and(|value| value.contains("chunked"))
    {
        return read_chunks(stream, buffer).await;
    }
    let length = head
        .header("content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    fill(stream, buffer, length).await?;
    Some(buffer.split_to(length).to_vec())
}

async fn read_chunks(stream: &TcpStream, buffer: &mut BytesMut) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = find(buffer, b"\r\n") {
                break end;
            }
            fill(stream, buffer, buffer.len() + 1).await?;
        };
        let size = usize::from_str_radix(std::str::from_utf8(&buffer[..end]).ok()?, 16).ok()?;
        fill(stream, buffer, end + 2 + size + 2).await?;
        buffer.advance(end + 2);
        body.extend_from_slice(&buffer.split_to(size));
        buffer.advance(2);
        if size == 0 {
            return Some(body);
        }
    }
}

async fn fill(stream: &TcpStream, buffer: &mut BytesMut, length: usize) -> Option<()> {
    while buffer.len() < length {
        if read_some(stream, buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
