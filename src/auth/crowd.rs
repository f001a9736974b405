//! How many have lately tried from one wider network: who is next must not be decided by those who
//! have the most addresses.
//!
//! It delays nobody. A few attempts are everybody's; of more each counts, and half of them are
//! forgotten every ten minutes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::fading::{Fading, make_room};

/// A neighbourhood is no crowd for a few who mistype.
pub(super) const FEW: u32 = 8;
/// After this much time half is forgotten.
const HALF: Duration = Duration::from_secs(600);

/// Counts attempts per network.
#[derive(Debug)]
pub(super) struct Crowd {
    entries: HashMap<IpAddr, Entry>,
    /// Networks at a time.
    most: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    attempts: u32,
    /// When it was last halved.
    since: Instant,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            most,
        }
    }

    /// Counts an attempt; how many were before it, beyond the few.
    pub(super) fn join(&mut self, network: IpAddr, now: Instant) -> u32 {
        let inherited = match self.entries.contains_key(&network) {
            true => 0,
            false => make_room(&mut self.entries, self.most, now),
        };
        let entry = self.entries.entry(network).or_insert(Entry {
            attempts: inherited,
            since: now,
        });
        entry.forget(now);
        let before = entry.attempts;
        entry.attempts = before.saturating_add(1);
        before.saturating_sub(FEW)
    }

    /// Takes one attempt back: it succeeded, or was never made.
    pub(super) fn leave(&mut self, network: IpAddr, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&network) {
            entry.forget(now);
            entry.attempts = entry.attempts.saturating_sub(1);
            if entry.attempts == 0 {
                self.entries.remove(&network);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Fading for Entry {
    type Rank = u32;

    fn forget(&mut self, now: Instant) {
        let spans = now.saturating_duration_since(self.since).as_secs() / HALF.as_secs();
        if let Ok(spans @ 1..) = u32::try_from(spans) {
            self.attempts = self.attempts.checked_shr(spans).unwrap_or_default();
            self.since += HALF * spans;
        }
    }

    fn count(&self) -> u32 {
        self.attempts
    }

    fn rank(&self, _: Instant) -> u32 {
        self.attempts
    }

    fn inheritance(&self, _: Instant) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn network(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number << 8).into()
    }

    #[test]
    fn a_few_are_no_crowd_and_half_of_one_is_forgotten() {
        let (mut crowd, now) = (Crowd::new(10), Instant::now());
        for _ in 0..FEW {
            assert_eq!(crowd.join(network(1), now), 0);
        }
        for number in 0..1_000 - FEW {
            assert_eq!(crowd.join(network(1), now), number);
        }
        assert_eq!(crowd.join(network(2), now), 0, "elsewhere");
        assert_eq!(crowd.join(network(1), now + HALF), 500 - FEW);
        assert_eq!(crowd.join(network(1), now + 2 * HALF), 250 - FEW);
        assert_eq!(crowd.join(network(1), now + 1_000 * HALF), 0);
    }

    #[test]
    fn who_fills_the_table_is_a_crowd_still() {
        let (mut crowd, now) = (Crowd::new(10), Instant::now());
        for number in 0..10 {
            for _ in 0..100 {
                crowd.join(network(number), now);
            }
        }
        assert_eq!(crowd.join(network(11), now), 100 - FEW);
        assert_eq!(crowd.len(), 10);
    }

    proptest! {
        #[test]
        fn it_stays_bounded_and_what_left_leaves_no_trace(
            steps in proptest::collection::vec((0..12_u32, 0..3_u8, 0..400_u64), 0..300),
        ) {
            let (mut crowd, mut now) = (Crowd::new(8), Instant::now());
            for (number, kind, wait) in &steps {
                match kind {
                    0 => crowd.leave(network(*number), now),
                    _ => {
                        crowd.join(network(*number), now);
                    }
                }
                now += Duration::from_secs(*wait);
                prop_assert!(crowd.len() <= 8);
            }
            for number in 0..12 {
                for _ in &steps {
                    crowd.leave(network(number), now);
                }
            }
            prop_assert_eq!(crowd.len(), 0);
        }
    }
}
