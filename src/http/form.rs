//! What a browser posts from a form of ours.
//!
//! Bounded in bytes, fields and time; no meaning is known here.

use std::fmt;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::protocol::rescue::Cause;

/// A name, a password and a path; nobody types more.
const LIMIT: usize = 8 * 1024;
/// For the whole form to arrive.
const TIME: Duration = Duration::from_secs(10);

/// The fields of a form. They hold a password: wiped when dropped, and no `Debug` of them.
pub(super) struct Form(Vec<(Zeroizing<String>, Zeroizing<String>)>);

impl Form {
    /// Reads a request's body.
    pub(super) async fn read(body: Incoming) -> Result<Self, Cause> {
        let body = timeout(TIME, Limited::new(body, LIMIT).collect()).await;
        let Ok(Ok(body)) = body else {
            return Err(Cause::BadRequest("not a form of ours".into()));
        };
        Ok(Self::parse(&Zeroizing::new(body.to_bytes().to_vec())))
    }

    /// Reads `application/x-www-form-urlencoded`; what is no UTF-8 is replaced.
    pub(super) fn parse(text: &[u8]) -> Self {
        const MOST_FIELDS: usize = 16;
        Self(
            text.split(|byte| *byte == b'&')
                .take(MOST_FIELDS)
                .map(|pair| {
                    let at = pair.iter().position(|byte| *byte == b'=');
                    let (name, value) = pair.split_at(at.unwrap_or(pair.len()));
                    (decoded(name), decoded(value.get(1..).unwrap_or_default()))
                })
                .collect(),
        )
    }

    /// The first field of this name; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .map_or("", |(_, value)| value.as_str())
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form({} fields)", self.0.len())
    }
}

fn decoded(text: &[u8]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        rest = match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                tail.get(2..).unwrap_or_default()
            }
            (b'+', _) => {
                bytes.push(b' ');
                tail
            }
            (other, _) => {
                bytes.push(*other);
                tail
            }
        };
    }
    Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let form = Form::parse(b"user=nick%40example.com&password=a%26b+%2B%3D%25&x&form=");
        assert_eq!(form.get("user"), "nick@example.com");
        assert_eq!(form.get("password"), "a&b +=%");
        assert_eq!((form.get("form"), form.get("nothing")), ("", ""));
        assert_eq!(format!("{form:?}"), "Form(4 fields)");
        for odd in [&b"%"[..], b"=%2", b"%zz=%", b"&&&", b"a=%ff"] {
            let _ = Form::parse(odd).get("a");
        }
    }
}
