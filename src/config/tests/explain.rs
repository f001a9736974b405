//! What is in force, told so that it can be used again.

use super::*;

fn loaded(text: &str, overrides: &Overrides) -> Loaded {
    let checked = check(text, overrides);
    Loaded {
        config: checked.verdict.unwrap(),
        warnings: checked.warnings,
        source: Origin::File("/etc/holdline/holdline.toml".into()),
        started: Started::default(),
        settings: checked.settings,
        files: checked.files,
        stamps: checked.stamps,
        text: Text::default(),
    }
}

const TEXT: &str = "\
[listen]
https = [\"127.0.0.1:1\"]
[gateway]
url = \"http://${GATEWAY_HOST}:80\"
probe = \"tcp\"
[hold]
max = \"600s\"
[[route]]
path = \"/a$${b\"
url = \"http://a\"
probe = \"/x\"
";

#[test]
fn what_is_told_means_the_same_when_it_is_read_again() {
    let tokens =
        "[auth]\nmodes = [\"token\"]\ntokens = [{ name = \"a\", user = \"b\", hash = \"HASH\" }]";
    let hash = "A".repeat(43);
    for (text, secret) in [
        ("", false),
        (EMBEDDED, false),
        (&TEXT.replace("$${", ""), false),
        (&tokens.replace("HASH", &hash), true),
    ] {
        let before = loaded(text, &Overrides::default());
        let told = explain(&before).replace("\"***\"", &format!("\"{hash}\""));
        assert_eq!(told.contains("secrets put back"), secret, "{told}");
        let after = loaded(&told, &Overrides::default());
        assert_eq!(before.config, after.config, "{told}");
        assert_eq!(changes(&before.settings, &after.settings), []);
    }
}

#[test]
fn each_value_says_where_it_came_from() {
    let overrides = Overrides {
        listen: vec!["[::1]:9".parse().unwrap()],
        ..Overrides::default()
    };
    let told = explain(&loaded(&TEXT.replace("$${", ""), &overrides));
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = told.lines().map(line).collect();
    for line in [
        "# Relative paths start at /etc/holdline, so keep it there.",
        "https = [\"[::1]:9\"] # --listen",
        "http = [] # default",
        "url = \"http://openclaw:80\" # env GATEWAY_HOST, holdline.toml:4:7",
        "max = \"10m\" # holdline.toml:7:7",
        "[[route]]",
        "# host = # not set",
        "path = \"/ab\" # holdline.toml:9:8",
        "protocol = \"openclaw\" # as gateway.protocol",
        "probe = \"/x\" # holdline.toml:11:9",
        "[auth.forward]",
    ] {
        assert!(
            lines.iter().any(|told| told == line),
            "no {line:?} in:\n{told}"
        );
    }
    let (_, gateway) = told.split_once("[gateway]\n").unwrap();
    let section = gateway.split("\n\n").next().unwrap().lines();
    let columns: Vec<_> = section.map(|line| line.find("  # ")).collect();
    assert!(columns.len() > 4 && columns.iter().all(|column| column.is_some()));
    let comment = |line: &str| line.find(" # ");
    let first = gateway.lines().next().and_then(comment);
    assert!(
        gateway.lines().take(7).all(|line| comment(line) == first),
        "{told}"
    );
}

#[test]
fn a_directory_that_moves_with_another_is_told_where_it_is() {
    let told = |text: &str| {
        let settings = loaded(text, &Overrides::default()).settings;
        explain_keys(&settings, "acme.state_dir").unwrap()
    };
    let moved = told("[auth]\nstate_dir = \"/srv/state\"");
    let expected = "acme.state_dir = \"/srv/state\"\n  from        as auth.state_dir\n";
    assert!(moved.starts_with(expected), "{moved}");
    let own = told("[auth]\nstate_dir = \"/srv/state\"\n[acme]\nstate_dir = \"/srv/acme\"");
    assert!(own.starts_with("acme.state_dir = \"/srv/acme\"\n"), "{own}");
}

#[test]
fn the_defaults_are_nobodys_setting() {
    let told = explain(&load(None, &Overrides::default()).unwrap());
    let nobodys = |line: &str| line.contains("  # default") || line.contains("  # as ");
    let set = |line: &&str| line.contains(" = ") && !nobodys(line);
    assert_eq!(told.lines().skip(3).find(set), None);
}

#[test]
fn one_key_is_told_with_all_there_is_to_know() {
    let settings = loaded(TEXT.replace("$${", "").as_str(), &Overrides::default()).settings;
    let expected = "\
hold.max = \"10m\"
  from        holdline.toml:7:7
  default     \"10m\"
  takes       a duration from \"1ms\" to \"1d\" (nobody waits longer than a day)
  applies to  everything, on reload
  why         Longest wait of an open session for its gateway; starts of 3 to 4 minutes exist.
";
    assert_eq!(explain_keys(&settings, "hold.max").unwrap(), expected);
    let section = explain_keys(&settings, "[hold]").unwrap();
    assert!(section.starts_with(expected) && section.contains("hold.resume = \"auto\"\n"));
    let route = explain_keys(&settings, "route[0].path").unwrap();
    assert!(route.starts_with("route[0].path = \"/ab\"\n"), "{route}");
    let nobodys = explain_keys(&settings, "auth.users").unwrap();
    assert!(
        nobodys.contains("auth.users = []\n") && nobodys.contains("auth.users.hash is not set\n"),
        "{nobodys}"
    );
    for (asked, meant) in [
        ("hold.mx", "\"hold.max\""),
        ("upgrade", "\"hold.upgrade\""),
        ("x", "\"hold\""),
    ] {
        let wrong = explain_keys(&settings, asked).unwrap_err().to_string();
        assert!(wrong.contains(meant), "{asked}: {wrong}");
    }
}

#[test]
fn a_program_gets_values_and_sources() {
    let settings = loaded(TEXT.replace("$${", "").as_str(), &Overrides::default()).settings;
    let list = explain_json(&settings, Some("gateway.url")).unwrap();
    let expected = serde_json::json!([{
        "key": "gateway.url",
        "value": "http://openclaw:80",
        "secret": false,
        "default": "http://127.0.0.1:3001",
        "source": {
            "kind": "env",
            "file": "holdline.toml",
            "line": 4,
            "column": 7,
            "variables": ["GATEWAY_HOST"],
            "files": [],
        },
        "takes": { "kind": "text" },
        "appliesTo": "everything",
        "description": "Beside holdline, over plain HTTP.",
    }]);
    assert_eq!(list, expected);
    let all = explain_json(&settings, None).unwrap();
    assert_eq!(all.as_array().map(Vec::len), Some(settings.iter().count()));
}

#[test]
fn a_long_filter_is_no_secret_and_a_pasted_token_is() {
    let text = |level: &str, name: &str| {
        format!("[log]\nlevel = \"{level}\"\n[auth]\nstate_dir = \"{name}\"")
    };
    let filter = "info,hyper=warn,rustls=warn,h2=warn,holdline=debug";
    let told = explain(&loaded(
        &text(filter, &"a".repeat(43)),
        &Overrides::default(),
    ));
    assert!(
        told.contains(filter) && told.contains("state_dir = \"***\""),
        "{told}"
    );
}

#[test]
fn a_query_is_no_more_shown_than_a_password() {
    let of = |query: &str| {
        let url = format!("http://sso:4180/auth?{query}");
        loaded(
            &format!("[auth]\nmodes = [\"forward\"]\n[auth.forward]\nurl = \"{url}\""),
            &Overrides::default(),
        )
    };
    let (one, other) = (of("apikey=xyzzy"), of("apikey=plugh"));
    let told = explain(&one);
    let json = explain_json(&one.settings, None).unwrap().to_string();
    let change = changes(&one.settings, &other.settings);
    let [change] = &change[..] else {
        panic!("{change:?}")
    };
    assert_eq!(
        change.to_string(),
        "auth.forward.url: another secret (applies to everything)"
    );
    let block = explain_keys(&one.settings, "auth.forward.url").unwrap();
    for told in [&told, &block] {
        let line = "url = \"http://sso:4180/auth?***\"";
        assert!(told.contains(line), "{told}");
    }
    let all = format!("{told}{json}{change:?}{block}{:?}", one.settings);
    assert!(!all.contains("xyzzy") && !all.contains("plugh"), "{all}");
}

#[test]
fn a_value_cannot_speak_to_the_terminal() {
    let text = "[auth]\nstate_dir = \"/a\\u001B[2J\\u202E\"";
    let told = explain(&loaded(text, &Overrides::default()));
    assert!(
        told.contains(r#"state_dir = "/a\U0000001B[2J\U0000202E""#),
        "{told}"
    );
    let written = settings::quoted("\u{1b}[2J\u{202e}\n\t\\\"$${A}");
    let read: toml::Table = toml::from_str(&format!("a = {written}")).unwrap();
    assert_eq!(read["a"].as_str(), Some("\u{1b}[2J\u{202e}\n\t\\\"$$${A}"));
    assert!(written.is_ascii(), "{written}");
}
