//! The plain listeners: a CA's `http-01` challenges are answered, and every other request is sent to
//! the same place by https.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::door::Edge;
use super::serve;
use crate::observe::labels::HttpOutcome;

/// Where CAs ask, with the token behind it.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Answers one connection. `https_port`: of the first TLS listener, if there is one at the time.
pub(super) async fn connection(
    socket: TcpStream,
    remote: SocketAddr,
    https_port: Option<u16>,
    edge: &Edge,
) {
    let header_timeout = edge.config.load().limits.header_timeout;
    let answer = async |request: Request<Incoming>| {
        let challenge = challenge(&request, edge).await;
        let response = challenge.unwrap_or_else(|| redirect(&request, https_port).map(Full::from));
        let outcome = match response.status() {
            status if status.is_redirection() => HttpOutcome::Redirected,
            status if status.is_success() => HttpOutcome::Own,
            _ => HttpOutcome::Refused,
        };
        edge.metrics.http_requests.inc(outcome);
        Ok::<_, Infallible>(response)
    };
    let served = serve::http1(header_timeout)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service_fn(answer));
    tokio::select! {
        ended = served => if let Err(error) = ended {
            serve::note(remote, &error, edge);
        },
        () = edge.drain.cancelled() => {}
    }
}

/// The answer to a CA (RFC 8555, 8.3), if that is who asks. Where ACME is not in use, somebody else
/// may look after such requests, by https.
async fn challenge<B>(request: &Request<B>, edge: &Edge) -> Option<Response<Full<Bytes>>> {
    let token = request.uri().path().strip_prefix(CHALLENGES)?;
    let challenges = edge.tls.challenges();
    if !challenges.in_use() {
        return None;
    }
    let mut response = Response::new(Full::default());
    let kind = match challenges.http(token).await {
        Some(answer) => {
            *response.body_mut() = Full::from(answer);
            "application/octet-stream"
        }
        None => {
            *response.status_mut() = StatusCode::NOT_FOUND;
            *response.body_mut() = Full::from("no order of holdline waits for this token\n");
            "text/plain; charset=utf-8"
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

fn redirect<B>(request: &Request<B>, https_port: Option<u16>) -> Response<Bytes> {
    let location = https_port
        .and_then(|port| location(request.uri(), request.headers(), port))
        .and_then(|location| HeaderValue::try_from(location).ok());
    let mut response = Response::new(Bytes::new());
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    match location {
        Some(location) => {
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(LOCATION, location);
        }
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}

/// The same by https, or `None` when the request does not say for which host it is.
fn location(uri: &Uri, headers: &HeaderMap, https_port: u16) -> Option<String> {
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => host_header(headers)?,
    };
    let host = authority.host();
    if host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    Some(match https_port {
        443 => format!("https://{host}{path}"),
        port => format!("https://{host}:{port}{path}"),
    })
}

fn host_header(headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?;
    if hosts.next().is_some() {
        return None;
    }
    Authority::try_from(host.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(target: &str, hosts: &[&str], port: u16) -> Option<String> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let response = redirect(&request.body(()).unwrap(), Some(port));
        let location = response.headers().get(LOCATION)?;
        assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
        Some(location.to_str().unwrap().to_owned())
    }

    #[test]
    fn keeps_host_path_and_query() {
        for (target, host, port, expected) in [
            ("/", "a.example", 443, "https://a.example/"),
            (
                "/x/y?z=1&w",
                "a.example:80",
                443,
                "https://a.example/x/y?z=1&w",
            ),
            ("/x", "a.example:8080", 8443, "https://a.example:8443/x"),
            ("/x", "[::1]:80", 8443, "https://[::1]:8443/x"),
            (
                "//other.example/x",
                "a.example",
                443,
                "https://a.example//other.example/x",
            ),
            (
                "http://b.example:80/x?y",
                "a.example",
                443,
                "https://b.example/x?y",
            ),
            ("*", "a.example", 443, "https://a.example/"),
        ] {
            assert_eq!(to(target, &[host], port).as_deref(), Some(expected));
        }
    }

    #[test]
    fn refuses_what_names_no_host() {
        for hosts in [
            &[] as &[&str],
            &["a.example", "b.example"],
            &["u@a.example"],
            &["a b"],
            &[""],
        ] {
            assert_eq!(to("/", hosts, 443), None, "{hosts:?}");
        }
        let request = Request::builder()
            .uri("/")
            .header(HOST, "a.example")
            .body(())
            .unwrap();
        assert_eq!(redirect(&request, None).status(), StatusCode::BAD_REQUEST);
    }
}
