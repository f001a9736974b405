//! Asking a running holdline on its admin listener.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest answer that is read.
const LARGEST: u64 = 4 << 20;
/// To connect, and to be rid of the question.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("admin.listen is \"off\" in this config: send it a signal instead")]
    Off,
    #[error("admin.listen has port 0 in this config: say which one it got with --admin")]
    AnyPort,
    #[error("no holdline answers on {address} (admin.listen): {source}")]
    Silent {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "what answers on {address} (admin.listen) is no holdline, or one that does not know it"
    )]
    Strange { address: SocketAddr },
    #[error("{0}")]
    Refused(String),
}

/// Gives a command and waits for its outcome.
pub(crate) fn command(
    listen: Option<SocketAddr>,
    path: &str,
    limit: Duration,
) -> Result<Value, NoAnswer> {
    let address = reachable(listen.ok_or(NoAnswer::Off)?);
    if address.port() == 0 {
        return Err(NoAnswer::AnyPort);
    }
    let answer =
        post(address, path, limit).map_err(|source| NoAnswer::Silent { address, source })?;
    let (status, body) = parse(&answer).ok_or(NoAnswer::Strange { address })?;
    let value = serde_json::from_str::<Value>(body).ok();
    match (status, value) {
        (200..300, Some(value)) => Ok(value),
        (_, Some(value)) => match value.get("error").and_then(Value::as_str) {
            Some(error) => Err(NoAnswer::Refused(error.to_owned())),
            None => Err(NoAnswer::Strange { address }),
        },
        (404, None) => Err(NoAnswer::Strange { address }),
        (_, None) => Err(NoAnswer::Refused(body.trim().to_owned())),
    }
}

/// A listener of every address is reached on this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn post(address: SocketAddr, path: &str, limit: Duration) -> io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(limit))?;
    let question = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(question.as_bytes())?;
    let mut answer = String::new();
    socket.take(LARGEST).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Status and body; our own answers are never chunked.
fn parse(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    words
        .next()
        .filter(|version| version.starts_with("HTTP/1."))?;
    Some((words.next()?.parse().ok()?, body))
}
