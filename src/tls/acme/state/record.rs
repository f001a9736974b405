//! Values in files: read, written, and what is done with files that are not ours to read.
//!
//! A file that is damaged is set aside under another name. One that a newer holdline has written is
//! left to it: ours lies beside it then, and starts with the most careful assumption. What is added to
//! a record without a new [`VERSION`] has to be such that the older can leave it out.

use std::fs;
use std::io;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{StateDir, StateError};
use crate::tls::acme::moment::Moment;

/// Of all the records that are written here.
const VERSION: u32 = 1;
/// Of one name; the oldest goes.
const DAMAGED: usize = 5;

/// What is kept in a file.
pub(in crate::tls::acme) trait Record: Serialize + DeserializeOwned {
    /// What to go by where a newer holdline has written, last at this moment, what cannot be read
    /// here. `None`: as if there were nothing.
    fn careful(_since: Moment) -> Option<Self> {
        None
    }
}

#[derive(Serialize)]
struct Versioned<'v, T> {
    version: u32,
    #[serde(flatten)]
    value: &'v T,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    version: u32,
}

impl StateDir {
    /// What a file says, or its default: for what is not worth not starting for.
    pub(in crate::tls::acme) fn load<T: Record + Default>(&self, name: &str) -> T {
        self.load_some(name)
            .unwrap_or_else(|error| {
                tracing::warn!("{error}; {}", error.remedy());
                None
            })
            .unwrap_or_default()
    }

    /// `None` if there is none, or a damaged one, which is set aside. One that cannot be read may
    /// well be good: whoever took it for absent would overwrite it.
    pub(in crate::tls::acme) fn load_some<T: Record>(
        &self,
        name: &str,
    ) -> Result<Option<T>, StateError> {
        let ours = self.ours(name)?;
        let Some(bytes) = self.read(&ours)? else {
            return Ok(match ours == name {
                true => None,
                false => self.careful(name),
            });
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                // A parser's words may hold a part of the text, and so of a key.
                let why = format!("line {}: not as it was written", error.line());
                self.set_aside(name, &why);
                Ok(None)
            }
        }
    }

    pub(in crate::tls::acme) fn save(
        &self,
        name: &str,
        value: &impl Record,
    ) -> Result<(), StateError> {
        let ours = self.ours(name)?;
        let version = VERSION;
        // With room for any key from the start: growing would leave copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(16 * 1024));
        serde_json::to_writer_pretty(&mut *text, &Versioned { version, value }).map_err(
            |error| StateError::new("cannot write", &self.path(&ours), io::Error::other(error)),
        )?;
        text.push(b'\n');
        self.write(&ours, &text)
    }

    /// The file that is ours to read and write: with another name beside a newer one.
    fn ours(&self, name: &str) -> Result<String, StateError> {
        let newer = self.read(name)?.is_some_and(|bytes| {
            serde_json::from_slice::<Head>(&bytes).is_ok_and(|head| head.version > VERSION)
        });
        Ok(match newer {
            true => format!("{name}.v{VERSION}"),
            false => name.to_owned(),
        })
    }

    /// The files that are ours to delete: what was written beside a newer one is left over where
    /// that is gone. None of a file that cannot be read: it may not be ours.
    pub(super) fn all_ours(&self, name: &str) -> Vec<String> {
        let beside = format!("{name}.v{VERSION}");
        match self.ours(name) {
            Ok(ours) if ours == beside => vec![beside],
            Ok(ours) => vec![ours, beside],
            Err(error) => {
                tracing::debug!("a file is not deleted: {error}");
                Vec::new()
            }
        }
    }

    fn careful<T: Record>(&self, name: &str) -> Option<T> {
        let path = self.path(name);
        tracing::warn!(
            path = %path.display(),
            "a newer holdline has written this file: it is left as it is, and without what it says \
             everything is done with the more care; run the newer one again"
        );
        let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
        T::careful(written.unwrap_or_else(|_| SystemTime::now()).into())
    }

    /// Renames a file that cannot be used, so that a person can look at it. Of earlier ones some are
    /// kept, with a number.
    pub(in crate::tls::acme) fn set_aside(&self, name: &str, why: &str) {
        if self.untouched {
            return;
        }
        let name = self.ours(name).unwrap_or_else(|_| name.to_owned());
        let path = self.path(&name);
        if fs::symlink_metadata(&path).is_err() {
            return;
        }
        let numbered = |age: usize| match age {
            0 => self.path(&format!("{name}.damaged")),
            age => self.path(&format!("{name}.damaged.{age}")),
        };
        for age in (1..DAMAGED).rev() {
            let _ = fs::rename(numbered(age - 1), numbered(age));
        }
        let aside = numbered(0);
        match fs::rename(&path, &aside) {
            Ok(()) => {
                tracing::warn!(path = %path.display(), aside = %aside.display(), why, "a damaged file was set aside");
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), why, %error, "a damaged file is in the way, and cannot be set aside");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acme::history::{Health, History};
    use crate::tls::acme::moment::DAY;

    #[test]
    fn a_damaged_file_is_set_aside_and_the_earlier_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        for round in 0..7 {
            let text = format!("{{\"failures\": {round}");
            state.write("cas/x.json", text.as_bytes()).unwrap();
            assert_eq!(state.load::<Health>("cas/x.json"), Health::default());
            assert!(!state.path("cas/x.json").exists());
        }
        let kept = |name: &str| fs::read_to_string(state.path(name)).unwrap();
        assert!(kept("cas/x.json.damaged").ends_with(": 6"));
        assert!(kept("cas/x.json.damaged.4").ends_with(": 2"));
        assert_eq!(fs::read_dir(state.path("cas")).unwrap().count(), 5);
    }

    #[test]
    fn what_a_newer_one_has_written_is_left_to_it_and_not_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let newer = "{\"version\": 2, \"attempts\": {\"of\": \"another kind\"}}";
        let name = "certificates/a/history.json";
        state.write(name, newer.as_bytes()).unwrap();
        let now = Moment::now();
        let read: History = state.load_some(name).unwrap().unwrap();
        assert!(read.unknown_until.unwrap() > now.after(7 * DAY));
        let mut ours = read.clone();
        ours.start("https://ca.example/dir", now);
        state.save(name, &ours).unwrap();
        assert_eq!(state.load_some::<History>(name).unwrap(), Some(ours));
        assert_eq!(fs::read_to_string(state.path(name)).unwrap(), newer);
        assert!(!state.path(&format!("{name}.damaged")).exists());
        // Ours may be damaged, too.
        state.write(&format!("{name}.v1"), b"{").unwrap();
        assert_eq!(state.load_some::<History>(name).unwrap(), None);
        assert_eq!(state.load_some::<History>(name).unwrap(), Some(read));
        assert_eq!(fs::read_to_string(state.path(name)).unwrap(), newer);
    }

    #[test]
    fn what_a_newer_one_has_written_is_not_deleted_and_what_is_ours_is_not_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let newer = b"{\"version\": 2, \"key\": \"of another kind\"}";
        let (name, ours) = ("certificates/a/order.json", "certificates/a/order.json.v1");
        state.write(name, newer).unwrap();
        state.remove(name);
        assert_eq!(*state.read(name).unwrap().unwrap(), newer);
        state.save(name, &Health::default()).unwrap();
        assert!(state.path(ours).exists());
        state.remove(name);
        assert!(state.path(name).exists() && !state.path(ours).exists());
        // The newer one has deleted its own in the meantime.
        state.save(name, &Health::default()).unwrap();
        fs::remove_file(state.path(name)).unwrap();
        state.remove(name);
        assert!(!state.path(ours).exists());
    }

    #[test]
    fn files_say_their_version_and_those_without_are_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        state.write("cas/x.json", b"{\"failures\": 3}").unwrap();
        let health: Health = state.load("cas/x.json");
        assert_eq!(health.failures, 3);
        state.save("cas/x.json", &health).unwrap();
        let text = fs::read_to_string(state.path("cas/x.json")).unwrap();
        assert!(text.contains("\"version\": 1"), "{text}");
        assert_eq!(state.load::<Health>("cas/x.json"), health);
    }
}
