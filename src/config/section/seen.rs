//! One value as the readers see it, and the range it must be in.

use std::borrow::Cow;
use std::time::Duration;

use toml::de::DeValue;

use crate::config::env::Expanded;
use crate::config::settings::Range;
use crate::config::units::{self, Wrong};

/// What a number may be.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Bounds<T> {
    pub(in crate::config) min: T,
    pub(in crate::config) max: T,
    /// Why not more; a clause.
    pub(in crate::config) why: &'static str,
}

impl<T> Bounds<T> {
    pub(in crate::config) const fn new(min: T, max: T, why: &'static str) -> Self {
        Self { min, max, why }
    }
}

impl<T: Copy> Bounds<T> {
    /// As it is told to people; `show` writes a number as TOML.
    pub(super) fn range(&self, show: impl Fn(T) -> String) -> Range {
        Range {
            min: show(self.min),
            max: show(self.max),
            why: self.why,
        }
    }
}

impl Bounds<Duration> {
    /// Any duration up to this one, but not none at all.
    pub(in crate::config) const fn up_to(max: Duration, why: &'static str) -> Self {
        Self::new(Duration::from_millis(1), max, why)
    }
}

pub(super) struct Seen<'v> {
    pub(super) value: &'v DeValue<'v>,
    /// If it is a text: its content, with what came from outside.
    pub(super) taken: Option<&'v Expanded<'v>>,
}

impl Seen<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        self.taken.map(|taken| taken.text.as_ref())
    }

    /// A text of which something came from outside: there all values are texts.
    pub(super) fn outside(&self) -> Option<&str> {
        self.taken
            .filter(|taken| !taken.variables.is_empty() || !taken.files.is_empty())
            .map(|taken| taken.text.as_ref())
    }

    pub(super) fn quoted(&self) -> Result<&str, Wrong> {
        let wrong = || {
            let kind = self.value.type_str();
            Wrong::new(
                format!("a text in quotes is needed here, this is of type {kind}"),
                "write it in quotes",
            )
        };
        self.text().ok_or_else(wrong)
    }

    /// A number with its unit. One without gets as far as the reader that says which unit it needs.
    pub(super) fn measured(&self, example: &str) -> Result<Cow<'_, str>, Wrong> {
        match (self.text(), self.value) {
            (Some(text), _) => Ok(Cow::Borrowed(text)),
            (None, DeValue::Integer(number)) => Ok(Cow::Owned(number.to_string())),
            _ => Err(Wrong::new(
                "not a number with a unit, in quotes",
                format!("write for example {example}"),
            )),
        }
    }

    pub(super) fn whole_number(&self) -> Option<i128> {
        match (self.value, self.outside()) {
            (DeValue::Integer(number), _) => {
                i128::from_str_radix(number.as_str(), number.radix()).ok()
            }
            (_, Some(text)) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

pub(super) fn read_duration(seen: &Seen<'_>, bounds: Bounds<Duration>) -> Result<Duration, Wrong> {
    let value = units::duration(&seen.measured("\"30s\"")?)?;
    within(value, true, bounds, written_duration)
}

/// As TOML.
pub(super) fn written_duration(value: Duration) -> String {
    format!("\"{}\"", units::show_duration(value))
}

/// As TOML.
pub(super) fn written_size(value: u64) -> String {
    format!("\"{}\"", units::show_size(value))
}

/// As TOML.
pub(super) fn written_rate(value: u32) -> String {
    format!("\"{}\"", units::show_rate(value))
}

pub(super) fn within<T: Copy + PartialOrd>(
    value: T,
    fits: bool,
    bounds: Bounds<T>,
    show: impl Fn(T) -> String,
) -> Result<T, Wrong> {
    if value < bounds.min {
        return Err(Wrong::new(
            "too small",
            format!("write at least {}", show(bounds.min)),
        ));
    }
    if value > bounds.max || !fits {
        let why = if bounds.why.is_empty() {
            String::new()
        } else {
            format!(": {}", bounds.why)
        };
        return Err(Wrong::new(
            format!("too large{why}"),
            format!("write at most {}", show(bounds.max)),
        ));
    }
    Ok(value)
}
