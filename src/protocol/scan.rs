//! Finds a few top-level members in the text of a JSON object without parsing the rest.
//!
//! Works on a truncated prefix too: what was not reached is simply not reported. Nothing is
//! validated; a text that is not JSON yields nothing or nonsense that matches nothing.

use std::borrow::Cow;

use memchr::memchr2;

/// Calls `found` with each top-level key (as written, between its quotes) and its value's text.
/// A value that the text does not contain to its end is not reported. Stops when `found` says so.
pub(super) fn members<'a>(text: &'a [u8], mut found: impl FnMut(&'a [u8], &'a [u8]) -> Go) {
    let mut scan = Scan { text, at: 0 };
    if scan.next_token() != Some(b'{') {
        return;
    }
    loop {
        match scan.next_token() {
            Some(b'"') => {}
            Some(b',') => continue,
            _ => return,
        }
        let Some(key) = scan.string_body() else {
            return;
        };
        if scan.next_token() != Some(b':') {
            return;
        }
        let Some(value) = scan.value() else { return };
        if found(key, value) == Go::Stop {
            return;
        }
    }
}

/// Whether to look at further members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    /// Look on.
    On,
    /// Enough.
    Stop,
}

/// The string that a value's text stands for; `None` for anything but a string.
pub(super) fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    let body = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr2(b'\\', b'"', body).is_none() {
        return std::str::from_utf8(body).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice(value).ok().map(Cow::Owned)
}

/// The unsigned number that a value's text stands for.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// Skips white space and takes one byte.
    fn next_token(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
        }
    }

    /// After the opening quote: the body; stands behind the closing quote then.
    fn string_body(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        loop {
            let rest = self.text.get(self.at..)?;
            let hit = self.at + memchr2(b'"', b'\\', rest)?;
            if self.text.get(hit) == Some(&b'"') {
                self.at = hit + 1;
                return self.text.get(start..hit);
            }
            self.at = hit + 2;
        }
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        let first = self.next_token()?;
        let start = self.at - 1;
        match first {
            b'"' => {
                self.string_body()?;
            }
            b'{' | b'[' => self.skip_nested()?,
            _ => {
                let rest = self.text.get(self.at..)?;
                let end = rest
                    .iter()
                    .position(|b| matches!(b, b',' | b'}') || b.is_ascii_whitespace())?;
                self.at += end;
            }
        }
        self.text.get(start..self.at)
    }

    /// After an opening bracket: to behind its partner.
    fn skip_nested(&mut self) -> Option<()> {
        let mut depth = 1usize;
        while depth > 0 {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => {
                    self.string_body()?;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        members(text.as_bytes(), |key, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            seen.push((text(key), text(value)));
            Go::On
        });
        seen
    }

    #[test]
    fn only_the_top_level_counts() {
        let seen =
            all(r#" {"a" : {"seq":1,"s":"}\""} ,"b":[1,{"x":2}],"seq": 7, "t":"x\"y","n":null} "#);
        let keys: Vec<_> = seen.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["a", "b", "seq", "t", "n"]);
        assert_eq!(number(seen[2].1.as_bytes()), Some(7));
        assert_eq!(string(seen[3].1.as_bytes()).unwrap(), "x\"y");
    }

    #[test]
    fn a_prefix_gives_what_it_holds() {
        assert_eq!(all(r#"{"type":"req","id":"7","params":{"x":"#).len(), 2);
        assert_eq!(all(r#"{"type":"re"#), []);
        assert_eq!(all("[1,2]"), []);
        assert_eq!(all("not json"), []);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_real_parser(map in prop::collection::btree_map(".*", any_json(), 0..6)) {
            let value = serde_json::Value::Object(map.into_iter().collect());
            let text = value.to_string();
            let mut seen = serde_json::Map::new();
            members(text.as_bytes(), |key, value| {
                let key = [b"\"", key, b"\""].concat();
                seen.insert(string(&key).unwrap().into_owned(), serde_json::from_slice(value).unwrap());
                Go::On
            });
            prop_assert_eq!(serde_json::Value::Object(seen), value);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            members(&bytes, |key, value| { let _ = (string(key), number(value)); Go::On });
        }
    }
}
