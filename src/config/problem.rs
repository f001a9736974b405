//! One thing that is wrong with a config, in words and with its place, and how it is shown.
//!
//! Every message has the same parts: where, which key, what was seen, what is wrong, what to write
//! instead. Nothing here finds problems; how they look is in [`super::render`].

use std::fmt;
use std::sync::Arc;

use serde_json::json;

use super::render;

/// Something wrong, or doubtful, in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the config can be used all the same.
    pub severity: Severity,
    /// Where it was written.
    pub place: Place,
    /// The key's path, e.g. `hold.upgrade`; empty where it is the text as such.
    pub key: String,
    /// The value as it was seen, if there is one.
    pub seen: Option<String>,
    /// What is wrong with it.
    pub what: String,
    /// What to write or do instead.
    pub remedy: String,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The config is refused.
    Error,
    /// The config works, but perhaps not as it was meant.
    Warning,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A place in a file.
    Spot(Spot),
    /// A file as a whole.
    File(Arc<str>),
    /// A flag of the command line, e.g. `--listen`.
    Flag(&'static str),
}

/// A place in a text, with what is needed to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Name of the file.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// The whole line.
    pub excerpt: String,
}

/// As many problems are kept of one run; nobody reads more at a time.
pub(super) const MOST: usize = 200;

// === impl Problem ===

impl Problem {
    /// A block of lines with the source line and a caret under the value; ends with a newline.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        render::block(&[self], color)
    }

    /// `{"severity", "file", "line", "column", "flag", "key", "seen", "message", "remedy"}`; what
    /// there is not is `null`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let (file, flag) = match &self.place {
            Place::Spot(spot) => (Some(&spot.file), None),
            Place::File(file) => (Some(file), None),
            Place::Flag(flag) => (None, Some(flag)),
        };
        let spot = match &self.place {
            Place::Spot(spot) => Some(spot),
            Place::File(_) | Place::Flag(_) => None,
        };
        json!({
            "severity": self.severity.word(),
            "file": file.map(|file| file.to_string()),
            "line": spot.map(|spot| spot.line),
            "column": spot.map(|spot| spot.column),
            "flag": flag,
            "key": (!self.key.is_empty()).then_some(&self.key),
            "seen": self.seen,
            "message": self.what,
            "remedy": self.remedy,
        })
    }

    /// Whether this word stands in the line that is shown.
    pub(super) fn shows(&self, word: &str) -> bool {
        matches!(&self.place, Place::Spot(spot) if spot.excerpt.contains(word))
    }

    /// Key, value and what is wrong, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let seen = self.seen.as_deref().map(printable);
        let what = printable(&self.what);
        match (self.key.is_empty(), seen) {
            (true, None) => what,
            (true, Some(seen)) => format!("{seen}: {what}"),
            (false, None) => format!("{}: {what}", printable(&self.key)),
            (false, Some(seen)) => format!("{} = {seen}: {what}", printable(&self.key)),
        }
    }
}

/// One line without colours, for a log: `FILE:LINE:COLUMN: key = value: what is wrong; remedy`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; {}",
            self.place,
            self.title(),
            printable(&self.remedy)
        )
    }
}

// === impl Severity ===

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spot(spot) => {
                write!(f, "{}:{}:{}", printable(&spot.file), spot.line, spot.column)
            }
            Self::File(name) => f.write_str(&printable(name)),
            Self::Flag(flag) => write!(f, "command line, {flag}"),
        }
    }
}

// === showing text ===

/// A file's text must not move a terminal's cursor or fake a line: one mark per control character,
/// so that columns stay true.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        c if is_invisible(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// Characters that are no text: they control a terminal, or the direction of what follows.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
