//! `config/holdline.toml` as a text for people: for each key the default as it is written there,
//! and the comment above it.
//!
//! The file has one value to a line. What it says is tested against what the rules say.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::EMBEDDED;

/// One key, or the header of a section, of the embedded file.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The value as written; none for headers and for lines that are commented out.
    pub(super) default: Option<&'static str>,
    /// The comment above it, in lines.
    pub(super) why: String,
}

/// By name, without indices: `hold.max`, `route.url`, `route`.
static ENTRIES: LazyLock<BTreeMap<String, Entry>> = LazyLock::new(|| read(EMBEDDED));

/// The default of a key, as it is written.
pub(super) fn default(name: &str) -> Option<&'static str> {
    ENTRIES.get(name)?.default
}

/// What a key is for; empty if nobody says so.
pub(super) fn why(name: &str) -> &'static str {
    let inside = INSIDE.iter().find(|(known, _)| *known == name);
    match inside {
        Some((_, why)) => why,
        None => ENTRIES.get(name).map_or("", |entry| &entry.why),
    }
}

/// What keys are for that have no line of their own in the file: those of tables in one line.
const INSIDE: &[(&str, &str)] = &[
    (
        "tls.files.cert",
        "PEM file: the certificate, then its chain.",
    ),
    ("tls.files.key", "PEM file: its private key."),
    (
        "acme.eab.directory",
        "Which CA it is for, as in directories; without it, any that asks.",
    ),
    ("acme.eab.kid", "The CA's name of the key."),
    (
        "acme.eab.key_file",
        "Holds the HMAC key in base64url, as the CA shows it.",
    ),
    ("auth.users.name", "Who it is, as the gateway is told."),
    ("auth.users.hash", "Of the password."),
    ("auth.tokens.name", "What the token is for, in the log."),
    (
        "auth.tokens.user",
        "Who comes in with it, as the gateway is told.",
    ),
    ("auth.tokens.hash", "Of the token."),
];

fn read(text: &'static str) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    let (mut section, mut why) = (String::new(), Vec::new());
    // From a header that is commented out to the next empty line.
    let mut example = false;
    for line in text.lines() {
        let comment = line.strip_prefix('#');
        if line.is_empty() {
            why.clear();
            example = false;
            continue;
        }
        let code = match comment.map(|comment| comment.strip_prefix(' ').unwrap_or(comment)) {
            Some(words) if words.starts_with('[') && words.ends_with(']') => {
                example = true;
                words
            }
            Some(words) if example && key(words).is_some() => words,
            // In an example, a comment is one still when its `# ` is taken away.
            Some(words) => {
                why.push(words.strip_prefix("# ").unwrap_or(words));
                continue;
            }
            None => line,
        };
        let why = sentence(&std::mem::take(&mut why));
        if code.starts_with('[') {
            section = code.trim_matches(['[', ']']).to_owned();
            entries.insert(section.clone(), Entry { default: None, why });
        } else if let Some((key, value)) = key(code) {
            let default = comment.is_none().then_some(value);
            entries.insert(format!("{section}.{key}"), Entry { default, why });
        }
    }
    entries
}

fn key(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ")?;
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_key.then_some((key, value))
}

/// Lines that go on belong together; indented ones are a list.
fn sentence(lines: &[&str]) -> String {
    let mut out = String::new();
    for line in lines {
        let listed = line.starts_with("  ");
        if !out.is_empty() {
            out.push(if listed { '\n' } else { ' ' });
        }
        out.push_str(if listed { line.trim_end() } else { line.trim() });
    }
    out
}
