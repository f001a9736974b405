//! The desk at which everybody shows what they have: one per process, shared.
//!
//! It holds what has to be remembered from one request to the next: the keys of the cookies, which
//! sign-ins were ended, and who has guessed how often. Who the users are comes in with every call,
//! so that a new config counts at once; where it names other keys, a new desk takes over what the
//! old one has counted. Passwords are in `sign_in`; here are cookies and tokens.

use std::fmt;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::credential::Fingerprint;
use super::ended::{self, Ended};
use super::error::DeskError;
use super::forward::Trust;
use super::gate::Gate;
use super::identity::{Credential, Identity, Service, SignIn, TokenName};
use super::keys::{self, Keys, seconds};
use super::lane::Lane;
use super::refusals::Refusals;
use super::seal::{self, Kind};
use super::state::StateDir;
use super::throttle::Throttle;
use super::values::{FormValue, SessionValue};
use super::{audit, cookie, token};
use crate::config::{Auth, User};
use crate::network::network_of;

/// Clocks of machines that share a key differ a little.
pub(super) const CLOCKS_DIFFER: u64 = 300;
/// A cookie in use is issued again when it is older than this, or a tenth of its idle time.
const RENEW_AFTER: Duration = Duration::from_secs(3600);
/// How long a sign-in form may be filled in.
const FORM_LIFETIME: Duration = Duration::from_secs(600);
/// Wrong tokens of an address without a delay: a program with an old one tries a few times.
const FREE_TOKENS: u32 = 10;
/// Addresses with wrong tokens at a time.
const MOST_ADDRESSES: usize = 10_000;

/// Decides who comes in, by password, cookie or token.
pub struct Desk {
    pub(super) keys: Arc<Keys>,
    pub(super) ended: Arc<Ended>,
    /// For a forward-auth service over TLS.
    trust: Option<Arc<Trust>>,
    /// Whatever the config says: nobody gets new tries for a reload.
    pub(super) guesses: Arc<Guesses>,
}

/// Who has guessed how often, and who is being looked at right now.
pub(super) struct Guesses {
    pub(super) gate: Gate,
    pub(super) strangers: Lane,
    pub(super) known_devices: Lane,
    /// Makes keys of names; random, so that nobody can make two names collide.
    pub(super) names: RandomState,
    wrong_tokens: Mutex<Throttle<IpAddr>>,
    refusals: Mutex<Refusals>,
}

/// A valid cookie, and whose it is.
pub struct Session {
    /// Who.
    pub identity: Identity,
    /// What forms on a signed-in page have to send back.
    pub csrf: String,
    /// When somebody typed the password.
    pub signed_in: SystemTime,
    /// `Set-Cookie`, because it is being used: send it with the response.
    pub renew: Option<HeaderValue>,
}

/// Why a request has no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CookieRefused {
    /// It carries no cookie of ours.
    #[error("no session cookie")]
    Absent,
    /// We did not sign it, or with a key that is no longer accepted.
    #[error("a session cookie that is not ours")]
    Forged,
    /// Its time is over.
    #[error("a session that is over")]
    Expired,
    /// Its sign-in was ended, or its user or password is gone.
    #[error("a session that was ended")]
    Ended,
}

/// What a request's `Authorization: Bearer` is worth.
#[derive(Debug, PartialEq, Eq)]
pub enum TokenCheck {
    /// There is none of ours; another one is the gateway's business.
    None,
    /// A token of the config.
    Good(Identity),
    /// None of the config.
    Wrong,
    /// None of the config, again and again from this address.
    TooMany {
        /// How long it should be quiet.
        retry_after: Duration,
    },
}

/// What makes a sign-in form ours.
pub struct FormToken {
    /// The value of its hidden field.
    pub field: String,
    /// `Set-Cookie` to send with it; `None`: the browser has it already.
    pub cookie: Option<HeaderValue>,
}

impl Desk {
    /// Opens the desk. With passwords on, the key in `state_dir` is read, or made on first use, and
    /// the directory is tested for writing.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be used: which, and what to do.
    pub fn open(auth: &Auth) -> Result<Self, DeskError> {
        let now = SystemTime::now();
        let (keys, ended) = if auth.password {
            let dir = open_dir(auth)?;
            (Keys::open(&dir, now)?, Ended::open(&dir, now)?)
        } else {
            (Keys::ephemeral(now)?, Ended::ephemeral())
        };
        Ok(Self {
            keys: Arc::new(keys),
            ended: Arc::new(ended),
            trust: Trust::read(auth.forward.as_ref())?.map(Arc::new),
            guesses: Arc::new(Guesses::new()),
        })
    }

    /// The desk for a new config in place of this one: what was counted goes on, and so do the keys
    /// if they are the same. Reads and writes files.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reopen(&self, old: &Auth, new: &Auth) -> Result<Self, DeskError> {
        let other_keys = new.password && (!old.password || old.state_dir != new.state_dir);
        let opened = match other_keys {
            true => Self::open(new)?,
            false => Self {
                keys: Arc::clone(&self.keys),
                ended: Arc::clone(&self.ended),
                trust: Trust::read(new.forward.as_ref())?.map(Arc::new),
                guesses: Arc::clone(&self.guesses),
            },
        };
        Ok(Self {
            guesses: Arc::clone(&self.guesses),
            ..opened
        })
    }

    /// Whose certificates a forward-auth service is known by.
    #[must_use]
    pub fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.clone()
    }

    // === cookies ===

    /// Whose cookie a request carries.
    ///
    /// # Errors
    /// Why it carries none that is good.
    pub fn by_cookie(
        &self,
        auth: &Auth,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Session, CookieRefused> {
        if !auth.password {
            return Err(CookieRefused::Absent);
        }
        let mut refused = CookieRefused::Absent;
        // Another one of this name may be nobody's.
        for text in cookie::values(headers, cookie::SESSION) {
            match self.session(auth, text, now) {
                Ok(session) => return Ok(session),
                Err(because) => refused = because,
            }
        }
        Err(refused)
    }

    fn session(&self, auth: &Auth, text: &str, now: SystemTime) -> Result<Session, CookieRefused> {
        let keep = auth.session_max;
        let opened = seal::open(text, Kind::Session, |id| self.keys.find(id, now, keep))
            .ok_or(CookieRefused::Forged)?;
        let mut value = SessionValue::from_bytes(&opened.body).ok_or(CookieRefused::Forged)?;
        let clock = seconds(now);
        if !fresh(value.issued, clock, auth.session_max)
            || !fresh(value.renewed, clock, auth.session_idle)
        {
            return Err(CookieRefused::Expired);
        }
        self.user_of(auth, &value.user, value.sign_in, now)
            .ok_or(CookieRefused::Ended)?;
        let age = Duration::from_secs(clock.saturating_sub(value.renewed));
        let old = age > RENEW_AFTER.min(auth.session_idle / 10);
        let renew = (old || self.keys.current().id != opened.key).then(|| {
            // A clock that was set back must not make it older than it is.
            value.renewed = value.renewed.max(clock);
            self.session_cookie(auth, &value, clock)
        });
        Ok(Session {
            signed_in: UNIX_EPOCH
                .checked_add(Duration::from_secs(value.issued))
                .ok_or(CookieRefused::Forged)?,
            csrf: value.csrf(),
            identity: Identity {
                user: value.user.into(),
                credential: Credential::Password(value.sign_in),
            },
            renew: renew.flatten(),
        })
    }

    /// `Set-Cookie` for a session; the browser forgets it when it would no longer be taken.
    pub(super) fn session_cookie(
        &self,
        auth: &Auth,
        value: &SessionValue,
        clock: u64,
    ) -> Option<HeaderValue> {
        let age = Duration::from_secs(clock.saturating_sub(value.issued));
        let max_age = auth.session_idle.min(auth.session_max.saturating_sub(age));
        let sealed = seal::seal(&self.keys.current(), Kind::Session, &value.to_bytes());
        cookie::set(cookie::SESSION, &sealed, max_age)
    }

    /// Ends a sign-in for good, on every device that has its cookie. What comes back takes the
    /// cookie away.
    ///
    /// Writes a file.
    pub fn sign_out(
        &self,
        user: &str,
        address: IpAddr,
        sign_in: SignIn,
        now: SystemTime,
    ) -> Vec<HeaderValue> {
        self.ended.end(sign_in.id, now);
        audit::sign_out(user, address, sign_in);
        Self::no_cookies()
    }

    /// What takes the cookies of a sign-in away.
    #[must_use]
    pub fn no_cookies() -> Vec<HeaderValue> {
        [cookie::SESSION, cookie::FORM]
            .into_iter()
            .filter_map(cookie::clear)
            .collect()
    }

    /// Takes our cookies and tokens out of a request, so that the gateway never sees them: also
    /// where they are good for nothing any more. Where no tokens are taken, only what is one from
    /// end to end; another program's may begin alike.
    pub fn remove_ours(auth: &Auth, headers: &mut HeaderMap) {
        cookie::remove_ours(headers);
        let mut presented = token::all_presented(headers);
        if presented.any(|text| auth.token || token::is_one(text)) {
            drop(presented);
            headers.remove(AUTHORIZATION);
        }
    }

    /// Writes down that somebody was not let in. Not each time in a flood.
    pub fn note_refused(&self, because: &'static str, address: IpAddr) {
        let mut lines = self
            .guesses
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let verdict = lines.look(network_of(address), because, Instant::now());
        drop(lines);
        if let Some(unsaid) = verdict.left_out {
            audit::left_out(unsaid);
        }
        if verdict.write {
            audit::refused(because, address);
        }
    }

    // === what holds for how long ===

    /// Whether somebody who was let in would still be: under this config, and not signed out.
    pub fn stands(&self, auth: &Auth, identity: &Identity) -> bool {
        match &identity.credential {
            Credential::Password(sign_in) => {
                let now = SystemTime::now();
                auth.password && self.user_of(auth, &identity.user, *sign_in, now).is_some()
            }
            Credential::Token(name) => {
                let same = |token: &&crate::config::AccessToken| {
                    *token.name == *name.name
                        && *token.user == *identity.user
                        && token.hash.fingerprint() == name.hash
                };
                auth.token && auth.tokens.iter().find(same).is_some()
            }
            Credential::Certificate(rule, authorities) => {
                auth.certificate == Some(*rule) && auth.client_cas.count(authorities)
            }
            Credential::Forward(service) => auth
                .forward
                .as_ref()
                .is_some_and(|forward| Service::of(forward) == *service),
        }
    }

    /// The user of a sign-in that is not ended, with the password that it was made with.
    fn user_of<'a>(
        &self,
        auth: &'a Auth,
        name: &str,
        sign_in: SignIn,
        now: SystemTime,
    ) -> Option<&'a User> {
        let unchanged = |user: &&User| user.hash.fingerprint() == sign_in.password;
        user(auth, name)
            .filter(unchanged)
            .filter(|_| !self.ended.contains(sign_in.id, now))
    }

    // === tokens ===

    /// What a request's bearer token is worth.
    ///
    /// A good one is good also where wrong ones came from before: it cannot be guessed, and a
    /// program must not suffer for its neighbours.
    pub fn by_token(&self, auth: &Auth, headers: &HeaderMap, address: IpAddr) -> TokenCheck {
        let presented = token::presented(headers).filter(|_| auth.token);
        let Some(presented) = presented else {
            return TokenCheck::None;
        };
        if let Some(found) = token::find(&auth.tokens, presented) {
            let name = TokenName {
                name: found.name.as_str().into(),
                hash: found.hash.fingerprint(),
            };
            return TokenCheck::Good(Identity {
                user: found.user.as_str().into(),
                credential: Credential::Token(name),
            });
        }
        let (network, now) = (network_of(address), Instant::now());
        let mut wrong = self
            .guesses
            .wrong_tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match wrong.check(&network, now) {
            Ok(_) => {
                wrong.count(&network, now);
                audit::token_refused(address);
                TokenCheck::Wrong
            }
            Err(too_soon) => {
                let retry_after = too_soon.retry_after;
                if too_soon.news {
                    audit::token_limited(address, retry_after);
                }
                TokenCheck::TooMany { retry_after }
            }
        }
    }

    // === the form ===

    /// What a sign-in form needs, so that no other site can fill it in for a visitor. A browser
    /// with several forms open has one value for all of them.
    pub fn form_token(&self, headers: &HeaderMap, now: SystemTime) -> FormToken {
        let half = FORM_LIFETIME / 2;
        let kept = cookie::values(headers, cookie::FORM)
            .find(|text| self.form_is_fresh(text, now, half))
            .map(str::to_owned);
        if let Some(field) = kept {
            return FormToken {
                field,
                cookie: None,
            };
        }
        let mut nonce = [0; 16];
        if rand::fill(&mut nonce).is_err() {
            // No form is accepted then; one that everybody could guess would be worse.
            return FormToken {
                field: String::new(),
                cookie: None,
            };
        }
        let issued = seconds(now);
        let value = FormValue { nonce, issued };
        let field = seal::seal(&self.keys.current(), Kind::Form, &value.to_bytes());
        let cookie = cookie::set(cookie::FORM, &field, FORM_LIFETIME);
        FormToken { field, cookie }
    }

    /// Whether a form that was sent is one of ours: its hidden field is the browser's cookie, and
    /// we signed it a short while ago.
    pub fn check_form_token(&self, headers: &HeaderMap, field: &str, now: SystemTime) -> bool {
        let same = |text: &str| verify_slices_are_equal(text.as_bytes(), field.as_bytes()).is_ok();
        cookie::values(headers, cookie::FORM).any(same)
            && self.form_is_fresh(field, now, FORM_LIFETIME)
    }

    /// Whether nothing is wrong with a form that was sent but that the browser keeps no cookies.
    pub fn lacks_cookies(&self, headers: &HeaderMap, field: &str, now: SystemTime) -> bool {
        let ours = [cookie::FORM, cookie::SESSION, cookie::DEVICE];
        let mut kept = ours
            .into_iter()
            .flat_map(|name| cookie::values(headers, name));
        kept.next().is_none() && self.form_is_fresh(field, now, FORM_LIFETIME)
    }

    fn form_is_fresh(&self, text: &str, now: SystemTime, lifetime: Duration) -> bool {
        seal::open(text, Kind::Form, |id| {
            self.keys.find(id, now, FORM_LIFETIME)
        })
        .and_then(|opened| FormValue::from_bytes(&opened.body))
        .is_some_and(|value| fresh(value.issued, seconds(now), lifetime))
    }
}

impl Guesses {
    fn new() -> Self {
        Self {
            gate: Gate::new(),
            // One hash takes a core: the others go on relaying.
            strangers: Lane::new(1, 64),
            known_devices: Lane::new(1, 64),
            names: RandomState::new(),
            wrong_tokens: Mutex::new(Throttle::new(FREE_TOKENS, MOST_ADDRESSES)),
            refusals: Mutex::new(Refusals::new(Instant::now())),
        }
    }
}

/// Puts a new key in front of the one that cookies are signed with. A running holdline takes it
/// within a minute; the ones before stay good for `session_max`. Returns the file.
///
/// # Errors
/// When the state directory or the key file cannot be used.
pub fn rotate_key(auth: &Auth) -> Result<std::path::PathBuf, DeskError> {
    keys::rotate(&open_dir(auth)?, SystemTime::now(), auth.session_max)
}

/// Whether a desk could be opened, as far as can be seen without writing anything.
///
/// # Errors
/// As [`Desk::open`].
pub fn check(auth: &Auth) -> Result<(), DeskError> {
    Trust::read(auth.forward.as_ref())?;
    if !auth.password {
        return Ok(());
    }
    match StateDir::look(&auth.state_dir)? {
        Some(dir) => keys::check(&dir).and_then(|()| ended::check(&dir)),
        None => Ok(()),
    }
}

fn open_dir(auth: &Auth) -> Result<StateDir, DeskError> {
    StateDir::open(&auth.state_dir)
}

pub(super) fn user<'a>(auth: &'a Auth, name: &str) -> Option<&'a User> {
    auth.users.iter().find(|user| user.name == name)
}

/// Not older than `lifetime`, and not from the future.
pub(super) fn fresh(issued: u64, clock: u64, lifetime: Duration) -> bool {
    issued <= clock.saturating_add(CLOCKS_DIFFER)
        && clock.saturating_sub(issued) <= lifetime.as_secs()
}

/// For a sign-in that is made now.
pub(super) fn new_session(name: &str, password: Fingerprint, clock: u64) -> Option<SessionValue> {
    let (mut id, mut seed) = ([0; 16], [0; 16]);
    rand::fill(&mut id).ok()?;
    rand::fill(&mut seed).ok()?;
    Some(SessionValue {
        sign_in: SignIn { id, password },
        seed,
        issued: clock,
        renewed: clock,
        user: name.to_owned(),
    })
}

// === nothing secret is shown ===

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FormToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormToken").finish_non_exhaustive()
    }
}

/// Shared by every connection.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Arc<Desk>>();
};
