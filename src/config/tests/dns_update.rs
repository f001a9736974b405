//! `[acme.dns_update]`: what it comes to, what is wrong with it, and that its secret stays one.

use super::broken::errors;
use super::*;

const SECRET: &str = "mONSgl2myTdX577Np9iMPgHL9tXU4/VOF2V24lqxyRQ=";

/// The header of the section under test is on line 6.
fn text(acme: &str, update: &str) -> String {
    format!(
        "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example *.a.example\"]\n{acme}\n\
         [acme.dns_update]\n{update}"
    )
}

fn whole() -> String {
    let challenges = "challenges = [\"dns-01\"]";
    let update = format!(
        "server = \"NS.example.\"\ntsig_name = \"Holdline.\"\ntsig_secret = \"{SECRET}\"\n"
    );
    text(challenges, &update)
}

#[test]
fn three_lines_are_enough_and_the_rest_has_defaults() {
    let config = good(&whole());
    let Some(Dns::Update(update)) = config.acme.unwrap().dns else {
        panic!("an update")
    };
    assert_eq!((update.host.as_str(), update.port), ("ns.example", 53));
    assert_eq!((update.zone, update.key.name.as_str()), (None, "holdline"));
    assert_eq!(update.key.algorithm, TsigAlgorithm::HmacSha256);
    assert_eq!(update.key.secret.0.len(), 32);
    assert_eq!((update.ttl.as_secs(), update.timeout.as_secs()), (60, 120));
    let more = "server = \"[::1]:5353\"\nzone = \"Example.\"\ntsig_algorithm = \"hmac-sha512\"\nttl = \"5m\"";
    let config = good(&whole().replace("server = \"NS.example.\"", more));
    let Some(Dns::Update(update)) = config.acme.unwrap().dns else {
        panic!("an update")
    };
    assert_eq!((update.host.as_str(), update.port), ("::1", 5353));
    assert_eq!(update.zone.as_deref(), Some("example"));
    assert_eq!(update.key.algorithm, TsigAlgorithm::HmacSha512);
    assert_eq!(update.ttl.as_secs(), 300);
}

#[test]
fn what_is_wrong_has_its_place_and_its_remedy() {
    let line = format!("tsig_secret = \"{SECRET}\"");
    let with = |from: &str, to: &str| whole().replace(from, to);
    for (text, key, words) in [
        (
            with("NS.example.", "tcp://ns"),
            "server",
            "not a name server",
        ),
        (with("NS.example.", ""), "tsig_name", "no server is named"),
        (with("Holdline.", ""), "dns_update", "tsig_name is missing"),
        (
            with("Holdline.", "hold line"),
            "tsig_name",
            "not a name in the DNS",
        ),
        (with(SECRET, ""), "dns_update", "tsig_secret is missing"),
        (with(SECRET, "no base64!"), "tsig_secret", "not base64"),
        (
            with(SECRET, "key x { secret y; }"),
            "tsig_secret",
            "only the text in quotes after `secret`",
        ),
        (
            with(&line, &format!("{line}\ntsig_algorithm = \"hmac-md5\"")),
            "tsig_algorithm",
            "\"hmac-sha256\"",
        ),
        (
            with(&line, &format!("{line}\nzone = \"*.a.example\"")),
            "zone",
            "not a name in the DNS",
        ),
        (
            with(&line, &format!("{line}\nttl = \"1d\"")),
            "ttl",
            "at most",
        ),
        (
            with(
                "[\"dns-01\"]",
                "[\"tls-alpn-01\", \"dns-01\"]\ndns_hook = [\"h\"]",
            ),
            "server",
            "keep dns_hook or [acme.dns_update]",
        ),
    ] {
        let errors = errors(&text);
        let found = errors
            .iter()
            .any(|it| it.split(" | ").next().unwrap().ends_with(key) && it.contains(words));
        assert!(found, "no {words:?} at {key} in: {errors:#?}");
        assert!(
            !errors.iter().any(|it| it.contains(&SECRET[..8])),
            "{errors:#?}"
        );
    }
    let unused = text(
        "challenges = [\"tls-alpn-01\"]",
        "server = \"ns\"\ntsig_name = \"k\"\ntsig_secret = \"bW9uc3RlcnMgYW5kIGNvb2tpZXM=\"",
    )
    .replace(" *.a.example", "");
    let [one] = errors(&unused).try_into().unwrap();
    assert!(
        one.contains("never asked") && one.starts_with("7:10 acme.dns_update.server"),
        "{one}"
    );
}

#[test]
fn a_key_that_is_a_word_is_worth_a_warning() {
    let text = whole().replace(SECRET, "c2VjcmV0");
    let [one] = warnings(&text).try_into().unwrap();
    assert!(
        one.what.contains("6 bytes") && one.key.ends_with("tsig_secret"),
        "{one}"
    );
    assert!(!format!("{one} {one:?}").contains("c2VjcmV0"), "{one}");
}

#[test]
fn the_secret_is_in_no_model_and_no_explanation() {
    let checked = check(&whole(), &Overrides::default());
    let model = format!(
        "{:?} {:?}",
        checked.verdict.as_ref().unwrap(),
        checked.settings
    );
    assert!(!model.contains(&SECRET[..8]), "{model}");
    assert!(model.contains("TsigSecret(***)"), "{model}");
    let told = explain_keys(&checked.settings, "acme.dns_update").unwrap();
    assert!(
        told.contains("tsig_secret = \"***\"") && told.contains("hmac-sha384"),
        "{told}"
    );
    let nobodys = check("", &Overrides::default()).settings;
    let told = explain_keys(&nobodys, "acme.dns_update.tsig_secret").unwrap();
    assert!(
        told.starts_with("acme.dns_update.tsig_secret = \"\"\n"),
        "{told}"
    );
}

#[test]
fn a_secret_out_of_a_file_may_end_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("holdline.toml");
    std::fs::write(dir.path().join("tsig"), format!("{SECRET}\n")).unwrap();
    std::fs::write(&file, whole().replace(SECRET, "${file:tsig}")).unwrap();
    let loaded = load(Some(&file), &Overrides::default()).unwrap();
    let Some(Dns::Update(update)) = loaded.config.acme.unwrap().dns else {
        panic!("an update")
    };
    assert_eq!(update.key.secret.0.len(), 32);
    assert!(loaded.files.contains(&dir.path().join("tsig")));
}

#[test]
fn a_whole_key_out_of_a_file_is_told_as_one_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("holdline.toml");
    let key =
        format!("key \"holdline\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{SECRET}\";\n}};\n");
    std::fs::write(dir.path().join("key.conf"), key).unwrap();
    std::fs::write(&file, whole().replace(SECRET, "${file:key.conf}")).unwrap();
    let refused = load(Some(&file), &Overrides::default()).unwrap_err();
    let [one] = &refused.errors[..] else {
        panic!("{refused:?}")
    };
    assert!(
        one.remedy
            .contains("only the text in quotes after `secret`"),
        "{one}"
    );
    assert!(!one.to_string().contains(&SECRET[..8]), "{one}");
}

#[test]
fn a_hook_that_cannot_be_run_yet_is_worth_a_warning() {
    let of = |hook: &str| {
        let text = format!(
            "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example\"]\n\
             challenges = [\"dns-01\"]\ndns_hook = [\"{hook}\"]"
        );
        let [one] = warnings(&text).try_into().unwrap();
        one.to_string()
    };
    assert!(of("/nowhere/hook").contains("there is no such program here"));
    assert!(of("/nowhere/hook present").contains("[\"/nowhere/hook\", \"present\"]"));
    assert!(of("/etc/passwd").contains("chmod +x /etc/passwd"));
}
