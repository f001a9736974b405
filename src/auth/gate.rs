//! Which delays an attempt to sign in is subject to, and what its outcome does to them.
//!
//! A stranger counts by address and by user; a device that this user has signed in from before
//! counts by itself alone, so that nobody can lock its owner out by guessing elsewhere.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::crowd::Crowd;
use super::lane::Rank;
use super::throttle::{Throttle, TooSoon};
use crate::network::wide_network_of;

/// Keys of one kind at a time.
const MOST: usize = 10_000;
/// People mistype.
const FREE: u32 = 5;

/// Who attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempting {
    /// Whose count the address is in.
    pub(super) network: IpAddr,
    /// A hash of the name that was given, whether there is such a user or not.
    pub(super) user: u64,
    /// A known device of this user.
    pub(super) device: Option<[u8; 16]>,
}

/// Which delay is not over yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delayed {
    pub(super) too_soon: TooSoon,
    pub(super) because: &'static str,
}

/// All the delays.
#[derive(Debug)]
pub(super) struct Gate {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    networks: Throttle<IpAddr>,
    users: Throttle<u64>,
    devices: Throttle<[u8; 16]>,
    /// Delays nobody: what of the counts above is one person's from one address.
    pairs: Throttle<(IpAddr, u64)>,
    neighbourhoods: Crowd,
}

impl Gate {
    pub(super) fn new() -> Self {
        let counts = Counts {
            networks: Throttle::new(FREE, MOST),
            users: Throttle::new(FREE, MOST),
            devices: Throttle::new(FREE, MOST),
            pairs: Throttle::counting(MOST),
            neighbourhoods: Crowd::new(MOST),
        };
        Self {
            counts: Mutex::new(counts),
        }
    }

    /// Counts an attempt that may be made now; how soon it is its turn among those who wait.
    pub(super) fn admit(&self, who: Attempting, now: Instant) -> Result<Rank, Delayed> {
        let delayed = |because| move |too_soon| Delayed { too_soon, because };
        let mut counts = self.lock();
        if let Some(device) = who.device {
            let failures = counts.devices.check(&device, now);
            let failures = failures.map_err(delayed("this device"))?;
            counts.devices.count(&device, now);
            return Ok(Rank { crowd: 0, failures });
        }
        let failures = counts.networks.check(&who.network, now);
        let failures = failures.map_err(delayed("this address"))?;
        let user = counts.users.check(&who.user, now);
        user.map_err(delayed("this user"))?;
        counts.networks.count(&who.network, now);
        counts.users.count(&who.user, now);
        counts.pairs.count(&(who.network, who.user), now);
        let crowd = counts
            .neighbourhoods
            .join(wide_network_of(who.network), now);
        Ok(Rank { crowd, failures })
    }

    /// The attempt was not made after all.
    pub(super) fn take_back(&self, who: Attempting, now: Instant) {
        let mut counts = self.lock();
        match who.device {
            Some(device) => counts.devices.take_back(&device, now),
            None => {
                counts.networks.take_back(&who.network, now);
                counts.users.take_back(&who.user, now);
                counts.pairs.take_back(&(who.network, who.user), now);
                counts
                    .neighbourhoods
                    .leave(wide_network_of(who.network), now);
            }
        }
    }

    /// The password was right: what this user has mistyped here is forgiven. What others have
    /// guessed about this user stays counted, and so does what was guessed from here about others.
    pub(super) fn succeeded(&self, who: Attempting, now: Instant) {
        let mut counts = self.lock();
        match who.device {
            Some(device) => counts.devices.clear(&device),
            None => {
                let pair = (who.network, who.user);
                for _ in 0..counts.pairs.check(&pair, now).unwrap_or_default() {
                    counts.networks.take_back(&who.network, now);
                    counts.users.take_back(&who.user, now);
                }
                counts.pairs.clear(&pair);
                counts
                    .neighbourhoods
                    .leave(wide_network_of(who.network), now);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let counts = self.lock();
        let lengths = [
            counts.networks.len(),
            counts.users.len(),
            counts.devices.len(),
            counts.pairs.len(),
            counts.neighbourhoods.len(),
        ];
        lengths.iter().sum()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
