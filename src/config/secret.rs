//! Keeps secrets out of messages: a config's text as it may be shown.
//!
//! What follows a key that holds a secret is blanked, and anywhere the user, password and query of a
//! URL and what looks like a hash or a token: a value may stand under a misspelt key, or in a line that
//! is no TOML. Every byte stays where it is, so that places in the shown text are places in the text.

use std::ops::Range;

/// Whose values are never shown. Also those that nobody should have written.
const KEYS: [&str; 5] = ["hash", "password", "token", "secret", "tsig_secret"];

/// A longer run of these characters is random, not a word: a hash or a token in base64 or hex.
const LONGEST_WORD: usize = 40;

const BLANK: u8 = b'*';

/// Whether the value of a key, given as its path, is a secret.
pub(super) fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or_default();
    KEYS.contains(&name)
}

/// The text with its secrets blanked; of the same length.
pub(super) fn blanked(text: &str) -> String {
    let mut shown = text.as_bytes().to_vec();
    for start in values(text) {
        blank_value(&mut shown, start);
    }
    for secret in queries(text).into_iter().chain(logins(text)) {
        shown.get_mut(secret).unwrap_or_default().fill(BLANK);
    }
    blank_random(&mut shown);
    // Only whole characters were blanked, so that this changes nothing.
    String::from_utf8(shown).unwrap_or_else(|broken| {
        let blank = |byte: &u8| if *byte == b'\n' { '\n' } else { '*' };
        broken.as_bytes().iter().map(blank).collect()
    })
}

/// The text with the queries of its URLs as `***`, if it has any.
pub(super) fn without_queries(text: &str) -> Option<String> {
    let mut shown = text.to_owned();
    let queries = queries(text);
    for query in queries.iter().rev() {
        shown.replace_range(query.clone(), "***");
    }
    (!queries.is_empty()).then_some(shown)
}

/// URLs from their `://` on, up to what ends a text or a line, and where they begin.
fn urls(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("://").map(|(at, _)| {
        let rest = text.get(at..).unwrap_or_default();
        let url = rest.split(['"', '\'', ' ', '\t', '\r', '\n']).next();
        (at, url.unwrap_or_default())
    })
}

/// The user and the password of URLs, which stand before an `@`. Nobody takes them, but somebody may
/// write them.
fn logins(text: &str) -> Vec<Range<usize>> {
    let login = |(at, url): (usize, &str)| {
        let start = at + "://".len();
        let (login, _) = url.get("://".len()..)?.rsplit_once('@')?;
        Some(start..start + login.len())
    };
    urls(text).filter_map(login).collect()
}

/// What stands behind the `?` of URLs.
fn queries(text: &str) -> Vec<Range<usize>> {
    let mut queries: Vec<Range<usize>> = Vec::new();
    for (at, url) in urls(text) {
        let Some((before, query)) = url.split_once('?') else {
            continue;
        };
        let start = at + before.len() + 1;
        let another = queries.last().is_none_or(|last| last.end <= start);
        if another && !query.is_empty() {
            queries.push(start..start + query.len());
        }
    }
    queries
}

/// Where the values of secret keys begin.
fn values(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let word = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .copied()
            .is_some_and(is_word)
    };
    let found = KEYS.iter().flat_map(|key| text.match_indices(key));
    let value = found.filter_map(|(at, key)| {
        let after = at + key.len();
        if word(at.checked_sub(1)) || word(Some(after)) {
            return None;
        }
        let rest = text.get(after..)?;
        // A key may stand in quotes.
        let equals = rest
            .trim_start_matches(['"', '\''])
            .trim_start_matches([' ', '\t']);
        let value = equals.strip_prefix('=')?.trim_start_matches([' ', '\t']);
        Some(text.len() - value.len())
    });
    value.collect()
}

/// Blanks a value up to its end: of the quotes, or of the line where there are none.
fn blank_value(shown: &mut [u8], start: usize) {
    let Some(value) = shown.get_mut(start..) else {
        return;
    };
    let quotes: &[&[u8]] = &[b"\"\"\"", b"'''", b"\"", b"'"];
    let quote = quotes
        .iter()
        .copied()
        .find(|quote| value.starts_with(quote));
    let (from, to) = match quote {
        Some(quote) => {
            let inside = value.get(quote.len()..).unwrap_or_default();
            (quote.len(), quote.len() + end_of_quoted(inside, quote))
        }
        None => {
            let end = value.iter().position(|byte| b",}#\n".contains(byte));
            (0, end.unwrap_or(value.len()))
        }
    };
    let inside = value.get_mut(from..to).unwrap_or_default();
    for byte in inside.iter_mut().filter(|byte| !b"\r\n".contains(byte)) {
        *byte = BLANK;
    }
}

/// Without its closing quotes a text ends with the line, or where it may be longer, never.
fn end_of_quoted(inside: &[u8], quote: &[u8]) -> usize {
    let (multiline, escapes) = (quote.len() == 3, quote.starts_with(b"\""));
    let mut at = 0;
    while let Some(rest) = inside.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(quote) || (!multiline && rest.starts_with(b"\n")) {
            return at;
        }
        at += if escapes && rest.starts_with(b"\\") {
            2
        } else {
            1
        };
    }
    inside.len()
}

/// Blanks whatever is too long for a word, with what an argon2 hash has before it.
fn blank_random(shown: &mut [u8]) {
    let random = |byte: &u8| is_word(*byte) || b"$+=,".contains(byte);
    for run in shown.split_mut(|byte| !random(byte)) {
        if run.len() > LONGEST_WORD && run.iter().any(u8::is_ascii_alphanumeric) {
            run.fill(BLANK);
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_secret_keys_are_blanked_and_nothing_else() {
        for (from, to) in [
            ("hash = \"abc\"", "hash = \"***\""),
            (
                "{ name = \"a\", hash='abc', x = 1 }",
                "{ name = \"a\", hash='***', x = 1 }",
            ),
            ("\"hash\" = \"a\\\"b\" # c", "\"hash\" = \"****\" # c"),
            ("hash = abc, b", "hash = ***, b"),
            ("hash = \"abc", "hash = \"***"),
            (
                "password = \"\"\"a\nb\"\"\"\nc = 1",
                "password = \"\"\"*\n*\"\"\"\nc = 1",
            ),
            ("tsig_secret = \"c2E=\"", "tsig_secret = \"****\""),
            ("rehash = \"abc\"", "rehash = \"abc\""),
            ("tokens = []", "tokens = []"),
            (
                "modes = [\"token\", \"password\"]",
                "modes = [\"token\", \"password\"]",
            ),
        ] {
            assert_eq!(blanked(from), to);
        }
    }

    #[test]
    fn the_query_of_a_url_is_blanked() {
        for (from, to, short) in [
            (
                "url = \"http://sso/auth?apikey=x\" # a?",
                "url = \"http://sso/auth?********\" # a?",
                "url = \"http://sso/auth?***\" # a?",
            ),
            (
                "urll = http://a/?b,ä\nc",
                "urll = http://a/?****\nc",
                "urll = http://a/?***\nc",
            ),
            (
                "'http://a?to=http://b?c'",
                "'http://a?*************'",
                "'http://a?***'",
            ),
        ] {
            assert_eq!(blanked(from), to);
            assert_eq!(without_queries(from).as_deref(), Some(short));
        }
        for none in ["path = \"/a?b\"", "http://a/?", "http://a \"?b\""] {
            assert_eq!(
                (blanked(none), without_queries(none)),
                (none.to_owned(), None)
            );
        }
    }

    #[test]
    fn the_password_of_a_url_is_blanked() {
        for (from, to) in [
            (
                "url = \"http://me:s3cret@gw:3001\"",
                "url = \"http://*********@gw:3001\"",
            ),
            // A password may have anything in it.
            (
                "u = https://me:a/b@c@gw/ # @",
                "u = https://********@gw/ # @",
            ),
            ("contact = [\"a@b.c\"]", "contact = [\"a@b.c\"]"),
            (
                "url = \"http://gw:3001\" # a@b",
                "url = \"http://gw:3001\" # a@b",
            ),
        ] {
            assert_eq!(blanked(from), to);
        }
    }

    #[test]
    fn what_looks_random_is_blanked_anywhere() {
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let token = format!("hl_{}", "a".repeat(43));
        for secret in [hash, &token, &"0f".repeat(32)] {
            let shown = blanked(&format!("hsah = \"{secret}\" [oops"));
            assert!(
                shown.starts_with("hsah = \"****") && shown.ends_with("**\" [oops"),
                "{shown}"
            );
        }
        let path = "files = \"/etc/letsencrypt/live/gateway.example.net/fullchain.pem\"";
        assert_eq!(blanked(path), path);
    }

    proptest! {
        #[test]
        fn every_place_stays_where_it_was(text in "(hash|token|://|[?]| |=|\"|'|\\\\|ä|\n|x|\\PC){0,60}") {
            let shown = blanked(&text);
            prop_assert_eq!(shown.len(), text.len());
            let lines = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
            prop_assert_eq!(lines(&shown), lines(&text));
        }

        #[test]
        fn a_password_is_never_shown(secret in "[A-Z]{6,20}", quote in "[\"']", space in "[ \t]{0,2}") {
            let line = format!("users = [{{ name = \"a\", hash{space}={space}{quote}{secret}{quote} }}, oops");
            prop_assert!(!blanked(&line).contains(&secret));
        }
    }
}
