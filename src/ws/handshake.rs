//! The opening handshake (RFC 6455, 4; RFC 8441, 5): what a client asks, and the answer's proof.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, Method, Request, Version, header};

/// Why an upgrade request is not one that we can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A WebSocket opens with GET.
    #[error("a WebSocket upgrade must be a GET")]
    Method,
    /// HTTP/1.0 and older cannot upgrade.
    #[error("a WebSocket upgrade needs HTTP/1.1")]
    HttpVersion,
    /// No or another `Sec-WebSocket-Version`; the only one is 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// No key, two keys, or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64, once")]
    Key,
    /// `Upgrade` without `Connection: upgrade`.
    #[error("an upgrade needs Connection: Upgrade")]
    Connection,
    /// A body where none can be.
    #[error("a WebSocket upgrade has no body")]
    Body,
}

/// A `Sec-WebSocket-Key`: 16 random bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey(String);

impl ClientKey {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0u8; 16];
        // Only proves that the answer is meant for this request; not a secret (RFC 6455, 10.3).
        let _ = rand::fill(&mut bytes);
        Self(STANDARD.encode(bytes))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim();
        (STANDARD.decode(text).ok()?.len() == 16).then(|| Self(text.to_owned()))
    }

    /// As it stands in the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `Sec-WebSocket-Accept` that proves that it was understood.
    #[must_use]
    pub fn accept(&self) -> String {
        const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(self.0.as_bytes());
        context.update(GUID);
        STANDARD.encode(context.finish())
    }
}

/// A request for a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// HTTP/1.1 upgrade with the client's key.
    Upgrade(ClientKey),
    /// HTTP/2 extended CONNECT: needs no key, and the answer is 200. Node.js (undici in 26) sends
    /// one all the same and fails without its proof.
    ExtendedConnect(Option<ClientKey>),
}

/// Whether `request` asks for a WebSocket, rightly or not. Anything else is plain HTTP.
#[must_use]
pub fn wants_websocket<B>(request: &Request<B>) -> bool {
    is_extended_connect(request)
        || (request.version() <= Version::HTTP_11
            && names_token(request.headers(), header::UPGRADE, "websocket"))
}

/// Checks a request for which [`wants_websocket`] holds.
///
/// # Errors
/// Says which rule is broken; 426 for [`HandshakeError::Version`], 400 for the others.
pub fn opening<B>(request: &Request<B>) -> Result<Opening, HandshakeError> {
    let headers = request.headers();
    let extended = is_extended_connect(request);
    if !extended {
        if request.method() != Method::GET {
            return Err(HandshakeError::Method);
        }
        if request.version() < Version::HTTP_11 {
            return Err(HandshakeError::HttpVersion);
        }
        if !names_token(headers, header::CONNECTION, "upgrade") {
            return Err(HandshakeError::Connection);
        }
        let has_body = headers.contains_key(header::TRANSFER_ENCODING)
            || headers
                .get(header::CONTENT_LENGTH)
                .is_some_and(|length| length != "0");
        if has_body {
            return Err(HandshakeError::Body);
        }
    }
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    if versions
        .next()
        .is_none_or(|v| v.as_bytes().trim_ascii() != b"13")
        || versions.next().is_some()
    {
        return Err(HandshakeError::Version);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let first = keys.next().and_then(|key| ClientKey::parse(key.as_bytes()));
    if extended {
        return Ok(Opening::ExtendedConnect(first));
    }
    match (first, keys.next()) {
        (Some(key), None) => Ok(Opening::Upgrade(key)),
        _ => Err(HandshakeError::Key),
    }
}

fn is_extended_connect<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT
        && request
            .extensions()
            .get::<hyper::ext::Protocol>()
            .is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

fn names_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> http::request::Builder {
        Request::get("/")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    #[test]
    fn the_rfcs_own_example() {
        let request = request().body(()).unwrap();
        assert!(wants_websocket(&request));
        let Opening::Upgrade(key) = opening(&request).unwrap() else {
            panic!()
        };
        assert_eq!(key.accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn without(name: &str) -> HandshakeError {
        let mut request = request().body(()).unwrap();
        request.headers_mut().remove(name);
        opening(&request).unwrap_err()
    }

    fn with(name: &'static str, value: &'static str) -> HandshakeError {
        opening(&request().header(name, value).body(()).unwrap()).unwrap_err()
    }

    #[test]
    fn each_broken_rule_has_its_name() {
        assert_eq!(without("connection"), HandshakeError::Connection);
        assert_eq!(without("sec-websocket-version"), HandshakeError::Version);
        assert_eq!(without("sec-websocket-key"), HandshakeError::Key);
        assert_eq!(with("sec-websocket-version", "8"), HandshakeError::Version);
        assert_eq!(
            with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            HandshakeError::Key
        );
        assert_eq!(with("content-length", "5"), HandshakeError::Body);
        let post = request().method("POST").body(()).unwrap();
        assert_eq!(opening(&post), Err(HandshakeError::Method));
        let old = request().version(Version::HTTP_10).body(()).unwrap();
        assert_eq!(opening(&old), Err(HandshakeError::HttpVersion));
        let mut short = request().body(()).unwrap();
        short
            .headers_mut()
            .insert("sec-websocket-key", "c2hvcnQ=".parse().unwrap());
        assert_eq!(opening(&short), Err(HandshakeError::Key));
    }

    #[test]
    fn other_upgrades_are_plain_http() {
        let h2c = Request::get("/").header("upgrade", "h2c").body(()).unwrap();
        assert!(!wants_websocket(&h2c));
    }
}
