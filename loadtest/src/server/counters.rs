//! Counts handshakes, and the most of them within any one second.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What a backend has seen, as `GET /stats` tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// WebSocket upgrades so far.
    pub handshakes: u64,
    /// The most within any one second.
    pub peak_per_second: usize,
    /// Sessions open now.
    pub open: usize,
}

#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stats: Stats,
    recent: VecDeque<Instant>,
}

impl Counters {
    pub(super) fn opened(&self, at: Instant) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.stats.handshakes += 1;
        inner.stats.open += 1;
        inner.recent.push_back(at);
        while inner
            .recent
            .front()
            .is_some_and(|t| at - *t >= Duration::from_secs(1))
        {
            inner.recent.pop_front();
        }
        inner.stats.peak_per_second = inner.stats.peak_per_second.max(inner.recent.len());
    }

    pub(super) fn closed(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.stats.open = inner.stats.open.saturating_sub(1);
    }

    pub(super) fn stats(&self) -> Stats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_peak_is_of_any_second_not_of_the_clocks_seconds() {
        let (counters, start) = (Counters::default(), Instant::now());
        for millis in [0, 900, 950, 1100, 1500, 5000] {
            counters.opened(start + Duration::from_millis(millis));
        }
        counters.closed();
        assert_eq!(
            counters.stats(),
            Stats {
                handshakes: 6,
                peak_per_second: 4,
                open: 5
            }
        );
    }
}
