//! Wall-clock time to the second, as it stands in the state directory.
//!
//! Certificates and limits of CAs are about dates, so this is the one place of the program that
//! reckons with the wall clock. It may jump: whoever uses it has to expect that.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(super) const MINUTE: u64 = 60;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// Seconds since 1970, UTC. Written as `2026-01-31T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub(super) u64);

// === impl Moment ===

impl Moment {
    /// By this machine's clock; in a test, by the one that the test has set.
    pub(super) fn now() -> Self {
        #[cfg(test)]
        if let Some(set) = clock::get() {
            return set;
        }
        SystemTime::now().into()
    }

    pub(super) fn after(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    pub(super) fn before(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// Seconds from `earlier` until this; zero if it is not earlier.
    pub(super) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As the standard library has it.
    #[must_use]
    pub fn system(self) -> SystemTime {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(self.0))
            .unwrap_or(UNIX_EPOCH)
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0
    }

    fn text(self) -> Option<String> {
        let seconds = i64::try_from(self.0).ok()?;
        let moment = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        moment.format(&Rfc3339).ok()
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(
            time.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        )
    }
}

impl From<OffsetDateTime> for Moment {
    fn from(time: OffsetDateTime) -> Self {
        Self(u64::try_from(time.unix_timestamp()).unwrap_or_default())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(&text),
            None => write!(f, "second {}", self.0),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        OffsetDateTime::parse(&text, &Rfc3339)
            .map(Self::from)
            .map_err(|_| de::Error::custom("not a date like 2026-01-31T12:00:00Z"))
    }
}

/// A clock that tests set, each on its own thread.
#[cfg(test)]
pub(super) mod clock {
    use std::cell::Cell;

    use super::Moment;

    thread_local! {
        static SET: Cell<Option<Moment>> = const { Cell::new(None) };
    }

    pub(super) fn get() -> Option<Moment> {
        SET.get()
    }

    pub(in crate::tls::acme) fn set(now: Moment) {
        SET.set(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_for_people_and_reads_back() {
        let moment = Moment(1_769_860_800);
        let text = serde_json::to_string(&moment).unwrap();
        assert_eq!(text, "\"2026-01-31T12:00:00Z\"");
        assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), moment);
        assert!(serde_json::from_str::<Moment>("\"soon\"").is_err());
    }
}
