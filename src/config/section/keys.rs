//! One reader for each kind of value.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

use super::seen::{Bounds, read_duration, within};
use super::{Section, join};
use crate::config::checker::{At, Item, nearest};
use crate::config::units::{self, Wrong};

impl Section<'_, '_> {
    pub(in crate::config) fn flag(&mut self, key: &'static str, default: bool) -> Item<bool> {
        self.read(key, default, |seen| match seen.value {
            DeValue::Boolean(value) => Ok(*value),
            _ => match seen.text.as_deref() {
                Some("true") if seen.from_env => Ok(true),
                Some("false") if seen.from_env => Ok(false),
                _ => Err(Wrong::new(
                    "neither yes nor no",
                    "write true or false, without quotes",
                )),
            },
        })
    }

    /// A whole number.
    pub(in crate::config) fn count<T>(
        &mut self,
        key: &'static str,
        default: T,
        bounds: Bounds<T>,
    ) -> Item<T>
    where
        T: Copy + PartialOrd + fmt::Display + TryFrom<i128>,
    {
        self.read(key, default, |seen| {
            let number = seen.whole_number().ok_or_else(|| {
                Wrong::new("not a whole number", format!("write for example {default}"))
            })?;
            let below = || Wrong::new("too small", format!("write at least {}", bounds.min));
            if number < 0 {
                return Err(below());
            }
            let value = T::try_from(number).unwrap_or(bounds.max);
            let fits = T::try_from(number).is_ok();
            within(value, fits, bounds, |n| n.to_string())
        })
    }

    /// A duration, `"12s"`.
    pub(in crate::config) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        bounds: Bounds<Duration>,
    ) -> Item<Duration> {
        self.read(key, default, |seen| read_duration(seen, bounds))
    }

    /// A duration, or `"off"`.
    pub(in crate::config) fn duration_or_off(
        &mut self,
        key: &'static str,
        default: Option<Duration>,
        bounds: Bounds<Duration>,
    ) -> Item<Option<Duration>> {
        self.read(key, default, |seen| match seen.text.as_deref() {
            Some("off") => Ok(None),
            _ => read_duration(seen, bounds).map(Some),
        })
    }

    /// A number of bytes, `"256KiB"`.
    pub(in crate::config) fn size(
        &mut self,
        key: &'static str,
        default: u64,
        bounds: Bounds<u64>,
    ) -> Item<u64> {
        self.read(key, default, |seen| {
            let value = units::size(&seen.measured("\"256KiB\"")?)?;
            within(value, true, bounds, |n| {
                format!("\"{}\"", units::show_size(n))
            })
        })
    }

    /// A number per second, `"20/s"`.
    pub(in crate::config) fn rate(
        &mut self,
        key: &'static str,
        default: u32,
        bounds: Bounds<u32>,
    ) -> Item<u32> {
        self.read(key, default, |seen| {
            let value = units::rate(&seen.measured("\"20/s\"")?)?;
            within(value, true, bounds, |n| {
                format!("\"{}\"", units::show_rate(n))
            })
        })
    }

    /// One of a few words; the first is the default.
    pub(in crate::config) fn choice<T: Copy, const N: usize>(
        &mut self,
        key: &'static str,
        default: T,
        words: [(&'static str, T); N],
    ) -> Item<T> {
        self.read(key, default, |seen| {
            let known = words.map(|(word, _)| word);
            let list = known.map(|word| format!("\"{word}\"")).join(", ");
            let text = seen.text.as_deref().unwrap_or_default();
            let chosen = words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value);
            chosen.ok_or_else(|| match nearest(text, &known) {
                Some(word) => {
                    Wrong::new("not one of its words", format!("did you mean \"{word}\"?"))
                }
                None => Wrong::new("not one of its words", format!("write one of {list}")),
            })
        })
    }

    /// A text that `parse` understands.
    pub(in crate::config) fn text<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Item<T> {
        self.read(key, default, |seen| parse(seen.quoted()?))
    }

    /// A list of texts that `parse` understands.
    pub(in crate::config) fn list<T>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Item<Vec<Item<T>>> {
        let found = self.find(key);
        let path = join(&self.path, key);
        let Some(found) = found else {
            let nobody = Item {
                value: (),
                key: path,
                at: At::Default,
            };
            return nobody.with(
                default
                    .into_iter()
                    .map(|value| nobody.with(value))
                    .collect(),
            );
        };
        let whole = Item {
            value: (),
            key: path,
            at: At::File(found.span()),
        };
        let DeValue::Array(values) = found.get_ref() else {
            let written = self.checker.source().slice(&found.span());
            self.checker.error(
                &whole,
                Wrong::new("not a list", format!("write [{written}]")),
            );
            return Item {
                at: At::Broken,
                ..whole.with(Vec::new())
            };
        };
        let mut items = Vec::new();
        let mut sound = true;
        for (index, value) in values.iter().enumerate() {
            let key = format!("{}[{index}]", whole.key);
            match self.parse_at(&key, value, |seen| parse(seen.quoted()?)) {
                Some(parsed) => items.push(Item {
                    value: parsed,
                    key,
                    at: At::File(value.span()),
                }),
                None => sound = false,
            }
        }
        Item {
            at: if sound { whole.at.clone() } else { At::Broken },
            ..whole.with(items)
        }
    }
}
