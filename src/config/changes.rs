//! What is different between two configs, key by key.
//!
//! Pure. Entries of lists of tables are compared by what names them, not by their place: a route
//! that was put before the others changes none of them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

use super::scope::Scope;
use super::settings::{Kind, Setting, Settings, Value};

/// One thing that is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path of the key; entries of lists by their name: `hold.max`, `route[*.a.net/ws].url`, or
    /// `route[*.a.net/ws]` if the whole of it has come or gone.
    pub key: String,
    /// As it was written in a config file; a secret is `"***"`. `None`: it was not there.
    pub before: Option<String>,
    /// In the same way. `None`: it is gone.
    pub after: Option<String>,
    /// To what a reload applies it.
    pub scope: Scope,
}

/// What names an entry of a list of tables; of the lists that are not here, its place does.
const NAMED_BY: &[(&str, &[&str])] = &[
    ("route", &["host", "path"]),
    ("tls.files", &["cert"]),
    ("auth.users", &["name"]),
    ("auth.tokens", &["name"]),
];

/// What is different in `new`, in the order of its keys; what is gone comes last. Values that are
/// written in another way and mean the same (`"60s"`, `"1m"`) are no change, nor is who set them.
/// A file of the same name with another content is one where its content counts: certificates and
/// keys.
#[must_use]
pub fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    let (old, new) = (Named::new(old), Named::new(new));
    let mut all = Vec::new();
    for (key, now) in new.in_order() {
        match old.0.get(&key) {
            Some((_, was)) => all.extend(now.changed_from(was, key)),
            None => all.push(Change {
                before: None,
                after: Some(now.shown()),
                scope: now.scope(),
                key,
            }),
        }
    }
    for (key, was) in old.in_order() {
        if !new.0.contains_key(&key) {
            all.push(Change {
                before: Some(was.shown()),
                after: None,
                scope: was.scope(),
                key,
            });
        }
    }
    all
}

// === keys by name ===

/// What can be compared: keys, and entries of lists.
enum Thing<'s> {
    Key(&'s Setting),
    /// The keys of a table of a list.
    Entry(Vec<&'s Setting>),
}

/// Things by name, with their place in the order.
struct Named<'s>(BTreeMap<String, (usize, Thing<'s>)>);

impl<'s> Named<'s> {
    fn new(settings: &'s Settings) -> Self {
        let mut named = Self(BTreeMap::new());
        let mut entries: Vec<(&str, Vec<&'s Setting>)> = Vec::new();
        for setting in settings.iter() {
            match entry(&setting.key) {
                Some(entry) => match entries.last_mut().filter(|(last, _)| *last == entry) {
                    Some((_, keys)) => keys.push(setting),
                    None => entries.push((entry, vec![setting])),
                },
                None if setting.kind != Kind::Tables && setting.value.is_some() => {
                    named.insert(setting.key.clone(), Thing::Key(setting));
                }
                None => {}
            }
        }
        for (entry, keys) in entries {
            let name = named.free(&name(entry, &keys));
            named.insert(name, Thing::Entry(keys));
        }
        named
    }

    fn insert(&mut self, key: String, thing: Thing<'s>) {
        let place = self.0.len();
        self.0.insert(key, (place, thing));
    }

    /// Two certificates may have the same file.
    fn free(&self, name: &str) -> String {
        let numbered = (2..).map(|number| format!("{name}#{number}"));
        [name.to_owned()]
            .into_iter()
            .chain(numbered)
            .find(|name| !self.0.contains_key(name))
            .unwrap_or_default()
    }

    fn in_order(&self) -> Vec<(String, &Thing<'s>)> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, (place, _))| *place);
        all.into_iter()
            .map(|(key, (_, thing))| (key.clone(), thing))
            .collect()
    }
}

/// `route[0]` of `route[0].url`.
fn entry(key: &str) -> Option<&str> {
    let end = key.find("].")?;
    key.get(..=end)
}

/// `route[*.a.net/ws]`
fn name(entry: &str, keys: &[&Setting]) -> String {
    let list = entry.split('[').next().unwrap_or_default();
    let named_by = NAMED_BY.iter().find(|(known, _)| *known == list);
    let parts = named_by.map_or(&[][..], |(_, parts)| parts);
    let said: String = parts
        .iter()
        .filter_map(|part| keys.iter().find(|key| key.last() == *part))
        .filter_map(|key| key.value.as_ref()?.written())
        .map(|written| written.trim_matches('"'))
        .collect();
    match said.is_empty() {
        true => entry.to_owned(),
        false => format!("{list}[{said}]"),
    }
}

// === impl Thing ===

impl Thing<'_> {
    fn scope(&self) -> Scope {
        match self {
            Self::Key(setting) => Scope::of(&setting.name),
            Self::Entry(keys) => Scope::of(keys.first().map_or("", |first| first.section())),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Key(setting) => shown(setting.value.as_ref()).unwrap_or_default(),
            Self::Entry(keys) => {
                let set = |key: &&&Setting| key.from.is_set();
                let said = keys.iter().filter(set).filter_map(|key| {
                    Some(format!("{} = {}", key.last(), shown(key.value.as_ref())?))
                });
                format!("{{ {} }}", said.collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn changed_from(&self, old: &Self, key: String) -> Vec<Change> {
        match (self, old) {
            (Self::Key(now), Self::Key(was)) => changed(was, now, key).into_iter().collect(),
            (Self::Entry(now), Self::Entry(was)) => {
                let same = |now: &&Setting| was.iter().find(|was| was.name == now.name).copied();
                let pairs = now.iter().filter_map(|now| Some((same(now)?, *now)));
                pairs
                    .filter_map(|(was, now)| changed(was, now, format!("{key}.{}", now.last())))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

fn changed(was: &Setting, now: &Setting, key: String) -> Option<Change> {
    let another_file = was.content != now.content;
    if was.value == now.value && !another_file {
        return None;
    }
    let after = match was.value == now.value {
        true => shown(now.value.as_ref()).map(|value| format!("{value} with another content")),
        false => shown(now.value.as_ref()),
    };
    Some(Change {
        key,
        before: shown(was.value.as_ref()),
        after,
        scope: Scope::of(&now.name),
    })
}

fn shown(value: Option<&Value>) -> Option<String> {
    value.map(ToString::to_string)
}

// === impl Change ===

impl Change {
    /// `{"key", "before", "after", "appliesTo"}`; what is not there is `null`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        json!({
            "key": self.key,
            "before": self.before,
            "after": self.after,
            "appliesTo": self.scope.word(),
        })
    }
}

/// In one line: `hold.max: "10m" -> "5m" (applies to everything)`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            before,
            after,
            scope,
        } = self;
        match (before, after) {
            (Some(before), Some(after)) if before == after => write!(f, "{key}: another secret")?,
            (Some(before), Some(after)) => write!(f, "{key}: {before} -> {after}")?,
            (None, Some(after)) => write!(f, "{key}: added, {after}")?,
            (before, None) => {
                write!(
                    f,
                    "{key}: removed, was {}",
                    before.as_deref().unwrap_or("not set")
                )?;
            }
        }
        write!(f, " (applies to {scope})")
    }
}
