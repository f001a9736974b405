//! What a process was started with, as it tells those who ask: its config file and its flags. Both
//! stay the same for as long as it lives; what the file says does not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{self, Path};

use serde::{Deserialize, Serialize};

use super::{Origin, Overrides};

/// Where there is no file.
const EMBEDDED: &str = "embedded default";

/// A config file, and flags that override it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Started {
    /// Its absolute path; "embedded default" if there is none, and a name that is no path where a
    /// program brought a text of its own.
    pub source: String,
    /// Each with its value: `--gateway http://127.0.0.1:3001`.
    pub flags: Vec<String>,
}

/// What somebody thinks that a process was started with, and it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    /// Another config file.
    Config,
    /// This flag.
    Flag(String),
}

impl Started {
    pub(crate) fn of(source: &Origin, overrides: &Overrides) -> Self {
        let source = match source {
            Origin::Embedded => EMBEDDED.to_owned(),
            Origin::File(file) => {
                let file = path::absolute(file).unwrap_or_else(|_| file.clone());
                file.display().to_string()
            }
            Origin::Text(name) => name.clone(),
        };
        let flags = overrides.flags();
        let flags = flags.map(|(flag, value)| format!("{flag} {value}"));
        Self {
            source,
            flags: flags.collect(),
        }
    }

    /// The config file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        Some(Path::new(&self.source)).filter(|path| path.is_absolute())
    }

    /// Whether `file` is that file, under any name that it has here.
    #[must_use]
    pub fn uses(&self, file: &Path) -> bool {
        let Some(ours) = self.file() else {
            return false;
        };
        let whole = |path: &Path| {
            fs::canonicalize(path)
                .or_else(|_| path::absolute(path))
                .ok()
        };
        // A folder may be mounted at two places.
        let inode = |path| fs::metadata(path).map(|about| (about.dev(), about.ino()));
        let same = inode(ours)
            .ok()
            .zip(inode(file).ok())
            .is_some_and(|(ours, other)| ours == other);
        same || whole(ours) == whole(file)
    }

    /// What of a config file and of flags this was not started with. Where it listens for those who
    /// ask does not count: they have found it.
    #[must_use]
    pub fn otherwise(&self, file: Option<&Path>, overrides: &Overrides) -> Option<Otherwise> {
        if file.is_some_and(|file| !self.uses(file)) {
            return Some(Otherwise::Config);
        }
        let flags = overrides.flags();
        let mut flags = flags.filter(|(flag, _)| *flag != "--admin");
        let other = flags.find_map(|(flag, value)| {
            let flag = format!("{flag} {value}");
            (!self.flags.contains(&flag)).then_some(flag)
        });
        other.map(Otherwise::Flag)
    }

    /// In words: `/etc/holdline.toml, with --gateway http://127.0.0.1:3001`.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self.flags.is_empty() {
            true => self.source.clone(),
            false => format!("{}, with {}", self.source, self.flags.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.toml"), "").unwrap();
        fs::write(at("b.toml"), "").unwrap();
        std::os::unix::fs::symlink("a.toml", at("link.toml")).unwrap();
        let none = Overrides::default();
        let started = Started::of(&Origin::File(at("link.toml")), &none);
        for same in ["a.toml", "link.toml", "./a.toml"] {
            assert_eq!(started.otherwise(Some(&at(same)), &none), None, "{same}");
        }
        for other in ["b.toml", "none.toml"] {
            let other = started.otherwise(Some(&at(other)), &none);
            assert_eq!(other, Some(Otherwise::Config));
        }
        assert_eq!(started.otherwise(None, &none), None);
        // Also when it is gone.
        fs::remove_file(at("link.toml")).unwrap();
        assert!(started.uses(&at("link.toml")));
        let embedded = Started::of(&Origin::Embedded, &none);
        assert_eq!(
            (embedded.in_words().as_str(), embedded.file()),
            (EMBEDDED, None)
        );
        assert!(!embedded.uses(&at("a.toml")));
    }

    #[test]
    fn a_flag_that_it_was_not_started_with_is_another() {
        let with = |listen: &[&str], gateway: Option<&str>, admin: &str| Overrides {
            listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
            gateway: gateway.map(|text| text.parse().unwrap()),
            admin: Some(admin.parse().unwrap()),
        };
        let url = Some("http://127.0.0.1:3001");
        let was = with(&["127.0.0.1:1"], url, "127.0.0.1:0");
        let started = Started::of(&Origin::Embedded, &was);
        assert_eq!(
            started.in_words(),
            "embedded default, with --listen 127.0.0.1:1 --gateway http://127.0.0.1:3001 --admin 127.0.0.1:0"
        );
        for same in [
            was,
            Overrides::default(),
            with(&[], None, "127.0.0.1:9180"),
            with(&[], url, "127.0.0.1:9180"),
        ] {
            assert_eq!(started.otherwise(None, &same), None, "{same:?}");
        }
        for (other, flag) in [
            (with(&["127.0.0.1:2"], url, "off"), "--listen 127.0.0.1:2"),
            (
                with(&[], Some("http://gw:1"), "off"),
                "--gateway http://gw:1",
            ),
        ] {
            let found = started.otherwise(None, &other);
            assert_eq!(found, Some(Otherwise::Flag(flag.to_owned())));
        }
    }
}
