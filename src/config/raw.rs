//! TOML text to a tree of values that know where they stand.
//!
//! The tree comes from the parser's own recovery, not from serde's derive: that one stops at the
//! first thing it does not like, and a config's problems are to be reported all at once. What the
//! keys mean is in [`super::check`]; the walk over the tree is in [`super::section`].

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::problem::{MOST, Place, Problem, Severity};
use super::source::Source;

/// A text as far as it is TOML.
#[derive(Debug)]
pub(super) struct Raw<'t> {
    pub(super) table: DeTable<'t>,
    /// What is not TOML.
    pub(super) syntax: Vec<Problem>,
    /// Lines with a syntax error: what else is found there would only be a consequence of it.
    pub(super) torn_lines: BTreeSet<usize>,
    /// Whether the rest may be judged: with a broken `[header]`, keys end up in wrong sections.
    pub(super) usable: bool,
}

pub(super) fn parse<'t>(text: &'t str, source: &Source<'t>) -> Raw<'t> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut raw = Raw {
        table: table.into_inner(),
        syntax: Vec::new(),
        torn_lines: BTreeSet::new(),
        usable: true,
    };
    for error in &errors {
        let span = error.span().unwrap_or_default();
        let new = raw.torn_lines.insert(source.line(span.start));
        if !new || raw.syntax.len() >= MOST {
            continue;
        }
        let spot = source.spot(&span);
        raw.usable &= !spot.excerpt.trim_start().starts_with('[');
        raw.syntax.push(Problem {
            severity: Severity::Error,
            key: String::new(),
            seen: None,
            what: format!("not TOML: {}", error.message()),
            remedy: remedy(error.message(), source.slice(&span), &spot.excerpt),
            place: Place::Spot(spot),
        });
    }
    raw
}

/// The parser says what it expected; this says what was most likely meant.
fn remedy(message: &str, found: &str, line: &str) -> String {
    let header = line.trim_start().starts_with('[');
    match message {
        m if m.starts_with("string values must be quoted") && found.is_empty() => {
            "write a value after the =, or remove the line".to_owned()
        }
        m if m.starts_with("string values must be quoted") => in_quotes(found.trim()),
        m if m.starts_with("duplicate key") && header => {
            "keep one header of this name and put all its keys under it".to_owned()
        }
        m if m.starts_with("duplicate key") => {
            "keep one of the lines and remove the other".to_owned()
        }
        m if m.starts_with("unclosed table") => "close the header with ]".to_owned(),
        m if m.contains("array elements") => "put a comma between the values".to_owned(),
        m if m.contains("invalid basic string") && line.contains(CURLY) => {
            "close the text with a plain \", which is another character than ” or “".to_owned()
        }
        m if m.contains("invalid basic string") => {
            "close the text with a \" on its line".to_owned()
        }
        m if m.contains("invalid literal string") => {
            "close the text with a ' on its line".to_owned()
        }
        m if m.starts_with("invalid boolean") => "write true or false".to_owned(),
        m if m.starts_with("key with no value") => "write it as: key = value".to_owned(),
        _ => "every line is key = value, a [section], or a # comment".to_owned(),
    }
}

/// Quotes as phones, chats and word processors make them of plain ones.
const CURLY: [char; 11] = ['“', '”', '„', '‟', '‘', '’', '‚', '‛', '«', '»', '″'];

/// What was meant as a text.
fn in_quotes(found: &str) -> String {
    let curly = |c: char| CURLY.contains(&c);
    let plain = found.trim_matches(|c| curly(c) || "\"'".contains(c));
    match found.contains(curly) {
        true if plain.contains(curly) => {
            "write plain quotes, \" or ': those here are other characters".to_owned()
        }
        true => format!("write \"{plain}\", in plain quotes: those here are other characters"),
        false => format!("write \"{found}\", in quotes"),
    }
}
