//! HTTP/2: plain requests, and WebSocket by extended CONNECT (RFC 8441).

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;

use super::http::Response;
use super::net::Target;
use super::raw::Raw;
use super::wait::within;

/// One HTTP/2 connection.
pub struct Connection {
    authority: String,
    requests: SendRequest<Empty<Bytes>>,
    running: JoinHandle<hyper::Result<()>>,
}

impl Connection {
    pub async fn open(target: &Target) -> Self {
        let io = target.clone().alpn(&["h2"]).dial().await.expect("dial");
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
        let (requests, connection) = handshake.await.expect("an HTTP/2 connection");
        Self {
            running: tokio::spawn(connection),
            authority: target.host.clone(),
            requests,
        }
    }

    /// Waits until the server has closed it, and nothing was wrong.
    pub async fn closed(&mut self) {
        let ended = within("the end of the connection", &mut self.running).await;
        ended.unwrap().expect("an orderly end");
    }

    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.try_get(path, headers).await.expect("a response")
    }

    /// `Err`: the server takes nothing more on this connection and has not begun with this (GOAWAY,
    /// RFC 9113, 6.8). A browser asks again on another one.
    pub async fn try_get(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, hyper::Error> {
        let request = self.request(Method::GET, path, headers);
        let answer = self.requests.send_request(request);
        let answer = match within("an HTTP/2 response", answer).await {
            Err(error) if format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)") => {
                return Err(error);
            }
            answer => answer.expect("a response"),
        };
        let mut response = response_head(&answer);
        let body = within("an HTTP/2 body", answer.into_body().collect()).await;
        response.body = body.expect("a complete body").to_bytes().to_vec();
        Ok(response)
    }

    /// Opens a WebSocket on a stream of this connection; `Err` is the refusal.
    pub async fn websocket(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Raw, Response> {
        within("the server's settings", self.requests.ready())
            .await
            .expect("ready");
        let mut request = self.request(Method::CONNECT, path, headers);
        request
            .extensions_mut()
            .insert(Protocol::from_static("websocket"));
        let answer = self.requests.send_request(request);
        let mut answer = within("an answer to CONNECT", answer)
            .await
            .expect("a response");
        let mut head = response_head(&answer);
        if head.status != 200 {
            let body = within("a refusal's body", answer.into_body().collect()).await;
            head.body = body.expect("a complete body").to_bytes().to_vec();
            return Err(head);
        }
        let upgraded = hyper::upgrade::on(&mut answer)
            .await
            .expect("an open stream");
        Ok(Raw::over(Box::new(TokioIo::new(upgraded)), head))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Request<Empty<Bytes>> {
        let uri = format!("https://{}{path}", self.authority);
        let mut request = Request::builder().method(method).uri(uri);
        if request.method_ref() == Some(&Method::CONNECT) {
            request = request.header("sec-websocket-version", "13");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).expect("a request")
    }
}

fn response_head<B>(answer: &hyper::Response<B>) -> Response {
    let text =
        |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Response {
        status: answer.status().as_u16(),
        headers: answer
            .headers()
            .iter()
            .map(|(n, v)| (n.to_string(), text(v)))
            .collect(),
        body: Vec::new(),
    }
}
