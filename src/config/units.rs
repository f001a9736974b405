//! Values with a unit: durations, byte sizes, rates. Text in, numbers out, and back.
//!
//! Pure. Ranges are not known here: they belong to the key, see [`super::check`].

use std::time::Duration;

/// What is wrong with a value, and what to write instead. Which key it was is the caller's business.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Wrong {
    pub(super) what: String,
    pub(super) remedy: String,
    /// The same words for every value, so that they tell nothing of this one.
    pub(super) fixed: bool,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
            fixed: false,
        }
    }

    /// Words that hold nothing of the value, by their type.
    pub(super) fn fixed(what: &'static str, remedy: &'static str) -> Self {
        Self {
            fixed: true,
            ..Self::new(what, remedy)
        }
    }
}

/// The units of durations in milliseconds, longest first.
const DURATIONS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// How people write them elsewhere.
const DURATION_SPELLINGS: &[(&str, &str)] = &[
    ("days", "d"),
    ("day", "d"),
    ("hours", "h"),
    ("hour", "h"),
    ("hr", "h"),
    ("minutes", "m"),
    ("minute", "m"),
    ("mins", "m"),
    ("min", "m"),
    ("seconds", "s"),
    ("second", "s"),
    ("secs", "s"),
    ("sec", "s"),
    ("milliseconds", "ms"),
    ("millis", "ms"),
    ("msec", "ms"),
];

/// The units of sizes in bytes, largest first.
const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

const SIZE_SPELLINGS: &[(&str, &str)] = &[
    ("gb", "GiB"),
    ("g", "GiB"),
    ("mb", "MiB"),
    ("m", "MiB"),
    ("kb", "KiB"),
    ("k", "KiB"),
    ("bytes", "B"),
    ("byte", "B"),
];

// === durations ===

/// `"500ms"`, `"12s"`, `"10m"`, `"1h"`, `"1d"`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let what = "not a duration: a whole number and a unit (ms, s, m, h or d)";
    measure(text, DURATIONS, DURATION_SPELLINGS, ("s", "30s"), what).map(Duration::from_millis)
}

/// The shortest way to write it that [`duration`] reads back; fractions of a millisecond are lost.
pub(super) fn show_duration(value: Duration) -> String {
    show(
        u64::try_from(value.as_millis()).unwrap_or(u64::MAX),
        DURATIONS,
        "0s",
    )
}

// === sizes ===

/// `"256KiB"`, `"25MiB"`, `"1GiB"`, `"512B"`.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    let what = "not a size: a whole number and a unit (B, KiB, MiB or GiB)";
    measure(text, SIZES, SIZE_SPELLINGS, ("B", "256KiB"), what)
}

/// The shortest way to write it that [`size`] reads back.
pub(super) fn show_size(value: u64) -> String {
    show(value, SIZES, "0B")
}

// === rates ===

/// `"20/s"`.
pub(super) fn rate(text: &str) -> Result<u32, Wrong> {
    let what = "not a rate: a whole number per second";
    let number = text.trim().strip_suffix("/s").map(str::trim_end);
    match number.filter(|n| is_digits(n)).map(str::parse) {
        Some(Ok(rate)) => Ok(rate),
        Some(Err(_)) => Err(Wrong::new(
            "too large a rate",
            "write a smaller one, such as \"20/s\"",
        )),
        None if is_digits(text.trim()) => {
            Err(Wrong::new(what, format!("write \"{}/s\"", text.trim())))
        }
        None => Err(Wrong::new(what, "write for example \"20/s\"")),
    }
}

/// What [`rate`] reads back.
pub(super) fn show_rate(value: u32) -> String {
    format!("{value}/s")
}

// === what they share ===

fn measure(
    text: &str,
    units: &[(&str, u64)],
    spellings: &[(&str, &str)],
    (unitless, example): (&str, &str),
    what: &str,
) -> Result<u64, Wrong> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start();
    if digits.is_empty() {
        return Err(Wrong::new(what, format!("write for example \"{example}\"")));
    }
    if let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) {
        let value = digits
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(*factor));
        return value.ok_or_else(|| Wrong::new("too large a number", "write a smaller one"));
    }
    let meant = if unit.is_empty() {
        Some(unitless)
    } else {
        meant(unit, units, spellings)
    };
    Err(match meant {
        Some(meant) => Wrong::new(what, format!("write \"{digits}{meant}\"")),
        None => Wrong::new(what, format!("write for example \"{example}\"")),
    })
}

fn meant<'a>(
    unit: &str,
    units: &[(&'a str, u64)],
    spellings: &[(&str, &'a str)],
) -> Option<&'a str> {
    let same_letters = units
        .iter()
        .map(|(name, _)| *name)
        .find(|n| n.eq_ignore_ascii_case(unit));
    let spelled = || {
        spellings
            .iter()
            .find(|(s, _)| s.eq_ignore_ascii_case(unit))
            .map(|(_, u)| *u)
    };
    same_letters.or_else(spelled)
}

fn show(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    units
        .iter()
        .find(|(_, factor)| value > 0 && value.is_multiple_of(*factor))
        .map_or_else(
            || zero.to_owned(),
            |(name, factor)| format!("{}{name}", value / factor),
        )
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration(" 180 s "), Ok(Duration::from_secs(180)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
    }

    #[test]
    fn a_unit_that_was_meant_is_named() {
        for (seen, meant) in [
            ("180", "180s"),
            ("10min", "10m"),
            ("5S", "5s"),
            ("2 hours", "2h"),
        ] {
            assert_eq!(
                duration(seen).unwrap_err().remedy,
                format!("write \"{meant}\"")
            );
        }
        for (seen, meant) in [
            ("25MB", "25MiB"),
            ("256k", "256KiB"),
            ("1gib", "1GiB"),
            ("9", "9B"),
        ] {
            assert_eq!(size(seen).unwrap_err().remedy, format!("write \"{meant}\""));
        }
        assert_eq!(rate("20").unwrap_err().remedy, "write \"20/s\"");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1m30s",
            "ten",
            "99999999999999999999s",
            "1µs",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "KiB", "-1B", "18446744073709551615KiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        for text in ["", "/s", "20/m", "-1/s", "4294967296/s", "+3/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0..=u64::MAX / 2, n: u32) {
            let value = Duration::from_millis(ms);
            prop_assert_eq!(duration(&show_duration(value)), Ok(value));
            prop_assert_eq!(size(&show_size(ms)), Ok(ms));
            prop_assert_eq!(rate(&show_rate(n)), Ok(n));
        }

        #[test]
        fn any_text_gets_an_answer(text in "\\PC*") {
            let _ = (duration(&text), size(&text), rate(&text));
        }
    }
}
