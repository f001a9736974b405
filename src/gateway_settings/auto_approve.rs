//! `deviceAutoApprove`, and the lists that are set as a whole, read from the gateway's own config.
//!
//! From outside only a device that gets paired would show the one, and nothing the others. But a user
//! who may read may ask for the gateway's config, which it tells without its secrets; of that only
//! these settings are looked at.

use serde_json::Value;

use super::answer::text;
use super::{AUTO_APPROVE, Finding, Lists};

/// What asks for the config.
pub(super) const METHOD: &str = "config.get";
/// What the gateway approves where it is told no scopes.
const DEFAULT: [&str; 4] = [
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
];

/// What its config file has in the lists; `None`: it cannot be read.
pub(super) fn lists(answer: &Value) -> Option<Lists> {
    let config = config(answer)?;
    let list = |path: &str| -> Vec<String> {
        let list = config.pointer(path).and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    Some(Lists {
        trusted_proxies: list("/gateway/trustedProxies"),
        origins: list("/gateway/controlUi/allowedOrigins"),
    })
}

fn config(answer: &Value) -> Option<&Value> {
    let config = answer.get("config").filter(|config| config.is_object());
    config.filter(|_| answer.get("valid") != Some(&Value::Bool(false)))
}

/// What its config says, compared with the scopes that a device may be approved for; none: no
/// device at all.
pub(super) fn judge(answer: &Value, wanted: &[&str]) -> Finding {
    let Some(config) = config(answer) else {
        return cannot_tell("the gateway cannot read its own config file", wanted);
    };
    let setting = config.pointer("/gateway/auth/trustedProxy/deviceAutoApprove");
    let enabled = setting.and_then(|setting| setting.get("enabled")) == Some(&Value::Bool(true));
    let granted = granted(setting);
    let finding = match (enabled, wanted.is_empty()) {
        (false, true) => Finding::ok(AUTO_APPROVE, "no device is approved by itself"),
        (false, false) => Finding::wrong(
            AUTO_APPROVE,
            "a new browser has to be approved by hand",
            "set enabled to true",
        ),
        (true, true) => Finding::wrong(
            AUTO_APPROVE,
            format!("whoever signs in gets {} for a device", granted.join(", ")),
            "set enabled to false",
        ),
        (true, false) => {
            let beyond: Vec<&str> = granted
                .iter()
                .copied()
                .filter(|scope| !wanted.contains(scope))
                .collect();
            match beyond.is_empty() {
                true => Finding::ok(AUTO_APPROVE, format!("devices get {}", granted.join(", "))),
                false => Finding::wrong(
                    AUTO_APPROVE,
                    format!("whoever signs in gets {} for a device", granted.join(", ")),
                    format!("set scopes to {}", wanted.join(", ")),
                ),
            }
        }
    };
    match is_in_force(answer) {
        true => finding,
        false => Finding {
            seen: format!(
                "{}, says its file, which it has not taken yet",
                finding.seen
            ),
            ..finding
        },
    }
}

/// Where nobody can be asked.
pub(super) fn cannot_tell(seen: impl Into<String>, wanted: &[&str]) -> Finding {
    let value = match wanted {
        [] => "enabled is not true".to_owned(),
        scopes => format!("enabled is true, and scopes are {}", scopes.join(", ")),
    };
    let remedy = format!("see that {value}: openclaw config get {AUTO_APPROVE}");
    Finding::cannot_tell(AUTO_APPROVE, seen, remedy)
}

fn granted(setting: Option<&Value>) -> Vec<&str> {
    let scopes = setting.and_then(|setting| setting.get("scopes")?.as_array());
    match scopes {
        Some(scopes) => scopes.iter().filter_map(Value::as_str).collect(),
        None => DEFAULT.to_vec(),
    }
}

fn is_in_force(answer: &Value) -> bool {
    let revisions = (
        text(answer, "/configRevisionHash"),
        text(answer, "/appliedConfigHash"),
    );
    !matches!(revisions, (Some(file), Some(applied)) if file != applied)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Verdict;
    use super::*;

    fn judged(setting: Value, wanted: &[&str]) -> (Verdict, String, String) {
        let trusted = json!({"deviceAutoApprove": setting});
        let config = json!({"gateway": {"auth": {"trustedProxy": trusted}}});
        let finding = judge(&json!({"valid": true, "config": config}), wanted);
        (finding.verdict, finding.seen, finding.remedy)
    }

    #[test]
    fn a_device_gets_no_more_than_it_may() {
        let four = DEFAULT.as_slice();
        let (verdict, seen, _) = judged(json!({"enabled": true}), four);
        assert_eq!(
            (verdict, seen.contains("operator.questions")),
            (Verdict::Ok, true)
        );
        let (verdict, ..) = judged(json!({"enabled": true, "scopes": ["operator.read"]}), four);
        assert_eq!(verdict, Verdict::Ok, "fewer take nothing from the person");
        let (verdict, seen, remedy) = judged(json!({"enabled": true}), &["operator.read"]);
        assert_eq!(
            (verdict, remedy.as_str()),
            (Verdict::Wrong, "set scopes to operator.read")
        );
        assert!(seen.contains("operator.write"), "{seen}");
    }

    #[test]
    fn on_and_off_are_told_apart() {
        for off in [
            json!({"enabled": false}),
            json!({}),
            Value::Null,
            json!({"enabled": "yes"}),
        ] {
            assert_eq!(judged(off.clone(), &[]).0, Verdict::Ok);
            assert_eq!(judged(off, &["operator.read"]).0, Verdict::Wrong);
        }
        let (verdict, _, remedy) = judged(json!({"enabled": true}), &[]);
        assert_eq!(
            (verdict, remedy.as_str()),
            (Verdict::Wrong, "set enabled to false")
        );
    }

    #[test]
    fn what_is_not_in_force_is_told_so() {
        let answer = json!({"config": {}, "configRevisionHash": "a", "appliedConfigHash": "b"});
        assert!(judge(&answer, &[]).seen.ends_with("has not taken yet"));
        for nothing in [
            json!({}),
            json!({"valid": false, "config": {}}),
            Value::Null,
        ] {
            assert_eq!(judge(&nothing, &[]).verdict, Verdict::CannotTell);
            assert!(lists(&nothing).is_none());
        }
    }

    #[test]
    fn lists_are_what_the_file_has() {
        let gateway = json!({"trustedProxies": ["10.0.0.5", 7], "controlUi": {}});
        let lists = lists(&json!({"config": {"gateway": gateway}})).unwrap();
        assert_eq!(lists.trusted_proxies, ["10.0.0.5"]);
        assert!(lists.origins.is_empty());
    }
}
