//! Who is in right now, so that nobody stays whose sign-in or token has gone.
//!
//! One entry per open session or request of somebody known, gone with it. Checking credentials is
//! done elsewhere.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Identity, audit};

/// Everybody who is in.
#[derive(Debug, Default)]
pub struct Grants {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    held: HashMap<u64, (Identity, CancellationToken)>,
    /// Of all those of whom nobody wants to know who they are.
    anybody: CancellationToken,
}

/// One client's right to go on, for as long as it is kept.
#[derive(Debug)]
pub struct Grant {
    of: Option<Held>,
    until: Option<SystemTime>,
    revoked: CancellationToken,
}

#[derive(Debug)]
struct Held {
    key: u64,
    identity: Identity,
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
        let grants = Arc::clone(self);
        Grant {
            of: Some(Held {
                key,
                identity,
                grants,
            }),
            until,
            revoked,
        }
    }

    /// Lets anybody in, as long as nobody is asked who they are.
    #[must_use]
    pub fn anybody(&self) -> Grant {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        Grant {
            of: None,
            until: None,
            revoked: live.anybody.clone(),
        }
    }

    /// From now on people are asked who they are: ends everybody's session who was not.
    pub fn revoke_anybody(&self) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut live.anybody).cancel();
    }

    /// Ends the sessions of those who may not be here any more; how many.
    pub fn revoke(&self, gone: impl Fn(&Identity) -> bool) -> usize {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = 0;
        for (identity, revoked) in live.held.values() {
            if !revoked.is_cancelled() && gone(identity) {
                revoked.cancel();
                audit::revoked(identity);
                ended += 1;
            }
        }
        ended
    }
}

impl Grant {
    /// Whose it is; `None`: nobody was asked.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.of.as_ref().map(|held| &held.identity)
    }

    /// Writes down that a session begins by it, where nothing else says so.
    pub fn note_entry(&self, address: IpAddr) {
        if let Some(identity) = self.identity() {
            audit::entered(identity, address);
        }
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

impl Drop for Held {
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
    use crate::config::CertificateName;

    fn holder(user: &str) -> Identity {
        Identity {
            user: user.into(),
            credential: Credential::Certificate(CertificateName::SubjectCn),
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

    #[tokio::test]
    async fn whoever_was_not_asked_is_ended_when_people_are_asked() {
        let grants = Arc::new(Grants::default());
        let (before, known) = (grants.anybody(), grants.enter(holder("nick"), None));
        grants.revoke_anybody();
        before.ended().await;
        assert!(!known.revoked.is_cancelled());
        assert!(
            !grants.anybody().revoked.is_cancelled(),
            "those after it are others"
        );
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
