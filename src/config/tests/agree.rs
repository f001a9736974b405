//! What is written about the config in several places says the same everywhere.

use super::*;

#[test]
fn the_embedded_file_says_exactly_what_an_empty_one_means() {
    assert_eq!(format!("{:#?}", good(EMBEDDED)), format!("{:#?}", good("")));
    assert_eq!(check(EMBEDDED, &Overrides::default()).warnings, []);
}

#[test]
fn the_embedded_file_has_every_key_with_its_default_and_a_line_of_why() {
    let keys = keys();
    assert!(keys.iter().count() > 60);
    let lists: Vec<&str> = keys
        .iter()
        .filter(|key| key.kind == Kind::Tables)
        .map(|key| key.name.as_str())
        .collect();
    for Setting { name, .. } in keys.iter() {
        assert!(
            !embedded::why(name).is_empty(),
            "say above {name} what it is for"
        );
    }
    let said = check(EMBEDDED, &Overrides::default()).settings;
    let alone = |key: &&Setting| !lists.contains(&key.section()) && key.name != "route";
    for Setting { name, default, .. } in keys.iter().filter(alone) {
        assert!(
            embedded::default(name).is_some(),
            "{name} is not in config/holdline.toml"
        );
        // What it is without being set may be another key's affair.
        if let Some(default) = default {
            let said = said.get(name).and_then(|key| key.value.as_ref()).unwrap();
            assert_eq!(
                said.written(),
                Some(default.as_str()),
                "the default of {name} in config/holdline.toml, and in the rules"
            );
        }
    }
}

#[test]
fn what_the_readme_shows_can_be_written() {
    let readme = include_str!("../../../README.md");
    let blocks: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block)
        .collect();
    assert!(blocks.len() > 2);
    for block in blocks {
        // Hashes and files in it are somebody else's; keys and words are ours.
        let errors = check(block, &Overrides::default()).verdict.err();
        for error in errors.iter().flat_map(|errors| &errors.errors) {
            let ours = error.what.contains("no such") || error.what.contains("not TOML");
            assert!(!ours, "{error} in:\n{block}");
        }
    }
}
