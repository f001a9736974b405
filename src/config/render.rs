//! How problems look in a terminal or a pipe: blocks with the source line and a caret under the value.
//!
//! Nothing prints here: text comes out.

use unicode_width::UnicodeWidthChar;

use super::problem::{Place, Problem, Severity, Spot, printable};

/// Widest source line shown whole, in columns of a terminal; longer ones are cut around the caret.
const MAX_EXCERPT: usize = 120;

/// So much is shown before the caret where a line is cut.
const LEAD: usize = 20;

/// Stands for what was cut off.
const CUT: &str = "...";

/// All of them, each block with an empty line after it. Neighbours on one source line share it.
pub(super) fn blocks<'p>(problems: impl Iterator<Item = &'p Problem>, color: bool) -> String {
    let all: Vec<&Problem> = problems.collect();
    let mut out = String::new();
    for group in all.chunk_by(|a, b| share_a_line(a, b)) {
        out.push_str(&block(group, color));
        out.push('\n');
    }
    out
}

fn share_a_line(a: &Problem, b: &Problem) -> bool {
    match (&a.place, &b.place) {
        (Place::Spot(one), Place::Spot(other)) => {
            let same = a.severity == b.severity && one.file == other.file && one.line == other.line;
            same && columns(&one.excerpt) <= MAX_EXCERPT
        }
        _ => false,
    }
}

/// One block of problems, all of one source line if they are several.
pub(super) fn block(problems: &[&Problem], color: bool) -> String {
    let paint = Paint { color };
    let mut out = String::new();
    for problem in problems {
        let head = paint.with(style(problem.severity), problem.severity.word());
        let title = paint.with("1", &format!(": {}", problem.title()));
        out.push_str(&format!("{head}{title}\n"));
    }
    let help = paint.with("1;36", "help");
    let remedy = |problem: &Problem| format!("{help}: {}\n", printable(&problem.remedy));
    match problems {
        [] => {}
        [one] => {
            let indent = match &one.place {
                Place::Spot(spot) => {
                    let caret = source_line(spot, &[], &mut out, paint);
                    out.push_str(&format!("{}\n", caret.under(style(one.severity), paint)));
                    caret.indent
                }
                Place::File(_) | Place::Flag(_) => {
                    let arrow = paint.with("1;34", "-->");
                    out.push_str(&format!("  {arrow} {}\n", one.place));
                    1
                }
            };
            let sign = paint.with("1;34", "=");
            out.push_str(&format!("{:indent$} {sign} {}", "", remedy(one)));
        }
        [first, others @ ..] => {
            let spot = |problem: &&'_ Problem| match &problem.place {
                Place::Spot(spot) => Some(spot.clone()),
                Place::File(_) | Place::Flag(_) => None,
            };
            let others: Vec<Spot> = others.iter().filter_map(spot).collect();
            if let Some(first) = spot(first) {
                source_line(&first, &others, &mut out, paint);
            }
            for problem in problems {
                if let Some(spot) = spot(problem) {
                    let caret = Caret::of(&spot).1.under(style(problem.severity), paint);
                    out.push_str(&format!("{caret} {}", remedy(problem)));
                }
            }
        }
    }
    out
}

fn style(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "1;31",
        Severity::Warning => "1;33",
    }
}

/// Writes the arrow, with the places of `others` on the line, and the line.
fn source_line(spot: &Spot, others: &[Spot], out: &mut String, paint: Paint) -> Caret {
    let (excerpt, caret) = Caret::of(spot);
    let indent = caret.indent;
    let blue = |text: &str| paint.with("1;34", text);
    let (arrow, bar, number) = (blue("-->"), blue("|"), blue(&spot.line.to_string()));
    let (file, line, column) = (printable(&spot.file), spot.line, spot.column);
    out.push_str(&format!("{:indent$}{arrow} {file}:{line}:{column}", ""));
    for Spot { line, column, .. } in others {
        out.push_str(&format!(" {line}:{column}"));
    }
    out.push_str(&format!(
        "\n{:indent$} {bar}\n{number} {bar} {excerpt}\n",
        ""
    ));
    caret
}

/// Where the marks stand, in columns of a terminal.
#[derive(Debug, Clone, Copy)]
struct Caret {
    /// Of the line's number.
    indent: usize,
    before: usize,
    width: usize,
}

impl Caret {
    /// The part of the line to show, and what to mark in it.
    fn of(spot: &Spot) -> (String, Self) {
        let text = printable(&spot.excerpt);
        let before = spot.column.saturating_sub(1);
        let (lead, marked) = split(&text, before);
        let whole = columns(lead) + columns(split(marked, spot.width).0) <= MAX_EXCERPT;
        let skipped = if whole {
            0
        } else {
            before.saturating_sub(LEAD)
        };
        let (_, rest) = split(&text, skipped);
        let shown = fitting(rest, MAX_EXCERPT);
        let start = if skipped > 0 { CUT } else { "" };
        let end = if shown.len() < rest.len() { CUT } else { "" };
        let (lead, marked) = split(shown, before - skipped);
        let caret = Self {
            indent: spot.line.to_string().len(),
            before: start.len() + columns(lead) + missing(lead, before - skipped),
            width: columns(split(marked, spot.width).0).max(1),
        };
        (format!("{start}{shown}{end}"), caret)
    }

    fn under(self, style: &str, paint: Paint) -> String {
        let Self {
            indent,
            before,
            width,
        } = self;
        let bar = paint.with("1;34", "|");
        let carets = paint.with(style, &"^".repeat(width));
        format!("{:indent$} {bar} {:before$}{carets}", "", "")
    }
}

/// A place may be past the end of its line, which is shown without spaces at its end.
fn missing(lead: &str, characters: usize) -> usize {
    characters
        .saturating_sub(lead.chars().count())
        .min(MAX_EXCERPT)
}

/// The first `characters` and the rest.
fn split(text: &str, characters: usize) -> (&str, &str) {
    let at = text.char_indices().nth(characters).map(|(at, _)| at);
    text.split_at(at.unwrap_or(text.len()))
}

/// As much from the start as has room in so many columns.
fn fitting(text: &str, room: usize) -> &str {
    let mut used = 0;
    let over = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or_default();
        used > room
    });
    over.and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

/// How wide a terminal shows it.
fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or_default()).sum()
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::problem::Spot;

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
    fn problems_of_one_line_share_it() {
        let line = "https = [\":443\", \"日本\", \"x\"]";
        let (first, wide) = (problem(line, 2, 10, 6), problem(line, 2, 18, 4));
        let last = Problem {
            remedy: "write another".to_owned(),
            ..problem(line, 2, 24, 3)
        };
        let expected = "\
error: hold.max = \"0s\": must be more than zero
error: hold.max = \"0s\": must be more than zero
error: hold.max = \"0s\": must be more than zero
 --> h.toml:2:10 2:18 2:24
  |
2 | https = [\":443\", \"日本\", \"x\"]
  |          ^^^^^^ help: write at least \"1ms\"
  |                  ^^^^^^ help: write at least \"1ms\"
  |                          ^^^ help: write another
";
        let shown = blocks([&first, &wide, &last].into_iter(), false);
        assert_eq!(shown, format!("{expected}\n"));
        let elsewhere = problem("max = \"0s\"", 3, 7, 4);
        let shown = blocks([&first, &elsewhere].into_iter(), false);
        assert_eq!(shown.matches(" --> ").count(), 2, "{shown}");
        let long = "x".repeat(200);
        let (a, b) = (problem(&long, 2, 10, 6), problem(&long, 2, 190, 4));
        let shown = blocks([&a, &b].into_iter(), false);
        assert_eq!(shown.matches(" --> ").count(), 2, "{shown}");
    }

    #[test]
    fn a_caret_stands_under_what_is_wide_or_narrow() {
        let under = |excerpt: &str, column, width| {
            let text = problem(excerpt, 1, column, width).render(false);
            let mut lines = text.lines().skip(3);
            let [line, caret] = [lines.next().unwrap(), lines.next().unwrap()];
            let (lead, _) = caret.split_once('^').unwrap();
            let width = caret.matches('^').count();
            // In terminal columns, by hand: CJK takes two, a combining accent none.
            (line.to_owned(), lead.len() - "  | ".len(), width)
        };
        assert_eq!(under("\"日本\" = 1x", 8, 2).1, 9);
        assert_eq!(under("a = \"日本\"", 5, 4).2, 6);
        assert_eq!(under("e\u{301} = 1x", 6, 2).1, 4);
        let (line, lead, _) = under("\tmax\t= 1x", 8, 2);
        assert_eq!((line.as_str(), lead), ("1 |  max = 1x", 7));
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
        assert!(text.contains("^^^") && text.contains("| ...xxx") && text.contains("xxx...\n"));
    }

    proptest! {
        #[test]
        fn any_place_can_be_shown(excerpt in "\\PC{0,300}", column in 1..400usize, width in 1..400usize) {
            let text = problem(&excerpt, 1, column, width).render(false);
            prop_assert!(text.contains('^'));
        }
    }
}
