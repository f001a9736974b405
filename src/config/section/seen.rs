//! One value as the readers see it, and the range it must be in.

use std::borrow::Cow;
use std::time::Duration;

use toml::de::DeValue;

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

impl Bounds<Duration> {
    /// Any duration up to this one, but not none at all.
    pub(in crate::config) const fn up_to(max: Duration, why: &'static str) -> Self {
        Self::new(Duration::from_millis(1), max, why)
    }
}
pub(super) struct Seen<'v> {
    pub(super) value: &'v DeValue<'v>,
    /// A text's content, with the environment in it.
    pub(super) text: Option<Cow<'v, str>>,
    pub(super) from_env: bool,
}

impl Seen<'_> {
    pub(super) fn quoted(&self) -> Result<&str, Wrong> {
        let wrong = || {
            let kind = self.value.type_str();
            Wrong::new(
                format!("a text in quotes is needed here, this is of type {kind}"),
                "write it in quotes",
            )
        };
        self.text.as_deref().ok_or_else(wrong)
    }

    /// A number with its unit. One without gets as far as the reader that says which unit it needs.
    pub(super) fn measured(&self, example: &str) -> Result<Cow<'_, str>, Wrong> {
        match (&self.text, self.value) {
            (Some(text), _) => Ok(Cow::Borrowed(text)),
            (None, DeValue::Integer(number)) => Ok(Cow::Owned(number.to_string())),
            _ => Err(Wrong::new(
                "not a number with a unit, in quotes",
                format!("write for example {example}"),
            )),
        }
    }

    pub(super) fn whole_number(&self) -> Option<i128> {
        match (self.value, &self.text) {
            (DeValue::Integer(number), _) => {
                i128::from_str_radix(number.as_str(), number.radix()).ok()
            }
            (_, Some(text)) if self.from_env => text.trim().parse().ok(),
            _ => None,
        }
    }
}

pub(super) fn read_duration(seen: &Seen<'_>, bounds: Bounds<Duration>) -> Result<Duration, Wrong> {
    let value = units::duration(&seen.measured("\"30s\"")?)?;
    within(value, true, bounds, |d| {
        format!("\"{}\"", units::show_duration(d))
    })
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
