//! Sessions that ended though nobody of us ended them: how many, how, and when.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::time::Instant;

use crate::ws::WsError;

/// Ends that nobody asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drops {
    /// Sessions that were dropped, each counted once however often it was.
    pub sessions: usize,
    /// All ends, by how.
    pub how: BTreeMap<String, usize>,
    /// Seconds from the start of the reloads to the first and to the last.
    pub seconds: Option<[f64; 2]>,
    #[serde(skip)]
    at: Vec<Instant>,
}

impl Drops {
    /// One more of this session.
    pub(super) fn note(&mut self, how: String) {
        self.sessions = 1;
        self.at.push(Instant::now());
        *self.how.entry(how).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.at.extend(other.at);
        for (how, count) in other.how {
            *self.how.entry(how).or_default() += count;
        }
    }

    pub(super) fn since(&mut self, began: Instant) {
        let seconds = |at: &Instant| at.saturating_duration_since(began).as_secs_f64();
        let (first, last) = (self.at.iter().min(), self.at.iter().max());
        self.seconds = first.zip(last).map(|(a, b)| [seconds(a), seconds(b)]);
    }
}

/// A few words that group equal ends.
pub(super) fn how(end: &WsError) -> String {
    match end {
        WsError::Closed { code, .. } => format!("close {code}"),
        WsError::Cut => "ended without a close".to_owned(),
        WsError::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionReset => "reset".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "ended without a close".to_owned(),
            kind => kind.to_string(),
        },
        WsError::Frame(_) => "bad frame".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_counts_once_and_its_ends_by_how() {
        let (mut all, mut one) = (Drops::default(), Drops::default());
        let began = Instant::now();
        one.note(how(&WsError::Cut));
        one.note(how(&WsError::Closed {
            code: 1001,
            reason: "going away".to_owned(),
        }));
        all.add(one);
        all.add(Drops::default());
        all.since(began);
        let expected = [("close 1001", 1), ("ended without a close", 1)];
        let expected = expected.map(|(how, count)| (how.to_owned(), count));
        assert_eq!((all.sessions, all.how), (1, BTreeMap::from(expected)));
        assert!(all.seconds.is_some_and(|[first, last]| first <= last));
    }
}
