//! Who is in right now, so that nobody stays whose sign-in or token has gone.
//!
//! One entry per open session, gone with it. Checking credentials is done elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

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
    revoked: CancellationToken,
    grants: Arc<Grants>,
}

impl Grants {
    /// Lets somebody in. Check the credential once more afterwards: what was revoked before this
    /// does not find the grant.
    #[must_use]
    pub fn enter(self: &Arc<Self>, identity: Identity) -> Grant {
        let revoked = CancellationToken::new();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let key = live.next;
        live.next += 1;
        live.held.insert(key, (identity.clone(), revoked.clone()));
        drop(live);
        Grant {
            key,
            identity,
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

    /// Resolves when it is revoked.
    pub fn revoked(&self) -> WaitForCancellationFuture<'_> {
        self.revoked.cancelled()
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
        let (laptop, phone) = (
            grants.enter(holder("laptop")),
            grants.enter(holder("phone")),
        );
        let of_laptop = |identity: &Identity| *identity == holder("laptop");
        assert_eq!(grants.revoke(of_laptop), 1);
        laptop.revoked().await;
        assert!(!phone.revoked.is_cancelled());
        assert_eq!(grants.revoke(of_laptop), 0, "once is enough");
        drop((laptop, phone));
        assert!(grants.live.lock().unwrap().held.is_empty());
    }
}
