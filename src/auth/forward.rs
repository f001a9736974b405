//! A service that is asked who may come in (`[auth.forward]`), as nginx's `auth_request` and
//! Caddy's `forward_auth` ask theirs.
//!
//! It is told what was asked for and by whom, with the client's own credentials, and answers with
//! a name (2xx), or with what the client is to be told. Whatever else happens is a no: this room
//! lets nobody in for want of an answer. Nothing here knows gateways or sessions, and nothing it
//! keeps can be printed.

mod exchange;
mod known;
mod question;
mod recheck;
mod trust;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::identity::{Credential, Identity, Service};
use super::name::is_name;
use crate::config;
use crate::http::headers;
use known::{Known, Looked, Seat, Shared};
use question::Asked;

pub use question::Question;
pub use recheck::Recheck;
pub use trust::{Trust, TrustError, check_ca_root};

/// Questions asked at a time; more wait for their turn, and not for longer than for an answer.
const AT_ONCE: usize = 64;
/// Questions about those who are in, in places of their own: neither do they keep newcomers waiting,
/// nor can a flood of newcomers keep them from being confirmed.
const AGAIN_AT_ONCE: usize = 16;

/// Asks, and remembers what it was told. Share it in an `Arc`; it outlives a reload.
pub struct ForwardAuth {
    known: Arc<Known>,
    places: Semaphore,
    again: Semaphore,
    /// What the last reload said; `None`: there was none, or the service is not asked any more.
    in_force: watch::Sender<Option<Arc<config::ForwardAuth>>>,
    /// Whose certificates are believed, for a service over TLS.
    trust: ArcSwapOption<Trust>,
    /// When it last said anything, to whomever.
    answered: Mutex<Option<Instant>>,
}

/// On whose behalf it is asked.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Somebody who wants in.
    Newcomer,
    /// Somebody who is in.
    Again,
}

/// What the service says.
#[derive(Clone)]
pub enum Answer {
    /// It may come in.
    Yes(Admitted),
    /// It may not; this is what it is told, with a way to sign in most likely.
    No(Box<Response<Bytes>>),
    /// There is no answer to go by, so it may not.
    Failed(Failure),
}

/// Somebody whom the service let in.
#[derive(Clone)]
pub struct Admitted {
    /// Who it is.
    pub identity: Identity,
    /// What the gateway gets in place of headers of the same names (`copy`).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `Set-Cookie`s for the client, to go with the gateway's answer: a sign-in renewed.
    pub cookies: Vec<HeaderValue>,
}

/// Why there is no answer to go by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody listens there.
    #[error("the sign-in service cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// Its certificate is not believed, or it speaks no TLS.
    #[error("the sign-in service cannot be spoken to over TLS: {0}")]
    Tls(Arc<str>),
    /// It took longer than `timeout`.
    #[error("the sign-in service does not answer in time")]
    TooSlow,
    /// What it sent is no answer, or not a whole one.
    #[error("the sign-in service's answer is broken: {0}")]
    Broken(Arc<str>),
    /// Its page is larger than any that is passed on.
    #[error("the sign-in service's answer is too large")]
    TooLarge,
    /// It said yes, but not to whom.
    #[error(
        "the sign-in service says yes, but its answer has no `{0}`: set [auth.forward] user to the header it names the user in"
    )]
    NoUser(HeaderName),
    /// The name it gave cannot be one.
    #[error(
        "the sign-in service says yes, but `{0}` in its answer is not one name of visible ASCII characters"
    )]
    BadUser(HeaderName),
    /// The client sent what cannot be passed on without a doubt about its meaning.
    #[error("the request's {0} cannot be passed on to the sign-in service")]
    Unsayable(&'static str),
}

// === impl ForwardAuth ===

impl ForwardAuth {
    /// Knows nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            known: Arc::default(),
            places: Semaphore::new(AT_ONCE),
            again: Semaphore::new(AGAIN_AT_ONCE),
            in_force: watch::Sender::new(None),
            trust: ArcSwapOption::empty(),
            answered: Mutex::default(),
        }
    }

    /// Believes the certificates of these from now on.
    pub fn believe(&self, trust: Option<Arc<Trust>>) {
        self.trust.store(trust);
    }

    /// Another config is in force, also for those who are in.
    pub fn turn(&self, config: Option<&config::ForwardAuth>) {
        self.in_force.send_if_modified(|now| {
            let changed = now.as_deref() != config;
            *now = config.cloned().map(Arc::new);
            changed
        });
    }

    fn answered(&self) -> MutexGuard<'_, Option<Instant>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_force(&self) -> watch::Receiver<Option<Arc<config::ForwardAuth>>> {
        self.in_force.subscribe()
    }

    /// Asks whether the client may come in, or remembers that it just could.
    ///
    /// Only a yes is remembered, for `config.cache`, and only for the very same question: what
    /// the service may decide by (credentials, host, path, method, address) is part of it. Those
    /// who ask the same at the same time share one request, unless its answer is a no: that may
    /// carry what is meant for one client. Who shows no credential asks alone.
    pub async fn ask(&self, config: &config::ForwardAuth, question: Question<'_>) -> Answer {
        let asked = match Asked::new(config, &question) {
            Ok(asked) => asked,
            Err(failure) => return Answer::Failed(failure),
        };
        let Some(key) = asked.key() else {
            return self.send(config, &asked, Turn::Newcomer).await;
        };
        match self.known.look(key) {
            Looked::Admitted(admitted) => Answer::Yes(admitted),
            Looked::Ask(seat) => self.share(config, &asked, &seat, Turn::Newcomer).await,
        }
    }

    /// Asks once more, whatever is remembered: somebody is in by the last answer.
    async fn ask_again(&self, config: &config::ForwardAuth, asked: &Asked) -> Answer {
        let Some(key) = asked.key() else {
            return self.send(config, asked, Turn::Again).await;
        };
        let seat = self.known.ask(key);
        let answer = self.share(config, asked, &seat, Turn::Again).await;
        if let Answer::No(_) = answer {
            self.known.forget(key);
        }
        answer
    }

    async fn share(
        &self,
        config: &config::ForwardAuth,
        asked: &Asked,
        seat: &Seat,
        turn: Turn,
    ) -> Answer {
        let mut refusal = None;
        let ask = async {
            match self.send(config, asked, turn).await {
                Answer::Yes(admitted) => {
                    seat.keep(&admitted, config.cache);
                    Shared::Yes(admitted)
                }
                Answer::No(response) => {
                    refusal = Some(response);
                    Shared::No
                }
                Answer::Failed(failure) => Shared::Failed(failure),
            }
        };
        // Whoever goes away while it asks leaves the asking to the next one.
        match seat.answer().get_or_init(|| ask).await {
            Shared::Yes(admitted) => Answer::Yes(admitted.clone()),
            Shared::Failed(failure) => Answer::Failed(failure.clone()),
            Shared::No => match refusal {
                Some(response) => Answer::No(response),
                None => self.send(config, asked, turn).await,
            },
        }
    }

    async fn send(&self, config: &config::ForwardAuth, asked: &Asked, turn: Turn) -> Answer {
        // Closed never. Whoever is in has time: until it is over, and not for one answer only.
        let _place = match turn {
            Turn::Newcomer => None,
            Turn::Again => self.again.acquire().await.ok(),
        };
        let exchange = async {
            let _place = match turn {
                Turn::Newcomer => self.places.acquire().await.ok(),
                Turn::Again => None,
            };
            exchange::run(config, asked, self.trust.load_full().as_deref()).await
        };
        let response = match tokio::time::timeout(config.timeout, exchange).await {
            Ok(Ok(response)) => {
                *self.answered() = Some(Instant::now());
                response
            }
            Ok(Err(failure)) => return Answer::Failed(failure),
            Err(_) => return Answer::Failed(Failure::TooSlow),
        };
        if response.status().is_success() {
            return match admit(config, &response) {
                Ok(admitted) => Answer::Yes(admitted),
                Err(failure) => Answer::Failed(failure),
            };
        }
        Answer::No(Box::new(for_client(response)))
    }
}

impl Default for ForwardAuth {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ForwardAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardAuth").finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes(admitted) => f.debug_tuple("Yes").field(admitted).finish(),
            Self::No(response) => f.debug_tuple("No").field(&response.status()).finish(),
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Reads a yes.
fn admit(config: &config::ForwardAuth, response: &Response<Bytes>) -> Result<Admitted, Failure> {
    let said = response.headers();
    let mut users = said.get_all(&config.user).iter();
    let user = users
        .next()
        .ok_or_else(|| Failure::NoUser(config.user.clone()))?;
    let name = user.to_str().ok().filter(|name| is_name(name));
    // Two names could be read either way.
    let (Some(name), None) = (name, users.next()) else {
        return Err(Failure::BadUser(config.user.clone()));
    };
    let headers = config.copy.iter().flat_map(|name| {
        let values = said.get_all(name).iter();
        values.map(move |value| (name.clone(), own(value)))
    });
    let identity = Identity {
        user: name.into(),
        credential: Credential::Forward(Service::of(config)),
    };
    Ok(Admitted {
        identity,
        headers: headers.collect(),
        cookies: said
            .get_all(http::header::SET_COOKIE)
            .iter()
            .map(own)
            .collect(),
    })
}

/// A copy that does not keep the buffer alive which the whole answer was read into.
fn own(value: &HeaderValue) -> HeaderValue {
    let mut own = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    own.set_sensitive(true);
    own
}

/// A no as the client gets it.
fn for_client(response: Response<Bytes>) -> Response<Bytes> {
    let (service, body) = response.into_parts();
    let mut response = Response::new(body);
    *response.status_mut() = service.status;
    *response.headers_mut() = service.headers;
    headers::response_for_client(response.headers_mut());
    // The body is whole: whoever sends it knows its length.
    response.headers_mut().remove(http::header::CONTENT_LENGTH);
    response.headers_mut().remove(http::header::TRAILER);
    response
}

#[cfg(test)]
mod tests;
