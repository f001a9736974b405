//! What a browser posts from a form of ours.
//!
//! Bounded in bytes, fields and time; no meaning is known here.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;
use zeroize::{Zeroize as _, Zeroizing};

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
        let text = timeout(TIME, whole(body)).await.ok().flatten();
        let text = text.ok_or_else(|| Cause::BadRequest("not a form of ours".into()))?;
        Ok(Self::parse(&text))
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

/// The body, if it is no longer than a form; what it came in is wiped where it is ours alone.
async fn whole<B>(mut body: B) -> Option<Zeroizing<Vec<u8>>>
where
    B: Body<Data = Bytes> + Unpin,
{
    // In one piece from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(LIMIT));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        if text.len() + data.len() > LIMIT {
            return None;
        }
        text.extend_from_slice(&data);
        if let Ok(mut data) = data.try_into_mut() {
            data.as_mut().zeroize();
        }
    }
    Some(text)
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
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    #[tokio::test]
    async fn a_form_is_read_in_any_pieces_up_to_its_limit() {
        let body = |count: usize, length: usize| {
            let piece = Bytes::from(vec![b'a'; length]);
            let pieces = vec![piece; count].into_iter();
            let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
            StreamBody::new(futures_util::stream::iter(frames))
        };
        let text = whole(body(LIMIT, 1)).await.unwrap();
        assert_eq!((text.len(), text.capacity()), (LIMIT, LIMIT));
        assert!(whole(body(LIMIT + 1, 1)).await.is_none());
        assert!(whole(body(1, LIMIT + 1)).await.is_none());
    }

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
