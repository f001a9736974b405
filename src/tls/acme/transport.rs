//! HTTPS to a CA: one request a connection, within limits, and remembering how long to wait.
//!
//! The library that speaks ACME leaves this to us. It drops the header `Retry-After` of an error,
//! and takes any answer for JSON, so both are looked after here.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hickory_resolver::config::LookupIpStrategy;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::moment::{MINUTE, Moment};
use crate::network::look_up;
use crate::tls::server::provider;

/// One exchange with a CA, name look-up included.
const LIMIT: Duration = Duration::from_secs(30);
/// Of that, until there is a connection: a network that is not there has to be told from a CA that does
/// not answer.
const REACH: Duration = Duration::from_secs(20);
/// One address of a CA that has several.
const CONNECT: Duration = Duration::from_secs(8);
/// Chains have some 10 kB.
const BODY: usize = 1 << 20;
const AGENT: &str = concat!("holdline/", env!("CARGO_PKG_VERSION"));

/// Why a CA gave no answer that can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("its directory is not an https:// URL")]
    NotHttps,
    #[error("its name has no address: {0}")]
    Name(String),
    #[error("no connection to it: {0}")]
    Connect(std::io::Error),
    #[error("TLS with it failed: {0}")]
    Tls(std::io::Error),
    #[error("what answers at {0} does not speak TLS")]
    NotTls(String),
    #[error("no answer within {} s", LIMIT.as_secs())]
    TooSlow,
    #[error("the exchange broke off: {0}")]
    Broken(String),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("[acme] ca_root: {0}")]
    Root(String),
}

// === impl TransportError ===

impl TransportError {
    /// Whether the CA has not heard of it: it is away, or this machine has no network.
    pub(super) fn is_unreached(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Connect(_))
    }
}

/// A way to CAs.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    tls: Arc<ClientConfig>,
    told: Arc<Mutex<Told>>,
}

/// What the latest answer of a CA says that the library leaves out.
#[derive(Debug, Clone, Default)]
struct Told {
    retry_after: Option<Moment>,
    /// It was an error.
    failed: bool,
    /// Where a person finds more of this error.
    instance: Option<String>,
}

/// The rest of a problem document (RFC 7807, 3.1).
#[derive(Deserialize)]
struct Instance {
    instance: String,
}

// === impl Transport ===

impl Transport {
    /// Trusts the system's roots, or where there are none, those that browsers trust; and
    /// `extra_root` (PEM). Reads files.
    pub(super) fn new(extra_root: Option<&std::path::Path>) -> Result<Self, TransportError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        if let Some(path) = extra_root {
            let wrong =
                |error: String| TransportError::Root(format!("{}: {error}", path.display()));
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                roots
                    .add(certificate)
                    .map_err(|error| wrong(error.to_string()))?;
            }
        }
        let tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TransportError::Broken(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: Arc::new(tls),
            told: Arc::default(),
        })
    }

    /// Until when the CA wants to hear no more, if its latest answer was an error that said so.
    pub(super) fn wait_until(&self) -> Option<Moment> {
        let told = self.told();
        told.retry_after.filter(|_| told.failed)
    }

    /// When the CA wants to be asked again, by its latest answer, whatever that was. Less than a minute
    /// is about the next look at an order, and nothing to wait for.
    pub(super) fn ask_again(&self) -> Option<Moment> {
        let soon = Moment::now().after(MINUTE);
        self.told().retry_after.filter(|at| *at >= soon)
    }

    /// The address that the latest answer names for a person, if it was an error that does.
    pub(super) fn instance(&self) -> Option<String> {
        self.told().instance
    }

    fn told(&self) -> Told {
        let told = self.told.lock();
        told.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn heard(&self, told: Told) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    /// GETs a public resource.
    pub(super) async fn get(&self, url: &str) -> Result<Response<Bytes>, TransportError> {
        let request = Request::builder().uri(url).body(Full::default());
        let request = request.map_err(|error| TransportError::Broken(error.to_string()))?;
        let response = self.exchange(request).await?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(TransportError::Status(status)),
        }
    }

    /// POSTs what is signed. Any answer will do: a problem is one.
    pub(super) async fn post(
        &self,
        url: &str,
        body: Vec<u8>,
    ) -> Result<Response<Bytes>, TransportError> {
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/jose+json")
            .body(Full::from(body));
        let request = request.map_err(|error| TransportError::Broken(error.to_string()))?;
        self.exchange(request).await
    }

    /// A fresh nonce (RFC 8555, 7.2).
    pub(super) async fn nonce(&self, url: &str) -> Result<String, TransportError> {
        let request = Request::head(url).body(Full::default());
        let request = request.map_err(|error| TransportError::Broken(error.to_string()))?;
        let answer = self.exchange(request).await?;
        match (answer.status(), nonce_of(&answer)) {
            (status, Some(nonce)) if status.is_success() => Ok(nonce),
            (status, None) if status.is_success() => {
                Err(TransportError::Broken("it gives no nonce".to_owned()))
            }
            (status, _) => Err(TransportError::Status(status)),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, TransportError> {
        self.heard(Told::default());
        // Boxed: these futures are large.
        let exchange = Box::pin(self.exchange_unlimited(request));
        let response = tokio::time::timeout(LIMIT, exchange)
            .await
            .unwrap_or(Err(TransportError::TooSlow))?;
        let status = response.status();
        let failed = status.is_client_error() || status.is_server_error();
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let more = || serde_json::from_slice::<Instance>(response.body()).ok();
        let more = failed.then(more).flatten();
        self.heard(Told {
            retry_after,
            failed,
            instance: more.map(|more| more.instance),
        });
        Ok(response)
    }

    async fn exchange_unlimited(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, TransportError> {
        let uri = request.uri().clone();
        let authority = uri.authority().ok_or(TransportError::NotHttps)?;
        if uri.scheme_str() != Some("https") {
            return Err(TransportError::NotHttps);
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(443);
        let socket = tokio::time::timeout(REACH, connect(&host, port))
            .await
            .unwrap_or_else(|_| Err(TransportError::Connect(ErrorKind::TimedOut.into())))?;
        let place = format!("{}:{port}", authority.host());
        let name = ServerName::try_from(host).map_err(|_| TransportError::NotHttps)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, socket)
            .await
            .map_err(|error| match is_no_tls(&error) {
                true => TransportError::NotTls(place),
                false => TransportError::Tls(error),
            })?;
        let broken = |error: hyper::Error| TransportError::Broken(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = Uri::from_str(path).map_err(|_| TransportError::NotHttps)?;
        let agent = HeaderValue::from_static(AGENT);
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        request.headers_mut().insert(USER_AGENT, agent);
        *request.uri_mut() = path;
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        let body = Limited::new(body, BODY)
            .collect()
            .await
            .map_err(|error| TransportError::Broken(error.to_string()))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// As the library needs it: an error that is no problem document is told as what it is.
    async fn speak(
        self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, TransportError> {
        let (head, body) = request.into_parts();
        let is_get = head.method == Method::GET;
        let Ok(body) = body.collect().await;
        let request = Request::from_parts(head, Full::new(body.to_bytes()));
        let response = self.exchange(request).await?;
        let status = response.status();
        let failed = status.is_client_error() || status.is_server_error();
        if failed && (is_get || !is_problem(&response)) {
            return Err(TransportError::Status(status));
        }
        Ok(BytesResponse::from(response.map(Full::new)))
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let spoken = self.clone().speak(request);
        Box::pin(async {
            spoken
                .await
                .map_err(|error| instant_acme::Error::Other(error.into()))
        })
    }
}

/// The nonce that comes with an answer.
pub(super) fn nonce_of(answer: &Response<Bytes>) -> Option<String> {
    let nonce = answer.headers().get("replay-nonce")?;
    nonce.to_str().ok().map(str::to_owned)
}

/// RFC 7807. Some CAs forget the type, so what counts is that it can be read.
fn is_problem(response: &Response<Bytes>) -> bool {
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.contains("json"));
    json && serde_json::from_slice::<instant_acme::Problem>(response.body()).is_ok()
}

/// `Retry-After`, as seconds or as a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Moment> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse::<u64>() {
        Ok(seconds) => Some(Moment::from(now).after(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok().map(Moment::from),
    }
}

/// Whether it was not even a record of TLS that came.
fn is_no_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::InvalidMessage(
            rustls::InvalidMessage::InvalidContentType
        ))
    )
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, TransportError> {
    let addresses = match (host.parse::<IpAddr>(), host) {
        (Ok(address), _) => vec![address],
        (_, "localhost") => vec![[127, 0, 0, 1].into()],
        _ => look_up(host, LookupIpStrategy::Ipv4AndIpv6)
            .await
            .map_err(|error| TransportError::Name(error.to_string()))?,
    };
    let mut last = std::io::Error::from(ErrorKind::HostUnreachable);
    for address in addresses {
        let dial = tokio::time::timeout(CONNECT, TcpStream::connect((address, port)));
        match dial.await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = ErrorKind::TimedOut.into(),
        }
    }
    Err(TransportError::Connect(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[tokio::test]
    async fn a_port_without_tls_is_told_as_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            socket
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
        });
        let transport = Transport::new(None).unwrap();
        let error = transport.get(&format!("https://{at}/dir")).await;
        let error = error.unwrap_err().to_string();
        assert_eq!(error, format!("what answers at {at} does not speak TLS"));
        server.await.unwrap();
    }

    #[test]
    fn how_long_to_wait_is_read_in_both_ways() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(of("90"), Some(Moment(1_090)));
        assert_eq!(of("Thu, 01 Jan 1970 01:00:00 GMT"), Some(Moment(3_600)));
        assert_eq!(of("soon"), None);
    }
}
