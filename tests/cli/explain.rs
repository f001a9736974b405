//! `holdline explain` and `check --json` as a script and a person meet them.

use serde_json::{Value, json};

use super::{Ended, ended, folder, holdline, run};

fn list(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn what_is_explained_can_be_used_as_a_config() {
    let folder = folder(
        "[hold]\nmax = \"${HOLDLINE_TEST_MAX}\"\n[[route]]\npath = \"/a\"\nurl = \"http://a\"\n",
    );
    let args = [
        "explain",
        "--config",
        "holdline.toml",
        "--gateway",
        "http://gw:1",
    ];
    let output = holdline(&folder, &args)
        .env("HOLDLINE_TEST_MAX", "120s")
        .output()
        .await
        .unwrap();
    let told = Ended::of(output);
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""));
    let lines: Vec<(&str, &str)> = told
        .out
        .lines()
        .filter_map(|line| line.split_once("  # "))
        .map(|(line, from)| (line.trim_end(), from))
        .collect();
    for line in [
        ("max = \"2m\"", "env HOLDLINE_TEST_MAX, holdline.toml:2:7"),
        ("url = \"http://gw:1\"", "--gateway"),
        ("path = \"/a\"", "holdline.toml:4:8"),
        ("upgrade = \"12s\"", "default"),
    ] {
        assert!(lines.contains(&line), "no {line:?} in:\n{}", told.out);
    }
    std::fs::write(folder.path().join("again.toml"), &told.out).unwrap();
    let again = ended(&folder, &["check", "--config", "again.toml"]).await;
    assert_eq!(
        (again.code, again.err.as_str()),
        (Some(0), ""),
        "{}",
        told.out
    );
}

#[tokio::test]
async fn one_key_a_section_and_a_key_that_there_is_not() {
    let key = run(&["explain", "hold.upgrade"]).await;
    assert_eq!(key.code, Some(0));
    for words in [
        "hold.upgrade = \"12s\"\n",
        "from \"1ms\" to \"14s\" (clients give up at 15 s)",
        "new connections, on reload",
        "A new connection waits this long",
    ] {
        assert!(key.out.contains(words), "no {words:?} in:\n{}", key.out);
    }
    let section = run(&["explain", "admin", "--json"]).await;
    let keys = list(&section.out);
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["value"], json!("127.0.0.1:9180"));
    assert_eq!(keys[0]["source"], json!({ "kind": "default" }));
    let wrong = run(&["explain", "hold.upgarde"]).await;
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(64), ""));
    assert!(
        wrong.err.contains("did you mean \"hold.upgrade\"?"),
        "{}",
        wrong.err
    );
}

#[tokio::test]
async fn the_schema_needs_no_config() {
    let schema = run(&["explain", "--schema", "--config", "nowhere.toml"]).await;
    assert_eq!(schema.code, Some(0));
    let schema: Value = serde_json::from_str(&schema.out).unwrap();
    assert_eq!(
        schema["properties"]["hold"]["properties"]["max"]["default"],
        json!("10m")
    );
    assert_eq!(run(&["explain", "--schema", "hold"]).await.code, Some(64));
}

#[tokio::test]
async fn a_secret_is_in_no_answer() {
    let hash = "A".repeat(43);
    let text = "[auth]\nmodes = [\"token\"]\n\
                tokens = [{ name = \"a\", user = \"b\", hash = \"${file:hash}\" }]\n";
    let folder = folder(text);
    std::fs::write(folder.path().join("hash"), format!("{hash}\n")).unwrap();
    let config = ["--config", "holdline.toml"];
    for args in [
        &["explain"][..],
        &["explain", "--json"],
        &["explain", "auth"],
    ] {
        let told = ended(&folder, &[args, &config].concat()).await;
        assert_eq!(told.code, Some(0), "{}", told.err);
        assert!(
            !told.out.contains("AAAA") && told.out.contains("hash"),
            "{}",
            told.out
        );
    }
    std::fs::remove_file(folder.path().join("hash")).unwrap();
    let missing = ended(&folder, &[&["explain"][..], &config].concat()).await;
    assert_eq!(missing.code, Some(78));
    assert!(
        missing
            .err
            .contains("error: auth.tokens[0].hash: there is no file hash\n"),
        "{}",
        missing.err
    );
}

#[tokio::test]
async fn check_answers_a_program() {
    let folder = folder("[listen]\nhttps = [\"0.0.0.0:443\"]\n[hold]\nmaxx = \"1m\"\nmax = 10m\n");
    let config = ["check", "--json", "--config", "holdline.toml"];
    let refused = ended(&folder, &config).await;
    assert_eq!((refused.code, refused.err.as_str()), (Some(78), ""));
    let problem = |line: u32, column: u32, key: Value, message: &str, remedy: &str| {
        json!({
            "severity": "error", "file": "holdline.toml", "line": line, "column": column,
            "flag": null, "key": key, "seen": null, "message": message, "remedy": remedy,
        })
    };
    let found = list(&refused.out);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert_eq!(
        found[1],
        problem(
            4,
            1,
            json!("hold.maxx"),
            "no such key",
            "did you mean \"max\"?"
        )
    );
    assert_eq!(
        (&found[0]["line"], &found[0]["key"]),
        (&json!(5), &Value::Null)
    );
    assert_eq!(found[2]["severity"], json!("warning"));
    assert_eq!(found[2]["seen"], json!("\"0.0.0.0:443\""));
    let nowhere = run(&["check", "--json", "--config", "nowhere.toml"]).await;
    assert_eq!(nowhere.code, Some(78));
    assert_eq!(list(&nowhere.out)[0]["file"], json!("nowhere.toml"));
    let flag = run(&["check", "--json", "--gateway", "http://127.0.0.1:8443"]).await;
    assert_eq!(flag.code, Some(78));
    assert_eq!(list(&flag.out)[0]["flag"], json!("--gateway"));
    let good = run(&["check", "--json"]).await;
    assert_eq!((good.code, good.out.as_str()), (Some(0), "[]\n"));
}
