//! The answer to a client that speaks plain HTTP on a port that speaks TLS.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest request head that is read before the answer.
const MOST: usize = 16 * 1024;

const ANSWER: &str = "HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 71\r\n\
    Cache-Control: no-store\r\n\
    Connection: close\r\n\
    \r\n\
    This port speaks TLS: use https:// (or wss://) instead of http:// here\n";

/// Answers and closes. The request is read first: closing over unread bytes would be a reset that
/// can overtake the answer. The caller limits the time.
pub(super) async fn answer(mut socket: TcpStream) -> io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    while !ends(&head) && head.len() < MOST {
        if socket.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    socket.write_all(ANSWER.as_bytes()).await?;
    socket.shutdown().await?;
    let mut left = MOST;
    while left > 0 {
        head.clear();
        match socket.read_buf(&mut head).await? {
            0 => break,
            n => left = left.saturating_sub(n),
        }
    }
    Ok(())
}

fn ends(head: &[u8]) -> bool {
    head.windows(4).any(|four| four == b"\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let (head, body) = ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }
}
