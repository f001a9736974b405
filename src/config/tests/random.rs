//! Whatever comes in, an answer with a place comes out.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,80}(\n\\PC{0,40}){0,6}") {
        let _ = check(&text, &Overrides::default());
    }

    #[test]
    fn anything_like_a_config_gets_an_answer_with_places_inside(
        lines in prop::collection::vec(line(), 0..12)
    ) {
        let text = lines.join("\n");
        if let Err(errors) = check(&text, &Overrides::default()).verdict {
            let rendered = errors.to_string();
            prop_assert!(!errors.errors.is_empty() && rendered.contains("error"));
            for problem in &errors.errors {
                if let Place::Spot(spot) = &problem.place {
                    let line = text.lines().nth(spot.line - 1).unwrap_or_default();
                    prop_assert_eq!(line.trim_end(), spot.excerpt.as_str());
                    prop_assert!(spot.column <= line.chars().count() + 1);
                }
                prop_assert!(!problem.what.is_empty() && !problem.remedy.is_empty());
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_in_force_can_be_said_again(lines in prop::collection::vec(line(), 0..6)) {
        let text = lines.join("\n");
        let checked = check(&text, &Overrides::default());
        if let Ok(config) = checked.verdict {
            let told = explain(&Loaded {
                config: config.clone(),
                warnings: checked.warnings,
                source: Origin::Text("t".to_owned()),
                started: Started::default(),
                settings: checked.settings.clone(),
                files: checked.files,
                stamps: checked.stamps,
                text: Text::default(),
            });
            let again = check(&told, &Overrides::default());
            prop_assert_eq!(again.verdict.ok(), Some(config), "{}", told);
            prop_assert_eq!(changes(&checked.settings, &again.settings), []);
        }
    }
}

fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "https",
        "http",
        "url",
        "max",
        "buffer",
        "files",
        "cert",
        "probe",
        "resume",
        "ping_every",
        "host",
        "path",
        "level",
        "sessions",
        "nonsense",
        "hold.max",
        "\"a b\"",
    ]);
    let value = prop::sample::select(vec![
        "\"10s\"",
        "\"${WAIT}\"",
        "\"${NO",
        "[]",
        "[\"127.0.0.1:1\", 3]",
        "{}",
        "[{}]",
        "true",
        "-1",
        "1e9",
        "99999999999999999999",
        "2020-01-01",
        "\"http://[::1]:3\"",
        "\"/a\"",
        "10s",
        "\"\"",
        "'*.x'",
        "\"\"\"a\nb\"\"\"",
        "\"\\u00e9\"",
        "",
        "{ cert = 1, x = 2 }",
        "0xff",
    ]);
    let header = prop::sample::select(vec![
        "[listen]",
        "[tls]",
        "[gateway]",
        "[hold]",
        "[[route]]",
        "[limits]",
        "[acme]",
        "[route]",
        "[x]",
        "[log",
        "# c",
        "[[tls.files]]",
        "é",
    ]);
    prop_oneof![
        3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => header.prop_map(str::to_owned),
    ]
}
