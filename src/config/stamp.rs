//! What tells one version of a file from another, without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A version of a file, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<Version>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    place: (u64, u64),
    size: u64,
    modified: i64,
    changed: i64,
}

impl Stamp {
    /// As the file is now; where a link is, what it leads to.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let version = |at: fs::Metadata| Version {
            place: (at.dev(), at.ino()),
            size: at.size(),
            modified: nanos(at.mtime(), at.mtime_nsec()),
            changed: nanos(at.ctime(), at.ctime_nsec()),
        };
        Self(fs::metadata(path).ok().map(version))
    }

    /// Whether it is written into the same place: what replaces a file at once lies in another.
    #[must_use]
    pub fn is_in_place_of(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => one.place == other.place,
            _ => false,
        }
    }
}

fn nanos(seconds: i64, nanos: i64) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}
