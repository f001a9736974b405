//! The checked config: what the rest of the program reads.
//!
//! Immutable and cheap to share in an `Arc`. Every value here has been parsed, range-checked and
//! cross-checked by [`super::check`]; nothing here knows about files, TOML or defaults' origins.

mod dns;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderName;
use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::auth::{PasswordHash, TokenHash};
use crate::observe::labels::Way;
use crate::tls::Authorities;

pub use dns::{Dns, DnsHook, DnsUpdate, TsigAlgorithm, TsigKey, TsigSecret};

/// The whole effective config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Public listeners.
    pub listen: Listen,
    /// Which certificate is served, and which TLS versions.
    pub tls: Tls,
    /// Certificates from a CA, where `[tls] certificate` says so.
    pub acme: Option<Acme>,
    /// Every route; the last one is the default (`[gateway]`) and matches everything.
    pub routes: Vec<Route>,
    /// How open and new sessions wait for an absent gateway.
    pub hold: Hold,
    /// How plain requests wait for an absent gateway.
    pub http: Http,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// Who may come in, decided here.
    pub auth: Auth,
    /// The local admin listener.
    pub admin: Admin,
    /// The log.
    pub log: Log,
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// TLS listeners.
    pub https: Vec<SocketAddr>,
    /// Plain listeners: they answer a CA's `http-01`, and redirect all else to https.
    pub http: Vec<SocketAddr>,
    /// Whether connections from `trusted_proxies` start with a PROXY v1/v2 header.
    pub proxy_protocol: bool,
    /// Who may tell us a client's address (PROXY header, `X-Forwarded-For`).
    pub trusted_proxies: Vec<IpNet>,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where the certificates come from.
    pub certificate: CertificateSource,
    /// Lowest TLS version spoken.
    pub min_version: TlsVersion,
    /// When set, clients are asked for a certificate of this CA (PEM file).
    pub client_ca: Option<PathBuf>,
    /// Whether a client that has none may come in; means nothing without `client_ca`.
    pub client_certificates: ClientCertificates,
}

/// What happens to a client that shows no certificate of `[tls] client_ca`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Its handshake fails.
    Required,
    /// It may sign in another way (`[auth] modes`). One that is shown must be good all the same.
    Optional,
}

/// `[tls] certificate`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// A self-signed one in this directory, made on first use.
    Dev {
        /// Where `cert.pem` and `key.pem` are kept.
        dir: PathBuf,
    },
    /// PEM files, chosen by SNI; the first is the default.
    Files(Vec<CertificateFiles>),
    /// From a CA, as `[acme]` says.
    Acme,
}

/// `[acme]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Names and addresses, those of one certificate together; neither is ever empty. Lower case,
    /// wildcards as `*.name`.
    pub certificates: Vec<Vec<String>>,
    /// E-mail addresses for the CA.
    pub contact: Vec<String>,
    /// The CAs, in order of preference; never empty.
    pub directories: Vec<Directory>,
    /// Ways to show that a name is ours, in order of preference; never empty.
    pub challenges: Vec<Challenge>,
    /// For `dns-01`; there if `challenges` has it.
    pub dns: Option<Dns>,
    /// A profile of the CA.
    pub profile: Option<String>,
    /// Customer accounts at CAs that ask for one.
    pub eab: Vec<ExternalAccount>,
    /// A further root (PEM file), for the CA's own TLS.
    pub ca_root: Option<PathBuf>,
    /// Keeps everything in its folder `acme`.
    pub state_dir: PathBuf,
    /// Where another server may have left certificates that are still good.
    pub import: Vec<PathBuf>,
}

/// A CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// As it was written: a known name or a URL.
    pub name: String,
    /// Of its directory (RFC 8555, 7.1.1).
    pub url: String,
}

/// A way to show a CA that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Challenge {
    /// A file on port 80.
    Http01,
    /// A certificate on port 443 (RFC 8737).
    TlsAlpn01,
    /// A TXT record; the only one for wildcards.
    Dns01,
}

/// One of `[acme] eab`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The directory URL of the CA it is for; `None`: any that asks.
    pub directory: Option<String>,
    /// The CA's name of the key.
    pub kid: String,
    /// Holds the HMAC key in base64url, as the CA shows it.
    pub key_file: PathBuf,
}

impl ExternalAccount {
    /// The HMAC key in what `key_file` holds; `None` if that is none.
    #[must_use]
    pub fn key(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let text: Zeroizing<Vec<u8>> = text
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace() && **byte != b'=')
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect::<Vec<u8>>()
            .into();
        let key = BASE64_URL_SAFE_NO_PAD.decode(&*text).map(Zeroizing::new);
        key.ok().filter(|key| !key.is_empty())
    }
}

/// One certificate chain and its key on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// `[tls] min_version`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    V1_2,
    /// TLS 1.3 only.
    V1_3,
}

/// A `[[route]]`, or the default one made of `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// For logs and status: `host/path` as written, or `default`.
    pub name: String,
    /// Which hosts; `None`: any.
    pub host: Option<HostPattern>,
    /// Path prefix on segment boundaries, starting with `/`; `None`: any.
    pub path: Option<String>,
    /// Where matching requests go.
    pub upstream: Upstream,
}

/// A host as a route names it. Always lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Exactly this name or address.
    Exact(String),
    /// `*.suffix`: any name with at least one label before this suffix (stored without `*.`).
    Under(String),
}

/// Where a route's gateway is and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Host name or IP address literal (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What the frames mean.
    pub protocol: ProtocolKind,
    /// How readiness is asked.
    pub probe: Probe,
    /// Longest time between probes while not ready.
    pub probe_interval: Duration,
    /// Longest time between probes while ready.
    pub probe_interval_ready: Duration,
    /// Limit of one name look-up plus TCP connect.
    pub connect_timeout: Duration,
    /// How clients on loopback are presented.
    pub loopback_clients: LoopbackClients,
    /// How lost sessions come back.
    pub resume: Resume,
}

impl Upstream {
    /// `host:port` as a `Host` header says it.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// `[gateway] protocol`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolKind {
    /// The OpenClaw gateway's JSON protocol.
    Openclaw,
    /// Any other WebSocket application.
    Generic,
}

/// `[gateway] probe`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `/startupz`, else `/health` and a challenge (openclaw); an open port (generic).
    Auto,
    /// GET this path; 2xx is ready.
    Path(String),
    /// An open port is ready.
    Tcp,
}

/// `[gateway] loopback_clients`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopbackClients {
    /// No forwarding headers: the gateway trusts them as it would without us.
    Local,
    /// Refuse them.
    Refuse,
}

/// `[hold] resume`, overridable per route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The best way that is honest for the session.
    Auto,
    /// Replay where possible, else reconnect.
    Replay,
    /// Always close 1012 and let the client return.
    Reconnect,
    /// Dial again and go on: for applications without per-connection state.
    Splice,
    /// Do not hold: pass the loss on as a close 1012 at once.
    Off,
}

/// `[hold]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Longest wait of an open session.
    pub max: Duration,
    /// Longest wait of a new upgrade before its 101.
    pub upgrade: Duration,
    /// Longest wait between a greeted client's `connect` and our answer.
    pub handshake: Duration,
    /// An open session is told this soon.
    pub notice_after: Duration,
    /// ... and again this often.
    pub notice_every: Duration,
    /// Client bytes kept per held session.
    pub buffer: usize,
    /// Client bytes kept over all sessions.
    pub buffer_total: usize,
    /// Sessions put back per second.
    pub resume_rate: u32,
    /// Unfinished handshakes at a gateway at a time.
    pub unfinished_handshakes: usize,
    /// ... of which per client address.
    pub unfinished_per_ip: usize,
    /// Whether safe unanswered requests may be sent again after a replay.
    pub replay_requests: ReplayRequests,
}

/// `[hold] replay_requests`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayRequests {
    /// Read-only ones and those the gateway de-duplicates.
    Safe,
    /// None.
    Never,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// How long a plain request may wait for the gateway.
    pub hold: Duration,
    /// A browser's page load gets the waiting page after this.
    pub page_after: Duration,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open WebSocket sessions, held ones included.
    pub sessions: usize,
    /// ... of which per client address.
    pub sessions_per_ip: usize,
    /// New connections per client address and second (also the burst).
    pub handshakes_per_ip: u32,
    /// From accept (or the last response) to a complete request head.
    pub header_timeout: Duration,
    /// From accept to a finished TLS handshake.
    pub tls_timeout: Duration,
    /// Largest frame from a client, payload bytes.
    pub frame: u64,
    /// The same before the gateway has accepted its `connect`.
    pub preauth_frame: u64,
    /// Silence after which a client is pinged; an unanswered ping ends it. `None`: never.
    pub ping_every: Option<Duration>,
    /// WebSocket `Origin` allow-list; empty: the gateway decides.
    pub origins: Vec<String>,
    /// How long live sessions may go on after SIGTERM.
    pub drain: Duration,
    /// How long sessions may stay at an old process after an upgrade.
    pub handover: Duration,
}

impl Limits {
    /// A session is a socket on either side.
    const PER_SESSION: u64 = 2;
    /// Listeners, probes, plain requests, the log.
    const BESIDES: u64 = 256;

    /// File descriptors that this many sessions need.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        let sessions = u64::try_from(self.sessions).unwrap_or(u64::MAX);
        let sockets = sessions.saturating_mul(Self::PER_SESSION);
        sockets.saturating_add(Self::BESIDES)
    }

    /// How many sessions so many file descriptors are enough for.
    #[must_use]
    pub fn sessions_within(descriptors: u64) -> u64 {
        descriptors.saturating_sub(Self::BESIDES) / Self::PER_SESSION
    }
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Whether people sign in with a password.
    pub password: bool,
    /// Whether `Authorization: Bearer` is taken.
    pub token: bool,
    /// Whether a client certificate is taken, and what of it is the name.
    pub certificate: Option<CertificateName>,
    /// The CAs of `[tls] client_ca`: whoever has shown a certificate of another is out.
    pub client_cas: Authorities,
    /// The service that is asked about everybody else.
    pub forward: Option<ForwardAuth>,
    /// Who has a password.
    pub users: Vec<User>,
    /// Access tokens, for programs.
    pub tokens: Vec<AccessToken>,
    /// Path prefixes, on segment boundaries, that need no sign-in.
    pub public: Vec<String>,
    /// Where the gateway reads who it is.
    pub user_header: HeaderName,
    /// The address under which a client on loopback is presented once it has signed in: a gateway
    /// believes no identity of a loopback one.
    pub loopback_as: IpAddr,
    /// A sign-in that is not used ends after this.
    pub session_idle: Duration,
    /// A sign-in ends after this, used or not.
    pub session_max: Duration,
    /// Where the key of the cookies is kept, and which sign-ins were ended.
    pub state_dir: PathBuf,
}

impl Auth {
    /// Whether it is decided here who comes in.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.password || self.token || self.certificate.is_some() || self.forward.is_some()
    }

    /// The ways in that are open.
    pub fn ways(&self) -> impl Iterator<Item = Way> {
        [
            (self.password, Way::Password),
            (self.token, Way::Token),
            (self.certificate.is_some(), Way::Mtls),
            (self.forward.is_some(), Way::Forward),
        ]
        .into_iter()
        .filter_map(|(on, way)| on.then_some(way))
    }

    /// What `[auth]` leaves to be demanded in the TLS handshake: where a certificate is a way to
    /// sign in, whoever has none is answered in words, and public paths stay open.
    #[must_use]
    pub fn client_certificates(&self) -> ClientCertificates {
        match self.certificate.is_some() {
            true => ClientCertificates::Optional,
            false => ClientCertificates::Required,
        }
    }
}

/// `[auth] users`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, which the gateway is told.
    pub name: String,
    /// Of the password.
    pub hash: PasswordHash,
}

/// `[auth] tokens`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// What it is for, in logs.
    pub name: String,
    /// As whom it comes in.
    pub user: String,
    /// Of the token.
    pub hash: TokenHash,
}

/// `[auth] certificate_name`: what of a client certificate is the user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// The subject's common name.
    SubjectCn,
    /// The first e-mail address among the alternative names.
    SanEmail,
    /// The first DNS name among them.
    SanDns,
    /// The first URI among them.
    SanUri,
}

/// `[auth.forward]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Whether it is asked over TLS.
    pub tls: bool,
    /// The CA its certificate is of; `None`: one of this machine's.
    pub ca_root: Option<PathBuf>,
    /// Host name or IP address literal (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path, and query if there is one.
    pub path: String,
    /// The header of its answer that names the user.
    pub user: HeaderName,
    /// Further headers of its answer that the gateway gets.
    pub copy: Vec<HeaderName>,
    /// How long it may take.
    pub timeout: Duration,
    /// How long its yes is believed without asking again; zero: never.
    pub cache: Duration,
    /// How often it is asked again about somebody who is in; `None`: never.
    pub recheck: Option<Duration>,
    /// How long somebody who is in may stay without its yes while it gives no answer.
    pub without_answer: Duration,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where; `None` turns it off.
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter, e.g. `info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// `[log] format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `Pretty` on a terminal, else `Json`.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}
