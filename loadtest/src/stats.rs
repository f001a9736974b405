//! Latency histograms and the few numbers people read from them. Pure.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Round trips up to a minute, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// What a histogram says, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Average.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The worst.
    pub max: f64,
}

const LONGEST: u64 = 60_000_000_000;

impl Latencies {
    /// An empty histogram.
    ///
    /// # Errors
    /// Never with these bounds; the histogram library checks them at run time.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST, 3)?))
    }

    /// Adds one; longer than a minute counts as a minute.
    pub fn record(&mut self, took: Duration) {
        self.0
            .saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST).max(1));
    }

    /// The numbers people read.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let at = |quantile| micros(self.0.value_at_quantile(quantile));
        if self.0.is_empty() {
            return Summary::default();
        }
        Summary {
            count: self.0.len(),
            mean: self.0.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.0.max()),
        }
    }
}

impl Summary {
    /// What `self` adds to `baseline`, quantile by quantile (not the quantiles of differences).
    #[must_use]
    pub fn minus(&self, baseline: &Self) -> Self {
        Self {
            count: self.count,
            mean: self.mean - baseline.mean,
            p50: self.p50 - baseline.p50,
            p90: self.p90 - baseline.p90,
            p99: self.p99 - baseline.p99,
            p999: self.p999 - baseline.p999,
            max: self.max - baseline.max,
        }
    }
}

/// When a round trip began, for a session that sends at fixed times.
///
/// The answer to the previous request may be late: then this one waited since its own time, and
/// that wait is the proxy's (no coordinated omission). When the session was idle, a late wake-up
/// is the generator's own, and the clock starts at the send.
#[must_use]
pub fn began<T: Ord>(scheduled: T, previous_answer: Option<T>, sent: T) -> T {
    match previous_answer {
        Some(answered) if answered > scheduled => scheduled,
        _ => sent,
    }
}

/// The median of a few values; the mean of the middle two when their number is even.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, *sorted.get(sorted.len() / 2 - 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(scale: u64) -> Summary {
        let mut latencies = Latencies::new().unwrap();
        for n in 1..=1000 {
            latencies.record(Duration::from_micros(n * scale));
        }
        latencies.summary()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b.abs() * 0.002
    }

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let summary = uniform(10);
        assert_eq!(summary.count, 1000);
        assert!(near(summary.p50, 5000.0) && near(summary.p90, 9000.0));
        assert!(near(summary.p99, 9900.0) && near(summary.max, 10000.0));
        assert!(near(summary.mean, 5005.0));
    }

    #[test]
    fn the_difference_is_taken_quantile_by_quantile() {
        let added = uniform(30).minus(&uniform(10));
        assert!(near(added.p50, 10000.0) && near(added.p99, 19800.0));
    }

    #[test]
    fn nothing_recorded_is_all_zero_and_too_long_is_a_minute() {
        assert_eq!(Latencies::new().unwrap().summary(), Summary::default());
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::from_secs(3600));
        assert!(near(latencies.summary().max, 60e6));
    }

    #[test]
    fn only_a_late_answer_moves_the_start_back_to_the_schedule() {
        assert_eq!(began(100, None, 103), 103);
        assert_eq!(began(100, Some(90), 103), 103);
        assert_eq!(began(100, Some(170), 171), 100);
    }

    #[test]
    fn the_median_of_even_counts_is_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
