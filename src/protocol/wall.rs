//! Moments as the time of day that clients read: the same moment is the same time, however often
//! and in whatever session it is asked for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::rescue::millis;

/// The system's clock may be this far from where it was and the times that were told still be true.
const DRIFT: Duration = Duration::from_secs(1);

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: Instant,
    /// Since 1970.
    time: Duration,
}

/// What `at` was, in milliseconds since 1970. It changes only when the system's clock is set.
pub(super) fn unix_ms_of(at: Instant, now: Instant) -> u64 {
    static ANCHOR: Mutex<Option<Anchor>> = Mutex::new(None);
    let mut anchor = ANCHOR.lock().unwrap_or_else(PoisonError::into_inner);
    let told = hold_to(*anchor, now, since_1970());
    *anchor = Some(told);
    millis(told.time_of(at))
}

/// The time of day, in milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    millis(since_1970())
}

/// The anchor as long as it is true.
fn hold_to(anchor: Option<Anchor>, now: Instant, time: Duration) -> Anchor {
    anchor
        .filter(|anchor| anchor.time_of(now).abs_diff(time) <= DRIFT)
        .unwrap_or(Anchor { at: now, time })
}

impl Anchor {
    fn time_of(&self, at: Instant) -> Duration {
        match at.checked_duration_since(self.at) {
            Some(later) => self.time.saturating_add(later),
            None => self.time.saturating_sub(self.at.duration_since(at)),
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_moment_has_one_time_though_the_clocks_are_never_read_at_once() {
        let start = Instant::now();
        let lost = start + 300 * MS;
        let mut anchor = None;
        let mut told = Vec::new();
        for n in 0..1000u32 {
            // Between one clock and the other something else may run for a while.
            let between = MS / 10 * (n % 30);
            let now = start + 1000 * MS + n * MS / 3;
            let time = Duration::from_secs(1_000_000) + (now - start) + between;
            let held = hold_to(anchor, now, time);
            anchor = Some(held);
            told.push(held.time_of(lost).as_millis());
        }
        told.dedup();
        assert_eq!(told, [1_000_000_300]);
    }

    #[test]
    fn a_clock_that_is_set_is_believed() {
        let start = Instant::now();
        let first = hold_to(None, start, Duration::from_secs(1000));
        let later = start + 10 * MS;
        let back = hold_to(Some(first), later, Duration::from_secs(500));
        assert_eq!(back.time_of(later), Duration::from_secs(500));
        let slewed = hold_to(Some(first), later, Duration::from_millis(1500));
        assert_eq!(slewed.time_of(start), Duration::from_millis(1490));
        let near = hold_to(Some(first), later, Duration::from_secs(1001));
        assert_eq!(near.time_of(start), Duration::from_secs(1000));
    }
}
