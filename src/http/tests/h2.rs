//! The same over HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::kit::*;

async fn connect<B>(proxy: &Proxy) -> SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<crate::http::BoxError>,
{
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn requests_pass_with_their_host_and_one_cookie() {
    let upstream = Scripted::answering(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
         Proxy-Connection: x\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = connect::<Empty<Bytes>>(&proxy).await;
    let request = Request::get("https://claw.example:8443/x?y=1")
        .version(Version::HTTP_2)
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Empty::new())
        .unwrap();
    let response = timeout(LONG, client.send_request(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
    for gone in [
        "connection",
        "keep-alive",
        "x-hop",
        "proxy-connection",
        "transfer-encoding",
    ] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    assert_eq!(response.headers()["x-kept"], "1");
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "ok"
    );
    let head = upstream.head(0);
    assert!(head.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("claw.example:8443"));
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn bodies_and_trailers_flow_both_ways() {
    let upstream = Scripted::start(|mut wire, head| async move {
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
        assert!(wire.until("first\r\n").await.is_some());
        wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ngot\r\n")
            .await;
        let rest = wire.until("0\r\n").await.unwrap() + &wire.until("\r\n\r\n").await.unwrap();
        assert!(rest.contains("checksum: up"), "{rest}");
        wire.say("3\r\nall\r\n0\r\nchecksum: down\r\n\r\n").await;
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let (send, mut frames) = mpsc::channel::<Frame<Bytes>>(4);
    let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| {
        frames
            .poll_recv(cx)
            .map(|frame| frame.map(Ok::<_, std::io::Error>))
    }));
    let mut client = connect(&proxy).await;
    send.send(Frame::data(Bytes::from_static(b"first")))
        .await
        .unwrap();
    let request = Request::post("https://a/")
        .version(Version::HTTP_2)
        .header("te", "trailers")
        .header("trailer", "checksum")
        .body(body)
        .unwrap();
    let response = timeout(LONG, client.send_request(request))
        .await
        .unwrap()
        .unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "got");
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("up"));
    send.send(Frame::trailers(trailers)).await.unwrap();
    drop(send);
    let rest = timeout(LONG, body.collect()).await.unwrap().unwrap();
    assert_eq!(rest.trailers().unwrap()["checksum"], "down");
    assert_eq!(rest.to_bytes(), "all");
    upstream.played().await;
}

#[tokio::test]
async fn a_torn_response_is_a_reset_stream() {
    let upstream = Scripted::start(|mut wire, _| async move {
        wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
            .await;
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = connect::<Empty<Bytes>>(&proxy).await;
    let request = Request::get("https://a/").body(Empty::new()).unwrap();
    let response = timeout(LONG, client.send_request(request))
        .await
        .unwrap()
        .unwrap();
    assert!(
        timeout(LONG, response.into_body().collect())
            .await
            .unwrap()
            .is_err()
    );
    // Only that stream: the connection lives.
    let status = Request::get("https://a/.holdline/status.json")
        .body(Empty::new())
        .unwrap();
    let response = timeout(LONG, client.send_request(status))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_stream_given_up_is_noticed_by_the_gateway() {
    let (asked, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, noticed) = (Arc::clone(&asked), Arc::clone(&left));
    let upstream = Scripted::start(move |mut wire, _| {
        let (tell, noticed) = (Arc::clone(&tell), Arc::clone(&noticed));
        async move {
            tell.notify_one();
            assert!(wire.head().await.is_none());
            noticed.notify_one();
        }
    })
    .await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let mut client = connect::<Empty<Bytes>>(&proxy).await;
    let request = Request::get("https://a/").body(Empty::new()).unwrap();
    let waiting = tokio::spawn(async move {
        let _ = client.send_request(request).await;
    });
    timeout(LONG, asked.notified()).await.unwrap();
    waiting.abort();
    timeout(LONG, left.notified())
        .await
        .expect("the upstream is told");
}

#[tokio::test]
async fn refusals_come_over_http2_as_well() {
    let nobody = Reserved::new();
    let mut setup = Setup::to(nobody.address);
    setup.http.hold = Duration::from_millis(200);
    let proxy = setup.start().await;
    let mut client = connect::<Full<Bytes>>(&proxy).await;
    let request = Request::post("https://a/")
        .body(Full::from("body"))
        .unwrap();
    let response = timeout(LONG, client.send_request(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 503);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(std::str::from_utf8(&body).unwrap().contains("gateway_down"));
    let mismatch = Request::get("https://a/")
        .header("host", "b")
        .body(Full::default())
        .unwrap();
    let response = timeout(LONG, client.send_request(mismatch))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn extended_connect_is_a_websocket_and_plain_connect_is_nothing() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    // What it may be asked is in the server's SETTINGS, which come before any answer.
    let ours = Request::get("https://a/.holdline/status.json");
    let ours = client.send_request(ours.body(Empty::<Bytes>::new()).unwrap());
    let ours = timeout(LONG, ours).await.unwrap().unwrap();
    assert_eq!(ours.status(), 200);
    for (protocol, said) in [("websocket", "seam a"), ("connect-udp", "only WebSocket")] {
        let request = Request::connect("https://a/")
            .extension(hyper::ext::Protocol::from_static(protocol))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = timeout(LONG, client.send_request(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(response.status(), 400);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(
            std::str::from_utf8(&body).unwrap().contains(said),
            "{protocol}"
        );
    }
    assert_eq!(upstream.requests(), 0);
}
