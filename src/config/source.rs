//! The text of a config file and where things stand in it.
//!
//! Byte offsets become lines and columns here and nowhere else; every offset is taken, also one
//! that points past the end or inside a character. What comes out is to be shown, so secrets are
//! blanked in it.

use std::ops::Range;
use std::sync::Arc;

use super::problem::Spot;
use super::secret::blanked;

/// A named text.
#[derive(Debug)]
pub(super) struct Source<'t> {
    name: Arc<str>,
    text: &'t str,
    /// The same without its secrets.
    shown: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(super) fn new(name: &str, text: &'t str) -> Self {
        let begins = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self {
            name: name.into(),
            text,
            shown: blanked(text),
            lines: [0].into_iter().chain(begins).collect(),
        }
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The text of a span, as written but for its secrets.
    pub(super) fn slice(&self, span: &Range<usize>) -> &str {
        self.shown
            .get(self.floor(span.start)..self.floor(span.end))
            .unwrap_or_default()
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= offset)
    }

    /// Line, column and the line itself, for a message.
    pub(super) fn spot(&self, span: &Range<usize>) -> Spot {
        let start = self.floor(span.start);
        let (before, after) = self.text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = after
            .find('\n')
            .map_or(self.text.len(), |newline| start + newline);
        let lead = self.text.get(line_start..start).unwrap_or_default();
        let end = self.floor(span.end).clamp(start, line_end);
        let marked = self.text.get(start..end).unwrap_or_default();
        Spot {
            file: self.name(),
            line: self.line(start),
            column: lead.trim_start_matches('\u{feff}').chars().count() + 1,
            width: marked.trim_end().chars().count().max(1),
            excerpt: self
                .shown
                .get(line_start..line_end)
                .unwrap_or_default()
                .trim_start_matches('\u{feff}')
                .trim_end()
                .to_owned(),
        }
    }

    /// The nearest character boundary at or before an offset.
    fn floor(&self, offset: usize) -> usize {
        (0..=offset.min(self.text.len()))
            .rev()
            .find(|at| self.text.is_char_boundary(*at))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let source = Source::new("a.toml", "x = 1\nä = \"é\" # b\r\n");
        let spot = source.spot(&(11..15));
        assert_eq!((spot.line, spot.column, spot.width), (2, 5, 3));
        assert_eq!(spot.excerpt, "ä = \"é\" # b");
        assert_eq!(source.slice(&(11..15)), "\"é\"");
    }

    #[test]
    fn the_end_of_the_text_is_a_place() {
        let spot = Source::new("a.toml", "x =").spot(&(3..3));
        assert_eq!((spot.line, spot.column, spot.width), (1, 4, 1));
    }

    #[test]
    fn a_byte_order_mark_takes_no_column() {
        let spot = Source::new("a.toml", "\u{feff}x = 1").spot(&(3..4));
        assert_eq!((spot.column, spot.excerpt.as_str()), (1, "x = 1"));
    }

    proptest! {
        #[test]
        fn any_span_is_a_place(text in "[aä\n\r\t]{0,20}", a in 0..60usize, b in 0..60usize) {
            let source = Source::new("t", &text);
            let span = Range { start: a, end: b };
            let _ = source.slice(&span);
            let spot = source.spot(&span);
            prop_assert!(spot.line <= text.matches('\n').count() + 1);
        }
    }
}
