//! From a TOML file to a [`Config`] that can be trusted, or to messages that say what to write.
//!
//! Text → tree with spans (`raw`) → rules (`check`) → checked model (`model`). All problems of a
//! file are found in one run. No I/O but reading the config and the PEM files that it names;
//! nothing here is mutable after loading.
//!
//! Relative paths in a file start at that file's folder, and so does `certs-dev/`, where the
//! development certificate is kept. Without a file they start at the current directory.

mod addresses;
mod admin_address;
mod changes;
mod check;
mod checker;
mod embedded;
mod env;
mod explain;
mod model;
mod outside;
mod problem;
mod raw;
mod render;
mod schema;
mod scope;
mod secret;
mod section;
mod settings;
mod source;
mod stamp;
mod started;
#[cfg(test)]
pub(crate) mod tests;
mod units;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use addresses::{GatewayUrl, listen_address};
pub use admin_address::AdminAddress;
pub use changes::{Change, changes};
pub use check::user_name;
pub use explain::{explain, explain_json, explain_keys};
pub use model::*;
pub use problem::{Place, Problem, Severity, Spot};
pub use schema::schema;
pub use scope::Scope;
pub use settings::{Kind, Range, SetBy, Setting, Settings, Value, Written};
pub use stamp::Stamp;
pub use started::{Otherwise, Started};
pub use units::Wrong;

use zeroize::Zeroizing;

use checker::{Checker, Purpose};
use outside::Surroundings;
use source::Source;

/// The config that is used when no file is named.
pub const EMBEDDED: &str = include_str!("../../config/holdline.toml");

/// No config that makes sense is larger.
const LARGEST_FILE: u64 = 1 << 20;

/// Flags of the command line that override the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`: instead of `listen.https`, if there is any.
    pub listen: Vec<SocketAddr>,
    /// `--gateway`: instead of `gateway.url`.
    pub gateway: Option<GatewayUrl>,
    /// `--admin`: instead of `admin.listen`.
    pub admin: Option<AdminAddress>,
}

impl Overrides {
    /// Every flag that was given, with its value.
    pub fn flags(&self) -> impl Iterator<Item = (&'static str, String)> {
        let listen = self.listen.iter().map(|to| ("--listen", to.to_string()));
        let gateway = self
            .gateway
            .iter()
            .map(|url| ("--gateway", url.to_string()));
        let admin = self
            .admin
            .iter()
            .map(|admin| ("--admin", admin.to_string()));
        listen.chain(gateway).chain(admin)
    }
}

/// A config without errors.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What works, but perhaps not as it was meant.
    pub warnings: Vec<Problem>,
    /// Where it came from.
    pub source: Origin,
    /// What it was started with, if a process runs with it.
    pub started: Started,
    /// Every key: its value, and who set it. Two of them can be compared by [`changes()`].
    pub settings: Settings,
    /// Every file that it was made of, as paths from where we run: the config file, certificates,
    /// keys, CAs, and what was taken in by `${file:PATH}`. If one of them changes, the config may.
    pub files: Vec<PathBuf>,
    /// What is known of how these were before their content was used.
    pub stamps: Vec<(PathBuf, Stamp)>,
    /// As it was written.
    pub text: Text,
}

/// A config as it was written. Not shown: it may hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Zeroizing<String>);

impl Text {
    /// Whether this is `other` up to some place before its end.
    #[must_use]
    pub fn is_only_the_beginning_of(&self, other: &Self) -> bool {
        self.0.len() < other.0.len() && other.0.starts_with(self.0.trim_end())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

/// Where a config came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The defaults that are compiled in.
    Embedded,
    /// This file.
    File(PathBuf),
    /// A text of this name.
    Text(String),
}

/// Everything that is wrong with a config. Shown as blocks with source lines.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    /// What must be changed; never empty.
    pub errors: Vec<Problem>,
    /// What else was seen.
    pub warnings: Vec<Problem>,
    /// Every file that was read, or should have been, as in [`Loaded`]: with another content of one
    /// of them the config may be a good one.
    pub files: Vec<PathBuf>,
    /// Where the admin listener is all the same, if what is wrong leaves no doubt about that: enough
    /// for asking whoever runs with this config.
    pub admin: Option<AdminAddress>,
}

/// Reads and checks a file, or the embedded default without one.
///
/// # Errors
/// When the file cannot be read or anything in it is wrong: all of it.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
    let Some(path) = path else {
        let base = Path::new("");
        return check_text(EMBEDDED, base, overrides, Origin::Embedded);
    };
    let with_itself = |mut files: Vec<PathBuf>| {
        files.insert(0, path.to_owned());
        files
    };
    let refused = |errors: ConfigErrors| ConfigErrors {
        files: with_itself(errors.files),
        admin: errors.admin.or(overrides.admin),
        ..errors
    };
    let stamp = Stamp::of(path);
    let text = read(path, &path.display().to_string()).map_err(refused)?;
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    let loaded = check_text(&text, base, overrides, Origin::File(path.to_owned()));
    loaded.map_err(refused).map(|loaded| Loaded {
        files: with_itself(loaded.files),
        stamps: [(path.to_owned(), stamp)]
            .into_iter()
            .chain(loaded.stamps)
            .collect(),
        ..loaded
    })
}

/// Checks a text; `name` is what messages call it.
///
/// # Errors
/// When anything in it is wrong: all of it.
pub fn parse(text: &str, name: &str) -> Result<Loaded, ConfigErrors> {
    let origin = Origin::Text(name.to_owned());
    check_text(text, Path::new(""), &Overrides::default(), origin)
}

/// Every key that there is, with its default; the keys of a list's tables stand in its first one.
pub(crate) fn keys() -> Settings {
    let overrides = Overrides::default();
    let input = Input {
        text: "",
        name: "",
        base: Path::new(""),
        env: &|_| None,
        overrides: &overrides,
        purpose: Purpose::Keys,
    };
    input.check().settings
}

fn check_text(
    text: &str,
    base: &Path,
    overrides: &Overrides,
    source: Origin,
) -> Result<Loaded, ConfigErrors> {
    let env = |name: &str| std::env::var(name).ok();
    let input = Input {
        text,
        name: &source.to_string(),
        base,
        env: &env,
        overrides,
        purpose: match source {
            Origin::Embedded => Purpose::Defaults,
            Origin::File(_) | Origin::Text(_) => Purpose::Config,
        },
    };
    let checked = input.check();
    checked.verdict.map(|config| Loaded {
        config,
        warnings: checked.warnings,
        started: Started::of(&source, overrides),
        source,
        settings: checked.settings,
        files: checked.files,
        stamps: checked.stamps,
        text: Text(Zeroizing::new(text.to_owned())),
    })
}

// === one run over one text ===

/// All that a result depends on, files named in the text aside.
struct Input<'i> {
    text: &'i str,
    name: &'i str,
    base: &'i Path,
    env: &'i dyn Fn(&str) -> Option<String>,
    overrides: &'i Overrides,
    purpose: Purpose,
}

struct Checked {
    verdict: Result<Config, ConfigErrors>,
    warnings: Vec<Problem>,
    settings: Settings,
    files: Vec<PathBuf>,
    stamps: Vec<(PathBuf, Stamp)>,
}

impl Input<'_> {
    fn check(&self) -> Checked {
        let source = Source::new(self.name, self.text);
        let raw = raw::parse(self.text, &source);
        let outside = Surroundings::new(self.env, self.base);
        let mut checker = Checker::new(&source, &outside, self.purpose);
        let config = check::config(&raw.table, &mut checker, self.overrides);
        let found = checker.finish();
        let torn = |problem: &Problem| match &problem.place {
            Place::Spot(spot) => raw.torn_lines.contains(&spot.line),
            Place::File(_) | Place::Flag(_) => false,
        };
        let judged = found
            .problems
            .into_iter()
            .filter(|problem| raw.usable && !torn(problem));
        let all = raw.syntax.iter().cloned().chain(judged);
        let (errors, warnings): (Vec<_>, Vec<_>) =
            all.partition(|problem| problem.severity == Severity::Error);
        let verdict = if errors.is_empty() {
            Ok(config)
        } else {
            let listen = config.admin.listen;
            Err(ConfigErrors {
                admin: admin_address::despite(&errors, &found.settings, self.text, listen),
                errors,
                warnings: warnings.clone(),
                files: found.files.clone(),
            })
        };
        let mut stamps = outside.stamps();
        // The others are read once more when they are used: from here on.
        for file in &found.files {
            if !stamps.iter().any(|(known, _)| known == file) {
                stamps.push((file.clone(), Stamp::of(file)));
            }
        }
        Checked {
            verdict,
            warnings,
            stamps,
            settings: found.settings,
            files: found.files,
        }
    }
}

// === reading a file ===

fn read(path: &Path, name: &str) -> Result<String, ConfigErrors> {
    let bytes = read_bytes(path).map_err(|error| unreadable(name, &error))?;
    String::from_utf8(bytes).map_err(|error| {
        let (at, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let valid = bytes
            .get(..at)
            .map(String::from_utf8_lossy)
            .unwrap_or_default();
        let place = Place::Spot(Source::new(name, &valid).spot(&(at..at)));
        one_error(place, "not UTF-8 text", "save the file as UTF-8")
    })
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other(
            "it is larger than 1 MiB, so it is no config",
        ));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &io::Error) -> ConfigErrors {
    let (what, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            "there is no such file".to_owned(),
            "name a file that exists, or leave out --config to run with the defaults",
        ),
        io::ErrorKind::PermissionDenied => (
            "the user that holdline runs as may not read it".to_owned(),
            "give that user the right to read the file and to enter its folders",
        ),
        _ => (
            format!("it cannot be read: {error}"),
            "name a readable TOML file",
        ),
    };
    one_error(Place::File(name.into()), &what, remedy)
}

fn one_error(place: Place, what: &str, remedy: &str) -> ConfigErrors {
    let error = Problem {
        severity: Severity::Error,
        place,
        key: String::new(),
        seen: None,
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    };
    ConfigErrors {
        errors: vec![error],
        warnings: Vec::new(),
        files: Vec::new(),
        admin: None,
    }
}

// === impl ConfigErrors ===

impl ConfigErrors {
    /// All of it as blocks with source lines, and how many there are.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut out = render::blocks(self.errors.iter().chain(&self.warnings), color);
        let more = if self.errors.len() < problem::MOST {
            ""
        } else {
            " or more"
        };
        out.push_str(&count(self.errors.len(), "error"));
        out.push_str(more);
        if !self.warnings.is_empty() {
            out.push_str(&format!(", {}", count(self.warnings.len(), "warning")));
        }
        out.push('\n');
        out
    }
}

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigErrors {}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("the built-in defaults"),
            Self::File(path) => path.display().fmt(f),
            Self::Text(name) => f.write_str(name),
        }
    }
}
