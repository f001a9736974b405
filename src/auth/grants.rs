//! Who is in right now, so that nobody stays whose sign-in or token has gone.
//!
//! One entry per open session or request of somebody known, gone with it. Checking credentials is
//! done elsewhere.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::forward::Recheck;
use super::{Identity, audit};
use crate::observe::Metrics;
use crate::observe::labels::GrantEnd;

/// Everybody who is in.
#[derive(Debug, Default)]
pub struct Grants {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    held: HashMap<u64, Arc<Standing>>,
    /// Of all those of whom nobody wants to know who they are.
    anybody: CancellationToken,
    /// As the last reload said; whoever was looked at before it may say another one.
    session_max: Option<Duration>,
}

/// What one grant stands on, for as long as it does.
#[derive(Debug)]
struct Standing {
    identity: Identity,
    term: Term,
    /// When it ends by itself; `None`: never.
    end: watch::Sender<Option<SystemTime>>,
    why: OnceLock<GrantEnd>,
    over: CancellationToken,
    metrics: Arc<Metrics>,
}

/// How long somebody may be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// For as long as what it hangs on is there.
    Open,
    /// Until then at the latest.
    Until(SystemTime),
    /// For `auth.session_max` since this sign-in, whatever that is by then.
    SignedIn(SystemTime),
}

/// Somebody who is about to be let in.
#[derive(Debug)]
pub struct Entrant {
    /// Who.
    pub identity: Identity,
    /// For how long.
    pub term: Term,
    /// What to ask again from time to time.
    pub recheck: Option<Recheck>,
}

/// One client's right to go on, for as long as it is kept.
#[derive(Debug)]
pub struct Grant {
    of: Option<Held>,
    over: CancellationToken,
}

#[derive(Debug)]
struct Held {
    key: u64,
    standing: Arc<Standing>,
    recheck: Option<Recheck>,
    grants: Arc<Grants>,
}

// === impl Grants ===

impl Grants {
    /// Lets somebody in. Check the credential once more afterwards: what was revoked before this
    /// does not find the grant.
    #[must_use]
    pub fn enter(
        self: &Arc<Self>,
        entrant: Entrant,
        session_max: Duration,
        metrics: &Arc<Metrics>,
    ) -> Grant {
        let Entrant {
            identity,
            term,
            recheck,
        } = entrant;
        let over = CancellationToken::new();
        metrics.grants.add(identity.credential.way(), 1);
        let mut live = self.lock();
        let end = term.end(live.session_max.unwrap_or(session_max));
        let standing = Arc::new(Standing {
            identity,
            term,
            end: watch::Sender::new(end),
            why: OnceLock::new(),
            over: over.clone(),
            metrics: Arc::clone(metrics),
        });
        let key = live.next;
        live.next += 1;
        live.held.insert(key, Arc::clone(&standing));
        drop(live);
        let of = Held {
            key,
            standing,
            recheck,
            grants: Arc::clone(self),
        };
        Grant { of: Some(of), over }
    }

    /// Lets anybody in, as long as nobody is asked who they are.
    #[must_use]
    pub fn anybody(&self) -> Grant {
        Grant {
            of: None,
            over: self.lock().anybody.clone(),
        }
    }

    /// From now on people are asked who they are: ends everybody's session who was not.
    pub fn revoke_anybody(&self) {
        std::mem::take(&mut self.lock().anybody).cancel();
    }

    /// Ends the sessions of those who may not be here any more; how many.
    pub fn revoke(&self, why: GrantEnd, gone: impl Fn(&Identity) -> bool) -> usize {
        let live = self.lock();
        let standing = live.held.values();
        standing
            .filter(|standing| !standing.is_over() && gone(&standing.identity))
            .filter(|standing| standing.finish(why))
            .count()
    }

    /// Ends those whose time is over by the clock. What waits for it counts less than that where the
    /// machine was asleep meanwhile, or its clock was set.
    pub fn expire(&self) {
        let now = SystemTime::now();
        let over = |standing: &Standing| standing.end.borrow().is_some_and(|end| end <= now);
        for standing in self.lock().held.values().filter(|standing| over(standing)) {
            standing.finish(GrantEnd::Expired);
        }
    }

    /// From now on a sign-in lasts this long, also one that was made before.
    pub fn limit_sign_ins(&self, session_max: Duration) {
        let mut live = self.lock();
        live.session_max = Some(session_max);
        for standing in live.held.values() {
            let end = standing.term.end(session_max);
            standing.end.send_if_modified(|now| {
                let changed = *now != end;
                *now = end;
                changed
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Term {
    fn end(self, session_max: Duration) -> Option<SystemTime> {
        match self {
            Self::Open => None,
            Self::Until(end) => Some(end),
            Self::SignedIn(at) => at.checked_add(session_max),
        }
    }
}

// === impl Standing ===

impl Standing {
    fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Whether it was this that ended it.
    fn finish(&self, why: GrantEnd) -> bool {
        let first = self.why.set(why).is_ok();
        if first {
            self.over.cancel();
            let way = self.identity.credential.way();
            self.metrics.grant_ends.inc((way, why));
            audit::ended(&self.identity, why);
        }
        first
    }

    /// Resolves at its end, wherever that is moved to in the meantime.
    async fn expired(&self) {
        let mut end = self.end.subscribe();
        loop {
            let left = end
                .borrow_and_update()
                .map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
            let over = async {
                match left {
                    Some(left) => sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                // The sender is in `self`.
                _ = end.changed() => {}
            }
        }
    }
}

// === impl Grant ===

impl Grant {
    /// Whose it is; `None`: nobody was asked.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.of.as_ref().map(|held| &held.standing.identity)
    }

    /// Writes down that a session begins by it, where nothing else says so.
    pub fn note_entry(&self, address: IpAddr) {
        if let Some(identity) = self.identity() {
            audit::entered(identity, address);
        }
    }

    /// Resolves when it is revoked, or at its end. While this is waited for, whoever let it in is
    /// asked again.
    pub async fn ended(&self) {
        match &self.of {
            // In a box: sessions of nobody in particular are many, and need none of it.
            Some(held) => Box::pin(held.ended()).await,
            None => self.over.cancelled().await,
        }
    }
}

// === impl Held ===

impl Held {
    async fn ended(&self) {
        let lost = async {
            match &self.recheck {
                Some(recheck) => Box::pin(recheck.lost()).await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            () = self.standing.over.cancelled() => return,
            () = self.standing.expired() => GrantEnd::Expired,
            why = lost => why,
        };
        self.standing.finish(why);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.grants.lock().held.remove(&self.key);
        let way = self.standing.identity.credential.way();
        self.standing.metrics.grants.add(way, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Credential;
    use crate::config::CertificateName;
    use crate::observe::labels::Way;

    const DAY: Duration = Duration::from_secs(86_400);

    fn enter(grants: &Arc<Grants>, user: &str, term: Term) -> Grant {
        let entrant = Entrant {
            identity: holder(user),
            term,
            recheck: None,
        };
        grants.enter(entrant, 10 * DAY, &Arc::default())
    }

    async fn days(grant: &Grant) -> f64 {
        let began = tokio::time::Instant::now();
        grant.ended().await;
        (began.elapsed().as_secs_f64() / 86_400.0 * 100.0).round() / 100.0
    }

    fn holder(user: &str) -> Identity {
        Identity {
            user: user.into(),
            credential: Credential::Certificate(CertificateName::SubjectCn, Arc::default()),
        }
    }

    #[tokio::test]
    async fn only_the_holders_of_what_is_gone_are_ended() {
        let grants = Arc::new(Grants::default());
        let laptop = enter(&grants, "laptop", Term::Open);
        let phone = enter(&grants, "phone", Term::Open);
        let of_laptop = |identity: &Identity| *identity == holder("laptop");
        assert_eq!(grants.revoke(GrantEnd::Revoked, of_laptop), 1);
        laptop.ended().await;
        assert!(!phone.over.is_cancelled());
        assert_eq!(
            grants.revoke(GrantEnd::Revoked, of_laptop),
            0,
            "once is enough"
        );
        drop((laptop, phone));
        assert!(grants.live.lock().unwrap().held.is_empty());
    }

    #[tokio::test]
    async fn whoever_was_not_asked_is_ended_when_people_are_asked() {
        let grants = Arc::new(Grants::default());
        let (before, known) = (grants.anybody(), enter(&grants, "nick", Term::Open));
        grants.revoke_anybody();
        before.ended().await;
        assert!(!known.over.is_cancelled());
        assert!(
            !grants.anybody().over.is_cancelled(),
            "those after it are others"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_ends_at_its_time_by_itself() {
        let grants = Arc::new(Grants::default());
        let end = SystemTime::now() + DAY;
        assert_eq!(days(&enter(&grants, "nick", Term::Until(end))).await, 1.0);
        let over = Term::Until(SystemTime::UNIX_EPOCH);
        assert_eq!(days(&enter(&grants, "nick", over)).await, 0.0);
        let signed_in = Term::SignedIn(SystemTime::now());
        assert_eq!(days(&enter(&grants, "nick", signed_in)).await, 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn another_length_of_sign_ins_counts_for_those_who_are_in() {
        let grants = Arc::new(Grants::default());
        let before = SystemTime::now() - DAY;
        let certificate = enter(&grants, "c", Term::Until(before + 3 * DAY));
        for (max, left) in [(5 * DAY, 4.0), (20 * DAY, 19.0), (DAY, 0.0)] {
            let (early, late) = (
                enter(&grants, "nick", Term::SignedIn(before)),
                enter(&grants, "nick", Term::SignedIn(before)),
            );
            let mut waiting = Box::pin(early.ended());
            assert!(futures_util::poll!(&mut waiting).is_pending());
            grants.limit_sign_ins(max);
            // One that is waited for already, one that is not yet, one that comes later.
            let began = tokio::time::Instant::now();
            waiting.await;
            let waited = began.elapsed().as_secs_f64() / 86_400.0;
            assert!((waited - left).abs() < 0.01, "{waited}");
            assert_eq!(days(&late).await, left);
            let newcomer = enter(&grants, "nick", Term::SignedIn(before));
            assert_eq!(days(&newcomer).await, left);
        }
        assert_eq!(days(&certificate).await, 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_in_and_why_no_longer_is_counted_once() {
        let (grants, metrics) = (Arc::new(Grants::default()), Arc::new(Metrics::default()));
        let entrant = |term| Entrant {
            identity: holder("nick"),
            term,
            recheck: None,
        };
        let end = Term::Until(SystemTime::now() + DAY);
        let first = grants.enter(entrant(Term::Open), DAY, &metrics);
        let second = grants.enter(entrant(end), DAY, &metrics);
        assert_eq!(metrics.grants.get(Way::Mtls), 2);
        second.ended().await;
        second.ended().await;
        assert_eq!(grants.revoke(GrantEnd::Revoked, |_| true), 1);
        first.ended().await;
        for why in [GrantEnd::Expired, GrantEnd::Revoked] {
            assert_eq!(metrics.grant_ends.get((Way::Mtls, why)), 1, "{why:?}");
        }
        drop((first, second));
        assert_eq!(metrics.grants.get(Way::Mtls), 0);
    }
}
