//! Whether a request may come in, and as whom, where that is decided here (`[auth]`).
//!
//! Every credential is asked of the `auth` room; this file knows what HTTP makes of the answer:
//! which paths are open, which page is shown, what the gateway is told, and that a browser does
//! nothing in somebody's name for a page of somebody else.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, Response, header, request};

use super::Body;
use super::headers::Presented;
use super::origin::is_own_request;
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
        let own = |needs_proof| {
            let (host, upgrades) = (caller.host, caller.upgrades);
            is_own_request(&head.method, &head.headers, host, upgrades, needs_proof)
        };
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
        self.grants.expire();
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

#[cfg(test)]
mod tests;
