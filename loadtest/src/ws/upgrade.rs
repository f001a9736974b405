//! The client's half of the opening handshake (RFC 6455 section 4.1).

use std::io;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::{Connection, Role};
use crate::http::read_head;
use crate::url::Url;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side said no.
    #[error("upgrade answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The first words of the answer.
        body: String,
    },
    /// A 101 that does not belong to our request.
    #[error("the 101 carries a wrong Sec-WebSocket-Accept")]
    Accept,
}

/// What a server answers to a client's `Sec-WebSocket-Key`.
#[must_use]
pub fn accept_key(key: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finish())
}

/// Upgrades a stream to a WebSocket.
///
/// # Errors
/// When the other side refuses, or the stream fails.
pub async fn client_upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    url: &Url,
    headers: &[(String, String)],
) -> Result<Connection<S>, UpgradeError> {
    let (mut nonce, mut mask) = ([0; 16], [0; 4]);
    rand::fill(&mut nonce)
        .and_then(|()| rand::fill(&mut mask))
        .map_err(io::Error::other)?;
    let key = STANDARD.encode(nonce);
    io.write_all(request(url, headers, &key).as_bytes()).await?;
    io.flush().await?;
    let (head, leftover) = read_head(&mut io).await?;
    match head.status() {
        Some(101) => {}
        status => {
            let length = head.header("content-length").and_then(|l| l.parse().ok());
            let body = refusal_words(io, leftover, length.unwrap_or(0)).await;
            return Err(UpgradeError::Refused {
                status: status.unwrap_or(0),
                body,
            });
        }
    }
    if head.header("sec-websocket-accept") != Some(accept_key(&key).as_str()) {
        return Err(UpgradeError::Accept);
    }
    Ok(Connection::new(io, Role::Client(mask), &leftover))
}

fn request(url: &Url, headers: &[(String, String)], key: &str) -> String {
    let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut text = format!("GET {} HTTP/1.1\r\n", url.path);
    if !given("host") {
        text.push_str(&format!("Host: {}\r\n", url.authority()));
    }
    text.push_str("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n");
    text.push_str(&format!("Sec-WebSocket-Key: {key}\r\n"));
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

/// The first words of a refusal, for a message; a body that does not come is no error.
async fn refusal_words<S: AsyncRead + Unpin>(io: S, mut body: Vec<u8>, length: u64) -> String {
    let missing = length.min(200).saturating_sub(body.len() as u64);
    let _ = io.take(missing).read_to_end(&mut body).await;
    String::from_utf8_lossy(&body)
        .trim()
        .chars()
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_the_one_of_the_rfc() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_given_host_replaces_ours() {
        let url: Url = "ws://127.0.0.1:1/x".parse().unwrap();
        let own = request(&url, &[("Host".into(), "a.example".into())], "k");
        assert_eq!(own.matches("Host:").count(), 1);
        assert!(own.starts_with("GET /x HTTP/1.1\r\n") && own.ends_with("\r\n\r\n"));
    }
}
