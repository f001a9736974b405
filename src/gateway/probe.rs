//! One probe: is the gateway ready to take a `connect`?
//!
//! Asked on a connection of its own, directly and without forwarding headers: beside us the
//! OpenClaw gateway answers 403 with them. On another address, where it knows us as a trusted
//! proxy, it answers 403 without them; then we ask in the name of nobody. A port that is merely
//! open is seconds too early.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::dial::Dialler;
use super::machine::Observation;
use super::upgrade::{UpgradeError, hyper_reason, upgrade};
use crate::config::{Probe, ProtocolKind, Upstream};
use crate::ws::handshake::ClientKey;

/// How long a connected gateway may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// After this long without an answer, or an end, it is news that the connection was accepted: a
/// starting gateway's event loop stalls for up to a second, and nobody should wait for that. A
/// proxy that accepts in the place of nobody ends the connection sooner.
const STALLED: Duration = Duration::from_millis(100);
/// What a gateway that trusts our address wants to hear: on whose behalf. An address that belongs
/// to nobody (RFC 5737), because an address of its own network could be a trusted proxy, too.
const NOBODY: HeaderValue = HeaderValue::from_static("192.0.2.1");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A probe's answer is some hundred bytes; the page that older gateways serve is not read.
const BODY_LIMIT: usize = 4096;

/// What a probe found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probed {
    /// As the state wants it.
    pub(super) seen: Observation,
    /// Something answered, but not as an OpenClaw gateway does.
    pub(super) strangely: bool,
}

/// Asks once, with one connection per question. `accepted` is told of an answer that takes its
/// time.
pub(super) async fn probe(upstream: &Upstream, dialler: &Dialler, accepted: &Notify) -> Probed {
    let to = To {
        upstream,
        dialler,
        accepted,
    };
    let plain = |seen| Probed {
        seen,
        strangely: false,
    };
    let limit = upstream.connect_timeout;
    plain(match (&upstream.probe, upstream.protocol) {
        (Probe::Tcp, _) | (Probe::Auto, ProtocolKind::Generic) => match dialler.dial(limit).await {
            Ok(_) => Observation::Started,
            Err(error) => Observation::Failed(error.reason()),
        },
        (Probe::Path(path), _) => match to.ask(path).await {
            Ok((answer, _)) if answer.status().is_success() => Observation::Started,
            Ok((answer, _)) => by_status_word(&answer).unwrap_or(Observation::Starting),
            Err(observed) => observed,
        },
        (Probe::Auto, ProtocolKind::Openclaw) => return openclaw(to).await,
    })
}

/// Who is asked.
#[derive(Clone, Copy)]
struct To<'a> {
    upstream: &'a Upstream,
    dialler: &'a Dialler,
    accepted: &'a Notify,
}

async fn openclaw(to: To<'_>) -> Probed {
    let (known, asker) = match to.ask("/startupz").await {
        Ok((answer, asker)) => (by_status_word(&answer), asker),
        Err(observed) => (Some(observed), Asker::Ourselves),
    };
    if let Some(seen) = known {
        return Probed {
            seen,
            strangely: false,
        };
    }
    let seen = without_startupz(to, asker).await;
    let strangely = matches!(seen, Observation::Starting | Observation::Silent);
    Probed { seen, strangely }
}

async fn without_startupz(to: To<'_>, asker: Asker) -> Observation {
    // A gateway without /startupz: 404, or the page that it serves on every path.
    let health = match to.ask_as("/health", asker).await {
        Ok(health) => health,
        Err(observed) => return observed,
    };
    if !health.status().is_success() {
        return Observation::Starting;
    }
    match tokio::time::timeout(ANSWER_LIMIT, challenge(to.upstream, to.dialler, asker)).await {
        Ok(observed) => observed,
        Err(_) => Observation::Silent,
    }
}

/// As whom the gateway lets us ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// As ourselves: no forwarding headers.
    Ourselves,
    /// As a proxy: on behalf of [`NOBODY`].
    Proxy,
}

impl To<'_> {
    /// GETs `path`, as whom the gateway wants it. `Err` is what a missing answer means.
    async fn ask(self, path: &str) -> Result<(Response<Bytes>, Asker), Observation> {
        let answer = self.ask_as(path, Asker::Ourselves).await?;
        if !wants_attribution(&answer) {
            return Ok((answer, Asker::Ourselves));
        }
        let answer = self.ask_as(path, Asker::Proxy).await?;
        Ok((answer, Asker::Proxy))
    }

    async fn ask_as(self, path: &str, asker: Asker) -> Result<Response<Bytes>, Observation> {
        let stream = self
            .dialler
            .dial(self.upstream.connect_timeout)
            .await
            .map_err(|error| Observation::Failed(error.reason()))?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
            let request = request(self.upstream, path, asker).header(header::CONNECTION, "close");
            let request = request.body(Empty::<Bytes>::new()).unwrap_or_default();
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, BODY_LIMIT).collect().await;
            let body = body
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            Ok::<_, hyper::Error>(Response::from_parts(head, body))
        };
        let answered = async {
            tokio::pin!(exchange);
            match tokio::time::timeout(STALLED, &mut exchange).await {
                Ok(answered) => answered,
                Err(_) => {
                    self.accepted.notify_one();
                    exchange.await
                }
            }
        };
        match tokio::time::timeout(ANSWER_LIMIT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Observation::Failed(hyper_reason(&error))),
            Err(_) => Err(Observation::Silent),
        }
    }
}

/// The gateway's word for "you are a trusted proxy, so say for whom you ask".
fn wants_attribution(answer: &Response<Bytes>) -> bool {
    const WORD: &[u8] = b"proxy_attribution_required";
    answer.status() == StatusCode::FORBIDDEN && memchr::memmem::find(answer.body(), WORD).is_some()
}

fn request(upstream: &Upstream, path: &str, asker: Asker) -> http::request::Builder {
    let request = Request::get(path)
        .header(header::HOST, upstream.authority())
        .header(
            header::USER_AGENT,
            concat!("holdline/", env!("CARGO_PKG_VERSION")),
        );
    match asker {
        Asker::Ourselves => request,
        Asker::Proxy => request.header(FORWARDED_FOR, NOBODY),
    }
}

/// `{"ok":…,"status":"started" | "starting" | "draining"}`, as `/startupz` says it.
fn by_status_word(answer: &Response<Bytes>) -> Option<Observation> {
    #[derive(Deserialize)]
    struct Word<'a> {
        #[serde(borrow)]
        status: std::borrow::Cow<'a, str>,
    }
    let word: Word<'_> = serde_json::from_slice(answer.body()).ok()?;
    match (word.status.as_ref(), answer.status()) {
        ("started", StatusCode::OK) => Some(Observation::Started),
        ("draining", _) => Some(Observation::Draining),
        (_, StatusCode::SERVICE_UNAVAILABLE) | ("starting", _) => Some(Observation::Starting),
        _ => None,
    }
}

/// Opens a WebSocket and waits for the first bytes, which are the challenge.
async fn challenge(upstream: &Upstream, dialler: &Dialler, asker: Asker) -> Observation {
    let stream = match dialler.dial(upstream.connect_timeout).await {
        Ok(stream) => stream,
        Err(error) => return Observation::Failed(error.reason()),
    };
    let key = ClientKey::random();
    let request = request(upstream, "/", asker)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key.as_str())
        .body(Empty::new())
        .unwrap_or_default();
    match upgrade(stream, request, &key.accept()).await {
        Ok(mut socket) => {
            let mut first = [0u8; 1];
            let spoke = !socket.leftover.is_empty()
                || socket.stream.read(&mut first).await.is_ok_and(|n| n > 0);
            if spoke {
                Observation::Started
            } else {
                Observation::Starting
            }
        }
        Err(UpgradeError::Refused(_) | UpgradeError::WrongAccept) => Observation::Starting,
        Err(error) => Observation::Failed(error.reason()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::gateway::tests::upstream_at;

    /// Answers every request as a gateway does that knows its asker as a trusted proxy.
    async fn gateway_that_trusts_us(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let (status, body) = if String::from_utf8(head).unwrap().contains("x-forwarded-for") {
                ("200 OK", r#"{"ok":true,"status":"started"}"#)
            } else {
                let refusal = r#"{"error":{"type":"proxy_attribution_required"}}"#;
                ("403 Forbidden", refusal)
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_gateway_that_trusts_us_is_asked_on_behalf_of_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let _gateway = AbortOnDropHandle::new(tokio::spawn(gateway_that_trusts_us(listener)));
        for wanted in [Probe::Auto, Probe::Path("/startupz".to_owned())] {
            let upstream = Upstream {
                probe: wanted,
                ..upstream_at(port)
            };
            let dialler = Dialler::new(&upstream);
            let probed = probe(&upstream, &dialler, &Notify::new()).await;
            assert_eq!(probed.seen, Observation::Started);
        }
    }

    fn answer(status: u16, body: &'static str) -> Response<Bytes> {
        Response::builder()
            .status(status)
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap()
    }

    #[test]
    fn the_status_word_decides_and_a_page_says_nothing() {
        let word = |status, body| by_status_word(&answer(status, body));
        assert_eq!(
            word(200, r#"{"ok":true,"status":"started"}"#),
            Some(Observation::Started)
        );
        assert_eq!(
            word(503, r#"{"ok":false,"status":"starting","uptimeMs":5}"#),
            Some(Observation::Starting)
        );
        assert_eq!(
            word(503, r#"{"ok":false,"status":"draining"}"#),
            Some(Observation::Draining)
        );
        assert_eq!(word(200, r#"{"ok":true,"status":"live"}"#), None);
        assert_eq!(word(200, "<!doctype html>"), None);
        assert_eq!(word(404, "Not Found"), None);
    }

    #[test]
    fn only_a_refusal_for_want_of_a_client_is_asked_again() {
        let body = r#"{"error":{"message":"…","type":"proxy_attribution_required"}}"#;
        assert!(wants_attribution(&answer(403, body)));
        assert!(!wants_attribution(&answer(200, body)));
        assert!(!wants_attribution(&answer(403, "Forbidden")));
    }
}
