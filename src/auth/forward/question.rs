//! What the service is asked, and the key under which its answer is known.

use std::net::IpAddr;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Empty;
use zeroize::Zeroizing;

use super::Failure;
use crate::config;

/// A client's request, as far as the service is told of it.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Its method.
    pub method: &'a Method,
    /// What it asked for (`Host`, or `:authority`).
    pub host: &'a HeaderValue,
    /// Path and query.
    pub target: &'a str,
    /// As whom the client is presented.
    pub address: IpAddr,
    /// Its headers, from which the credentials are taken.
    pub headers: &'a HeaderMap,
}

impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("method", self.method)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// SHA-256 of everything that the service can decide by, itself included.
pub(super) type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// A question, ready to be sent.
pub(super) struct Asked {
    /// Names and values, in a fixed order: the client's credentials among them, so that it is wiped.
    headers: Zeroizing<Box<[u8]>>,
    path: String,
    key: Option<Key>,
}

impl Asked {
    /// # Errors
    /// Where the service could take the request for another than the gateway does.
    pub(super) fn new(
        config: &config::ForwardAuth,
        question: &Question<'_>,
    ) -> Result<Self, Failure> {
        let headers = headers(config, question)?;
        Ok(Self {
            key: has_credential(&headers).then(|| key(config, &headers)),
            path: config.path.clone(),
            headers: kept(&headers),
        })
    }

    /// Under which its answer may be known; `None` where nothing tells one client from another
    /// behind the same address.
    pub(super) fn key(&self) -> Option<Key> {
        self.key
    }

    /// Always a GET without a body, whatever the client sends.
    pub(super) fn to_request(&self) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::get(&self.path);
        let mut fields = self.headers.split(|byte| *byte == BREAK);
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            request = request.header(name, value);
        }
        request.body(Empty::new())
    }
}

/// Ends every field: cannot occur in a name or a value.
const BREAK: u8 = b'\n';

/// In one piece from the start: growing would leave copies behind.
fn kept(headers: &[(HeaderName, HeaderValue)]) -> Zeroizing<Box<[u8]>> {
    let length = |(name, value): &(HeaderName, HeaderValue)| name.as_str().len() + value.len() + 2;
    let mut text = Vec::with_capacity(headers.iter().map(length).sum());
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(BREAK);
        text.extend_from_slice(value.as_bytes());
        text.push(BREAK);
    }
    Zeroizing::new(text.into_boxed_slice())
}

fn headers(
    config: &config::ForwardAuth,
    question: &Question<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let target = value(question.target.as_bytes(), "path")?;
    let url = [b"https://", question.host.as_bytes(), target.as_bytes()].concat();
    // A WebSocket over HTTP/2 is a GET everywhere else (RFC 8441).
    let method = match *question.method {
        Method::CONNECT => &Method::GET,
        ref method => method,
    };
    let method = value(method.as_str().as_bytes(), "method")?;
    let address = question.address.to_string();
    let service = authority(config);
    let named = HeaderName::from_static;
    let mut headers = vec![
        (header::HOST, value(service.as_bytes(), "service")?),
        (header::CONNECTION, HeaderValue::from_static("close")),
        (named("x-forwarded-method"), method.clone()),
        (
            named("x-forwarded-proto"),
            HeaderValue::from_static("https"),
        ),
        (named("x-forwarded-host"), question.host.clone()),
        (named("x-forwarded-uri"), target),
        (
            named("x-forwarded-for"),
            value(address.as_bytes(), "address")?,
        ),
        (named("x-original-url"), value(&url, "URL")?),
        (named("x-original-method"), method),
    ];
    headers.extend(passed_on(question.headers)?);
    Ok(headers)
}

/// The client's own words.
fn passed_on(client: &HeaderMap) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let mut headers = Vec::new();
    // HTTP/2 clients may send cookies in many fields; HTTP/1.1 has one (RFC 9113, 8.2.3).
    let cookies: Vec<&[u8]> = client
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if !cookies.is_empty() {
        headers.push((header::COOKIE, value(&cookies.join(&b"; "[..]), "cookie")?));
    }
    let mut credentials = client.get_all(header::AUTHORIZATION).iter();
    if let Some(first) = credentials.next() {
        // The service would judge by one, and the gateway perhaps by the other.
        if credentials.next().is_some() {
            return Err(Failure::Unsayable("second Authorization header"));
        }
        headers.push((header::AUTHORIZATION, first.clone()));
    }
    for name in [header::USER_AGENT, header::ACCEPT] {
        let values = client.get_all(&name).iter();
        headers.extend(values.map(|value| (name.clone(), value.clone())));
    }
    Ok(headers)
}

fn has_credential(headers: &[(HeaderName, HeaderValue)]) -> bool {
    let credentials = [header::COOKIE, header::AUTHORIZATION];
    headers
        .iter()
        .any(|(name, value)| credentials.contains(name) && !value.is_empty())
}

/// `host:port` of the service.
pub(super) fn authority(config: &config::ForwardAuth) -> String {
    match config.host.contains(':') {
        true => format!("[{}]:{}", config.host, config.port),
        false => format!("{}:{}", config.host, config.port),
    }
}

fn value(bytes: &[u8], what: &'static str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(bytes).map_err(|_| Failure::Unsayable(what))
}

/// Every part with its length before it, so that no two questions are one text.
fn key(config: &config::ForwardAuth, headers: &[(HeaderName, HeaderValue)]) -> Key {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(config.path.as_bytes());
    part(config.user.as_str().as_bytes());
    part(&(config.copy.len() as u64).to_be_bytes());
    for name in &config.copy {
        part(name.as_str().as_bytes());
    }
    for (name, value) in headers {
        part(name.as_str().as_bytes());
        part(value.as_bytes());
    }
    let mut key = Key::default();
    for (to, from) in key.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    key
}
