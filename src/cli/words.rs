//! Numbers in words for people: durations, sizes, counts; and which words are coloured.

/// `350 ms`, `12 s`, `3 min 5 s`, `2 h 4 min`, `3 d 2 h`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let two = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {part}"),
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86400, "d", seconds / 3600 % 24, "h"),
    }
}

/// `512 B`, `12.0 KiB`, `3.4 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut named = None;
    for unit in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        named = Some(unit);
    }
    match named {
        Some(unit) => format!("{value:.1} {unit}"),
        None => format!("{bytes} B"),
    }
}

/// `1 session`, `2 sessions`.
pub(crate) fn count(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

/// What a word stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Odd,
    Bad,
}

/// The word in its colour, if there are any.
pub(crate) fn toned(word: &str, tone: Tone, colors: bool) -> String {
    let color = match tone {
        Tone::Good => "32",
        Tone::Odd => "33",
        Tone::Bad => "31",
    };
    match colors {
        true => format!("\x1b[{color}m{word}\x1b[0m"),
        false => word.to_owned(),
    }
}

/// What others say may hold anything: nothing of it steers a terminal.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_say_them() {
        for (ms, words) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (185_000, "3 min 5 s"),
            (7_440_000, "2 h 4 min"),
            (266_400_000, "3 d 2 h"),
        ] {
            assert_eq!(duration(ms), words);
        }
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(12 * 1024), "12.0 KiB");
        assert_eq!(size(3_650_722_202), "3.4 GiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
        assert_eq!(
            (count(1, "session"), count(0, "session")),
            ("1 session".into(), "0 sessions".into())
        );
    }

    #[test]
    fn nothing_that_others_say_steers_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
