//! One reader for each kind of value.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

use super::seen::{Bounds, read_duration, within, written_duration, written_rate, written_size};
use super::{Section, join};
use crate::config::checker::{At, Item, nearest};
use crate::config::embedded;
use crate::config::env::Expanded;
use crate::config::settings::{Kind, SetBy, Setting, Value, quoted};
use crate::config::units::{self, Wrong};

impl Section<'_, '_> {
    pub(in crate::config) fn flag(&mut self, key: &'static str, default: bool) -> Item<bool> {
        let show = |value: &bool| Some(value.to_string());
        self.read(key, default, Kind::Switch, show, |seen| match seen.value {
            DeValue::Boolean(value) => Ok(*value),
            _ => match seen.outside() {
                Some("true") => Ok(true),
                Some("false") => Ok(false),
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
        let kind = Kind::Count(bounds.range(|number| number.to_string()));
        let show = |value: &T| Some(value.to_string());
        self.read(key, default, kind, show, |seen| {
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
        let range = bounds.range(written_duration);
        let kind = Kind::Duration { range, off: false };
        let show = |value: &Duration| Some(written_duration(*value));
        self.read(key, default, kind, show, |seen| read_duration(seen, bounds))
    }

    /// A duration, or `"off"`.
    pub(in crate::config) fn duration_or_off(
        &mut self,
        key: &'static str,
        default: Option<Duration>,
        bounds: Bounds<Duration>,
    ) -> Item<Option<Duration>> {
        let range = bounds.range(written_duration);
        let kind = Kind::Duration { range, off: true };
        let show =
            |value: &Option<Duration>| Some(value.map_or_else(|| quoted("off"), written_duration));
        self.read(key, default, kind, show, |seen| match seen.text() {
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
        let kind = Kind::Size(bounds.range(written_size));
        let show = |value: &u64| Some(written_size(*value));
        self.read(key, default, kind, show, |seen| {
            let value = units::size(&seen.measured("\"256KiB\"")?)?;
            within(value, true, bounds, written_size)
        })
    }

    /// A number per second, `"20/s"`.
    pub(in crate::config) fn rate(
        &mut self,
        key: &'static str,
        default: u32,
        bounds: Bounds<u32>,
    ) -> Item<u32> {
        let kind = Kind::Rate(bounds.range(written_rate));
        let show = |value: &u32| Some(written_rate(*value));
        self.read(key, default, kind, show, |seen| {
            let value = units::rate(&seen.measured("\"20/s\"")?)?;
            within(value, true, bounds, written_rate)
        })
    }

    /// One of a few words; the first is the default.
    pub(in crate::config) fn choice<T: Copy + PartialEq, const N: usize>(
        &mut self,
        key: &'static str,
        default: T,
        words: [(&'static str, T); N],
    ) -> Item<T> {
        let known = words.map(|(word, _)| word);
        let kind = Kind::Choice(known.to_vec());
        let show = |value: &T| {
            let word = words.iter().find(|(_, meant)| meant == value);
            word.map(|(word, _)| quoted(word))
        };
        self.read(key, default, kind, show, |seen| {
            let list = known.map(|word| format!("\"{word}\"")).join(", ");
            let text = seen.text().unwrap_or_default();
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
        let as_written = |_: &T| None;
        self.read(key, default, Kind::Text, as_written, |seen| {
            parse(seen.quoted()?)
        })
    }

    /// A list of texts that `parse` understands.
    pub(in crate::config) fn list<T>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Item<Vec<Item<T>>> {
        let found = self.find(key);
        let (key, name) = (join(&self.path, key), join(&self.name, key));
        let written = embedded::default(&name).unwrap_or("[]");
        let mut setting = Setting {
            value: Some(Value::new(&key, written.to_owned(), false)),
            default: Some(written.to_owned()),
            from: SetBy::Default,
            kind: Kind::List,
            content: None,
            key: key.clone(),
            name,
        };
        let whole = |at| Item { value: (), key, at };
        let item = match found {
            None => {
                let nobody = whole(At::Default);
                let values = default.into_iter().map(|value| nobody.with(value));
                nobody.with(values.collect())
            }
            Some(found) => {
                let place = whole(At::File(found.span()));
                let (items, sound, taken) = self.items(&place, found, parse);
                setting.from = self.set_by(Some(found), Some(&taken));
                setting.value = self.shown(&place.key, Some(taken.text.to_string()), Some(&taken));
                Item {
                    at: if sound { place.at.clone() } else { At::Broken },
                    ..place.with(items)
                }
            }
        };
        self.checker.set(setting);
        item
    }

    /// The readable items, whether that is all of them, and the list as TOML with what was taken
    /// into it.
    fn items<'f, T>(
        &mut self,
        whole: &Item<()>,
        found: &'f super::Value<'f>,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> (Vec<Item<T>>, bool, Expanded<'f>) {
        let (mut items, mut texts) = (Vec::new(), Vec::new());
        let mut all = Expanded::default();
        let DeValue::Array(values) = found.get_ref() else {
            let written = self.checker.source().slice(&found.span());
            let wrong = Wrong::new("not a list", format!("write [{written}]"));
            self.checker.error(whole, wrong);
            return (items, false, all);
        };
        let mut sound = true;
        for (index, value) in values.iter().enumerate() {
            let key = format!("{}[{index}]", whole.key);
            let Some((parsed, taken)) = self.parse_at(&key, value, |seen| parse(seen.quoted()?))
            else {
                sound = false;
                continue;
            };
            if let Some(taken) = taken {
                texts.push(quoted(&taken.text));
                all.variables.extend(taken.variables);
                all.files.extend(taken.files);
            }
            items.push(Item {
                value: parsed,
                key,
                at: At::File(value.span()),
            });
        }
        all.text = format!("[{}]", texts.join(", ")).into();
        (items, sound, all)
    }
}
