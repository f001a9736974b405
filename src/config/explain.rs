//! The effective config in words: as a TOML file with a comment beside each value, key by key, and
//! as JSON.
//!
//! Text comes out; nothing is read or printed here.

use serde_json::{Value as Json, json};

use super::checker::nearest;
use super::problem::printable;
use super::scope::Scope;
use super::settings::{Kind, Range, SetBy, Setting, Settings, Value};
use super::units::Wrong;
use super::{Loaded, Origin, embedded, keys};

/// A comment beside a value starts at most here; longer values push it further.
const WIDEST: usize = 64;

/// The whole config as TOML that can be used as a config, but for secrets, which are `"***"`. Beside
/// each value stands where it came from.
#[must_use]
pub fn explain(loaded: &Loaded) -> String {
    let mut out = preamble(loaded);
    for (path, group) in groups(&loaded.settings) {
        match (
            path,
            path.strip_suffix(']').and_then(|_| path.rsplit_once('[')),
        ) {
            ("", _) => {}
            (_, Some((list, _))) => out.push_str(&format!("\n[[{list}]]\n")),
            (section, None) => out.push_str(&format!("\n[{section}]\n")),
        }
        out.push_str(&lines(&group));
    }
    out
}

/// All that there is to say about the keys that are meant: one of them (`hold.max`, `route[0].url`,
/// or `route.url` for that of every route) or a section (`hold`).
///
/// # Errors
/// When there is no such key; the message says which one may have been meant.
pub fn explain_keys(settings: &Settings, asked: &str) -> Result<String, Wrong> {
    let blocks: Vec<String> = meant(settings, asked)?.iter().map(block).collect();
    Ok(blocks.join("\n"))
}

/// The same as a list of objects; all keys if none is asked for.
///
/// # Errors
/// As for [`explain_keys`].
pub fn explain_json(settings: &Settings, asked: Option<&str>) -> Result<Json, Wrong> {
    let listed = |all: &[Setting]| all.iter().map(object).collect::<Vec<_>>().into();
    match asked {
        Some(asked) => meant(settings, asked).map(|all| listed(&all)),
        None => Ok(settings.iter().map(object).collect::<Vec<_>>().into()),
    }
}

// === the whole file ===

fn preamble(loaded: &Loaded) -> String {
    let mut out = format!(
        "# The effective config, from {}: every key, and where its value came from.\n",
        printable(&loaded.source.to_string())
    );
    let secret = |setting: &Setting| setting.value.as_ref().is_some_and(Value::is_secret);
    out.push_str(match loaded.settings.iter().any(secret) {
        true => {
            "# *** stands for a secret. With the secrets put back this can be used as a config.\n"
        }
        false => "# This can be used as a config.\n",
    });
    if let Origin::File(file) = &loaded.source
        && let Some(folder) = file.parent()
        && !folder.as_os_str().is_empty()
    {
        let folder = folder.display().to_string();
        let folder = printable(&folder);
        out.push_str(&format!(
            "# Relative paths start at {folder}, so keep it there.\n"
        ));
    }
    out
}

/// Tables in the order of reading, each with the keys that stand in it.
fn groups(settings: &Settings) -> Vec<(&str, Vec<&Setting>)> {
    let mut groups: Vec<(&str, Vec<&Setting>)> = Vec::new();
    for setting in settings.iter() {
        let table = setting.key.rsplit_once('.').map_or("", |(table, _)| table);
        match groups.iter_mut().find(|(known, _)| *known == table) {
            Some((_, keys)) => keys.push(setting),
            None => groups.push((table, vec![setting])),
        }
    }
    // What stands in no table has to come before all of them.
    groups.sort_by_key(|(table, _)| !table.is_empty());
    groups
}

fn lines(group: &[&Setting]) -> String {
    let told = |setting: &&&Setting| {
        let list = setting.kind == Kind::Tables;
        !list || (setting.value.is_some() && !setting.section().is_empty())
    };
    let lines: Vec<(String, String)> = group
        .iter()
        .filter(told)
        .map(|setting| match &setting.value {
            Some(value) => (
                format!("{} = {value}", setting.last()),
                setting.from.to_string(),
            ),
            None => (format!("# {} =", setting.last()), "not set".to_owned()),
        })
        .collect();
    let width = |(line, _): &(String, String)| line.chars().count();
    let widest = lines.iter().map(width).filter(|width| *width <= WIDEST);
    let column = widest.max().unwrap_or_default();
    let mut out = String::new();
    for (line, from) in &lines {
        out.push_str(&format!("{line:column$}  # {from}\n"));
    }
    out
}

// === some keys ===

/// The settings that are meant. A key of a list that has no entries is explained all the same.
fn meant(settings: &Settings, asked: &str) -> Result<Vec<Setting>, Wrong> {
    let asked = asked.trim_matches(['[', ']', '.']).replace("[]", "");
    let within = |path: &str| {
        let rest = path.strip_prefix(asked.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let is_meant = |setting: &&Setting| within(&setting.key) || within(&setting.name);
    let found: Vec<Setting> = settings.iter().filter(is_meant).cloned().collect();
    let empty = |setting: &Setting| setting.kind == Kind::Tables && setting.value.is_some();
    if !found.is_empty() && !found.iter().any(empty) {
        return Ok(found);
    }
    let all = keys();
    let missing = |key: &&Setting| !found.iter().any(|setting| setting.name == key.name);
    let known = all
        .iter()
        .filter(is_meant)
        .filter(missing)
        .map(|key| Setting {
            key: key.name.clone(),
            ..key.clone()
        });
    let known: Vec<Setting> = found.iter().cloned().chain(known).collect();
    match known.is_empty() {
        false => Ok(known),
        true => Err(unknown(&all, &asked)),
    }
}

fn unknown(all: &Settings, asked: &str) -> Wrong {
    let mut names: Vec<&str> = all
        .iter()
        .flat_map(|key| [key.name.as_str(), key.section()])
        .filter(|name| !name.is_empty())
        .collect();
    names.dedup();
    let last = |name: &&&str| name.rsplit('.').next() == Some(asked);
    let elsewhere = names.iter().find(last).copied();
    let remedy = match nearest(asked, &names).or(elsewhere) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => "write a section or a key, such as \"hold\" or \"hold.max\"".to_owned(),
    };
    Wrong::new("there is no such key", remedy)
}

fn block(setting: &Setting) -> String {
    let name = &setting.key;
    let mut out = match &setting.value {
        Some(value) => format!("{name} = {value}\n"),
        None if setting.kind == Kind::Tables => format!("[[{name}]]\n"),
        None => format!("{name} is not set\n"),
    };
    let mut line = |word: &str, text: &str| {
        let text = text.replace('\n', &format!("\n{:14}", ""));
        out.push_str(&format!("  {word:12}{text}\n"));
    };
    if setting.value.is_some() {
        line("from", &setting.from.to_string());
    }
    line("default", setting.default.as_deref().unwrap_or("none"));
    line("takes", &setting.kind.to_string());
    line(
        "applies to",
        &format!("{}, on reload", Scope::of(&setting.name)),
    );
    line("why", embedded::why(&setting.name));
    out
}

// === JSON ===

fn object(setting: &Setting) -> Json {
    json!({
        "key": setting.key,
        "value": setting.value.as_ref().and_then(Value::written).map(from_toml),
        "secret": setting.value.as_ref().is_some_and(Value::is_secret),
        "default": setting.default.as_deref().map(from_toml),
        "source": source(&setting.from),
        "takes": takes(&setting.kind),
        "appliesTo": Scope::of(&setting.name).word(),
        "description": embedded::why(&setting.name),
    })
}

/// A value as it is written.
pub(super) fn from_toml(written: &str) -> Json {
    let read = toml::from_str::<toml::Table>(&format!("value = {written}"));
    let value = read.ok().and_then(|mut table| table.remove("value"));
    value.map_or(Json::Null, |value| json!(value))
}

fn source(from: &SetBy) -> Json {
    let mut source = json!({ "kind": from.word() });
    let more = match from {
        SetBy::Default => json!({}),
        SetBy::Inherited(key) => json!({ "key": key }),
        SetBy::Flag(flag) => json!({ "flag": flag }),
        SetBy::File(written) => json!({
            "file": *written.file,
            "line": written.line,
            "column": written.column,
            "variables": written.variables,
            "files": written.files,
        }),
    };
    if let (Json::Object(source), Json::Object(more)) = (&mut source, more) {
        source.extend(more);
    }
    source
}

fn takes(kind: &Kind) -> Json {
    let range = |kind: &str, Range { min, max, why }: &Range| json!({ "kind": kind, "min": from_toml(min), "max": from_toml(max), "why": why });
    match kind {
        Kind::Switch => json!({ "kind": "switch" }),
        Kind::Count(bounds) => range("count", bounds),
        Kind::Duration { range: bounds, off } => {
            let mut takes = range("duration", bounds);
            if let (Json::Object(takes), true) = (&mut takes, off) {
                takes.insert("or".to_owned(), json!(["off"]));
            }
            takes
        }
        Kind::Size(bounds) => range("size", bounds),
        Kind::Rate(bounds) => range("rate", bounds),
        Kind::Choice(words) => json!({ "kind": "choice", "words": words }),
        Kind::Text => json!({ "kind": "text" }),
        Kind::List => json!({ "kind": "list" }),
        Kind::Tables => json!({ "kind": "tables" }),
    }
}
