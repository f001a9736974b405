//! Signing in with a password: delays first, then a place in the queue, then the slow hash.
//!
//! What is refused says nothing about why: an unknown user and a wrong password cost the same and
//! are answered alike.

use std::fmt;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use http::{HeaderMap, HeaderValue};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::audit::{self, Who};
use super::desk::{Desk, fresh, new_session, user};
use super::gate::Attempting;
use super::identity::{Credential, Identity};
use super::keys::seconds;
use super::lane::Rank;
use super::password;
use super::seal::{self, Kind};
use super::values::DeviceValue;
use super::{PasswordHash, cookie};
use crate::config::{Auth, User};
use crate::network::network_of;

/// How long a device is known after its last sign-in: as long as browsers keep a cookie.
const DEVICE_LIFETIME: Duration = Duration::from_secs(400 * 86_400);
/// Nobody looks at a spinner for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// When to come back to a full queue.
const BUSY: Duration = Duration::from_secs(2);

/// Somebody wants to sign in.
pub struct Attempt<'a> {
    /// The name as given.
    pub user: &'a str,
    /// The password as given; wiped when it has been looked at.
    pub password: Zeroizing<String>,
    /// Where it comes from.
    pub address: IpAddr,
    /// Of the request, for the cookie of a known device.
    pub headers: &'a HeaderMap,
}

/// Somebody has signed in.
pub struct SignedIn {
    /// Who.
    pub identity: Identity,
    /// `Set-Cookie` values for the response.
    pub cookies: Vec<HeaderValue>,
}

/// Why somebody has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignInRefused {
    /// No such user, or not this password.
    #[error("wrong user or password")]
    Wrong,
    /// Too many wrong ones before; this one was not looked at.
    #[error("too many attempts")]
    TooMany {
        /// When the next attempt may be made.
        retry_after: Duration,
    },
    /// Too many others at this moment; this one was not looked at.
    #[error("too many people are signing in at this moment")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
}

impl Desk {
    /// Checks a password and starts a session.
    ///
    /// An attempt that is dropped half-way counts as one that failed.
    ///
    /// # Errors
    /// When the password is wrong, or was not looked at.
    pub async fn sign_in(
        &self,
        auth: &Auth,
        attempt: Attempt<'_>,
    ) -> Result<SignedIn, SignInRefused> {
        if !auth.password {
            return Err(SignInRefused::Wrong);
        }
        let now = SystemTime::now();
        let known = user(auth, attempt.user);
        let device = known.and_then(|user| self.device(auth, attempt.headers, user, now));
        let who = Who {
            user: known.map(|user| user.name.as_str()),
            address: attempt.address,
            known_device: device.is_some(),
        };
        let attempting = Attempting {
            network: network_of(attempt.address),
            user: self.guesses.names.hash_one(attempt.user),
            device,
        };
        let rank = self.admit(who, attempting)?;
        let Some(stored) = known.or_else(|| self.decoy(auth, attempt.user)) else {
            return Err(SignInRefused::Wrong);
        };
        let matches = self.verify(attempting, rank, &stored.hash, attempt.password);
        let matches = matches.await?;
        // Not before the hash: its time must not tell whether there is such a user.
        let Some(user) = known.filter(|_| matches) else {
            audit::sign_in_refused(who);
            return Err(SignInRefused::Wrong);
        };
        self.guesses.gate.succeeded(attempting, Instant::now());
        let signed_in = self.begin(auth, user, device, who);
        signed_in.ok_or(SignInRefused::Busy { retry_after: BUSY })
    }

    /// Whether the delays are over.
    fn admit(&self, who: Who<'_>, attempting: Attempting) -> Result<Rank, SignInRefused> {
        self.guesses
            .gate
            .admit(attempting, Instant::now())
            .map_err(|delayed| {
                let retry_after = delayed.too_soon.retry_after;
                if delayed.too_soon.news {
                    audit::sign_in_limited(who, delayed.because, retry_after);
                }
                SignInRefused::TooMany { retry_after }
            })
    }

    /// Somebody whose hash is computed in place of a user that there is not: always the same for
    /// the same name, as it would be with a real one.
    fn decoy<'a>(&self, auth: &'a Auth, name: &str) -> Option<&'a User> {
        let users = u64::try_from(auth.users.len()).ok()?;
        let index = self
            .guesses
            .names
            .hash_one((name, "decoy"))
            .checked_rem(users)?;
        auth.users.get(usize::try_from(index).ok()?)
    }

    /// Waits for a place and computes the hash on a thread of its own.
    async fn verify(
        &self,
        attempting: Attempting,
        rank: Rank,
        stored: &PasswordHash,
        password: Zeroizing<String>,
    ) -> Result<bool, SignInRefused> {
        let lane = match attempting.device {
            Some(_) => &self.guesses.known_devices,
            None => &self.guesses.strangers,
        };
        let busy = || {
            self.guesses.gate.take_back(attempting, Instant::now());
            SignInRefused::Busy { retry_after: BUSY }
        };
        let Ok(Ok(slot)) = timeout(LONGEST_WAIT, lane.enter(rank)).await else {
            tracing::debug!("too many passwords wait to be checked");
            return Err(busy());
        };
        let stored = stored.clone();
        let hashed = spawn_blocking(move || {
            // Held until the hash is done, also if nobody waits for it any more.
            let _slot = slot;
            password::matches(&stored, password.as_bytes())
        });
        match hashed.await {
            Ok(Ok(matches)) => return Ok(matches),
            Ok(Err(failed)) => tracing::error!("a password could not be checked: {failed}"),
            Err(failed) => tracing::error!("a password could not be checked: {failed}"),
        }
        Err(busy())
    }

    /// Starts a session; `None` if the operating system has no random numbers.
    fn begin(
        &self,
        auth: &Auth,
        user: &User,
        device: Option<[u8; 16]>,
        who: Who<'_>,
    ) -> Option<SignedIn> {
        let clock = seconds(SystemTime::now());
        let value = new_session(&user.name, user.hash.fingerprint(), clock)?;
        let device = DeviceValue {
            id: device.map_or_else(random, Some)?,
            password: value.sign_in.password,
            issued: clock,
            user: user.name.clone(),
        };
        let device = seal::seal(&self.keys.current(), Kind::Device, &device.to_bytes());
        let cookies = [
            self.session_cookie(auth, &value, clock),
            cookie::set(cookie::DEVICE, &device, DEVICE_LIFETIME),
            cookie::clear(cookie::FORM),
        ];
        audit::sign_in(who, value.sign_in);
        Some(SignedIn {
            identity: Identity {
                user: user.name.as_str().into(),
                credential: Credential::Password(value.sign_in),
            },
            cookies: cookies.into_iter().flatten().collect(),
        })
    }

    /// The known device of this user that a request comes from.
    fn device(
        &self,
        auth: &Auth,
        headers: &HeaderMap,
        user: &User,
        now: SystemTime,
    ) -> Option<[u8; 16]> {
        let keep = auth.session_max;
        cookie::values(headers, cookie::DEVICE).find_map(|text| {
            let opened = seal::open(text, Kind::Device, |id| self.keys.find(id, now, keep))?;
            let value = DeviceValue::from_bytes(&opened.body)?;
            let good = value.user == user.name
                && value.password == user.hash.fingerprint()
                && fresh(value.issued, seconds(now), DEVICE_LIFETIME);
            good.then_some(value.id)
        })
    }
}

fn random() -> Option<[u8; 16]> {
    let mut id = [0; 16];
    rand::fill(&mut id).ok()?;
    Some(id)
}

// === nothing secret is shown ===

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
