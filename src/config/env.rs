//! `${NAME}` and `${file:PATH}` in text values.
//!
//! The environment and the files come in as functions: nothing is read here, and tests need not
//! change a process's own.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// Where values that do not stand in the config come from.
pub(super) trait Outside {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a file, as a path is written in the config; and the path from where we run.
    fn file(&self, path: &str) -> Result<(PathBuf, Zeroizing<String>), (PathBuf, Refused)>;
}

/// A text with everything in it.
#[derive(Clone, Default)]
pub(super) struct Expanded<'t> {
    pub(super) text: Cow<'t, str>,
    /// The variables that were taken into it.
    pub(super) variables: Vec<String>,
    /// The files that were taken into it.
    pub(super) files: Vec<PathBuf>,
}

/// One `${…}` that could not be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unset {
    /// Where in the text.
    pub(super) range: Range<usize>,
    /// What stands there, e.g. `${NAME}`.
    pub(super) written: String,
    /// Why it has no value.
    pub(super) why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such variable.
    Absent(String),
    /// Neither the name of a variable nor `file:` and a path.
    Misnamed,
    Unclosed,
    /// `${file:}` without a path.
    NoPath,
    File(PathBuf, Refused),
}

/// Why a file's content cannot be a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    Missing,
    Forbidden,
    NoFile,
    TooLarge,
    NotText,
    Empty,
    Unreadable(String),
}

/// What a `${` has to be followed by for a file.
const FILE: &str = "file:";

/// Replaces every `${NAME}` and `${file:PATH}`; `$${` is a literal `${`. What comes in that way is
/// not looked into again. All that cannot be replaced is reported.
pub(super) fn expand<'t>(text: &'t str, outside: &dyn Outside) -> Result<Expanded<'t>, Vec<Unset>> {
    let mut done = Expanded {
        text: Cow::Borrowed(text),
        variables: Vec::new(),
        files: Vec::new(),
    };
    if !text.contains("${") {
        return Ok(done);
    }
    let (mut out, mut unset) = (String::new(), Vec::new());
    let (mut rest, mut at) = (text, 0);
    while let Some((before, after)) = rest.split_once("${") {
        at += before.len();
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            (rest, at) = (after, at + 2);
            continue;
        }
        out.push_str(before);
        let (name, tail, closed) = inside(after);
        let len = 2 + name.len() + usize::from(closed);
        match value(name, closed, outside, &mut done) {
            Ok(value) => out.push_str(&value),
            Err(why) => unset.push(Unset {
                range: at..at + len,
                written: text.get(at..at + len).unwrap_or_default().to_owned(),
                why,
            }),
        }
        (rest, at) = (tail, at + len);
    }
    out.push_str(rest);
    done.text = Cow::Owned(out);
    match unset.is_empty() {
        true => Ok(done),
        false => Err(unset),
    }
}

/// What stands between the braces, what follows, and whether there is a closing one. A path may
/// have variables in it, with braces of their own.
fn inside(after: &str) -> (&str, &str, bool) {
    let mut depth = 0_usize;
    let nested = after.starts_with(FILE);
    for (at, c) in after.char_indices() {
        let (before, rest) = after.split_at(at);
        match c {
            '{' if nested && before.ends_with('$') => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => return (before, rest.get(1..).unwrap_or_default(), true),
            _ => {}
        }
    }
    (after, "", false)
}

fn value(
    name: &str,
    closed: bool,
    outside: &dyn Outside,
    done: &mut Expanded<'_>,
) -> Result<Zeroizing<String>, Why> {
    if !closed {
        return Err(Why::Unclosed);
    }
    if let Some(path) = name.strip_prefix(FILE) {
        let path = variables(path, outside, done)?;
        if path.is_empty() {
            return Err(Why::NoPath);
        }
        let read = outside.file(&path);
        let (path, content) = read.map_err(|(path, why)| Why::File(path, why))?;
        if !done.files.contains(&path) {
            done.files.push(path);
        }
        return Ok(content);
    }
    variable(name, outside, done)
}

/// A path with its variables.
fn variables(path: &str, outside: &dyn Outside, done: &mut Expanded<'_>) -> Result<String, Why> {
    let (mut out, mut rest) = (String::new(), path);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or(Why::Unclosed)?;
        out.push_str(before);
        out.push_str(&variable(name, outside, done)?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(
    name: &str,
    outside: &dyn Outside,
    done: &mut Expanded<'_>,
) -> Result<Zeroizing<String>, Why> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name {
        return Err(Why::Misnamed);
    }
    let value = outside.variable(name);
    let value = value.ok_or_else(|| Why::Absent(name.to_owned()))?;
    if !done.variables.iter().any(|known| known == name) {
        done.variables.push(name.to_owned());
    }
    Ok(Zeroizing::new(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed;

    impl Outside for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "HOST" => Some("gw".to_owned()),
                "PORT" => Some("3001".to_owned()),
                "LOOP" => Some("${HOST}".to_owned()),
                _ => None,
            }
        }

        fn file(&self, path: &str) -> Result<(PathBuf, Zeroizing<String>), (PathBuf, Refused)> {
            let content = |text: &str| Ok((PathBuf::from(path), Zeroizing::new(text.to_owned())));
            match path {
                "/run/a" => content("secret"),
                "/run/gw/b" => content("${HOST}"),
                _ => Err((PathBuf::from(path), Refused::Missing)),
            }
        }
    }

    fn ok(text: &str) -> String {
        expand(text, &Fixed).ok().unwrap().text.into_owned()
    }

    #[test]
    fn names_become_values() {
        assert_eq!(ok("http://${HOST}:${PORT}/"), "http://gw:3001/");
        assert_eq!(ok("${HOST}${HOST}"), "gwgw");
        assert_eq!(ok("no $HOST here, nor {HOST}"), "no $HOST here, nor {HOST}");
    }

    #[test]
    fn files_become_their_content_and_are_named() {
        assert_eq!(ok("a${file:/run/a}b"), "asecretb");
        let Ok(done) = expand("${file:/run/${HOST}/b}!", &Fixed) else {
            panic!("it is there")
        };
        assert_eq!(done.text, "${HOST}!", "what is in a file is not expanded");
        assert_eq!(done.files, [PathBuf::from("/run/gw/b")]);
        assert_eq!(done.variables, ["HOST"]);
    }

    #[test]
    fn an_escape_stays_text_and_a_value_is_not_expanded_again() {
        assert_eq!(ok("$${HOST} ${HOST}"), "${HOST} gw");
        assert_eq!(ok("$${file:/run/a}"), "${file:/run/a}");
        assert_eq!(ok("${LOOP}"), "${HOST}");
    }

    #[test]
    fn everything_without_a_value_is_named_with_its_place() {
        let text = "a${NOPE}b${}c${file:}${file:/x${NOPE}}${file:/no}${HOST";
        let Err(unset) = expand(text, &Fixed) else {
            panic!("none of them has a value")
        };
        let absent = || Why::Absent("NOPE".to_owned());
        let seen: Vec<_> = unset
            .iter()
            .map(|u| (u.written.as_str(), u.range.clone(), u.why.clone()))
            .collect();
        assert_eq!(
            seen,
            [
                ("${NOPE}", 1..8, absent()),
                ("${}", 9..12, Why::Misnamed),
                ("${file:}", 13..21, Why::NoPath),
                ("${file:/x${NOPE}}", 21..38, absent()),
                (
                    "${file:/no}",
                    38..49,
                    Why::File("/no".into(), Refused::Missing)
                ),
                ("${HOST", 49..55, Why::Unclosed),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer_and_places_are_inside(text in "([a-zµ$ {}A_]|\\$\\{file:){0,40}") {
            if let Err(unset) = expand(&text, &Fixed) {
                for one in unset {
                    prop_assert_eq!(text.get(one.range), Some(one.written.as_str()));
                }
            }
        }
    }
}
