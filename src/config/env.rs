//! `${NAME}` in text values.
//!
//! Pure: the environment comes in as a function, so that tests need not change a process's own.

use std::borrow::Cow;
use std::ops::Range;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Absent,
    Misnamed,
    Unclosed,
}

/// Replaces every `${NAME}`; `$${` is a literal `${`. All that cannot be replaced is reported.
pub(super) fn expand<'t>(
    text: &'t str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Cow<'t, str>, Vec<Unset>> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
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
        let (name, tail) = after.split_once('}').unwrap_or((after, ""));
        let closed = after.len() > name.len();
        let len = 2 + name.len() + usize::from(closed);
        match value(name, closed, lookup) {
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
    if unset.is_empty() {
        Ok(Cow::Owned(out))
    } else {
        Err(unset)
    }
}

fn value(name: &str, closed: bool, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, Why> {
    if !closed {
        return Err(Why::Unclosed);
    }
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name {
        return Err(Why::Misnamed);
    }
    lookup(name).ok_or(Why::Absent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("gw".to_owned()),
            "PORT" => Some("3001".to_owned()),
            "LOOP" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    fn ok(text: &str) -> String {
        expand(text, &env).unwrap().into_owned()
    }

    #[test]
    fn names_become_values() {
        assert_eq!(ok("http://${HOST}:${PORT}/"), "http://gw:3001/");
        assert_eq!(ok("${HOST}${HOST}"), "gwgw");
        assert_eq!(ok("no $HOST here, nor {HOST}"), "no $HOST here, nor {HOST}");
    }

    #[test]
    fn an_escape_stays_text_and_a_value_is_not_expanded_again() {
        assert_eq!(ok("$${HOST} ${HOST}"), "${HOST} gw");
        assert_eq!(ok("${LOOP}"), "${HOST}");
    }

    #[test]
    fn everything_without_a_value_is_named_with_its_place() {
        let unset = expand("a${NOPE}b${}c${HOST", &env).unwrap_err();
        let seen: Vec<_> = unset
            .iter()
            .map(|u| (u.written.as_str(), u.range.clone(), u.why))
            .collect();
        assert_eq!(
            seen,
            [
                ("${NOPE}", 1..8, Why::Absent),
                ("${}", 9..12, Why::Misnamed),
                ("${HOST", 13..19, Why::Unclosed),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer_and_places_are_inside(text in "[a-zµ$ {}A_]{0,40}") {
            if let Err(unset) = expand(&text, &env) {
                for one in unset {
                    prop_assert_eq!(text.get(one.range), Some(one.written.as_str()));
                }
            }
        }
    }
}
