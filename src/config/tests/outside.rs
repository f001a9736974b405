//! Values out of files: `${file:PATH}`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A config with a folder of secrets beside it.
struct Beside {
    dir: tempfile::TempDir,
}

impl Beside {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        Self { dir }
    }

    fn load(&self, text: &str) -> Result<Loaded, ConfigErrors> {
        let file = self.dir.path().join("holdline.toml");
        fs::write(&file, text).unwrap();
        load(Some(&file), &Overrides::default())
    }

    fn one_error(&self, text: &str) -> Problem {
        let errors = self.load(text).unwrap_err();
        let [error] = errors.errors.as_slice() else {
            panic!("one error expected: {errors}")
        };
        error.clone()
    }
}

#[test]
fn a_file_gives_a_text_a_number_and_a_part_of_a_text() {
    let hash = format!("{}\r\n", "A".repeat(43));
    let beside = Beside::new(&[("hash", hash.as_bytes()), ("rate", b"7\n"), ("host", b"gw")]);
    let loaded = beside
        .load(
            "[gateway]\nurl = \"http://${file:host}:1\"\n[hold]\nresume_rate = \"${file:rate}\"\n\
             [auth]\nmodes = [\"token\"]\ntokens = [{ name = \"a\", user = \"b\", hash = \"${file:hash}\" }]",
        )
        .unwrap();
    assert_eq!(loaded.config.routes[0].upstream.host, "gw");
    assert_eq!(loaded.config.hold.resume_rate, 7);
    assert_eq!(loaded.config.auth.tokens.len(), 1);
    let names = ["holdline.toml", "hash", "host", "rate"];
    assert_eq!(loaded.files, names.map(|name| beside.dir.path().join(name)));
    let told = explain(&loaded);
    assert!(
        told.contains("url = \"***\"") && told.contains("hash = \"***\"") && !told.contains("//gw"),
        "{told}"
    );
    assert!(told.contains("/rate, "), "{told}");
}

#[test]
fn a_path_may_have_variables_in_it() {
    let beside = Beside::new(&[]);
    fs::create_dir(beside.dir.path().join("openclaw")).unwrap();
    fs::write(beside.dir.path().join("openclaw/host"), "gw").unwrap();
    let text = "[gateway]\nurl = \"http://${file:${GATEWAY_HOST}/host}:1\"";
    let input = Input {
        text,
        name: "h.toml",
        base: beside.dir.path(),
        env: &env,
        overrides: &Overrides::default(),
        purpose: Purpose::Config,
    };
    assert_eq!(input.check().verdict.unwrap().routes[0].upstream.host, "gw");
}

#[test]
fn what_is_wrong_with_a_file_is_said_at_its_place() {
    let beside = Beside::new(&[
        ("empty", b"\n"),
        ("large", &[b'a'; (64 << 10) + 1]),
        ("binary", b"a\xff"),
        ("forbidden", b"a"),
    ]);
    let locked = fs::Permissions::from_mode(0o000);
    fs::set_permissions(beside.dir.path().join("forbidden"), locked).unwrap();
    symlink("self", beside.dir.path().join("self")).unwrap();
    for (name, words, remedy) in [
        (
            "missing",
            "there is no file /",
            "starts at the config file's folder",
        ),
        (".", "is not a file", "holds the value and nothing else"),
        (
            "/dev/zero",
            "is not a file",
            "holds the value and nothing else",
        ),
        ("empty", "/empty is empty", "write the value into it"),
        ("large", "/large is larger than 64 KiB", "nothing else"),
        ("binary", "/binary is not UTF-8 text", "base64 or hex"),
        ("self", "/self cannot be read", "a readable file"),
        ("", "no file is named", "write ${file:/run/secrets/NAME}"),
        ("${NOPE_NOPE}/x", "no variable NOPE_NOPE", "set NOPE_NOPE"),
    ] {
        let error = beside.one_error(&format!("[gateway]\nurl = \"http://${{file:{name}}}\""));
        assert_eq!(error.key, "gateway.url");
        assert!(
            error.place.to_string().ends_with("holdline.toml:2:15"),
            "{error}"
        );
        assert!(
            error.what.contains(words) && error.remedy.contains(remedy),
            "{error}"
        );
    }
    // Whoever runs as root may read everything.
    if fs::read(beside.dir.path().join("forbidden")).is_err() {
        let error = beside.one_error("[gateway]\nurl = \"http://${file:forbidden}\"");
        assert!(
            error.what.contains("may not be read by the user"),
            "{error}"
        );
        assert!(error.remedy.contains("give that user the right"), "{error}");
    }
}

#[test]
fn no_message_shows_what_is_in_a_file() {
    let beside = Beside::new(&[("secret", b"Sesame4711"), ("short", b"xy")]);
    for key in [
        "[gateway]\nurl",
        "[gateway]\nprobe",
        "[hold]\nmax",
        "[hold]\nresume",
        "[limits]\nframe",
        "[limits]\nhandshakes_per_ip",
        "[listen]\nproxy_protocol",
        "[log]\nlevel",
        "[admin]\nlisten",
        "[auth]\nuser_header",
    ] {
        for name in ["secret", "short"] {
            let errors = beside
                .load(&format!("{key} = \"${{file:{name}}}\""))
                .unwrap_err();
            let shown = format!("{errors} {errors:?}");
            for part in ["sesame", "4711", "\"xy", "/xy"] {
                assert!(!shown.to_lowercase().contains(part), "{shown}");
            }
            assert!(shown.contains(&format!("/{name}")), "{shown}");
        }
    }
}

#[test]
fn another_content_is_another_value() {
    let beside = Beside::new(&[("host", b"a")]);
    let text = "[gateway]\nurl = \"http://${file:host}:1\"";
    let old = beside.load(text).unwrap();
    fs::write(beside.dir.path().join("host"), "b").unwrap();
    let new = beside.load(text).unwrap();
    let told: Vec<_> = changes(&old.settings, &new.settings)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        ["gateway.url: another secret (applies to everything)"]
    );
}
