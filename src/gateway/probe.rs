//! One probe: is the gateway ready to take a `connect`?
//!
//! Asked on a connection of its own, directly and without forwarding headers: with them the
//! OpenClaw gateway answers 403, and a port that is merely open is seconds too early.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio_util::task::AbortOnDropHandle;

use super::dial::Dialler;
use super::machine::Observation;
use super::upgrade::{UpgradeError, hyper_reason, upgrade};
use crate::config::{Probe, ProtocolKind, Upstream};
use crate::ws::handshake::ClientKey;

/// How long a connected gateway may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
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

/// Asks once, with one connection per question.
pub(super) async fn probe(upstream: &Upstream, dialler: &Dialler) -> Probed {
    let plain = |seen| Probed {
        seen,
        strangely: false,
    };
    plain(match (&upstream.probe, upstream.protocol) {
        (Probe::Tcp, _) | (Probe::Auto, ProtocolKind::Generic) => match dialler.dial().await {
            Ok(_) => Observation::Started,
            Err(error) => Observation::Failed(error.reason()),
        },
        (Probe::Path(path), _) => match ask(upstream, dialler, path).await {
            Ok(answer) if answer.status().is_success() => Observation::Started,
            Ok(answer) => by_status_word(&answer).unwrap_or(Observation::Starting),
            Err(observed) => observed,
        },
        (Probe::Auto, ProtocolKind::Openclaw) => return openclaw(upstream, dialler).await,
    })
}

async fn openclaw(upstream: &Upstream, dialler: &Dialler) -> Probed {
    let known = match ask(upstream, dialler, "/startupz").await {
        Ok(answer) => by_status_word(&answer),
        Err(observed) => Some(observed),
    };
    if let Some(seen) = known {
        return Probed {
            seen,
            strangely: false,
        };
    }
    let seen = without_startupz(upstream, dialler).await;
    let strangely = matches!(seen, Observation::Starting | Observation::Silent);
    Probed { seen, strangely }
}

async fn without_startupz(upstream: &Upstream, dialler: &Dialler) -> Observation {
    // A gateway without /startupz: 404, or the page that it serves on every path.
    let health = match ask(upstream, dialler, "/health").await {
        Ok(health) => health,
        Err(observed) => return observed,
    };
    if !health.status().is_success() {
        return Observation::Starting;
    }
    match tokio::time::timeout(ANSWER_LIMIT, challenge(upstream, dialler)).await {
        Ok(observed) => observed,
        Err(_) => Observation::Silent,
    }
}

/// GETs `path`. `Err` is what a missing answer means.
async fn ask(
    upstream: &Upstream,
    dialler: &Dialler,
    path: &str,
) -> Result<Response<Bytes>, Observation> {
    let stream = dialler
        .dial()
        .await
        .map_err(|error| Observation::Failed(error.reason()))?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = request(upstream, path).header(header::CONNECTION, "close");
        let request = request.body(Empty::<Bytes>::new()).unwrap_or_default();
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await;
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        Ok::<_, hyper::Error>(Response::from_parts(head, body))
    };
    match tokio::time::timeout(ANSWER_LIMIT, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Observation::Failed(hyper_reason(&error))),
        Err(_) => Err(Observation::Silent),
    }
}

fn request(upstream: &Upstream, path: &str) -> http::request::Builder {
    Request::get(path)
        .header(header::HOST, upstream.authority())
        .header(
            header::USER_AGENT,
            concat!("holdline/", env!("CARGO_PKG_VERSION")),
        )
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
async fn challenge(upstream: &Upstream, dialler: &Dialler) -> Observation {
    let stream = match dialler.dial().await {
        Ok(stream) => stream,
        Err(error) => return Observation::Failed(error.reason()),
    };
    let key = ClientKey::random();
    let request = request(upstream, "/")
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
    use super::*;

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
}
