//! What a config says, key by key: the value in force, the default, where the value came from and
//! what it may be. Recorded while the config is read, see [`super::section`].
//!
//! Values are kept as they would be written in a config file. Secrets are not kept at all: of them
//! there is a fingerprint, so that another one is seen to be another.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::problem::{is_invisible, printable};
use super::secret::{blanked, is_secret, without_queries};

/// Every key that a config has, set or not, in the order of reading.
#[derive(Debug, Clone, Default)]
pub struct Settings(Vec<Setting>);

/// One key.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its path with indices: `hold.max`, `route[0].url`.
    pub key: String,
    /// The same without: `hold.max`, `route.url`.
    pub name: String,
    /// What is in force. `None`: not set, and there is no default; and lists of tables that have
    /// entries, whose keys are settings of their own.
    pub value: Option<Value>,
    /// What would be in force if nobody set it, written as in a config file. `None`: nothing is.
    pub default: Option<String>,
    /// Who set it.
    pub from: SetBy,
    /// What it may be.
    pub kind: Kind,
    /// Of the file that the value names, where its content counts.
    pub(super) content: Option<Fingerprint>,
}

/// A value as it would be written in a config file, or that it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Inner);

#[derive(Clone, PartialEq, Eq)]
enum Inner {
    Written(String),
    Secret(Fingerprint),
    /// A URL with a secret query: what may be shown, and what the whole is told from others by.
    Query(String, Fingerprint),
}

/// Tells one text from another, in this process; nothing of the text can be got from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetBy {
    /// Nobody: it is the built-in default.
    Default,
    /// Nobody: it is what this other key says.
    Inherited(&'static str),
    /// The config file.
    File(Written),
    /// This flag of the command line, e.g. `--listen`.
    Flag(&'static str),
}

/// A place in a config file, and what was taken into the text there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Name of the config file.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Environment variables, by `${NAME}`.
    pub variables: Vec<String>,
    /// Files, by `${file:PATH}`.
    pub files: Vec<PathBuf>,
}

/// What a value may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Count(Range),
    /// `"12s"`; perhaps also `"off"`.
    Duration {
        /// Without `"off"`.
        range: Range,
        /// Whether `"off"` is one.
        off: bool,
    },
    /// `"256KiB"`.
    Size(Range),
    /// `"20/s"`.
    Rate(Range),
    /// One of these words.
    Choice(Vec<&'static str>),
    /// A text.
    Text,
    /// A list of texts.
    List,
    /// A list of tables.
    Tables,
}

/// The bounds of a number, written as in a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: String,
    /// The most.
    pub max: String,
    /// Why not more, a clause; perhaps empty.
    pub why: &'static str,
}

// === impl Settings ===

impl Settings {
    pub(super) fn push(&mut self, setting: Setting) {
        self.0.push(setting);
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Setting> {
        self.0.iter_mut().rev().find(|setting| setting.key == key)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// The one with this path, with indices.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.key == key)
    }
}

// === impl Setting ===

impl Setting {
    /// The name of the table that it stands in, without indices: `route`; empty at the top.
    #[must_use]
    pub fn section(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// Its key within that table: `url`.
    #[must_use]
    pub fn last(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

// === impl Value ===

impl Value {
    /// `written` is TOML. It is hidden where the key's values are secrets, where it looks like one,
    /// and where the caller says so.
    pub(super) fn new(key: &str, written: String, hide: bool) -> Self {
        // Filters of a log are long, and no secrets.
        let random = |part: &str| blanked(part) != part;
        let without = without_queries(&written);
        let rest = without.as_ref().unwrap_or(&written);
        // Nothing is nobody's secret.
        let secret = is_secret(key) && written != "\"\"";
        let hide = hide || secret || rest.replace("?***", "").split([',', '=']).any(random);
        let fingerprint = || Fingerprint::of(written.as_bytes());
        Self(match without {
            _ if hide => Inner::Secret(fingerprint()),
            Some(shown) => Inner::Query(shown, fingerprint()),
            None => Inner::Written(written),
        })
    }

    /// As in a config file; `None` if it is a secret or has one in it.
    #[must_use]
    pub fn written(&self) -> Option<&str> {
        match &self.0 {
            Inner::Written(written) => Some(written),
            Inner::Secret(_) | Inner::Query(..) => None,
        }
    }

    /// Whether it is not to be shown, or not all of it.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.written().is_none()
    }
}

/// As in a config file; a secret is `"***"`, and a query `***`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Inner::Written(shown) | Inner::Query(shown, _) => shown,
            Inner::Secret(_) => "\"***\"",
        })
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({self})")
    }
}

/// A text as it would be written in a config file, in quotes and with nothing to be expanded.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // A terminal would do as it says.
            c if is_invisible(c) => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

// === impl Fingerprint ===

impl Fingerprint {
    pub(super) fn of(bytes: &[u8]) -> Self {
        /// Of this process alone: without it, a short secret could be found by trying.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(KEY.hash_one(bytes))
    }
}

// === impl SetBy ===

impl SetBy {
    /// Whether somebody did.
    #[must_use]
    pub fn is_set(&self) -> bool {
        matches!(self, Self::File(_) | Self::Flag(_))
    }

    /// One word: `default`, `inherited`, `file`, `env`, `secret_file` or `flag`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Inherited(_) => "inherited",
            Self::Flag(_) => "flag",
            Self::File(written) if !written.files.is_empty() => "secret_file",
            Self::File(written) if !written.variables.is_empty() => "env",
            Self::File(_) => "file",
        }
    }
}

impl fmt::Display for SetBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Inherited(key) => write!(f, "as {key}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::File(written) => {
                let Written {
                    file, line, column, ..
                } = written;
                let place = format!("{file}:{line}:{column}");
                let file = |path: &PathBuf| format!("file {}", path.display());
                let files = written.files.iter().map(file);
                let variables = written.variables.iter().map(|name| format!("env {name}"));
                for outside in variables.chain(files) {
                    write!(f, "{}, ", printable(&outside))?;
                }
                f.write_str(&printable(&place))
            }
        }
    }
}

// === impl Kind ===

/// In words: `a duration from "1ms" to "14s" (clients give up at 15 s)`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("true or false"),
            Self::Count(range) => write!(f, "a whole number {range}"),
            Self::Duration { range, off: false } => write!(f, "a duration {range}"),
            Self::Duration { range, off: true } => write!(f, "a duration {range}, or \"off\""),
            Self::Size(range) => write!(f, "a size {range}"),
            Self::Rate(range) => write!(f, "a rate {range}"),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                write!(f, "one of {}", words.join(", "))
            }
            Self::Text => f.write_str("a text"),
            Self::List => f.write_str("a list of texts"),
            Self::Tables => f.write_str("a list of tables"),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.min, self.max)?;
        match self.why {
            "" => Ok(()),
            why => write!(f, " ({why})"),
        }
    }
}
