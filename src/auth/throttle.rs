//! Who has guessed too often: growing delays per key, in a bounded table. Pure: time comes in.
//!
//! An attempt counts as a failure before it is made, so that a hundred at once are not a hundred
//! free ones; one that succeeds, or was not made after all, is taken back. A key is whatever is
//! counted: an address, a user, a device.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::fading::{Fading, make_room};

/// The first delay after the free tries.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(300);
/// One failure is forgotten after this much time without a new one, and another one after as much
/// again.
const FORGET: Duration = Duration::from_secs(600);
/// From here on the count says nothing more: the delay is the longest.
const MOST_FAILURES: u32 = 24;

/// Counts failures.
#[derive(Debug)]
pub(super) struct Throttle<K> {
    entries: HashMap<K, Entry>,
    /// Failures without a delay.
    free: u32,
    /// Keys at a time.
    most: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    /// When the last failure was counted, or the last one forgotten.
    since: Instant,
    /// No attempt before this.
    until: Instant,
    /// The delay that was told of.
    told: Option<Instant>,
}

/// An attempt comes too soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooSoon {
    pub(super) retry_after: Duration,
    /// The first one in this delay: worth a line in the log.
    pub(super) news: bool,
}

impl<K: Eq + Hash + Clone> Throttle<K> {
    pub(super) fn new(free: u32, most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            free,
            most,
        }
    }

    /// Counts, and delays nobody.
    pub(super) fn counting(most: usize) -> Self {
        Self::new(MOST_FAILURES, most)
    }

    /// Whether an attempt may be made now; how many have failed, if it may.
    pub(super) fn check(&mut self, key: &K, now: Instant) -> Result<u32, TooSoon> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Ok(0);
        };
        entry.forget(now);
        if entry.until <= now {
            return Ok(entry.failures);
        }
        let news = entry.told != Some(entry.until);
        entry.told = Some(entry.until);
        Err(TooSoon {
            retry_after: entry.until - now,
            news,
        })
    }

    /// Counts an attempt that is about to be made.
    pub(super) fn count(&mut self, key: &K, now: Instant) {
        let inherited = match self.entries.contains_key(key) {
            true => 0,
            false => make_room(&mut self.entries, self.most, now),
        };
        let free = self.free;
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            failures: inherited,
            since: now,
            until: now,
            told: None,
        });
        entry.forget(now);
        entry.failures = (entry.failures + 1).min(MOST_FAILURES);
        entry.since = now;
        entry.until = now + delay(entry.failures, free);
    }

    /// Takes one counted attempt back: it succeeded, or was never made.
    pub(super) fn take_back(&mut self, key: &K, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = entry.failures.saturating_sub(1);
            entry.until = now;
            if entry.failures == 0 {
                self.entries.remove(key);
            }
        }
    }

    /// Forgets all about a key.
    pub(super) fn clear(&mut self, key: &K) {
        self.entries.remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Fading for Entry {
    /// An entry without a delay goes first, the one with the fewest failures.
    type Rank = (bool, u32, Instant);

    fn forget(&mut self, now: Instant) {
        let quiet = now.saturating_duration_since(self.since.max(self.until));
        let forgotten = u32::try_from(quiet.as_secs() / FORGET.as_secs()).unwrap_or(u32::MAX);
        if forgotten > 0 {
            self.failures = self.failures.saturating_sub(forgotten);
            self.since = now;
        }
    }

    fn count(&self) -> u32 {
        self.failures
    }

    fn rank(&self, now: Instant) -> (bool, u32, Instant) {
        (self.until > now, self.failures, self.until)
    }

    /// Where every entry has a delay, the newcomer gets one try, not a fresh start.
    fn inheritance(&self, now: Instant) -> u32 {
        if self.until > now { self.failures } else { 0 }
    }
}

fn delay(failures: u32, free: u32) -> Duration {
    match failures.checked_sub(free + 1) {
        None => Duration::ZERO,
        Some(doubled) => FIRST
            .saturating_mul(1_u32.checked_shl(doubled).unwrap_or(u32::MAX))
            .min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: u32 = 3;

    fn second() -> Duration {
        Duration::from_secs(1)
    }

    /// Tries whenever it may, for this long; how many tries that were.
    fn tries(throttle: &mut Throttle<u32>, key: u32, start: Instant, span: Duration) -> usize {
        let (mut now, mut tries) = (start, 0);
        while now < start + span {
            match throttle.check(&key, now) {
                Ok(_) => {
                    throttle.count(&key, now);
                    tries += 1;
                }
                Err(too_soon) => now += too_soon.retry_after,
            }
        }
        tries
    }

    #[test]
    fn a_few_are_free_and_then_the_delay_doubles() {
        let (mut throttle, mut now) = (Throttle::new(FREE, 10), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..15 {
            throttle.check(&1, now).unwrap();
            throttle.count(&1, now);
            if let Err(too_soon) = throttle.check(&1, now) {
                delays.push(too_soon.retry_after.as_secs());
                now += too_soon.retry_after;
            }
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(throttle.check(&2, now), Ok(0), "somebody else");
    }

    #[test]
    fn a_day_of_guessing_is_a_few_hundred_tries() {
        let mut throttle = Throttle::new(FREE, 10);
        let day = Duration::from_secs(86_400);
        let tries = tries(&mut throttle, 1, Instant::now(), day);
        assert!((280..320).contains(&tries), "{tries}");
    }

    #[test]
    fn failures_are_forgotten_slowly() {
        let (mut throttle, start) = (Throttle::new(FREE, 10), Instant::now());
        for _ in 0..FREE {
            throttle.count(&1, start);
        }
        assert_eq!(throttle.check(&1, start), Ok(3));
        let later = start + FORGET;
        assert_eq!(throttle.check(&1, later), Ok(2));
        assert_eq!(throttle.check(&1, later + FORGET - second()), Ok(2));
        assert_eq!(throttle.check(&1, later + 2 * FORGET), Ok(0));
    }

    #[test]
    fn an_attempt_that_was_not_made_leaves_no_trace() {
        let (mut throttle, now) = (Throttle::new(0, 10), Instant::now());
        throttle.count(&1, now);
        assert!(throttle.check(&1, now).is_err());
        throttle.take_back(&1, now);
        assert_eq!((throttle.check(&1, now), throttle.len()), (Ok(0), 0));
    }

    #[test]
    fn a_delay_is_news_once() {
        let (mut throttle, now) = (Throttle::new(0, 10), Instant::now());
        throttle.count(&1, now);
        let news = |throttle: &mut Throttle<u32>, now| throttle.check(&1, now).unwrap_err().news;
        assert!(news(&mut throttle, now));
        assert!(!news(&mut throttle, now));
        throttle.count(&1, now + second());
        assert!(news(&mut throttle, now + second()));
    }

    #[test]
    fn whoever_fills_the_table_forgets_nobody_who_is_delayed() {
        let (mut throttle, now) = (Throttle::new(FREE, 100), Instant::now());
        for _ in 0..8 {
            throttle.count(&0, now);
        }
        for other in 1..10_000 {
            for _ in 0..FREE {
                throttle.count(&other, now);
            }
        }
        assert!(throttle.check(&0, now).is_err());
        assert_eq!(throttle.len(), 100);
    }

    #[test]
    fn a_table_full_of_delays_gives_newcomers_one_try() {
        let (mut throttle, now) = (Throttle::new(FREE, 10), Instant::now());
        for key in 0..10 {
            for _ in 0..8 {
                throttle.count(&key, now);
            }
        }
        assert_eq!(throttle.check(&10, now), Ok(0));
        throttle.count(&10, now);
        let delay = throttle.check(&10, now).unwrap_err().retry_after;
        assert!(delay > Duration::from_secs(16), "{delay:?}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Try(u32),
        TakeBack(u32),
        Clear(u32),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12_u32).prop_map(Step::Try),
            1 => (0..12_u32).prop_map(Step::TakeBack),
            1 => (0..12_u32).prop_map(Step::Clear),
            2 => (0..2_000_000_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn it_stays_bounded_and_a_delay_holds_until_its_end(
            steps in proptest::collection::vec(step(), 0..300),
        ) {
            let (mut throttle, mut now) = (Throttle::new(FREE, 8), Instant::now());
            for step in steps {
                match step {
                    Step::Try(key) => match throttle.check(&key, now) {
                        Ok(_) => throttle.count(&key, now),
                        Err(too_soon) => {
                            prop_assert!(too_soon.retry_after <= LONGEST);
                            prop_assert!(!too_soon.retry_after.is_zero());
                            let almost = now + too_soon.retry_after - Duration::from_nanos(1);
                            prop_assert!(throttle.check(&key, almost).is_err());
                            prop_assert!(throttle.check(&key, now + too_soon.retry_after).is_ok());
                        }
                    },
                    Step::TakeBack(key) => throttle.take_back(&key, now),
                    Step::Clear(key) => throttle.clear(&key),
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
                prop_assert!(throttle.len() <= 8);
            }
        }

        #[test]
        fn no_pattern_of_waiting_buys_many_tries(waits in proptest::collection::vec(0..900_u64, 1..200)) {
            let (mut throttle, start) = (Throttle::new(FREE, 8), Instant::now());
            let (mut now, mut tries) = (start, 0_u64);
            for wait in waits {
                now += Duration::from_secs(wait);
                while throttle.check(&1, now).is_ok() {
                    throttle.count(&1, now);
                    tries += 1;
                }
            }
            // The free ones, the short delays, and then one for every five minutes at most.
            prop_assert!(tries <= 3 + 9 + (now - start).as_secs() / 300 + 1, "{} tries", tries);
        }
    }
}
