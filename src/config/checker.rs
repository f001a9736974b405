//! Collects what is found wrong, with its place.
//!
//! A value is read as an [`Item`]: the value together with where it came from, so that a rule over
//! two keys can point at the one to change. A value that could not be read is replaced by its
//! default and marked as broken, so that it is reported once and no rule trips over it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::env::Expanded;
use super::outside::Surroundings;
use super::problem::{MOST, Place, Problem, Severity};
use super::secret::is_secret;
use super::settings::{Fingerprint, SetBy, Setting, Settings, Written};
use super::source::Source;
use super::units::Wrong;

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Item<T> {
    pub(super) value: T,
    /// Path of its key, e.g. `hold.max`.
    pub(super) key: String,
    pub(super) at: At,
}

/// Where a value came from.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// This span of the file.
    File(Range<usize>),
    /// A flag, with the value as given.
    Flag(&'static str, String),
    /// Nobody set it.
    Default,
    /// It was set, could not be read, and has been reported.
    Broken,
}

impl<T> Item<T> {
    /// Set by someone, and readable.
    pub(super) fn is_set(&self) -> bool {
        matches!(self.at, At::File(_) | At::Flag(..))
    }

    /// Set or default, but not a stand-in for something unreadable.
    pub(super) fn is_sound(&self) -> bool {
        !matches!(self.at, At::Broken)
    }

    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Item<U> {
        Item {
            value: f(self.value),
            key: self.key,
            at: self.at,
        }
    }

    /// The same place with another value.
    pub(super) fn with<U>(&self, value: U) -> Item<U> {
        Item {
            value,
            key: self.key.clone(),
            at: self.at.clone(),
        }
    }
}

/// What is said of a section that there is not.
pub(super) const NO_SECTION: &str = "no such section";

/// A key that no section asked for.
#[derive(Debug)]
struct Unknown {
    section: String,
    path: String,
    name: String,
    span: Range<usize>,
}

/// What is read of one text, and what is found wrong with it.
pub(super) struct Checker<'t> {
    source: &'t Source<'t>,
    outside: &'t Surroundings<'t>,
    purpose: Purpose,
    problems: Vec<Problem>,
    unknown: Vec<Unknown>,
    known: Vec<(String, &'static str)>,
    settings: Settings,
    files: Vec<PathBuf>,
}

/// What a text is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody's config.
    Config,
    /// The built-in defaults: what they set is nobody's setting.
    Defaults,
    /// Nothing but the keys that there are: lists of tables are asked for one entry at least.
    Keys,
}

/// All that comes out of a [`Checker`].
pub(super) struct Found {
    /// In the order of the text.
    pub(super) problems: Vec<Problem>,
    pub(super) settings: Settings,
    /// Every file that was looked into, or should have been.
    pub(super) files: Vec<PathBuf>,
}

impl<'t> Checker<'t> {
    pub(super) fn new(
        source: &'t Source<'t>,
        outside: &'t Surroundings<'t>,
        purpose: Purpose,
    ) -> Self {
        Self {
            source,
            outside,
            purpose,
            problems: Vec::new(),
            unknown: Vec::new(),
            known: Vec::new(),
            settings: Settings::default(),
            files: Vec::new(),
        }
    }

    pub(super) fn source(&self) -> &'t Source<'t> {
        self.source
    }

    pub(super) fn outside(&self) -> &'t Surroundings<'t> {
        self.outside
    }

    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// A path of the text, from where we run.
    pub(super) fn path(&self, written: impl AsRef<Path>) -> PathBuf {
        self.outside.path(written)
    }

    // === what is set ===

    pub(super) fn set(&mut self, setting: Setting) {
        self.settings.push(setting);
    }

    /// Changes what was recorded of a key.
    pub(super) fn reset(&mut self, key: &str, change: impl FnOnce(&mut Setting)) {
        if let Some(setting) = self.settings.get_mut(key) {
            change(setting);
        }
    }

    /// Another key's value and what is said about it.
    pub(super) fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.get(key)
    }

    /// Who set what stands at `span`.
    pub(super) fn set_by(&self, span: &Range<usize>, taken: Option<&Expanded<'_>>) -> SetBy {
        if self.purpose == Purpose::Defaults {
            return SetBy::Default;
        }
        let (variables, files) = taken.map_or_else(Default::default, |taken| {
            (taken.variables.clone(), taken.files.clone())
        });
        let spot = self.source.spot(span);
        SetBy::File(Written {
            file: spot.file,
            line: spot.line,
            column: spot.column,
            variables,
            files,
        })
    }

    // === which files count ===

    /// A file that is named in the text and looked into: with another content, the config is
    /// another one. `content` is none if it could not be read.
    pub(super) fn looked_into<T>(&mut self, item: &Item<T>, path: &Path, content: Option<&[u8]>) {
        if !self.files.iter().any(|known| known == path) {
            self.files.push(path.to_owned());
        }
        let content = content.map(Fingerprint::of);
        self.reset(&item.key, |setting| setting.content = content);
    }

    // === what is wrong ===

    pub(super) fn error<T>(&mut self, item: &Item<T>, wrong: Wrong) {
        self.push(Severity::Error, item, wrong);
    }

    pub(super) fn warn<T>(&mut self, item: &Item<T>, wrong: Wrong) {
        self.push(Severity::Warning, item, wrong);
    }

    pub(super) fn has_errors(&self) -> bool {
        let mut problems = self.problems.iter();
        problems.any(|problem| problem.severity == Severity::Error)
    }

    fn push<T>(&mut self, severity: Severity, item: &Item<T>, wrong: Wrong) {
        if self.problems.len() >= MOST {
            return;
        }
        let (place, seen) = match &item.at {
            At::File(span) => {
                let seen = shorten(self.source.slice(span));
                let shown = !seen.starts_with('[') && !is_secret(&item.key);
                (Place::Spot(self.source.spot(span)), shown.then_some(seen))
            }
            At::Flag(flag, value) => (Place::Flag(flag), Some(format!("\"{value}\""))),
            At::Default => (Place::File(self.source.name()), None),
            At::Broken => return,
        };
        let Wrong { what, remedy, .. } = wrong;
        self.problems.push(Problem {
            severity,
            place,
            key: item.key.clone(),
            seen,
            what,
            remedy,
        });
    }

    // === which keys there are ===

    /// A key that exists. `section` is without indices: `route`, not `route[0]`.
    pub(super) fn know(&mut self, section: &str, key: &'static str) {
        if !self.known.iter().any(|(s, k)| s == section && *k == key) {
            self.known.push((section.to_owned(), key));
        }
    }

    /// A key in the text that nobody asked for.
    pub(super) fn unknown(&mut self, section: &str, path: &str, name: &str, span: Range<usize>) {
        if self.unknown.len() >= MOST {
            return;
        }
        self.unknown.push(Unknown {
            section: section.to_owned(),
            path: path.to_owned(),
            name: name.to_owned(),
            span,
        });
    }

    pub(super) fn finish(mut self) -> Found {
        for unknown in std::mem::take(&mut self.unknown) {
            let remedy = self.meant(&unknown);
            let what = if unknown.section.is_empty() {
                NO_SECTION
            } else {
                "no such key"
            };
            self.problems.push(Problem {
                severity: Severity::Error,
                place: Place::Spot(self.source.spot(&unknown.span)),
                key: unknown.path,
                seen: None,
                what: what.to_owned(),
                remedy,
            });
        }
        self.problems.sort_by_key(|problem| match &problem.place {
            Place::Spot(spot) => (1, spot.line, spot.column),
            Place::File(_) => (0, 0, 0),
            Place::Flag(_) => (2, 0, 0),
        });
        self.problems.dedup();
        self.files.extend(self.outside.files());
        Found {
            problems: self.problems,
            settings: self.settings,
            files: self.files,
        }
    }

    /// What the writer of an unknown key most likely meant.
    fn meant(&self, unknown: &Unknown) -> String {
        let here: Vec<&str> = self
            .known
            .iter()
            .filter(|(section, _)| *section == unknown.section)
            .map(|(_, key)| *key)
            .collect();
        let elsewhere = CALLED_ELSEWHERE
            .iter()
            .find(|(section, name, _)| (*section, *name) == (&unknown.section, &unknown.name));
        if let Some((_, _, key)) = elsewhere {
            return format!("it is called \"{key}\" here");
        }
        if let Some(key) = nearest(&unknown.name, &here) {
            return format!("did you mean \"{key}\"?");
        }
        let elsewhere = self
            .known
            .iter()
            .find(|(section, key)| !section.is_empty() && *key == unknown.name);
        if let Some((section, key)) = elsewhere {
            return format!("\"{key}\" belongs under [{section}]");
        }
        format!("known here: {}", here.join(", "))
    }
}

/// Section, what others call a key of it, and its name here.
const CALLED_ELSEWHERE: [(&str, &str, &str); 3] = [
    ("acme", "email", "contact"),
    ("acme", "emails", "contact"),
    ("acme", "ca", "directories"),
];

/// The candidate that a typing error away could have been meant.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let far = (word.chars().count() / 3).max(1);
    let distance = |candidate: &str| strsim::osa_distance(&word, candidate);
    candidates
        .iter()
        .map(|candidate| (distance(candidate), *candidate))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The first line of a value, of a length that fits in a sentence.
fn shorten(written: &str) -> String {
    const LONGEST: usize = 60;
    let line = written.lines().next().unwrap_or_default();
    if line.len() == written.len() && line.chars().count() <= LONGEST {
        return line.to_owned();
    }
    format!("{}...", line.chars().take(LONGEST).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_key_and_a_stranger_does_not() {
        let keys = ["max", "upgrade", "notice_every", "notice_after"];
        assert_eq!(nearest("upgarde", &keys), Some("upgrade"));
        assert_eq!(nearest("Notice-Every", &keys), Some("notice_every"));
        assert_eq!(nearest("mx", &keys), Some("max"));
        assert_eq!(nearest("timeout", &keys), None);
    }
}
