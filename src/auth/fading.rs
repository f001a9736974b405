//! Counts that fade, in a table that cannot grow: who goes when somebody new comes.
//!
//! What is counted, and how fast it is forgotten, is its owner's business.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::time::Instant;

/// A count that becomes less with time.
pub(super) trait Fading: Copy {
    /// The entry of the lowest rank goes first.
    type Rank: Ord;

    /// Forgets what is old.
    fn forget(&mut self, now: Instant);

    /// What is left of the count.
    fn count(&self) -> u32;

    /// How much it is worth to keep.
    fn rank(&self, now: Instant) -> Self::Rank;

    /// What somebody new begins with in its place: whoever fills the table to be forgotten must not
    /// begin anew.
    fn inheritance(&self, now: Instant) -> u32;
}

/// Makes room for one entry among at most `most`; the count that it begins with.
pub(super) fn make_room<K: Eq + Hash + Clone, V: Fading>(
    entries: &mut HashMap<K, V>,
    most: usize,
    now: Instant,
) -> u32 {
    if entries.len() < most {
        return 0;
    }
    entries.retain(|_, entry| {
        entry.forget(now);
        entry.count() > 0
    });
    if entries.len() < most {
        return 0;
    }
    let least = entries.iter().min_by_key(|(_, entry)| entry.rank(now));
    let Some((key, entry)) = least.map(|(key, entry)| (key.clone(), *entry)) else {
        return 0;
    };
    entries.remove(&key);
    entry.inheritance(now)
}
