//! What a hook writes: read as long as it is written, and its end kept for whoever has to mend it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::environment::without_secrets;

/// Of each of its outputs.
const KEPT: usize = 2048;

/// One output of a hook. Dropping it closes our end.
pub(super) struct Output {
    reader: AbortOnDropHandle<()>,
    end: Arc<Mutex<End>>,
}

/// The last of what was written.
#[derive(Debug, Default)]
struct End {
    bytes: Vec<u8>,
    /// There was more before it.
    cut: bool,
}

// === impl Output ===

impl Output {
    pub(super) fn of(from: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let end = Arc::<Mutex<End>>::default();
        let kept = Arc::clone(&end);
        let reader = tokio::spawn(async move {
            let Some(mut from) = from else { return };
            let mut buffer = [0; KEPT];
            // All of it is read, or the hook would wait for us.
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let read = buffer.get(..count).unwrap_or_default();
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(read);
            }
        });
        Self {
            reader: AbortOnDropHandle::new(reader),
            end,
        }
    }

    /// Whether nobody holds the other end any more.
    pub(super) fn is_closed(&self) -> bool {
        self.reader.is_finished()
    }

    /// Waits until nobody does, for `limit` at most.
    pub(super) async fn closed(&mut self, limit: Duration) {
        let _ = timeout(limit, &mut self.reader).await;
    }

    fn text(&self) -> String {
        self.end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .text()
    }
}

// === impl End ===

impl End {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let over = self.bytes.len().saturating_sub(KEPT);
        self.cut |= over > 0;
        self.bytes.drain(..over);
    }

    /// What was cut begins with a whole word: half a credential would not be known for one.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        match (self.cut, text.split_once(char::is_whitespace)) {
            (false, _) => text,
            (true, Some((_, rest))) => format!("... {rest}"),
            (true, None) => "... (one word without an end)".to_owned(),
        }
    }
}

/// Both in one line that a log can take.
pub(super) fn said(out: &Output, err: &Output) -> String {
    in_one_line(
        &format!("{} {}", err.text(), out.text()),
        std::env::vars_os(),
    )
}

fn in_one_line(
    text: &str,
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> String {
    let variables = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let line: String = without_secrets(text, variables)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match line.split_whitespace().collect::<Vec<_>>().join(" ") {
        said if said.is_empty() => "it said nothing; let it write to standard error why".to_owned(),
        said => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_begins_with_a_whole_word() {
        let mut end = End::default();
        end.add(b"short");
        assert_eq!(end.text(), "short");
        for _ in 0..1000 {
            end.add(b"0123456789abcdef ");
        }
        end.add(b"because of this");
        let text = end.text();
        assert!(text.starts_with("... 0123456789abcdef "), "{text}");
        assert!(text.ends_with("because of this"), "{text}");
        assert!(end.bytes.len() <= KEPT);
        let mut one = End::default();
        one.add(&[b'x'; 2 * KEPT]);
        assert!(!one.text().contains("xx"));
    }

    #[test]
    fn a_log_gets_one_clean_line() {
        let variables = [("API_TOKEN".into(), "s3cr3t-s3cr3t".into())];
        let line = in_one_line(
            "\x1b[31mdenied\r\nfor s3cr3t-s3cr3t\x07\u{85} \0",
            variables.into_iter(),
        );
        assert_eq!(line, "[31mdenied for [$API_TOKEN]");
        let nothing = in_one_line(" \n", std::iter::empty());
        assert!(nothing.contains("said nothing"), "{nothing}");
    }
}
