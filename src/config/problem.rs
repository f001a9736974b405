//! One thing that is wrong with a config, in words and with its place, and how it is shown.
//!
//! Every message has the same parts: where, which key, what was seen, what is wrong, what to write
//! instead. Nothing here finds problems, and nothing prints: text comes out.

use std::fmt;
use std::sync::Arc;

/// Something wrong, or doubtful, in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the config can be used all the same.
    pub severity: Severity,
    /// Where it was written.
    pub place: Place,
    /// The key's path, e.g. `hold.upgrade`; empty where it is the text as such.
    pub key: String,
    /// The value as it was seen, if there is one.
    pub seen: Option<String>,
    /// What is wrong with it.
    pub what: String,
    /// What to write or do instead.
    pub remedy: String,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The config is refused.
    Error,
    /// The config works, but perhaps not as it was meant.
    Warning,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A place in a file.
    Spot(Spot),
    /// A file as a whole.
    File(Arc<str>),
    /// A flag of the command line, e.g. `--listen`.
    Flag(&'static str),
}

/// A place in a text, with what is needed to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Name of the file.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// The whole line.
    pub excerpt: String,
}

/// Widest source line shown whole; longer ones are cut around the caret.
const MAX_EXCERPT: usize = 120;

/// As many problems are kept of one run; nobody reads more at a time.
pub(super) const MOST: usize = 200;

// === impl Problem ===

impl Problem {
    /// A block of lines with the source line and a caret under the value; ends with a newline.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let paint = Paint { color };
        let (word, style) = match self.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        let head = paint.with(style, word);
        let title = paint.with("1", &format!(": {}", self.title()));
        let mut out = format!("{head}{title}\n");
        let indent = match &self.place {
            Place::Spot(spot) => spot.render(&mut out, style, paint),
            Place::File(_) | Place::Flag(_) => {
                out.push_str(&format!("  {} {}\n", paint.with("1;34", "-->"), self.place));
                1
            }
        };
        let sign = paint.with("1;34", "=");
        let help = paint.with("1;36", "help");
        out.push_str(&format!(
            "{:indent$} {sign} {help}: {}\n",
            "",
            printable(&self.remedy)
        ));
        out
    }

    /// Key, value and what is wrong, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let seen = self.seen.as_deref().map(printable);
        let what = printable(&self.what);
        match (self.key.is_empty(), seen) {
            (true, None) => what,
            (true, Some(seen)) => format!("{seen}: {what}"),
            (false, None) => format!("{}: {what}", printable(&self.key)),
            (false, Some(seen)) => format!("{} = {seen}: {what}", printable(&self.key)),
        }
    }
}

/// One line without colours, for a log: `FILE:LINE:COLUMN: key = value: what is wrong; remedy`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; {}",
            self.place,
            self.title(),
            printable(&self.remedy)
        )
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spot(spot) => {
                write!(f, "{}:{}:{}", printable(&spot.file), spot.line, spot.column)
            }
            Self::File(name) => f.write_str(&printable(name)),
            Self::Flag(flag) => write!(f, "command line, {flag}"),
        }
    }
}

// === impl Spot ===

impl Spot {
    /// Writes arrow, source line and caret; returns the width of the gutter.
    fn render(&self, out: &mut String, style: &str, paint: Paint) -> usize {
        let number = self.line.to_string();
        let indent = number.len();
        let (excerpt, before, width) = self.window();
        let arrow = paint.with("1;34", "-->");
        let bar = paint.with("1;34", "|");
        let number = paint.with("1;34", &number);
        let carets = paint.with(style, &"^".repeat(width));
        let (file, line, column) = (printable(&self.file), self.line, self.column);
        out.push_str(&format!("{:indent$}{arrow} {file}:{line}:{column}\n", ""));
        out.push_str(&format!("{:indent$} {bar}\n", ""));
        out.push_str(&format!("{number} {bar} {excerpt}\n"));
        out.push_str(&format!("{:indent$} {bar} {:before$}{carets}\n", "", ""));
        indent
    }

    /// The part of the line to show, the characters before the caret in it, and the caret's width.
    fn window(&self) -> (String, usize, usize) {
        let before = self.column.saturating_sub(1);
        let skip = if before + self.width > MAX_EXCERPT {
            before.saturating_sub(20)
        } else {
            0
        };
        let shown: String = self.excerpt.chars().skip(skip).take(MAX_EXCERPT).collect();
        let lead = if skip > 0 { "..." } else { "" };
        let before = before - skip + lead.len();
        let room = (lead.len() + MAX_EXCERPT).saturating_sub(before).max(1);
        (
            format!("{lead}{}", printable(&shown)),
            before,
            self.width.min(room),
        )
    }
}

// === showing text ===

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
struct Paint {
    color: bool,
}

impl Paint {
    fn with(self, style: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A file's text must not move a terminal's cursor or fake a line: one mark per control character,
/// so that columns stay true.
fn printable(text: &str) -> String {
    let invisible = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() || invisible(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(excerpt: &str, line: usize, column: usize, width: usize) -> Problem {
        let spot = Spot {
            file: "h.toml".into(),
            line,
            column,
            width,
            excerpt: excerpt.to_owned(),
        };
        Problem {
            severity: Severity::Error,
            place: Place::Spot(spot),
            key: "hold.max".to_owned(),
            seen: Some("\"0s\"".to_owned()),
            what: "must be more than zero".to_owned(),
            remedy: "write at least \"1ms\"".to_owned(),
        }
    }

    #[test]
    fn a_block_points_at_the_value() {
        let expected = "\
error: hold.max = \"0s\": must be more than zero
  --> h.toml:12:7
   |
12 | max = \"0s\"
   |       ^^^^
   = help: write at least \"1ms\"
";
        assert_eq!(problem("max = \"0s\"", 12, 7, 4).render(false), expected);
    }

    #[test]
    fn one_line_for_a_log() {
        let line = problem("max = \"0s\"", 12, 7, 4).to_string();
        let expected =
            "h.toml:12:7: hold.max = \"0s\": must be more than zero; write at least \"1ms\"";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_flag_has_no_source_line() {
        let place = Place::Flag("--listen");
        let text = Problem {
            place,
            ..problem("", 1, 1, 1)
        }
        .render(false);
        assert!(
            text.contains("  --> command line, --listen\n  = help: "),
            "{text}"
        );
    }

    #[test]
    fn colours_only_when_asked() {
        let one = problem("max = \"0s\"", 1, 7, 4);
        assert!(one.render(true).contains("\x1b[1;31m^^^^\x1b[0m"));
        assert!(!one.render(false).contains('\x1b'));
    }

    #[test]
    fn text_of_the_file_cannot_speak_to_the_terminal() {
        let text = problem("max = \"\x1b[2J\"\t# \u{202e}", 1, 7, 4).render(false);
        assert!(text.contains("max = \"\u{fffd}[2J\" # \u{fffd}"), "{text}");
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_caret() {
        let text = problem(&"x".repeat(5_000), 1, 4_000, 3).render(false);
        assert!(
            text.lines().all(|line| line.chars().count() < 140),
            "{text}"
        );
        assert!(text.contains("^^^"));
    }

    proptest! {
        #[test]
        fn any_place_can_be_shown(excerpt in "\\PC{0,300}", column in 1..400usize, width in 1..400usize) {
            let text = problem(&excerpt, 1, column, width).render(false);
            prop_assert!(text.contains('^'));
        }
    }
}
