//! What a reload is told to be different.

use std::fs;

use super::*;

fn again(file: &Path) -> Result<Loaded, ConfigErrors> {
    load(Some(file), &Overrides::default())
}

fn settings(text: &str) -> Settings {
    let checked = check(text, &Overrides::default());
    checked.verdict.unwrap();
    checked.settings
}

/// What is said in one line each.
fn different(old: &str, new: &str) -> Vec<String> {
    changes(&settings(old), &settings(new))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_key_is_told_with_both_values_and_what_it_applies_to() {
    let old = "[hold]\nmax = \"10m\"";
    let new = "[hold]\nmax = \"5m\"\n[limits]\ntls_timeout = \"3s\"\n[listen]\nproxy_protocol = true\n\
               trusted_proxies = [\"10.0.0.0/8\"]";
    assert_eq!(
        different(old, new),
        [
            "listen.proxy_protocol: false -> true (applies to new connections)",
            "listen.trusted_proxies: [] -> [\"10.0.0.0/8\"] (applies to new connections)",
            "hold.max: \"10m\" -> \"5m\" (applies to everything)",
            "limits.tls_timeout: \"10s\" -> \"3s\" (applies to new connections)",
        ]
    );
}

#[test]
fn what_means_the_same_is_no_change() {
    let spelt = "[hold]\nmax = \"600s\"\nbuffer = \"262144B\"\n[limits]\nhandshakes_per_ip = \" 20 /s\"\n\
                 [gateway]\nurl = \"http://127.0.0.1:3001\"\n[listen]\nhttp = [ ]";
    assert_eq!(different("", spelt), [""; 0]);
    assert_eq!(different(EMBEDDED, ""), [""; 0]);
    let env = "[gateway]\nurl = \"http://${GATEWAY_HOST}:1\"";
    assert_eq!(
        different(env, "[gateway]\nurl = \"http://openclaw:1\""),
        [""; 0]
    );
}

const A: &str = "[[route]]\nhost = \"a.net\"\nurl = \"http://a\"\n";
const B: &str = "[[route]]\nhost = \"b.net\"\npath = \"/ws\"\nurl = \"http://b\"\n";

#[test]
fn a_route_is_known_by_its_name_and_not_by_its_place() {
    let both = format!("{B}{A}");
    assert_eq!(
        different(A, &both),
        [
            "route[b.net/ws]: added, { host = \"b.net\", path = \"/ws\", url = \"http://b\" } \
          (applies to new connections)"
        ]
    );
    assert_eq!(
        different(&both, A),
        [
            "route[b.net/ws]: removed, was { host = \"b.net\", path = \"/ws\", url = \"http://b\" } \
          (applies to new connections)"
        ]
    );
    let moved = both.replace("http://a", "http://c");
    assert_eq!(
        different(&format!("{A}{B}"), &moved),
        ["route[a.net].url: \"http://a\" -> \"http://c\" (applies to everything)"]
    );
}

#[test]
fn what_a_route_inherits_changes_with_it() {
    let splice = format!("[gateway]\nprotocol = \"generic\"\n[hold]\nresume = \"splice\"\n{A}");
    assert_eq!(
        different(A, &splice),
        [
            "gateway.protocol: \"openclaw\" -> \"generic\" (applies to new connections)",
            "hold.resume: \"auto\" -> \"splice\" (applies to everything)",
            "route[a.net].protocol: \"openclaw\" -> \"generic\" (applies to new connections)",
            "route[a.net].resume: \"auto\" -> \"splice\" (applies to everything)",
        ]
    );
}

#[test]
fn another_secret_is_seen_and_neither_is_shown() {
    let token = |name: &str, last: char| {
        let hash = format!("{}{last}", "A".repeat(42));
        format!("{{ name = \"{name}\", user = \"u\", hash = \"{hash}\" }}")
    };
    let with = |tokens: &[String]| {
        format!(
            "[auth]\nmodes = [\"token\"]\ntokens = [{}]",
            tokens.join(", ")
        )
    };
    let old = with(&[token("a", 'A'), token("b", 'A')]);
    assert_eq!(different(&old, &old), [""; 0]);
    let new = with(&[token("c", 'A'), token("b", 'E')]);
    assert_eq!(
        different(&old, &new),
        [
            "auth.tokens[c]: added, { name = \"c\", user = \"u\", hash = \"***\" } (applies to everything)",
            "auth.tokens[b].hash: another secret (applies to everything)",
            "auth.tokens[a]: removed, was { name = \"a\", user = \"u\", hash = \"***\" } (applies to everything)",
        ]
    );
    let all = format!("{:?}", settings(&new));
    assert!(!all.contains("AAAA"), "{all}");
}

#[test]
fn a_renewed_certificate_of_the_same_name_is_a_change() {
    let (dir, file) = files::folder(
        "[tls]\ncertificate = \"files\"\nfiles = [{ cert = \"cert.pem\", key = \"key.pem\" }]",
    );
    let load = || again(&file).unwrap();
    let (old, same) = (load(), load());
    assert_eq!(changes(&old.settings, &same.settings), []);
    files::write_pair(dir.path(), &rcgen::CertificateParams::default());
    let told: Vec<_> = changes(&old.settings, &load().settings)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "tls.files[cert.pem].cert: \"cert.pem\" -> \"cert.pem\" with another content (applies to new connections)",
            "tls.files[cert.pem].key: \"key.pem\" -> \"key.pem\" with another content (applies to new connections)",
        ]
    );
    let names = ["holdline.toml", "cert.pem", "key.pem"];
    assert_eq!(old.files, names.map(|name| dir.path().join(name)));
    fs::remove_file(dir.path().join("key.pem")).unwrap();
    let refused = again(&file).unwrap_err();
    assert_eq!(
        refused.files, old.files,
        "the file that is missing is one to watch"
    );
}

#[test]
fn a_change_as_json() {
    let [change] = &changes(&settings(""), &settings("[log]\nlevel = \"debug\""))[..] else {
        panic!("one")
    };
    assert_eq!(
        change.json().to_string(),
        r#"{"after":"\"debug\"","appliesTo":"everything","before":"\"info\"","key":"log.level"}"#
    );
}
