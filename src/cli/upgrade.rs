//! `holdline upgrade`: lets the binary that is there now take over, and says what came of it.

use std::process::ExitCode;

use serde_json::Value;

use super::admin::{block_on, print};
use super::words::duration;
use super::{Settings, fail};

pub(crate) fn run(settings: &Settings) -> ExitCode {
    let client = match settings.running() {
        Ok(client) => client,
        Err(refused) => return refused,
    };
    block_on(async {
        match client.upgrade().await {
            Ok(upgraded) => print(&format!("{}\n", in_words(&upgraded)))
                .map_or_else(|gone| gone, |()| ExitCode::SUCCESS),
            Err(error) => fail("not upgraded", &error),
        }
    })
}

fn in_words(upgraded: &Value) -> String {
    let number = |key| {
        upgraded
            .get(key)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let version = upgraded.get("version").and_then(Value::as_str);
    let left = match number("sessionsLeft") {
        0 => "no session is left with the old one".to_owned(),
        1 => "1 session is left with the old one".to_owned(),
        more => format!("{more} sessions are left with the old one"),
    };
    format!(
        "holdline {} serves now, as process {}; {left}, which ends with the last, or after {}",
        version.unwrap_or("of an unknown version"),
        number("pid"),
        duration(number("leftMs")),
    )
}
