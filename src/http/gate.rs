//! Whether a request may come in, and as whom, where that is decided here (`[auth]`).
//!
//! Every credential is asked of the `auth` room; this file knows what HTTP makes of the answer:
//! which paths are open, which page is shown, what the gateway is told, and that a browser does
//! nothing in somebody's name for a page of somebody else.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header, request};

use super::Body;
use super::headers::Presented;
use super::refusal::Asker;
use super::route::{Host, is_under};
use super::sign_in;
use crate::auth::forward::{Admitted, Answer, ForwardAuth, Question, Recheck};
use crate::auth::{
    CookieRefused, Desk, DeskError, Entrant, Grant, Grants, Identity, Term, TokenCheck, certificate,
};
use crate::config::{Auth, Config};
use crate::listen::Peer;
use crate::observe::Metrics;
use crate::observe::labels::{GrantEnd, SignInOutcome, Way};
use crate::protocol::rescue::Cause;

/// Nothing was shown that could let somebody in.
const NOT_SIGNED_IN: &str = "not signed in";

/// Lets in or not. One for the whole proxy; what is right is read from the config each time.
#[derive(Debug)]
pub(crate) struct Gate {
    desk: ArcSwap<Desk>,
    forward: Arc<ForwardAuth>,
    grants: Arc<Grants>,
}

/// A request as far as the gate is concerned.
pub(super) struct Caller<'a> {
    pub(super) auth: &'a Auth,
    pub(super) peer: &'a Peer,
    pub(super) presented: Presented,
    pub(super) host: &'a Host,
    pub(super) asker: Asker,
    pub(super) upgrades: bool,
    pub(super) metrics: &'a Metrics,
}

/// What the gate says.
pub(super) enum Entry {
    /// Nobody is asked who they are.
    Open,
    /// Come in.
    As(Box<Welcome>),
    /// This is the answer.
    Answered(Response<Body>),
}

/// Somebody who may come in.
pub(super) struct Welcome {
    pub(super) identity: Identity,
    /// What the gateway is told of them.
    pub(super) told: Vec<(HeaderName, HeaderValue)>,
    /// `Set-Cookie` for the answer ...
    pub(super) cookies: Vec<HeaderValue>,
    /// ... to anything, and not only to a page or an upgrade.
    pub(super) always: bool,
    /// When it ends by itself.
    term: Term,
    /// What to ask again while they stay.
    recheck: Option<Recheck>,
}

impl Gate {
    pub(crate) fn new(desk: Desk) -> Self {
        let forward = ForwardAuth::new();
        forward.believe(desk.trust());
        Self {
            desk: ArcSwap::from_pointee(desk),
            forward: Arc::new(forward),
            grants: Arc::default(),
        }
    }

    /// Makes ready for a new config before it is in force. Reads and writes files.
    pub(crate) fn prepare(&self, old: &Auth, new: &Auth) -> Result<Option<Desk>, DeskError> {
        let desk = self.desk().reopen(old, new)?;
        Ok(Some(desk))
    }

    /// Takes what was made ready; the new config is in force. How many sessions ended for it.
    pub(crate) fn turn(&self, desk: Option<Desk>, old: &Auth, new: &Auth) -> usize {
        if let Some(desk) = desk {
            self.forward.believe(desk.trust());
            self.desk.store(Arc::new(desk));
        }
        self.forward.turn(new.forward.as_ref());
        self.grants.limit_sign_ins(new.session_max);
        if new.is_on() && !old.is_on() {
            self.grants.revoke_anybody();
        }
        self.sweep(new)
    }

    pub(super) fn desk(&self) -> Arc<Desk> {
        self.desk.load_full()
    }

    pub(super) fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Decides; takes our own credentials out of the request, for they are not the gateway's.
    pub(super) async fn enter(
        &self,
        caller: &Caller<'_>,
        head: &mut request::Parts,
    ) -> Result<Entry, Cause> {
        let auth = caller.auth;
        if !auth.is_on() {
            // From when it was on.
            Desk::remove_ours(auth, &mut head.headers);
            return Ok(Entry::Open);
        }
        let mut why_not = NOT_SIGNED_IN;
        let found = self.look(caller, head, &mut why_not).await;
        Desk::remove_ours(auth, &mut head.headers);
        // What is copied from the service's answer is never the client's own.
        for name in auth.forward.iter().flat_map(|forward| &forward.copy) {
            head.headers.remove(name);
        }
        let refused = match &found {
            // Whoever shows nothing and is sent to the form is not refused.
            Ok(Entry::Answered(_)) => Some(why_not).filter(|why_not| *why_not != NOT_SIGNED_IN),
            Err(Cause::SignInRequired(_) | Cause::AuthUnavailable) => Some(why_not),
            Err(Cause::ForeignOrigin) => Some("foreign origin"),
            // Tokens have lines of their own.
            _ => None,
        };
        if let Some(because) = refused {
            self.desk().note_refused(because, caller.presented.address);
        }
        found
    }

    /// `why_not`: for the log, where somebody is not let in.
    async fn look(
        &self,
        caller: &Caller<'_>,
        head: &mut request::Parts,
        why_not: &mut &'static str,
    ) -> Result<Entry, Cause> {
        let (auth, desk) = (caller.auth, self.desk());
        // Not for a WebSocket: over one everything could be asked.
        if !caller.upgrades && is_public(&auth.public, head.uri.path()) {
            return Ok(Entry::Open);
        }
        let count = |way, outcome| caller.metrics.sign_ins.inc((way, outcome));
        if auth.token {
            match desk.by_token(auth, &head.headers, caller.presented.address) {
                TokenCheck::None => {}
                TokenCheck::Good(identity) => {
                    count(Way::Token, SignInOutcome::Ok);
                    return welcome(auth, Welcome::of(identity));
                }
                TokenCheck::Wrong => {
                    count(Way::Token, SignInOutcome::Wrong);
                    return Err(Cause::TokenRefused);
                }
                TokenCheck::TooMany { retry_after } => {
                    count(Way::Token, SignInOutcome::Limited);
                    return Err(Cause::TooManyTokens(retry_after));
                }
            }
        }
        // What a browser sends along by itself proves nothing about whose page made it do so.
        let own = |needs_proof| is_own_request(&head.method, &head.headers, caller, needs_proof);
        if let Some(identity) = certificate::identify(caller.peer, auth) {
            return match own(false) {
                true => {
                    count(Way::Mtls, SignInOutcome::Ok);
                    let shown = caller.peer.client_certificate.as_ref();
                    let until = shown.and_then(|names| names.not_after());
                    let welcomed = Welcome {
                        term: until.map_or(Term::Open, Term::Until),
                        ..Welcome::of(identity)
                    };
                    welcome(auth, welcomed)
                }
                false => Err(Cause::ForeignOrigin),
            };
        }
        match desk.by_cookie(auth, &head.headers, SystemTime::now()) {
            Ok(session) => {
                let welcomed = Welcome {
                    cookies: session.renew.into_iter().collect(),
                    term: Term::SignedIn(session.signed_in),
                    ..Welcome::of(session.identity)
                };
                return match own(true) {
                    true => welcome(auth, welcomed),
                    false => Err(Cause::ForeignOrigin),
                };
            }
            Err(CookieRefused::Absent) => {}
            Err(CookieRefused::Forged) => {
                count(Way::Password, SignInOutcome::Wrong);
                *why_not = "a session cookie that is not ours";
            }
            Err(CookieRefused::Expired) => {
                count(Way::Password, SignInOutcome::Expired);
                *why_not = "a session that is over";
            }
            Err(CookieRefused::Ended) => {
                count(Way::Password, SignInOutcome::Revoked);
                *why_not = "a session that was ended";
            }
        }
        if let Some(forward) = &auth.forward {
            let from_browser = head.headers.contains_key(header::COOKIE);
            let own = own(from_browser);
            // Ours are not its either.
            Desk::remove_ours(auth, &mut head.headers);
            let question = Question {
                method: &head.method,
                host: &caller.host.value,
                target: head
                    .uri
                    .path_and_query()
                    .map_or("/", |target| target.as_str()),
                address: caller.presented.address,
                headers: &head.headers,
            };
            let answer = self.forward.ask(forward, question).await;
            match answer {
                Answer::Yes(Admitted {
                    identity,
                    headers,
                    cookies,
                }) => {
                    count(Way::Forward, SignInOutcome::Ok);
                    let recheck = Recheck::new(&self.forward, forward, &question, &identity);
                    let welcomed = Welcome {
                        told: headers,
                        cookies,
                        always: true,
                        recheck,
                        ..Welcome::of(identity)
                    };
                    return match own {
                        true => welcome(auth, welcomed),
                        false => Err(Cause::ForeignOrigin),
                    };
                }
                // People sign in here where they can; the service's word is for everybody else.
                Answer::No(_) if auth.password && caller.asker.navigates() => {
                    count(Way::Forward, SignInOutcome::Wrong);
                }
                Answer::No(refusal) => {
                    count(Way::Forward, SignInOutcome::Wrong);
                    *why_not = "the sign-in service said no";
                    return Ok(Entry::Answered(sign_in::pass_on(*refusal)));
                }
                Answer::Failed(failure) => {
                    count(Way::Forward, SignInOutcome::Unavailable);
                    *why_not = "the sign-in service has no answer";
                    tracing::warn!(%failure, "nobody can be let in by the sign-in service");
                    return match caller.asker.navigates() && !caller.upgrades {
                        true => Ok(Entry::Answered(sign_in::unavailable())),
                        false => Err(Cause::AuthUnavailable),
                    };
                }
            }
        }
        if auth.password && caller.asker.navigates() && !caller.upgrades {
            return Ok(Entry::Answered(sign_in::redirect(&head.uri)));
        }
        Err(sign_in_required(auth))
    }

    /// One client's right to be here. `looked`: the config that it was looked at under;
    /// `in_force`: reads the one that is in force.
    ///
    /// Entered first and judged after: what changes before that is in what `in_force` reads, and
    /// what changes later finds the grant.
    pub(super) fn grant(
        &self,
        looked: &Auth,
        entrant: Option<Entrant>,
        metrics: &Arc<Metrics>,
        in_force: impl FnOnce() -> Arc<Config>,
    ) -> Result<Grant, Cause> {
        let grant = match entrant {
            Some(entrant) => self.grants.enter(entrant, looked.session_max, metrics),
            None => self.grants.anybody(),
        };
        let auth = &in_force().auth;
        let stands = match grant.identity() {
            Some(identity) => auth.is_on() && self.desk().stands(auth, identity),
            // Under a config that asks for names, whoever has none was let in for a public path.
            None => looked.is_on() || !auth.is_on(),
        };
        if stands {
            Ok(grant)
        } else {
            Err(Cause::SignedOut)
        }
    }

    /// Ends the sessions of everybody who may not be here under this config; how many.
    pub(crate) fn sweep(&self, auth: &Auth) -> usize {
        let desk = self.desk();
        let gone = |identity: &Identity| !auth.is_on() || !desk.stands(auth, identity);
        self.grants.revoke(GrantEnd::Revoked, gone)
    }
}

impl Welcome {
    fn of(identity: Identity) -> Self {
        Self {
            identity,
            told: Vec::new(),
            cookies: Vec::new(),
            always: false,
            term: Term::Open,
            recheck: None,
        }
    }

    /// For its grant; what is to be asked again goes with it.
    pub(super) fn entrant(&mut self) -> Entrant {
        Entrant {
            identity: self.identity.clone(),
            term: self.term,
            recheck: self.recheck.take(),
        }
    }
}

fn sign_in_required(auth: &Auth) -> Cause {
    Cause::SignInRequired(auth.ways().collect())
}

fn welcome(auth: &Auth, mut welcome: Welcome) -> Result<Entry, Cause> {
    let name = HeaderValue::from_str(&welcome.identity.user).map_err(|_| sign_in_required(auth))?;
    welcome
        .told
        .retain(|(header, _)| *header != auth.user_header);
    welcome.told.push((auth.user_header.clone(), name));
    Ok(Entry::As(Box::new(welcome)))
}

/// As whom somebody who was let in is presented: on loopback a gateway believes no identity.
pub(super) fn presented_as(auth: &Auth, presented: Presented) -> Presented {
    match presented.local {
        true => Presented {
            address: auth.loopback_as,
            local: false,
        },
        false => presented,
    }
}

/// Whether a path needs no sign-in. One that programs may read in more than one way does.
fn is_public(prefixes: &[String], path: &str) -> bool {
    let ambiguous = !path.is_ascii()
        || path.contains(['%', '\\', ';'])
        || path.contains("//")
        || path
            .split('/')
            .any(|segment| segment == "." || segment == "..");
    !ambiguous && prefixes.iter().any(|prefix| is_under(prefix, path))
}

/// Whether no page of somebody else made this request. `needs_proof`: whoever says nothing may be a
/// browser all the same, because only browsers have cookies.
fn is_own_request(
    method: &Method,
    headers: &HeaderMap,
    caller: &Caller<'_>,
    needs_proof: bool,
) -> bool {
    let harmless = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if harmless && !caller.upgrades {
        return true;
    }
    match (origin(headers, caller.host), headers.get("sec-fetch-site")) {
        (Origin::Own, _) => true,
        (Origin::Foreign, _) => false,
        (Origin::Unnamed, Some(site)) => {
            !caller.upgrades && (site == "same-origin" || site == "none")
        }
        (Origin::Unnamed, None) => !needs_proof,
    }
}

/// Whose page made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// One of this very host.
    Own,
    /// Another's, or one that hides.
    Foreign,
    /// Nothing is said.
    Unnamed,
}

/// Reads `Origin` (RFC 6454) against the host that was asked.
pub(super) fn origin(headers: &HeaderMap, host: &Host) -> Origin {
    let mut named = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (named.next(), named.next()) else {
        let several = headers.contains_key(header::ORIGIN);
        return if several {
            Origin::Foreign
        } else {
            Origin::Unnamed
        };
    };
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("https://"));
    let asked = host.value.to_str().unwrap_or_default();
    match authority {
        Some(authority) if without_default_port(authority) == without_default_port(asked) => {
            Origin::Own
        }
        _ => Origin::Foreign,
    }
}

fn without_default_port(authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    match authority.strip_suffix(":443") {
        Some(host) => host.to_owned(),
        None => authority,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::tests::logged::Lines;
    use crate::auth::{TokenHash, make_token};
    use crate::config;

    fn config(text: &str) -> Arc<Config> {
        Arc::new(config::parse(text, "test").unwrap().config)
    }

    /// `[auth]` that knows this token.
    fn knowing(token: &str) -> Arc<Config> {
        let hash = TokenHash::of(token).to_base64url();
        config(&format!(
            "[auth]\nmodes = [\"token\"]\ntokens = [{{ name = \"laptop\", user = \"nick\", hash = \"{hash}\" }}]\n"
        ))
    }

    fn reload(gate: &Gate, old: &Config, new: &Config) -> usize {
        let desk = gate.prepare(&old.auth, &new.auth).unwrap();
        gate.turn(desk, &old.auth, &new.auth)
    }

    fn entrant(gate: &Gate, config: &Config, token: &str) -> Entrant {
        let mut headers = HeaderMap::new();
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        headers.insert(header::AUTHORIZATION, bearer);
        let address = "192.0.2.1".parse().unwrap();
        let found = gate.desk().by_token(&config.auth, &headers, address);
        let TokenCheck::Good(identity) = found else {
            panic!("{found:?}")
        };
        Welcome::of(identity).entrant()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_revoked_between_the_look_and_the_entry_is_out_at_once() {
        let token = make_token().unwrap();
        let (old, new) = (knowing(&token), knowing("hl_another"));
        // Before it enters, and when it has entered but was not judged yet.
        for entered in [false, true] {
            let gate = Gate::new(Desk::open(&old.auth).unwrap());
            let entrant = Some(entrant(&gate, &old, &token));
            if !entered {
                assert_eq!(reload(&gate, &old, &new), 0);
            }
            let in_force = || {
                if entered {
                    assert_eq!(reload(&gate, &old, &new), 1);
                }
                Arc::clone(&new)
            };
            let grant = gate.grant(&old.auth, entrant, &Arc::default(), in_force);
            assert!(matches!(grant, Err(Cause::SignedOut)), "{entered}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_asked_is_not_in_when_people_are_asked() {
        let (old, new) = (config(""), knowing("hl_another"));
        let gate = Gate::new(Desk::open(&old.auth).unwrap());
        let grant =
            |now: &Arc<Config>| gate.grant(&old.auth, None, &Arc::default(), || Arc::clone(now));
        let before = grant(&old).unwrap();
        reload(&gate, &old, &new);
        let ended = tokio::time::timeout(Duration::from_secs(1), before.ended());
        ended.await.expect("it was in when the reload came");
        let late = grant(&new);
        assert!(matches!(late, Err(Cause::SignedOut)));
        // A public path: nobody is asked there, before and after.
        let public = gate.grant(&new.auth, None, &Arc::default(), || Arc::clone(&new));
        assert!(public.is_ok());
    }

    /// What a request comes to, and what is left of it.
    async fn enters(
        gate: &Gate,
        auth: &Auth,
        headers: &[(&str, &str)],
    ) -> (Result<Entry, Cause>, HeaderMap) {
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let address = "192.0.2.1".parse().unwrap();
        let peer = Peer {
            remote: std::net::SocketAddr::new(address, 4711),
            local: "192.0.2.9:443".parse().unwrap(),
            via_trusted_proxy: false,
            server_name: None,
            alpn_h2: false,
            client_certificate: None,
        };
        let host = Host {
            value: HeaderValue::from_static("gw.example"),
            name: "gw.example".to_owned(),
        };
        let caller = Caller {
            auth,
            peer: &peer,
            presented: Presented {
                address,
                local: false,
            },
            host: &host,
            asker: Asker::of(&head),
            upgrades: false,
            metrics: &Metrics::default(),
        };
        let entry = gate.enter(&caller, &mut head).await;
        (entry, head.headers)
    }

    #[tokio::test]
    async fn every_refusal_is_written_down_with_its_reason() {
        const PAGE: (&str, &str) = ("sec-fetch-mode", "navigate");
        const FORGED: (&str, &str) = ("cookie", "__Host-holdline=forged");
        let folder = tempfile::tempdir().unwrap();
        let mut auth = config("").auth.clone();
        auth.password = true;
        auth.state_dir = folder.path().to_owned();
        let gate = Gate::new(Desk::open(&auth).unwrap());
        let forged = Some("a session cookie that is not ours");
        for (headers, because) in [
            (&[FORGED][..], forged),
            (&[FORGED, PAGE][..], forged),
            (&[][..], Some("not signed in")),
            // Nobody has tried anything: it is sent to the form.
            (&[PAGE][..], None),
        ] {
            let (lines, _guard) = Lines::start();
            let (entry, _) = enters(&gate, &auth, headers).await;
            assert!(!matches!(entry, Ok(Entry::Open | Entry::As(_))));
            let lines = lines.with("refused");
            assert_eq!(lines.len(), usize::from(because.is_some()), "{lines:?}");
            let said = because.is_none_or(|because| lines[0].contains(because));
            assert!(said, "{lines:?}");
        }
    }

    #[tokio::test]
    async fn what_is_ours_stays_here_also_where_it_is_good_for_nothing() {
        let token = make_token().unwrap();
        let bearer = format!("Bearer {}", token.as_str());
        let ours = [
            ("authorization", bearer.as_str()),
            ("cookie", "a=1; __Host-holdline=x; b=2"),
        ];
        let mut without_tokens = config("").auth.clone();
        without_tokens.password = true;
        without_tokens.public = vec!["/".to_owned()];
        let gate = Gate::new(Desk::open(&config("").auth).unwrap());
        for auth in [&config("").auth, &without_tokens] {
            let (entry, left) = enters(&gate, auth, &ours).await;
            assert!(matches!(entry, Ok(Entry::Open)));
            assert_eq!(left.get("authorization"), None);
            assert_eq!(left["cookie"], "a=1; b=2");
            // The gateway's own, whatever it begins with.
            for other in ["Bearer hl_gateway", "Bearer sk-x"] {
                let (_, left) = enters(&gate, auth, &[("authorization", other)]).await;
                assert_eq!(left["authorization"], other);
            }
        }
    }
}
