//! One question over one connection, within bounds. How long it may take is the caller's.
//!
//! Not pooled: the service is near, most questions are answered from memory, and a connection
//! that the service closes while a question crosses it would lock somebody out.

use std::error::Error as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::question::Asked;
use super::{Failure, Trust};
use crate::config;

/// The largest page that is passed on to a client.
const BODY: usize = 64 * 1024;
/// The largest head of an answer.
const HEAD: usize = 64 * 1024;

/// The service's answer; a yes without its body, which nobody wants.
pub(super) async fn run(
    config: &config::ForwardAuth,
    asked: &Asked,
    trust: Option<&Trust>,
) -> Result<Response<Bytes>, Failure> {
    let request = asked
        .to_request()
        .map_err(|_| Failure::Unsayable("headers"))?;
    let stream = TcpStream::connect((config.host.as_str(), config.port))
        .await
        .map_err(|error| Failure::Unreachable(error.to_string().into()))?;
    // Without it the last small packet would wait for an acknowledgement; it works all the same.
    let _ = stream.set_nodelay(true);
    if !config.tls {
        return exchange(stream, request).await;
    }
    let trust = trust.ok_or_else(|| Failure::Tls("no CA is believed".into()))?;
    let stream = trust.connect(&config.host, stream).await;
    let stream = stream.map_err(|error| Failure::Tls(error.to_string().into()))?;
    exchange(stream, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Bytes>, Failure> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    // Ends with us, whatever the service still says.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| broken(&error))?;
    let (head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::Broken("101 in answer to a plain request".into()));
    }
    if head.status.is_success() {
        return Ok(Response::from_parts(head, Bytes::new()));
    }
    let body = Limited::new(body, BODY).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => Failure::TooLarge,
        false => Failure::Broken("it breaks off".into()),
    })?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

fn broken(error: &hyper::Error) -> Failure {
    let text: Arc<str> = match error.source() {
        Some(source) => format!("{error}: {source}").into(),
        None => error.to_string().into(),
    };
    Failure::Broken(text)
}
