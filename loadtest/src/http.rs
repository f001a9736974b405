//! As much HTTP/1.1 as upgrades and probes need: read a head, look at it, ask for a path.
//! Not a client library: plain HTTP, one request per connection, bodies bounded.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::url::Url;

const MAX_HEAD: usize = 32 * 1024;
const MAX_BODY: u64 = 1024 * 1024;

/// The start line and headers of a request or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line.
    pub start: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Splits a head into its lines.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { start, headers }
    }

    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The status of an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.start.split(' ').nth(1)?.parse().ok()
    }

    /// The path of a request, without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        let target = self.start.split(' ').nth(1).unwrap_or("/");
        target.split('?').next().unwrap_or("/")
    }
}

/// Reads up to the empty line; returns the head and the bytes behind it.
///
/// # Errors
/// When the stream ends or fails first, or the head is too long.
pub async fn read_head<S: AsyncRead + Unpin>(io: &mut S) -> io::Result<(Head, Vec<u8>)> {
    let mut buf = Vec::with_capacity(1024);
    loop {
        if let Some(at) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            let leftover = buf.split_off(at + 4);
            buf.truncate(at);
            return Ok((Head::parse(&String::from_utf8_lossy(&buf)), leftover));
        }
        if buf.len() > MAX_HEAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "HTTP head too long",
            ));
        }
        if io.read_buf(&mut buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Asks for a path over plain HTTP: status and body.
///
/// # Errors
/// When nobody answers within `patience`.
pub async fn get(url: &Url, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
    timeout(patience, get_unbounded(url)).await?
}

async fn get_unbounded(url: &Url) -> io::Result<(u16, Vec<u8>)> {
    let mut io = TcpStream::connect(url.authority()).await?;
    let (path, host) = (&url.path, url.authority());
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    let (head, mut body) = read_head(&mut io).await?;
    let status = head.status();
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no status"))?;
    io.take(MAX_BODY).read_to_end(&mut body).await?;
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_ends_at_the_empty_line() {
        let mut wire: &[u8] =
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nX-A:  b \r\n\r\nrest";
        let (head, leftover) = read_head(&mut wire).await.unwrap();
        assert_eq!((head.status(), head.header("x-a")), (Some(101), Some("b")));
        assert_eq!(leftover, b"rest");
    }

    #[tokio::test]
    async fn a_cut_head_is_an_error() {
        let mut wire: &[u8] = b"HTTP/1.1 200 OK\r\nx";
        assert!(read_head(&mut wire).await.is_err());
    }

    #[test]
    fn the_path_loses_its_query() {
        assert_eq!(
            Head::parse("GET /startupz?x=1 HTTP/1.1").path(),
            "/startupz"
        );
        assert_eq!(Head::parse("").path(), "/");
    }
}
