//! The JSON Schema that editors take: it is the one that is committed, it takes what the rules take,
//! and refuses what they refuse as far as a schema can.

use regex_automata::meta::Regex;
use serde_json::Value as Json;

use super::*;

const COMMITTED: &str = include_str!("../../../config/holdline.schema.json");

/// Every key, with a value that is not its default.
const FULL: &str = r#"
[listen]
https = ["0.0.0.0:443", "[::]:443"]
http = ["0.0.0.0:80"]
proxy_protocol = true
trusted_proxies = ["10.0.0.0/8"]
[tls]
certificate = "dev"
min_version = "1.3"
[gateway]
url = "http://${GATEWAY_HOST}:3001"
protocol = "generic"
probe = "/ready"
probe_interval = "1s"
probe_interval_ready = "1m"
connect_timeout = "900 ms"
loopback_clients = "refuse"
[hold]
max = "1d"
upgrade = "5s"
handshake = "5s"
notice_after = "1s"
notice_every = "6s"
buffer = "1KiB"
buffer_total = "1GiB"
resume = "reconnect"
resume_rate = "${RATE}"
unfinished_handshakes = 32
unfinished_per_ip = 8
replay_requests = "never"
[[route]]
host = "*.preview.example.net"
path = "/ws"
url = "http://127.0.0.1:18890"
protocol = "generic"
probe = "tcp"
resume = "splice"
[[route]]
path = "/b"
url = "http://127.0.0.1:18891"
[http]
hold = "10s"
page_after = "2s"
[limits]
sessions = 100
sessions_per_ip = 10
handshakes_per_ip = "5/s"
header_timeout = "5s"
tls_timeout = "5s"
frame = "1MiB"
preauth_frame = "1KiB"
ping_every = "off"
origins = ["https://a.example.net"]
drain = "0s"
[auth]
modes = ["token", "forward"]
tokens = [{ name = "a", user = "b", hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }]
public = ["/hooks"]
user_header = "x-forwarded-email"
loopback_as = "198.51.100.1"
certificate_name = "san.email"
session_idle = "1h"
session_max = "2h"
state_dir = "state"
[auth.forward]
url = "http://127.0.0.1:4180/auth"
user = "x-auth-request-user"
copy = ["x-auth-request-groups"]
timeout = "1s"
cache = "0s"
[admin]
listen = "off"
[log]
level = "debug"
format = "json"
"#;

#[test]
fn the_committed_schema_is_the_one_of_these_rules() {
    let committed: Json = serde_json::from_str(COMMITTED).unwrap();
    assert!(
        committed == schema(),
        "config/holdline.schema.json is old; make it anew with\n\
         cargo run -- explain --schema > config/holdline.schema.json"
    );
    assert!(EMBEDDED.starts_with("#:schema ./holdline.schema.json\n"));
}

#[test]
fn what_the_rules_take_the_schema_takes() {
    good(FULL);
    for text in ["", EMBEDDED, FULL] {
        assert_eq!(refused(text), [""; 0]);
    }
    let files =
        "[tls]\nfiles = [{ cert = \"${file:/run/name}\", key = \"k\" }]\n[hold]\nmax = \"${MAX}\"";
    assert_eq!(refused(files), [""; 0]);
}

#[test]
fn every_key_is_in_the_full_example_or_in_the_embedded_file() {
    let all: Vec<String> = [FULL, EMBEDDED]
        .iter()
        .flat_map(|text| {
            check(text, &Overrides::default())
                .settings
                .iter()
                .cloned()
                .collect::<Vec<_>>()
        })
        .map(|setting| setting.name)
        .collect();
    let keys = keys();
    // Those of lists that need files or hashes have none in either.
    let listed = |key: &&Setting| {
        let mut lists = keys.iter().filter(|list| list.kind == Kind::Tables);
        key.section() != "route" && lists.any(|list| list.name == key.section())
    };
    for key in keys.iter().filter(|key| !listed(key)) {
        assert!(all.contains(&key.name), "{} is in neither", key.name);
    }
}

#[test]
fn a_wrong_file_is_refused_by_both() {
    for (text, place) in [
        ("[hold]\nmaxx = \"1m\"", "hold.maxx"),
        ("[holt]\nmax = \"1m\"", "holt"),
        ("[hold]\nmax = 180", "hold.max"),
        ("[hold]\nmax = \"3 parsecs\"", "hold.max"),
        ("[hold]\nresume_rate = 0", "hold.resume_rate"),
        ("[hold]\nunfinished_per_ip = 33", "hold.unfinished_per_ip"),
        ("[hold]\nresume = \"soon\"", "hold.resume"),
        ("[limits]\nping_every = \"never\"", "limits.ping_every"),
        ("[limits]\nframe = \"25MB\"", "limits.frame"),
        (
            "[limits]\nhandshakes_per_ip = \"20\"",
            "limits.handshakes_per_ip",
        ),
        (
            "[listen]\nproxy_protocol = \"yes\"",
            "listen.proxy_protocol",
        ),
        ("[listen]\nhttps = \"127.0.0.1:1\"", "listen.https"),
        ("[gateway]\nurl = 3001", "gateway.url"),
        ("[route]\nurl = \"http://a\"", "route"),
        ("[[route]]\npath = \"/a\"", "route[0]"),
        ("[[route]]\nurl = \"http://a\"", "route[0]"),
        (
            "[auth]\nmodes = [\"token\"]\ntokens = [{ name = \"a\", user = \"b\" }]",
            "auth.tokens[0]",
        ),
    ] {
        assert!(
            check(text, &Overrides::default()).verdict.is_err(),
            "{text}"
        );
        assert_eq!(refused(text), [place], "{text}");
    }
}

// === as much of JSON Schema as ours has ===

/// The paths of what the schema does not take.
fn refused(text: &str) -> Vec<String> {
    let table: toml::Table = toml::from_str(text).unwrap();
    let expected = schema();
    let mut out = Vec::new();
    validate(
        &serde_json::to_value(table).unwrap(),
        &expected,
        "",
        &mut out,
    );
    out
}

/// Knows every keyword of the schema, or fails: one that is not looked at proves nothing.
fn validate(value: &Json, schema: &Json, path: &str, out: &mut Vec<String>) {
    let mut fits = true;
    for (keyword, said) in schema.as_object().unwrap() {
        fits &= match keyword.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => match said.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                other => panic!("type {other}"),
            },
            "enum" => said.as_array().unwrap().contains(value),
            "minimum" => value.as_i64().is_none_or(|n| n >= said.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|n| n <= said.as_i64().unwrap()),
            "pattern" => {
                let pattern = Regex::new(said.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "required" => {
                let there = |key: &Json| value.get(key.as_str().unwrap()).is_some();
                !value.is_object() || said.as_array().unwrap().iter().all(there)
            }
            "anyOf" => said.as_array().unwrap().iter().any(|one| {
                let mut refused = Vec::new();
                validate(value, one, path, &mut refused);
                refused.is_empty()
            }),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(item, said, &format!("{path}[{index}]"), out);
                }
                true
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let path = format!("{path}.{key}");
                    let path = path.trim_start_matches('.');
                    match said.get(key) {
                        Some(schema) => validate(value, schema, path, out),
                        None => out.push(path.to_owned()),
                    }
                }
                true
            }
            // Looked at above.
            "additionalProperties" => *said == Json::Bool(false),
            other => panic!("the keyword {other} is not known here"),
        };
    }
    if !fits {
        out.push(path.to_owned());
    }
}
