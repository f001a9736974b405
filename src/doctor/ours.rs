//! The way through the holdline that runs: TLS, its own surface, and a WebSocket to every gateway.
//!
//! Its certificate is taken as it is; what an ordinary client would say to it is a finding.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Finding;
use super::ask::{AskError, Opened, Question, get, open};
use super::case::{ANSWER, Case, reachable};
use super::gateway::challenge::is_challenge;
use super::ports::Port;
use crate::config::{Config, HostPattern, LoopbackClients, ProtocolKind, Route};
use crate::hint;
use crate::observe::status::CertificateStatus;
use crate::tls::{self, Ordinary, Shown};

/// A client of nobody's (RFC 5737), where one must be named.
const NOBODY: &str = "192.0.2.1";
/// Routes looked at; each takes a connection, of which one address may only make so many a second.
const MOST: usize = 8;

/// Shakes hands with whoever is there, as a client that asks for this name.
pub(super) async fn greet(
    case: &Case,
    address: SocketAddr,
    name: Option<&str>,
) -> Result<(TlsStream<TcpStream>, Shown), String> {
    let name = name.unwrap_or("localhost").replacen('*', "any", 1);
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let met = async {
        let mut stream = TcpStream::connect(reachable(address)).await?;
        let local = stream.local_addr()?.ip();
        if case
            .config
            .as_deref()
            .is_some_and(|config| announces(config, local))
        {
            let line = format!("PROXY TCP4 {NOBODY} {NOBODY} 40000 {}\r\n", address.port());
            stream.write_all(line.as_bytes()).await?;
        }
        tls::greet(stream, name).await
    };
    match tokio::time::timeout(ANSWER, met).await {
        Ok(met) => met.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no TLS handshake within {} s", ANSWER.as_secs())),
    }
}

/// Whether connections of ours have to begin with a PROXY line.
fn announces(config: &Config, local: IpAddr) -> bool {
    config.listen.proxy_protocol && is_trusted(config, local)
}

fn is_trusted(config: &Config, local: IpAddr) -> bool {
    let local = local.to_canonical();
    config
        .listen
        .trusted_proxies
        .iter()
        .any(|net| net.contains(&local))
}

/// Whether a holdline answers on a TLS address.
pub(super) async fn is_holdline(case: &Case, address: SocketAddr) -> bool {
    let Ok((stream, _)) = greet(case, address, None).await else {
        return false;
    };
    let question = Question::new("localhost", "/.holdline/status.json");
    let answer = get(stream, &question, ANSWER).await;
    answer.is_ok_and(|answer| {
        let said = serde_json::from_slice::<Value>(answer.body()).unwrap_or_default();
        said.get("state").is_some() && said.get("retryAfterMs").is_some()
    })
}

/// What one TLS address has shown.
#[derive(Debug)]
struct Evidence {
    address: SocketAddr,
    /// `[tls] certificate = "dev"`.
    development: bool,
    /// A certificate that a CA has still to issue is stood in for.
    stands_in: bool,
    port: PortSeen,
    routes: Vec<RouteSeen>,
}

#[derive(Debug)]
enum PortSeen {
    NotRunning(&'static str),
    NoHandshake(String),
    Shown { sha256: String, ordinary: Ordinary },
}

/// What a WebSocket on one route came to.
#[derive(Debug)]
struct RouteSeen {
    route: String,
    openclaw: bool,
    signs_in: bool,
    refuses_loopback: bool,
    opened: Result<Opened, NotOpened>,
}

#[derive(Debug)]
enum NotOpened {
    /// It was not tried: its gateway is away.
    GatewayAway,
    NoHandshake(String),
    Ask(AskError),
}

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let Some(config) = case.config.clone() else {
        return vec![Finding::cannot_tell(
            "",
            "there is no good config that names it",
        )];
    };
    let mut findings = Vec::new();
    let mut routes_seen = false;
    for address in &config.listen.https {
        let evidence = gather(&case, &config, *address, !routes_seen).await;
        routes_seen |= !evidence.routes.is_empty();
        findings.extend(judge(&evidence));
    }
    findings
}

async fn gather(case: &Case, config: &Config, address: SocketAddr, routes: bool) -> Evidence {
    let development = matches!(
        config.tls.certificate,
        crate::config::CertificateSource::Dev { .. }
    );
    let mut evidence = Evidence {
        address,
        development,
        stands_in: false,
        port: PortSeen::NotRunning("holdline is not running on it"),
        routes: Vec::new(),
    };
    match case.port(address).await {
        Some(Port::Ours(_)) => {}
        Some(Port::Taken(_)) => {
            evidence.port = PortSeen::NotRunning("somebody else is on it");
            return evidence;
        }
        _ => return evidence,
    }
    let shown = match greet(case, address, None).await {
        Ok((_, shown)) => shown,
        Err(error) => {
            evidence.port = PortSeen::NoHandshake(error);
            return evidence;
        }
    };
    let running = case.running().await.status();
    evidence.stands_in = running.is_some_and(|status| {
        let same = |one: &CertificateStatus| one.sha256 == shown.facts.sha256;
        let mut served = status.certificates.iter();
        served.any(|one| one.stands_in() && same(one))
    });
    let (sha256, name) = (
        shown.facts.sha256.clone(),
        shown.facts.names.first().cloned(),
    );
    let ordinary = super::blocking(move || shown.to_an_ordinary_client(SystemTime::now())).await;
    let ordinary = ordinary.unwrap_or(Ordinary::NoList);
    evidence.port = PortSeen::Shown { sha256, ordinary };
    if routes {
        for route in config.routes.iter().rev().take(MOST) {
            let seen = through(case, config, address, route, name.as_deref()).await;
            evidence.routes.push(seen);
        }
    }
    evidence
}

async fn through(
    case: &Case,
    config: &Config,
    address: SocketAddr,
    route: &Route,
    name: Option<&str>,
) -> RouteSeen {
    let openclaw = route.upstream.protocol == ProtocolKind::Openclaw;
    let opened = async {
        let authority = route.upstream.authority();
        let same = |gateway: &&super::case::Gateway| gateway.upstream.authority() == authority;
        if let Some(gateway) = case.gateways.iter().find(same)
            && !gateway.health().await.is_ready()
        {
            return Err(NotOpened::GatewayAway);
        }
        let host = match &route.host {
            Some(HostPattern::Exact(host)) => host.clone(),
            Some(HostPattern::Under(suffix)) => format!("holdline-doctor.{suffix}"),
            None => name.unwrap_or("localhost").replacen('*', "any", 1),
        };
        let (stream, _) = greet(case, address, Some(&host))
            .await
            .map_err(NotOpened::NoHandshake)?;
        let local = stream.get_ref().0.local_addr().map(|local| local.ip());
        let path = route.path.as_deref().unwrap_or("/");
        let host = match address.port() {
            443 => host,
            port => format!("{host}:{port}"),
        };
        let mut question = Question::new(host, path);
        if let Some(origin) = config.limits.origins.first() {
            question = question.with("origin", origin);
        }
        let trusted = local.is_ok_and(|local| is_trusted(config, local));
        if trusted && !config.listen.proxy_protocol {
            question = question.with("x-forwarded-for", NOBODY);
        }
        let opened = open(stream, &question, openclaw, ANSWER).await;
        opened.map_err(NotOpened::Ask)
    };
    RouteSeen {
        route: route.name.clone(),
        openclaw,
        signs_in: config.auth.is_on(),
        refuses_loopback: route.upstream.loopback_clients == LoopbackClients::Refuse,
        opened: opened.await,
    }
}

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let subject = evidence.address.to_string();
    let first = match &evidence.port {
        PortSeen::NotRunning(why) => Finding::cannot_tell(subject, *why),
        PortSeen::NoHandshake(error) => {
            let seen = format!("no TLS handshake: {error}");
            Finding::failure(subject, seen, "see holdline's log")
        }
        PortSeen::Shown { sha256, ordinary } => match (ordinary, evidence.stands_in) {
            (Ordinary::UnknownIssuer | Ordinary::Refuses(_), true) => stand_in(subject),
            _ => ordinary_client(subject, sha256, ordinary, evidence.development),
        },
    };
    let routes = evidence.routes.iter().map(judge_route);
    [first].into_iter().chain(routes).collect()
}

/// It is replaced by itself, and whoever had pinned it would be shut out then.
fn stand_in(subject: String) -> Finding {
    Finding::warning(
        subject,
        "it speaks TLS; its certificate is self-signed until the CA has issued one, and clients refuse it",
        format!(
            "wait for the CA, and pin nothing; `{}` shows how far it is",
            hint::command("cert list")
        ),
    )
}

fn ordinary_client(
    subject: String,
    sha256: &str,
    ordinary: &Ordinary,
    development: bool,
) -> Finding {
    let pin = format!("openclaw config set gateway.remote.tlsFingerprint {sha256}");
    match ordinary {
        Ordinary::Content => Finding::ok(
            subject,
            "it speaks TLS, and clients of this machine accept its certificate",
        ),
        Ordinary::UnknownIssuer if development => {
            let seen = "it speaks TLS; an ordinary client refuses its self-signed certificate, and browsers ask";
            let remedy = format!(
                "for others use [tls] certificate = \"acme\" or \"files\"; for OpenClaw's clients: {pin}"
            );
            Finding::warning(subject, seen, remedy)
        }
        Ordinary::UnknownIssuer => {
            let seen =
                "it speaks TLS; an ordinary client of this machine knows no CA for its certificate";
            let remedy = format!(
                "serve the whole chain, or let clients know its CA; for OpenClaw's clients: {pin}"
            );
            Finding::warning(subject, seen, remedy)
        }
        Ordinary::Refuses(why) => {
            let seen = format!("it speaks TLS; an ordinary client refuses its certificate: {why}");
            Finding::warning(subject, seen, "see the look at the certificate")
        }
        Ordinary::NoList => Finding::cannot_tell(
            subject,
            "it speaks TLS; what an ordinary client would say to its certificate is not known: there is no list of CAs here",
        ),
    }
}

fn judge_route(seen: &RouteSeen) -> Finding {
    let subject = format!("route {}", seen.route);
    match &seen.opened {
        Ok(Opened::Open(Some(first))) if is_challenge(first) => {
            Finding::ok(subject, "a WebSocket gets its challenge")
        }
        Ok(Opened::Open(_)) if seen.openclaw => {
            let remedy = "see that [gateway] protocol is right for what is behind it";
            Finding::failure(subject, "a WebSocket opens, but gets no challenge", remedy)
        }
        Ok(Opened::Open(_)) => Finding::ok(subject, "a WebSocket opens"),
        // A forward-auth service may send anybody to its page.
        Ok(Opened::Refused(status, _))
            if seen.signs_in
                && (*status == StatusCode::UNAUTHORIZED || status.is_redirection()) =>
        {
            let status = status.as_u16();
            let seen = format!("a WebSocket has to sign in ({status}), as [auth] wants it");
            Finding::ok(subject, seen)
        }
        Ok(Opened::Refused(status, words)) => {
            let said = match words.is_empty() {
                true => String::new(),
                false => format!(": {words}"),
            };
            let answer = format!("a WebSocket is answered with {status}{said}");
            if *status == StatusCode::FORBIDDEN && seen.refuses_loopback {
                let why = format!("{answer}; loopback_clients = \"refuse\" shuts out this machine");
                return Finding::cannot_tell(subject, why);
            }
            match seen.openclaw {
                true => Finding::failure(
                    subject,
                    answer,
                    "see holdline's log, and the gateway's: openclaw logs",
                ),
                // It may have its WebSocket on a path that nobody here knows.
                false => Finding::warning(
                    subject,
                    answer,
                    "if that path should open one, see the application's log",
                ),
            }
        }
        Err(NotOpened::GatewayAway) => Finding::cannot_tell(
            subject,
            "its gateway is not ready: a connection would be held",
        ),
        Err(NotOpened::NoHandshake(error)) => Finding::failure(
            subject,
            format!("no TLS handshake: {error}"),
            "see holdline's log",
        ),
        Err(NotOpened::Ask(AskError::Broken(what))) if what.contains("CertificateRequired") => {
            Finding::cannot_tell(
                subject,
                "it asks for a client certificate, which there is none of here",
            )
        }
        Err(NotOpened::Ask(error)) => {
            let remedy = format!("see `{}`, and holdline's log", hint::command("status"));
            Finding::failure(
                subject,
                format!("a WebSocket does not open: {error}"),
                remedy,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Verdict;
    use super::*;

    fn route(openclaw: bool, opened: Result<Opened, NotOpened>) -> RouteSeen {
        RouteSeen {
            route: "default".to_owned(),
            openclaw,
            signs_in: false,
            refuses_loopback: false,
            opened,
        }
    }

    #[test]
    fn what_only_stands_in_is_not_to_be_pinned() {
        let judged = |stands_in| {
            let evidence = Evidence {
                address: "127.0.0.1:443".parse().unwrap(),
                development: false,
                stands_in,
                port: PortSeen::Shown {
                    sha256: "AB:CD".to_owned(),
                    ordinary: Ordinary::UnknownIssuer,
                },
                routes: Vec::new(),
            };
            judge(&evidence).remove(0)
        };
        assert!(judged(false).remedy.contains("tlsFingerprint AB:CD"));
        let stand_in = judged(true);
        assert_eq!(stand_in.verdict, Verdict::Warning);
        assert!(!stand_in.remedy.contains("AB:CD"), "{stand_in:?}");
        assert!(
            stand_in.seen.contains("until the CA has issued one"),
            "{stand_in:?}"
        );
    }

    #[test]
    fn a_challenge_is_what_an_openclaw_client_waits_for() {
        let challenge = r#"{"type":"event","event":"connect.challenge","payload":{}}"#;
        let open = |text: &'static str| Ok(Opened::Open(Some(text.as_bytes().into())));
        assert_eq!(
            judge_route(&route(true, open(challenge))).verdict,
            Verdict::Ok
        );
        assert_eq!(
            judge_route(&route(true, open("hello"))).verdict,
            Verdict::Failure
        );
        assert_eq!(
            judge_route(&route(false, Ok(Opened::Open(None)))).verdict,
            Verdict::Ok
        );
        let slow = || Err(NotOpened::Ask(AskError::TooSlow(Duration::from_secs(3))));
        assert_eq!(judge_route(&route(true, slow())).verdict, Verdict::Failure);
        let away = Err(NotOpened::GatewayAway);
        assert_eq!(judge_route(&route(true, away)).verdict, Verdict::CannotTell);
    }

    #[test]
    fn a_refusal_means_what_the_config_makes_of_it() {
        let refused = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            Ok(Opened::Refused(status, "no".to_owned()))
        };
        let mut seen = route(true, refused(401));
        assert_eq!(judge_route(&seen).verdict, Verdict::Failure);
        seen.signs_in = true;
        assert_eq!(judge_route(&seen).verdict, Verdict::Ok);
        let mut seen = route(true, refused(302));
        assert_eq!(judge_route(&seen).verdict, Verdict::Failure);
        seen.signs_in = true;
        assert_eq!(judge_route(&seen).verdict, Verdict::Ok);
        let mut seen = route(true, refused(403));
        assert_eq!(judge_route(&seen).verdict, Verdict::Failure);
        seen.refuses_loopback = true;
        assert_eq!(judge_route(&seen).verdict, Verdict::CannotTell);
        assert_eq!(
            judge_route(&route(false, refused(404))).verdict,
            Verdict::Warning
        );
    }

    #[test]
    fn what_an_ordinary_client_says_is_a_warning_at_most() {
        let judged = |ordinary: Ordinary, development| {
            ordinary_client("a".to_owned(), "AB:CD", &ordinary, development)
        };
        assert_eq!(judged(Ordinary::Content, false).verdict, Verdict::Ok);
        let own = judged(Ordinary::UnknownIssuer, true);
        assert_eq!(own.verdict, Verdict::Warning);
        assert!(
            own.remedy.ends_with("gateway.remote.tlsFingerprint AB:CD"),
            "{own:?}"
        );
        assert_eq!(
            judged(Ordinary::Refuses("x".to_owned()), false).verdict,
            Verdict::Warning
        );
        assert_eq!(judged(Ordinary::NoList, false).verdict, Verdict::CannotTell);
    }

    #[test]
    fn a_port_that_is_not_ours_says_nothing() {
        let evidence = |port| Evidence {
            stands_in: false,
            address: "127.0.0.1:443".parse().unwrap(),
            development: false,
            port,
            routes: Vec::new(),
        };
        let verdict = |port| judge(&evidence(port))[0].verdict;
        assert_eq!(verdict(PortSeen::NotRunning("x")), Verdict::CannotTell);
        assert_eq!(
            verdict(PortSeen::NoHandshake("x".to_owned())),
            Verdict::Failure
        );
    }
}
