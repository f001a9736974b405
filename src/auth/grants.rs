//! Who is in right now, so that nobody stays whose sign-in or token has gone.
//!
//! One entry per open session, gone with it. Checking credentials is done elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Identity;

/// Everybody who is in.
#[derive(Debug, Default)]
pub struct Grants {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    held: HashMap<u64, (Identity, CancellationToken)>,
}

/// One session's right to go on, for as long as it is kept.
#[derive(Debug)]
pub struct Grant {
    key: u64,
    identity: Identity,
    until: Option<SystemTime>,
    revoked: CancellationToken,
    grants: Arc<Grants>,
}

impl Grants {
    /// Lets somebody in. Check the credential once more afterwards: what was revoked before this
    /// does not find the grant.
    ///
    /// `until`: when it ends by itself.
    #[must_use]
    pub fn enter(self: &Arc<Self>, identity: Identity, until: Option<SystemTime>) -> Grant {
        let revoked = CancellationToken::new();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let key = live.next;
        live.next += 1;
        live.held.insert(key, (identity.clone(), revoked.clone()));
        drop(live);
        Grant {
            key,
            identity,
            until,
            revoked,
            grants: Arc::clone(self),
        }
    }

    /// Ends the sessions of those who may not be here any more; how many.
    pub fn revoke(&self, gone: impl Fn(&Identity) -> bool) -> usize {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = 0;
        for (identity, revoked) in live.held.values() {
            if !revoked.is_cancelled() && gone(identity) {
                revoked.cancel();
                ended += 1;
            }
        }
        ended
    }
}

impl Grant {
    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Resolves when it is revoked, or at its end.
    pub async fn ended(&self) {
        let left = self
            .until
            .map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
        match left {
            // Both ways it is over.
            Some(left) => drop(timeout(left, self.revoked.cancelled()).await),
            None => self.revoked.cancelled().await,
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut live = self
            .grants
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        live.held.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::Credential;

    fn holder(user: &str) -> Identity {
        Identity {
            user: user.into(),
            credential: Credential::Certificate,
        }
    }

    #[tokio::test]
    async fn only_the_holders_of_what_is_gone_are_ended() {
        let grants = Arc::new(Grants::default());
        let laptop = grants.enter(holder("laptop"), None);
        let phone = grants.enter(holder("phone"), None);
        let of_laptop = |identity: &Identity| *identity == holder("laptop");
        assert_eq!(grants.revoke(of_laptop), 1);
        laptop.ended().await;
        assert!(!phone.revoked.is_cancelled());
        assert_eq!(grants.revoke(of_laptop), 0, "once is enough");
        drop((laptop, phone));
        assert!(grants.live.lock().unwrap().held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_ends_at_its_time_by_itself() {
        let grants = Arc::new(Grants::default());
        let day = Duration::from_secs(86_400);
        let grant = grants.enter(holder("nick"), Some(SystemTime::now() + day));
        let began = tokio::time::Instant::now();
        grant.ended().await;
        assert!((day - Duration::from_secs(60)..=day).contains(&began.elapsed()));
        let over = grants.enter(holder("nick"), Some(SystemTime::UNIX_EPOCH));
        over.ended().await;
    }
}
