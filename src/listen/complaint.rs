//! When refused connections are worth a line in the log: at once, and then not more often than
//! every [`QUIET`], with how many there were of each kind meanwhile.
//!
//! Pure, and as small after a flood as before it.

use std::time::Duration;

use tokio::time::Instant;

use crate::observe::Label;
use crate::observe::labels::Refusal;

/// Between two lines at least.
const QUIET: Duration = Duration::from_secs(10);
const KINDS: usize = Refusal::NAMES.len();

/// What was not said yet.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    refused: [u64; KINDS],
    said: Option<Instant>,
}

impl Complaint {
    /// One more; what there is to say now, if anything.
    pub(super) fn note(&mut self, refusal: Refusal, now: Instant) -> Option<Told> {
        if let Some(count) = self.refused.get_mut(refusal.index()) {
            *count += 1;
        }
        if self.said.is_some_and(|said| now < said + QUIET) {
            return None;
        }
        let since = self.said.replace(now);
        Some(Told {
            refused: std::mem::take(&mut self.refused),
            over: since.map(|since| now.saturating_duration_since(since)),
        })
    }
}

/// Refused connections since the last line.
#[derive(Debug)]
pub(super) struct Told {
    refused: [u64; KINDS],
    /// Since when; `None`: it is the first line.
    pub(super) over: Option<Duration>,
}

impl Told {
    /// All of them.
    pub(super) fn count(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Which limits, and how often each.
    pub(super) fn limits(&self) -> String {
        const KINDS: [(Refusal, &str); 5] = [
            (Refusal::Rate, "limits.handshakes_per_ip"),
            (
                Refusal::Address,
                "open connections per address (limits.sessions_per_ip)",
            ),
            (Refusal::Table, "addresses at a time"),
            (Refusal::Full, "open connections in all (LimitNOFILE=)"),
            (Refusal::ProxyHeader, "PROXY header"),
        ];
        let counted = KINDS.iter().filter_map(|(refusal, limit)| {
            let count = self
                .refused
                .get(refusal.index())
                .filter(|count| **count > 0)?;
            Some(format!("{limit}: {count}"))
        });
        counted.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_a_flood_every_ten_seconds_with_its_numbers() {
        let mut complaint = Complaint::default();
        let start = Instant::now();
        let first = complaint.note(Refusal::Rate, start).unwrap();
        assert_eq!((first.count(), first.over), (1, None));
        assert_eq!(first.limits(), "limits.handshakes_per_ip: 1");
        let mut lines = Vec::new();
        for ms in 1..25_000 {
            let kind = if ms % 2 == 0 {
                Refusal::Rate
            } else {
                Refusal::Full
            };
            lines.extend(complaint.note(kind, start + Duration::from_millis(ms)));
        }
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].count(), lines[1].count()), (10_000, 10_000));
        assert_eq!(
            lines[1].limits(),
            "limits.handshakes_per_ip: 5000, open connections in all (LimitNOFILE=): 5000"
        );
        assert_eq!(lines[1].over, Some(QUIET));
    }
}
