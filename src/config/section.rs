//! Walks the tables of a file and asks them for their keys.
//!
//! What a key's value may be is in [`keys`], one reader for each kind.
//! Asking for a key is what makes it known, so the schema and its reader are one thing. What was
//! not asked for by the end of a section is an unknown key.

mod keys;
mod seen;

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::checker::{At, Checker, Item};
use super::env::{self, Why};
use super::secret::is_secret;
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
                let now = seen.text.as_deref().unwrap_or_default();
                // A hash must not get into a log, nor a URL with a password.
                if from_env && !now.contains('@') && !is_secret(key) {
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

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
