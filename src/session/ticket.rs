//! The upgrade request of a session, kept small, so that the same one can be sent again.
//!
//! It holds cookies and authorization: memory only, wiped when dropped, no `Debug` of its text.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use zeroize::Zeroizing;

use crate::ws::handshake::ClientKey;

/// The target and the headers, as the gateway gets them.
#[derive(Clone)]
pub(crate) struct Ticket(Zeroizing<Box<[u8]>>);

/// Between the fields: cannot occur in a target, a header name or a header value.
const BREAK: u8 = b'\n';

impl Ticket {
    /// `headers` after hygiene, without those of the upgrade itself. `extensions`: whether the
    /// client's offer is passed on; where we read messages they must stay readable.
    pub(crate) fn new(uri: &Uri, headers: &HeaderMap, extensions: bool) -> Self {
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut text = Zeroizing::new(Vec::with_capacity(512));
        text.extend_from_slice(target.as_bytes());
        for (name, value) in headers {
            let ours = *name == header::SEC_WEBSOCKET_KEY
                || *name == header::SEC_WEBSOCKET_VERSION
                || *name == header::CONNECTION
                || *name == header::TE
                || *name == header::CONTENT_LENGTH
                || (*name == header::SEC_WEBSOCKET_EXTENSIONS && !extensions);
            if !ours {
                text.push(BREAK);
                text.extend_from_slice(name.as_str().as_bytes());
                text.push(BREAK);
                text.extend_from_slice(value.as_bytes());
            }
        }
        Self(Zeroizing::new(text.as_slice().into()))
    }

    /// The request, under a key of our own.
    pub(crate) fn request(&self, key: &ClientKey) -> Request<Empty<Bytes>> {
        let mut fields = self.0.split(|byte| *byte == BREAK);
        let target = fields.next().unwrap_or_default();
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::try_from(target).unwrap_or_else(|_| Uri::from_static("/"));
        let headers = request.headers_mut();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        if let Ok(key) = HeaderValue::from_str(key.as_str()) {
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        request
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_same_request_again_under_a_new_key() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "gw.example".parse().unwrap());
        headers.append("cookie", "a=1".parse().unwrap());
        headers.append("x-odd", HeaderValue::from_bytes(b"caf\xe9 \t: x").unwrap());
        headers.append("x-odd", "".parse().unwrap());
        headers.insert("sec-websocket-key", "client's".parse().unwrap());
        headers.insert(
            "sec-websocket-extensions",
            "permessage-deflate".parse().unwrap(),
        );
        let uri: Uri = "https://gw.example/chat?token=x".parse().unwrap();
        let key = ClientKey::random();
        let request = Ticket::new(&uri, &headers, false).request(&key);
        assert_eq!(request.uri(), "/chat?token=x");
        assert_eq!(request.headers()["sec-websocket-key"], key.as_str());
        let odd: Vec<_> = request
            .headers()
            .get_all("x-odd")
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        assert_eq!(odd, [&b"caf\xe9 \t: x"[..], b""]);
        assert!(!request.headers().contains_key("sec-websocket-extensions"));
        let kept = Ticket::new(&uri, &headers, true).request(&key);
        assert_eq!(
            kept.headers()["sec-websocket-extensions"],
            "permessage-deflate"
        );
        assert!(!format!("{:?}", Ticket::new(&uri, &headers, true)).contains("token"));
    }
}
