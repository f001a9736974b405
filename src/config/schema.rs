//! The JSON Schema of a config file, for editors: made of what the rules ask for, so that it says
//! what they say. `config/holdline.schema.json` is this, and a test proves it.

use serde_json::{Map, Value as Json, json};

use super::explain::from_toml;
use super::scope::Scope;
use super::settings::{Kind, Range, Setting, Settings};
use super::{embedded, keys};

/// What an entry of a list of tables cannot do without: all of one of these.
const NEEDED: &[(&str, &[&[&str]])] = &[
    ("route", &[&["url", "host"], &["url", "path"]]),
    ("tls.files", &[&["cert", "key"]]),
    ("auth.users", &[&["name", "hash"]]),
    ("auth.tokens", &[&["name", "user", "hash"]]),
];

/// A text with something from outside in it: what that is, nobody knows beforehand.
const OUTSIDE: &str = r"\$\{";

/// The schema, draft 2020-12.
#[must_use]
pub fn schema() -> Json {
    let keys = keys();
    let mut schema = table(&keys, "");
    if let Json::Object(schema) = &mut schema {
        let draft = "https://json-schema.org/draft/2020-12/schema";
        schema.insert("$schema".to_owned(), draft.into());
        schema.insert("title".to_owned(), "holdline's config".into());
    }
    schema
}

/// The table of this name, without indices.
fn table(keys: &Settings, name: &str) -> Json {
    let mut properties = Map::new();
    for key in keys.iter().filter(|key| key.section() == name) {
        let property = match key.kind {
            Kind::Tables => list(keys, key),
            _ => described(key),
        };
        properties.insert(key.last().to_owned(), property);
    }
    // Tables of which no key stands here, but in themselves.
    for key in keys.iter() {
        let Some(section) = below(name, key.section()) else {
            continue;
        };
        if !properties.contains_key(section) {
            let path = match name {
                "" => section.to_owned(),
                name => format!("{name}.{section}"),
            };
            properties.insert(section.to_owned(), table(keys, &path));
        }
    }
    let mut table = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    let why = embedded::why(name);
    if !why.is_empty() {
        insert(&mut table, "description", why.into());
    }
    table
}

/// The `b` of `a.b.c` as seen from `a`.
fn below<'p>(name: &str, path: &'p str) -> Option<&'p str> {
    let rest = match name {
        "" => path,
        name => path.strip_prefix(name)?.strip_prefix('.')?,
    };
    rest.split('.').next().filter(|section| !section.is_empty())
}

fn list(keys: &Settings, key: &Setting) -> Json {
    let mut entry = table(keys, &key.name);
    let needed = NEEDED.iter().find(|(list, _)| *list == key.name);
    match needed.map(|(_, ways)| *ways) {
        Some([needed]) => insert(&mut entry, "required", json!(needed)),
        Some(ways) => {
            let ways: Vec<Json> = ways.iter().map(|way| json!({ "required": way })).collect();
            insert(&mut entry, "anyOf", ways.into());
        }
        None => {}
    }
    json!({ "type": "array", "items": entry, "description": description(key) })
}

/// A key with its value's form, default and description.
fn described(key: &Setting) -> Json {
    let mut schema = form(&key.kind);
    insert(&mut schema, "description", description(key).into());
    if let Some(default) = &key.default {
        insert(&mut schema, "default", from_toml(default));
    }
    schema
}

fn form(kind: &Kind) -> Json {
    let outside = json!({ "type": "string", "pattern": OUTSIDE });
    let measured = |units: &str| {
        let pattern = format!(r"^\s*[0-9]+\s*({units})\s*$|{OUTSIDE}");
        json!({ "type": "string", "pattern": pattern })
    };
    match kind {
        Kind::Switch => json!({ "anyOf": [{ "type": "boolean" }, outside] }),
        Kind::Count(Range { min, max, .. }) => {
            let (min, max) = (from_toml(min), from_toml(max));
            let number = json!({ "type": "integer", "minimum": min, "maximum": max });
            json!({ "anyOf": [number, outside] })
        }
        Kind::Duration { off: false, .. } => measured("ms|s|m|h|d"),
        Kind::Duration { off: true, .. } => json!({
            "anyOf": [{ "enum": ["off"] }, measured("ms|s|m|h|d")]
        }),
        Kind::Size(_) => measured("B|KiB|MiB|GiB"),
        Kind::Rate(_) => measured("/s"),
        Kind::Choice(words) => json!({ "anyOf": [{ "enum": words }, outside] }),
        Kind::Text => json!({ "type": "string" }),
        Kind::List | Kind::Tables => json!({ "type": "array", "items": { "type": "string" } }),
    }
}

fn description(key: &Setting) -> String {
    let why = embedded::why(&key.name);
    let kind = key.kind.to_string();
    let scope = Scope::of(&key.name);
    format!("{why}\n\nTakes {kind}. On reload it applies to {scope}.")
}

fn insert(object: &mut Json, key: &str, value: Json) {
    if let Json::Object(object) = object {
        object.insert(key.to_owned(), value);
    }
}
