//! A small CA in this process: what Pebble has not, and what a CA may do on a bad day.
//!
//! It speaks RFC 8555 with ARI (RFC 9773) and profiles, checks nonces and signatures, and believes
//! everybody unless it is told to look: most about challenges is Pebble's business.

use std::collections::{HashMap, HashSet};
use std::io::{Error, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData,
    SerialNumber, SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use crate::kit::wait::Shared;
use crate::zone::Zone;

/// Where a person finds more of its problems.
pub(crate) const INSTANCE: &str = "https://ca.example/problems/1";

/// What it does.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    /// Seconds that its certificates are valid, from now; and how long they already are.
    pub(crate) lifetime: (i64, i64),
    /// When it wants them renewed: seconds from now.
    pub(crate) window: Option<(i64, i64)>,
    pub(crate) profiles: Vec<&'static str>,
    /// Answers requests for such a resource with this problem.
    pub(crate) problem: Option<Problem>,
    /// From the second such request on with this one.
    pub(crate) afterwards: Option<Problem>,
    /// Issues for this name in place of the one asked for.
    pub(crate) wrong_name: bool,
    /// Where it explains when it wants certificates renewed.
    pub(crate) explanation: Option<String>,
    /// Refuses orders that say what they replace: status and kind.
    pub(crate) refuses_replaces: Option<(u16, &'static str)>,
    /// The one kind of challenge that it offers, in place of believing everybody.
    pub(crate) challenge: Option<&'static str>,
    /// Where it looks for the records of `dns-01`; it takes any other challenge for shown.
    pub(crate) zone: Option<Zone>,
    /// Never says what it has found, but for what the test has it believe.
    pub(crate) undecided: bool,
    /// Wants this to be shown in place of the first name that was ordered.
    pub(crate) wants: Option<Value>,
    /// Does what it is asked for at such a resource, and is gone before it says so.
    pub(crate) cut: Option<&'static str>,
    /// Takes no nonce.
    pub(crate) refuses_nonces: bool,
    /// Finds every name not to be ours that it looks at, for this reason, and says so with this
    /// `Retry-After`.
    pub(crate) refuses_names: Option<(&'static str, Option<&'static str>)>,
    /// Answers an order for this name late: when it is no longer so.
    pub(crate) slow: Option<&'static str>,
    /// Says of an order that is not ready that it wants to be asked again after so long.
    pub(crate) ask_again: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) resource: &'static str,
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) retry_after: Option<&'static str>,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            lifetime: (90 * 86400, 3600),
            window: None,
            profiles: Vec::new(),
            problem: None,
            afterwards: None,
            wrong_name: false,
            explanation: None,
            refuses_replaces: None,
            challenge: None,
            zone: None,
            undecided: false,
            wants: None,
            cut: None,
            refuses_nonces: false,
            refuses_names: None,
            slow: None,
            ask_again: None,
        }
    }
}

/// What it has seen.
#[derive(Debug, Default)]
pub(crate) struct Book {
    nonces: HashSet<String>,
    /// Keys, by URL.
    pub(crate) accounts: HashMap<String, Vec<u8>>,
    /// By URL of the account.
    pub(crate) contacts: HashMap<String, Value>,
    /// Those that it takes nothing from any more, by URL.
    pub(crate) closed: HashSet<String>,
    /// Of requests for new accounts.
    pub(crate) bindings: Vec<Value>,
    pub(crate) orders: Vec<Order>,
    /// Resources that were asked for.
    pub(crate) asked: Vec<String>,
    /// Orders that said what they replace, and were refused for it.
    pub(crate) refused_replaces: usize,
    count: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) names: Vec<Value>,
    pub(crate) replaces: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) certificate: Option<String>,
    /// One for each name.
    pub(crate) shown: Vec<Shown>,
    /// It may come and look.
    asked_to_look: bool,
}

/// How far a name has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    NotYet,
    Ours,
    Nobodys,
}

impl Shown {
    fn word(self) -> &'static str {
        match self {
            Self::NotYet => "pending",
            Self::Ours => "valid",
            Self::Nobodys => "invalid",
        }
    }
}

pub(crate) struct Ca {
    pub(crate) habits: Shared<Habits>,
    pub(crate) book: Shared<Book>,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) directory: String,
    dir: TempDir,
    _serves: AbortOnDropHandle<()>,
}

struct Desk {
    url: String,
    habits: Shared<Habits>,
    book: Shared<Book>,
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Ca {
    pub(crate) async fn start(habits: Habits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (issuer, root) = authority();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap().der().clone();
        std::fs::write(dir.path().join("root.pem"), &root.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let desk = Arc::new(Desk {
            url: url.clone(),
            habits: Shared::new(habits),
            book: Shared::default(),
            issuer,
            root: root.0,
        });
        let (habits, book) = (desk.habits.clone(), desk.book.clone());
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let serves = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, desk) = (acceptor.clone(), Arc::clone(&desk));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else {
                        return;
                    };
                    let service = service_fn(|request| {
                        let desk = Arc::clone(&desk);
                        async move { desk.answer_or_cut(request).await }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(tls), service)
                        .await;
                });
            }
        });
        Self {
            habits,
            book,
            root: root.1,
            directory: format!("{url}/dir"),
            dir,
            _serves: AbortOnDropHandle::new(serves),
        }
    }

    pub(crate) fn ca_root(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// Settings for a proxy that gets certificates here.
    pub(crate) fn settings(&self, state: &std::path::Path, acme: &str) -> String {
        settings(&[&self.directory], &self.ca_root(), state, acme)
    }

    /// Waits until it may look whether the names of this order are shown.
    pub(crate) async fn comes_to_look(&self, order: usize) {
        let asked = |book: &Book| book.orders.get(order).is_some_and(|it| it.asked_to_look);
        self.book
            .wait_for("a challenge that is ready", |book| {
                asked(book).then_some(())
            })
            .await;
    }

    /// Finds the names to be shown, once it may look.
    pub(crate) async fn believe(&self, order: usize) {
        self.comes_to_look(order).await;
        self.book
            .change(|book| book.orders[order].shown.fill(Shown::Ours));
    }

    pub(crate) fn orders(&self) -> Vec<Order> {
        self.book.read(|book| book.orders.clone())
    }

    /// How often such a resource was asked for.
    pub(crate) fn asked(&self, resource: &str) -> usize {
        self.book
            .read(|book| book.asked.iter().filter(|it| *it == resource).count())
    }
}

pub(crate) fn settings(
    directories: &[&str],
    ca_root: &std::path::Path,
    state: &std::path::Path,
    acme: &str,
) -> String {
    format!(
        "[tls]\ncertificate = \"acme\"\nfiles = []\n\
         [acme]\ndirectories = {directories:?}\nca_root = {ca_root:?}\nstate_dir = {state:?}\n{acme}\n",
    )
}

fn authority() -> (Issuer<'static, KeyPair>, (String, CertificateDer<'static>)) {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "CA of a test");
    let root = ca.self_signed(&key).unwrap();
    (Issuer::new(ca, key), (root.pem(), root.der().clone()))
}

pub(crate) fn token(id: usize, index: usize) -> String {
    format!("a-token-for-order-{id}-and-name-{index}")
}

/// Whether the payload of a signed request has this in it.
fn says(body: &[u8], text: &str) -> bool {
    let jws: Value = serde_json::from_slice(body).unwrap_or_default();
    let payload = jws["payload"].as_str().unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    String::from_utf8_lossy(&payload).contains(text)
}

/// The key of a request.
struct Requested(Vec<u8>);

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl Desk {
    async fn answer_or_cut(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Error> {
        let resource = request.uri().path().split('/').nth(1).map(str::to_owned);
        let answer = self.answer(request).await;
        match self.habits.read(|habits| habits.cut) == resource.as_deref() && resource.is_some() {
            true => Err(Error::from(ErrorKind::ConnectionReset)),
            false => Ok(answer),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let resource = path.split('/').nth(1).unwrap_or_default().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        let again = self.book.change(|book| {
            let again = book.asked.contains(&resource);
            book.asked.push(resource.clone());
            again
        });
        let mut habits = self.habits.read(Habits::clone);
        if let Some(problem) = habits.afterwards.take().filter(|_| again) {
            habits.problem = Some(problem);
        }
        if let Some(problem) = habits.problem.as_ref().filter(|it| it.resource == resource) {
            let kind = format!("urn:ietf:params:acme:error:{}", problem.kind);
            let mut answer = self.reply(
                problem.status,
                &json!({"type": kind, "detail": "So it is.", "instance": INSTANCE}),
            );
            if problem.kind.is_empty() {
                *answer.body_mut() = Full::from("<html>a bad day</html>");
                answer.headers_mut().remove("content-type");
            }
            if let Some(wait) = problem.retry_after {
                answer
                    .headers_mut()
                    .insert("retry-after", wait.parse().unwrap());
            }
            return answer;
        }
        match (&head.method, resource.as_str()) {
            (_, "dir") => self.reply(200, &self.directory(&habits)),
            (_, "nonce") => self.reply(200, &json!({})),
            (&Method::GET, "ari") => self.renewal(&habits),
            (&Method::POST, _) => {
                let opened = self.open(&head.uri.to_string(), &body);
                if let Some(name) = habits.slow
                    && resource == "order"
                    && says(&body, name)
                {
                    let at_last = |habits: &Habits| habits.slow.is_none().then_some(());
                    self.habits.wait_for("the end of a slow day", at_last).await;
                }
                match opened {
                    Ok(_) if habits.refuses_nonces => self.refuse("badNonce"),
                    Ok((payload, who)) => self.act(&resource, &path, &payload, &who, &habits),
                    Err(kind) => self.refuse(kind),
                }
            }
            _ => self.reply(404, &json!({})),
        }
    }

    fn refuse(&self, kind: &str) -> Response<Full<Bytes>> {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        self.reply(400, &json!({"type": kind, "detail": "refused"}))
    }

    fn directory(&self, habits: &Habits) -> Value {
        let url = |name: &str| format!("{}/{name}", self.url);
        let profiles: HashMap<_, _> = habits.profiles.iter().map(|name| (*name, "so")).collect();
        let mut directory = json!({
            "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
            "keyChange": url("key"), "revokeCert": url("revoke"), "meta": {"profiles": profiles},
        });
        if habits.window.is_some() {
            directory["renewalInfo"] = json!(url("ari"));
        }
        directory
    }

    fn renewal(&self, habits: &Habits) -> Response<Full<Bytes>> {
        let at = |offset: i64| {
            let moment = OffsetDateTime::now_utc() + time::Duration::seconds(offset);
            moment.format(&Rfc3339).unwrap()
        };
        let (start, end) = habits.window.unwrap();
        let mut window = json!({"suggestedWindow": {"start": at(start), "end": at(end)}});
        if let Some(url) = &habits.explanation {
            window["explanationURL"] = json!(url);
        }
        let mut answer = self.reply(200, &window);
        answer
            .headers_mut()
            .insert("retry-after", "21600".parse().unwrap());
        answer
    }

    /// Checks a request (RFC 8555, 6.2) and returns what it says, and of whom.
    fn open(&self, path: &str, body: &[u8]) -> Result<(Value, String), &'static str> {
        let jws: Value = serde_json::from_slice(body).map_err(|_| "malformed")?;
        let part = |name: &str| jws[name].as_str().ok_or("malformed");
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "malformed");
        let header: Value =
            serde_json::from_slice(&decode(part("protected")?)?).map_err(|_| "malformed")?;
        let nonce = header["nonce"].as_str().ok_or("badNonce")?;
        if !self.book.change(|book| book.nonces.remove(nonce)) {
            return Err("badNonce");
        }
        if header["url"] != format!("{}{path}", self.url) {
            return Err("unauthorized");
        }
        let (key, who) = match header["kid"].as_str() {
            Some(kid) => {
                let key = self.book.read(|book| book.accounts.get(kid).cloned());
                if self.book.read(|book| book.closed.contains(kid)) {
                    return Err("unauthorized");
                }
                (key.ok_or("accountDoesNotExist")?, kid.to_owned())
            }
            None => {
                let half = |name: &str| decode(header["jwk"][name].as_str().ok_or("malformed")?);
                let key = [vec![4], half("x")?, half("y")?].concat();
                (key, String::new())
            }
        };
        let signed = format!("{}.{}", part("protected")?, part("payload")?);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key)
            .verify(signed.as_bytes(), &decode(part("signature")?)?)
            .map_err(|_| "unauthorized")?;
        let payload = decode(part("payload")?)?;
        let payload = serde_json::from_slice(&payload).unwrap_or_default();
        Ok((
            payload,
            if who.is_empty() {
                BASE64_URL_SAFE_NO_PAD.encode(key)
            } else {
                who
            },
        ))
    }

    fn act(
        &self,
        resource: &str,
        path: &str,
        payload: &Value,
        who: &str,
        habits: &Habits,
    ) -> Response<Full<Bytes>> {
        let number = |part| path.split('/').nth(part)?.parse::<usize>().ok();
        let (id, index) = (number(2), number(3).unwrap_or_default());
        let (status, body, location) = match (resource, id) {
            ("account", _) => {
                let key = BASE64_URL_SAFE_NO_PAD.decode(who).unwrap();
                let closed = |book: &Book| {
                    let mut known = book.accounts.iter().filter(|(_, it)| **it == key);
                    known.any(|(kid, _)| book.closed.contains(kid))
                };
                if self.book.read(closed) {
                    return self.refuse("unauthorized");
                }
                let kid = self.book.change(|book| {
                    let binding = payload["externalAccountBinding"].clone();
                    book.bindings.push(binding);
                    let known = book.accounts.iter().find(|(_, it)| **it == key);
                    let kid = known.map_or_else(
                        || format!("{}/acct/{}", self.url, book.accounts.len()),
                        |(kid, _)| kid.clone(),
                    );
                    let new = book.accounts.insert(kid.clone(), key).is_none();
                    if new {
                        let contact = payload["contact"].clone();
                        book.contacts.insert(kid.clone(), contact);
                    }
                    (kid, new)
                });
                let (kid, new) = kid;
                let status = if new { 201 } else { 200 };
                (status, json!({"status": "valid"}), Some(kid))
            }
            ("acct", _) => {
                if payload["contact"].is_array() {
                    let contact = payload["contact"].clone();
                    self.book
                        .change(|book| book.contacts.insert(who.to_owned(), contact));
                }
                (200, json!({"status": "valid"}), None)
            }
            ("key", _) => match self.new_key(payload, who) {
                Ok(key) => {
                    self.book
                        .change(|book| book.accounts.insert(who.to_owned(), key));
                    (200, json!({}), None)
                }
                Err(kind) => return self.refuse(kind),
            },
            ("order", None)
                if payload["replaces"].is_string() && habits.refuses_replaces.is_some() =>
            {
                self.book.change(|book| book.refused_replaces += 1);
                let (status, kind) = habits.refuses_replaces.unwrap();
                let kind = format!("urn:ietf:params:acme:error:{kind}");
                (
                    status,
                    json!({"type": kind, "detail": "No.", "status": status}),
                    None,
                )
            }
            ("order", None) => {
                let text = |name: &str| payload[name].as_str().map(str::to_owned);
                let names = payload["identifiers"].as_array().unwrap().clone();
                let shown = match habits.challenge {
                    Some(_) => Shown::NotYet,
                    None => Shown::Ours,
                };
                let order = Order {
                    shown: vec![shown; names.len()],
                    names,
                    replaces: text("replaces"),
                    profile: text("profile"),
                    certificate: None,
                    asked_to_look: false,
                };
                let id = self.book.change(|book| {
                    book.orders.push(order);
                    book.orders.len() - 1
                });
                (
                    201,
                    self.order(id),
                    Some(format!("{}/order/{id}", self.url)),
                )
            }
            ("order", Some(id)) => {
                let shown = self.order(id);
                let mut answer = self.reply(200, &shown);
                let wait = match shown["status"].as_str() {
                    Some("invalid") => habits.refuses_names.and_then(|(_, wait)| wait),
                    Some("pending") => habits.ask_again,
                    _ => None,
                };
                if let Some(wait) = wait {
                    let wait = wait.parse().unwrap();
                    answer.headers_mut().insert("retry-after", wait);
                }
                return answer;
            }
            ("authz", Some(id)) => (200, self.authorization(id, index, habits), None),
            ("chall", Some(id)) => {
                let before = self.book.read(|book| book.orders[id].shown[index]);
                let shown = match self.is_shown(id, index, who, habits) {
                    // Somebody may have told it by now.
                    _ if habits.undecided => before,
                    true => Shown::Ours,
                    false => Shown::Nobodys,
                };
                self.book.change(|book| {
                    book.orders[id].shown[index] = shown;
                    book.orders[id].asked_to_look = true;
                });
                let mut challenge = self.challenge(id, index, habits);
                challenge["status"] = json!("processing");
                challenge.as_object_mut().unwrap().remove("error");
                (200, challenge, None)
            }
            ("finalize", Some(id)) => {
                let csr = BASE64_URL_SAFE_NO_PAD
                    .decode(payload["csr"].as_str().unwrap())
                    .unwrap();
                let certificate = self.issue(id, &csr, habits);
                self.book
                    .change(|book| book.orders[id].certificate = Some(certificate));
                (200, self.order(id), None)
            }
            ("cert", Some(id)) => {
                let pem = self
                    .book
                    .read(|book| book.orders[id].certificate.clone().unwrap());
                let mut answer = self.reply(200, &json!({}));
                *answer.body_mut() = Full::from(pem);
                return answer;
            }
            _ => (404, json!({}), None),
        };
        let mut answer = self.reply(status, &body);
        if let Some(location) = location {
            answer
                .headers_mut()
                .insert("location", location.parse().unwrap());
        }
        answer
    }

    /// That the key inside wants to take the place of the account's (RFC 8555, 7.3.5).
    fn new_key(&self, inner: &Value, who: &str) -> Result<Vec<u8>, &'static str> {
        let part = |name: &str| inner[name].as_str().ok_or("malformed");
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "malformed");
        let json = |name: &str| -> Result<Value, &'static str> {
            serde_json::from_slice(&decode(part(name)?)?).map_err(|_| "malformed")
        };
        let point = |jwk: &Value| -> Result<Vec<u8>, &'static str> {
            let half = |name: &str| decode(jwk[name].as_str().ok_or("malformed")?);
            Ok([vec![4], half("x")?, half("y")?].concat())
        };
        let (header, payload) = (json("protected")?, json("payload")?);
        let key = point(&header["jwk"])?;
        let signed = format!("{}.{}", part("protected")?, part("payload")?);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key)
            .verify(signed.as_bytes(), &decode(part("signature")?)?)
            .map_err(|_| "unauthorized")?;
        let old = self.book.read(|book| book.accounts[who].clone());
        let right = payload["account"] == who
            && point(&payload["oldKey"])? == old
            && header["url"] == format!("{}/key", self.url);
        right.then_some(key).ok_or("malformed")
    }

    fn order(&self, id: usize) -> Value {
        let order = self.book.read(|book| book.orders[id].clone());
        let url = |name: &str| format!("{}/{name}/{id}", self.url);
        let status = match &order {
            order if order.certificate.is_some() => "valid",
            order if order.shown.contains(&Shown::Nobodys) => "invalid",
            order if order.shown.contains(&Shown::NotYet) => "pending",
            _ => "ready",
        };
        let authorizations: Vec<String> = (0..order.names.len())
            .map(|index| format!("{}/{index}", url("authz")))
            .collect();
        let mut shown = json!({
            "status": status, "identifiers": order.names, "authorizations": authorizations,
            "finalize": url("finalize"),
        });
        if let Some(replaces) = order.replaces {
            shown["replaces"] = json!(replaces);
        }
        if order.certificate.is_some() {
            shown["certificate"] = json!(url("cert"));
        }
        shown
    }

    fn authorization(&self, id: usize, index: usize, habits: &Habits) -> Value {
        let order = self.book.read(|book| book.orders[id].clone());
        let name = order.names[index].clone();
        let base = name["value"].as_str().unwrap().strip_prefix("*.");
        let mut authorization = json!({
            "status": order.shown[index].word(),
            "identifier": name,
            "challenges": [self.challenge(id, index, habits)],
        });
        if let Some(base) = base {
            authorization["identifier"]["value"] = json!(base);
            authorization["wildcard"] = json!(true);
        }
        if let (Some(wants), 0) = (&habits.wants, index) {
            for (key, value) in wants.as_object().unwrap() {
                authorization[key] = value.clone();
            }
        }
        authorization
    }

    fn challenge(&self, id: usize, index: usize, habits: &Habits) -> Value {
        let shown = self.book.read(|book| book.orders[id].shown[index]);
        let mut challenge = json!({
            "type": habits.challenge.unwrap_or("http-01"), "status": shown.word(),
            "url": format!("{}/chall/{id}/{index}", self.url), "token": token(id, index),
        });
        if shown == Shown::Nobodys {
            let (kind, detail) = match habits.refuses_names {
                Some((kind, _)) => (kind, "So it is."),
                None => ("unauthorized", "no such record"),
            };
            let kind = format!("urn:ietf:params:acme:error:{kind}");
            challenge["error"] = json!({"type": kind, "detail": detail});
        }
        challenge
    }

    /// Looks for the record (RFC 8555, 8.4).
    fn is_shown(&self, id: usize, index: usize, who: &str, habits: &Habits) -> bool {
        let Some(zone) = &habits.zone else {
            return habits.refuses_names.is_none();
        };
        let (key, name) = self.book.read(|book| {
            let name = book.orders[id].names[index]["value"].clone();
            (book.accounts[who].clone(), name)
        });
        let half = |from: usize| BASE64_URL_SAFE_NO_PAD.encode(&key[from..from + 32]);
        // RFC 7638.
        let jwk = format!(
            "{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"{}\",\"y\":\"{}\"}}",
            half(1),
            half(33)
        );
        let hash = |text: &str| {
            BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
        };
        let value = hash(&format!("{}.{}", token(id, index), hash(&jwk)));
        let name = name.as_str().unwrap().trim_start_matches("*.");
        zone.records(&format!("_acme-challenge.{name}"))
            .contains(&value)
    }

    fn issue(&self, id: usize, csr: &[u8], habits: &Habits) -> String {
        let (_, csr) = X509CertificationRequest::from_der(csr).unwrap();
        let info = &csr.certification_request_info;
        let key = Requested(info.subject_pki.subject_public_key.data.to_vec());
        let (names, count) = self.book.change(|book| {
            book.count += 1;
            (book.orders[id].names.clone(), book.count)
        });
        let names = names
            .iter()
            .map(|name| name["value"].as_str().unwrap().to_owned());
        let names = match habits.wrong_name {
            true => vec!["somebody.else.example".to_owned()],
            false => names.collect(),
        };
        let mut leaf = CertificateParams::new(names).unwrap();
        let now = OffsetDateTime::now_utc();
        leaf.not_before = now - time::Duration::seconds(habits.lifetime.1);
        leaf.not_after = now + time::Duration::seconds(habits.lifetime.0);
        leaf.use_authority_key_identifier_extension = true;
        leaf.serial_number = Some(SerialNumber::from(count + 1000));
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        format!("{}{}", leaf.pem(), self.root)
    }

    fn reply(&self, status: u16, body: &Value) -> Response<Full<Bytes>> {
        let nonce = self.book.change(|book| {
            book.count += 1;
            let nonce = format!("nonce-{}", book.count);
            book.nonces.insert(nonce.clone());
            nonce
        });
        let kind = if status < 400 {
            "application/json"
        } else {
            "application/problem+json"
        };
        Response::builder()
            .status(status)
            .header("replay-nonce", nonce)
            .header("content-type", kind)
            .body(Full::from(body.to_string()))
            .unwrap()
    }
}
