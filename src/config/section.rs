//! Reads the keys of one table, each by what it is: a duration, a size, a choice, a list.
//!
//! Asking for a key is what makes it known, so the schema and its reader are one thing. What was
//! not asked for by the end of a section is an unknown key.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::checker::{At, Checker, Item, nearest};
use super::env::{self, Why};
use super::units::{self, Wrong};

type Value<'t> = Spanned<DeValue<'t>>;

/// What a number may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<T> {
    pub(super) min: T,
    pub(super) max: T,
    /// Why not more; a clause.
    pub(super) why: &'static str,
}

impl<T> Bounds<T> {
    pub(super) const fn new(min: T, max: T, why: &'static str) -> Self {
        Self { min, max, why }
    }
}

impl Bounds<Duration> {
    /// Any duration up to this one, but not none at all.
    pub(super) const fn up_to(max: Duration, why: &'static str) -> Self {
        Self::new(Duration::from_millis(1), max, why)
    }
}

/// One table of the file, or the absence of one.
pub(super) struct Section<'c, 't> {
    checker: &'c mut Checker<'t>,
    /// With indices: `route[0]`; empty at the top.
    path: String,
    /// Without: `route`.
    name: String,
    table: Option<&'t DeTable<'t>>,
    header: At,
    asked: Vec<&'static str>,
}

impl<'c, 't> Section<'c, 't> {
    /// The whole file.
    pub(super) fn top(checker: &'c mut Checker<'t>, table: &'t DeTable<'t>) -> Self {
        let (path, name, asked) = (String::new(), String::new(), Vec::new());
        Self {
            checker,
            path,
            name,
            table: Some(table),
            header: At::Default,
            asked,
        }
    }

    /// Reports what was not asked for.
    pub(super) fn finish(self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            if !self.asked.contains(&key.get_ref().as_ref()) {
                let path = join(&self.path, key.get_ref());
                self.checker
                    .unknown(&self.name, &path, key.get_ref(), key.span());
            }
        }
    }

    pub(super) fn checker(&mut self) -> &mut Checker<'t> {
        self.checker
    }

    /// The place of the section itself.
    pub(super) fn header(&self) -> Item<()> {
        Item {
            value: (),
            key: self.path.clone(),
            at: self.header.clone(),
        }
    }

    // === tables ===

    /// Reads the table `[key]`; one that is not there is read as an empty one.
    pub(super) fn section<R>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_, 't>) -> R,
    ) -> R {
        let found = self.find(key);
        let table = match found.map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => Some(table),
            Some(_) => {
                let wrong = Wrong::new("this is a section", format!("write [{key}] and its keys"));
                self.refuse(key, found, wrong);
                None
            }
            None => None,
        };
        let path = join(&self.path, key);
        self.descend(path, join(&self.name, key), table, found, read)
    }

    /// Reads every table of the array `key`. `form` is how one is written.
    pub(super) fn each<R>(
        &mut self,
        key: &'static str,
        form: &str,
        mut read: impl FnMut(&mut Section<'_, 't>) -> R,
    ) -> Vec<R> {
        let wrong = || Wrong::new("not a list of tables", format!("write {form}"));
        let found = self.find(key);
        let items = match found.map(Spanned::get_ref) {
            Some(DeValue::Array(items)) => items.as_ref(),
            Some(_) => {
                self.refuse(key, found, wrong());
                &[]
            }
            None => &[],
        };
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if let DeValue::Table(table) = item.get_ref() {
                let path = format!("{}[{index}]", join(&self.path, key));
                let name = join(&self.name, key);
                all.push(self.descend(path, name, Some(table), Some(item), &mut read));
            } else {
                self.refuse(key, Some(item), wrong());
            }
        }
        all
    }

    /// Refuses a section that a later version will have.
    pub(super) fn not_yet(&mut self, key: &'static str, wrong: Wrong) {
        self.asked.push(key);
        let found = self.table.and_then(|table| table.get(key));
        if found.is_some() {
            self.refuse(key, found, wrong);
        }
    }

    fn descend<R>(
        &mut self,
        path: String,
        name: String,
        table: Option<&'t DeTable<'t>>,
        at: Option<&'t Value<'t>>,
        read: impl FnOnce(&mut Section<'_, 't>) -> R,
    ) -> R {
        let header = at.map_or(At::Default, |value| At::File(value.span()));
        let checker = &mut *self.checker;
        let mut section = Section {
            checker,
            path,
            name,
            table,
            header,
            asked: Vec::new(),
        };
        let result = read(&mut section);
        section.finish();
        result
    }

    // === values ===

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> Item<bool> {
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
    pub(super) fn count<T>(&mut self, key: &'static str, default: T, bounds: Bounds<T>) -> Item<T>
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
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        bounds: Bounds<Duration>,
    ) -> Item<Duration> {
        self.read(key, default, |seen| read_duration(seen, bounds))
    }

    /// A duration, or `"off"`.
    pub(super) fn duration_or_off(
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
    pub(super) fn size(
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
    pub(super) fn rate(
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
    pub(super) fn choice<T: Copy, const N: usize>(
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
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Item<T> {
        self.read(key, default, |seen| parse(seen.quoted()?))
    }

    /// A list of texts that `parse` understands.
    pub(super) fn list<T>(
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

    // === how a value is read ===

    fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Seen<'_>) -> Result<T, Wrong>,
    ) -> Item<T> {
        let found = self.find(key);
        let key = join(&self.path, key);
        let Some(found) = found else {
            return Item {
                value: default,
                key,
                at: At::Default,
            };
        };
        match self.parse_at(&key, found, parse) {
            Some(value) => Item {
                value,
                key,
                at: At::File(found.span()),
            },
            None => Item {
                value: default,
                key,
                at: At::Broken,
            },
        }
    }

    fn parse_at<T>(
        &mut self,
        key: &str,
        found: &Value<'_>,
        parse: impl FnOnce(&Seen<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let place = Item {
            value: (),
            key: key.to_owned(),
            at: At::File(found.span()),
        };
        let text = match found.get_ref() {
            DeValue::String(text) => Some(self.expand(&place, text, &found.span())?),
            _ => None,
        };
        let from_env = matches!(text, Some(Cow::Owned(_)));
        let seen = Seen {
            value: found.get_ref(),
            text,
            from_env,
        };
        match parse(&seen) {
            Ok(value) => Some(value),
            Err(mut wrong) => {
                if from_env {
                    let now = seen.text.as_deref().unwrap_or_default();
                    wrong.what = format!("{} (with the environment: \"{now}\")", wrong.what);
                }
                self.checker.error(&place, wrong);
                None
            }
        }
    }

    /// The text with the environment in it; what is missing there is reported at its own place.
    fn expand<'v>(
        &mut self,
        place: &Item<()>,
        text: &'v str,
        span: &Range<usize>,
    ) -> Option<Cow<'v, str>> {
        let unset = match env::expand(text, self.checker.env()) {
            Ok(text) => return Some(text),
            Err(unset) => unset,
        };
        for one in unset {
            // Offsets in the text are not those in the file where it has escapes.
            let offset = self.checker.source().slice(span).find(&one.written);
            let start = offset.map(|offset| span.start + offset);
            let exact = start.map_or_else(|| span.clone(), |s| s..s + one.written.len());
            let name = one.written.trim_start_matches("${").trim_end_matches('}');
            let wrong = match one.why {
                Why::Absent => Wrong::new(
                    format!("the environment has no variable {name}"),
                    format!("set {name} before starting holdline, or write the value here"),
                ),
                Why::Misnamed => Wrong::new(
                    "not the name of a variable",
                    "write ${NAME} with letters, digits and _, or $${ for a literal ${",
                ),
                Why::Unclosed => Wrong::new(
                    "a ${ without its }",
                    "write ${NAME}, or $${ for a literal ${",
                ),
            };
            self.checker.error(
                &Item {
                    at: At::File(exact),
                    ..place.clone()
                },
                wrong,
            );
        }
        None
    }

    fn find(&mut self, key: &'static str) -> Option<&'t Value<'t>> {
        self.asked.push(key);
        self.checker.know(&self.name, key);
        self.table.and_then(|table| table.get(key))
    }

    fn refuse(&mut self, key: &str, found: Option<&Value<'_>>, wrong: Wrong) {
        let at = found.map_or(At::Default, |value| At::File(value.span()));
        self.checker.error(
            &Item {
                value: (),
                key: join(&self.path, key),
                at,
            },
            wrong,
        );
    }
}

// === one value, as the readers see it ===

struct Seen<'v> {
    value: &'v DeValue<'v>,
    /// A text's content, with the environment in it.
    text: Option<Cow<'v, str>>,
    from_env: bool,
}

impl Seen<'_> {
    fn quoted(&self) -> Result<&str, Wrong> {
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
    fn measured(&self, example: &str) -> Result<Cow<'_, str>, Wrong> {
        match (&self.text, self.value) {
            (Some(text), _) => Ok(Cow::Borrowed(text)),
            (None, DeValue::Integer(number)) => Ok(Cow::Owned(number.to_string())),
            _ => Err(Wrong::new(
                "not a number with a unit, in quotes",
                format!("write for example {example}"),
            )),
        }
    }

    fn whole_number(&self) -> Option<i128> {
        match (self.value, &self.text) {
            (DeValue::Integer(number), _) => {
                i128::from_str_radix(number.as_str(), number.radix()).ok()
            }
            (_, Some(text)) if self.from_env => text.trim().parse().ok(),
            _ => None,
        }
    }
}

fn read_duration(seen: &Seen<'_>, bounds: Bounds<Duration>) -> Result<Duration, Wrong> {
    let value = units::duration(&seen.measured("\"30s\"")?)?;
    within(value, true, bounds, |d| {
        format!("\"{}\"", units::show_duration(d))
    })
}

fn within<T: Copy + PartialOrd>(
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

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
