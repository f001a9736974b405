//! Walks the tables of a file and asks them for their keys.
//!
//! What a key's value may be is in [`keys`], one reader for each kind.
//! Asking for a key is what makes it known, so the schema and its reader are one thing. What was
//! not asked for by the end of a section is an unknown key.

mod blame;
mod keys;
mod seen;

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::checker::{At, Checker, Item, Purpose};
use super::embedded;
use super::env::{self, Expanded};
use super::settings::{Kind, SetBy, Setting, Value as Shown, quoted};
use super::units::Wrong;
use seen::Seen;

pub(super) use seen::Bounds;

type Value<'t> = Spanned<DeValue<'t>>;

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
                let path = join(&self.path, key);
                let wrong = Wrong::new("this is a section", format!("write [{path}] and its keys"));
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
        let (path, name) = (join(&self.path, key), join(&self.name, key));
        self.checker.set(Setting {
            key: path.clone(),
            name: name.clone(),
            value: items
                .is_empty()
                .then(|| Shown::new(&path, "[]".to_owned(), false)),
            default: Some("[]".to_owned()),
            from: self.set_by(found, None),
            kind: Kind::Tables,
            content: None,
        });
        if items.is_empty() && self.checker.purpose() == Purpose::Keys {
            let path = format!("{path}[0]");
            self.descend(path, name, None, None, &mut read);
            return Vec::new();
        }
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if let DeValue::Table(table) = item.get_ref() {
                let path = format!("{path}[{index}]");
                all.push(self.descend(path, name.clone(), Some(table), Some(item), &mut read));
            } else {
                self.refuse(key, Some(item), wrong());
            }
        }
        all
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

    // === who sets a value ===

    /// A flag of the command line has taken the place of what was read. `written` is TOML.
    pub(super) fn overridden(&mut self, key: &str, flag: &'static str, written: String) {
        let path = join(&self.path, key);
        let value = Shown::new(&path, written, false);
        self.checker.reset(&path, |setting| {
            setting.value = Some(value);
            setting.from = SetBy::Flag(flag);
        });
    }

    /// Where `key` was not set, it is what the key `other`, read before, says.
    pub(super) fn inherited(&mut self, key: &str, other: &'static str) {
        let Some(value) = self.checker.setting(other).map(|other| other.value.clone()) else {
            return;
        };
        self.checker.reset(&join(&self.path, key), |setting| {
            if setting.from == SetBy::Default {
                setting.value = value;
                setting.from = SetBy::Inherited(other);
            }
            setting.default = None;
        });
    }

    fn set_by(&self, found: Option<&Value<'_>>, taken: Option<&Expanded<'_>>) -> SetBy {
        found.map_or(SetBy::Default, |found| {
            self.checker.set_by(&found.span(), taken)
        })
    }

    // === how a value is read ===

    /// `show` writes a value as TOML; where it cannot, the default is what the embedded file says,
    /// and a value is what the text says.
    fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        kind: Kind,
        show: impl Fn(&T) -> Option<String>,
        parse: impl FnOnce(&Seen<'_>) -> Result<T, Wrong>,
    ) -> Item<T> {
        let found = self.find(key);
        let (key, name) = (join(&self.path, key), join(&self.name, key));
        let default_shown = show(&default).or_else(|| embedded::default(&name).map(str::to_owned));
        let mut setting = Setting {
            value: default_shown
                .clone()
                .map(|written| Shown::new(&key, written, false)),
            default: default_shown,
            from: SetBy::Default,
            kind,
            content: None,
            key: key.clone(),
            name,
        };
        let (value, at) = match found {
            None => (default, At::Default),
            Some(found) => match self.parse_at(&key, found, parse) {
                Some((value, taken)) => {
                    setting.from = self.set_by(Some(found), taken.as_ref());
                    setting.value = self.shown(&key, show(&value), taken.as_ref());
                    (value, At::File(found.span()))
                }
                None => (default, At::Broken),
            },
        };
        self.checker.set(setting);
        Item { value, key, at }
    }

    /// What came from a file is a secret, whatever the key.
    fn shown(
        &self,
        key: &str,
        written: Option<String>,
        taken: Option<&Expanded<'_>>,
    ) -> Option<Shown> {
        let written = written.or_else(|| taken.map(|taken| quoted(&taken.text)));
        let hide = taken.is_some_and(|taken| !taken.files.is_empty());
        written.map(|written| Shown::new(key, written, hide))
    }

    fn parse_at<'v, T>(
        &mut self,
        key: &str,
        found: &'v Value<'v>,
        parse: impl FnOnce(&Seen<'_>) -> Result<T, Wrong>,
    ) -> Option<(T, Option<Expanded<'v>>)> {
        let place = Item {
            value: (),
            key: key.to_owned(),
            at: At::File(found.span()),
        };
        let taken = match found.get_ref() {
            DeValue::String(text) => match env::expand(text, self.checker.outside()) {
                Ok(taken) => Some(taken),
                Err(unset) => {
                    self.report(&place, &unset, &found.span());
                    return None;
                }
            },
            _ => None,
        };
        let seen = Seen {
            value: found.get_ref(),
            taken: taken.as_ref(),
        };
        match parse(&seen) {
            Ok(value) => Some((value, taken)),
            Err(wrong) => {
                let wrong = taken
                    .iter()
                    .fold(wrong, |wrong, taken| blame::blamed(key, wrong, taken));
                self.checker.error(&place, wrong);
                None
            }
        }
    }

    /// What could not be taken from outside, each at its own place.
    fn report(&mut self, place: &Item<()>, unset: &[env::Unset], span: &Range<usize>) {
        for one in unset {
            // Offsets in the text are not those in the file where it has escapes.
            let offset = self.checker.source().slice(span).find(&one.written);
            let start = offset.map(|offset| span.start + offset);
            let exact = start.map_or_else(|| span.clone(), |s| s..s + one.written.len());
            let exact = Item {
                at: At::File(exact),
                ..place.clone()
            };
            self.checker.error(&exact, blame::wrong(&one.why));
        }
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

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
