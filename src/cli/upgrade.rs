//! `holdline upgrade`: lets the binary that is there now take over, and says what came of it.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::{Settings, admin, fail};

/// Longer than a new process may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(settings: &Settings) -> ExitCode {
    let loaded = match settings.load() {
        Ok(loaded) => loaded,
        Err(refused) => return refused,
    };
    match admin::command(loaded.config.admin.listen, "/upgrade", LIMIT) {
        Ok(answer) => match writeln!(io::stdout(), "{}", in_words(&answer)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => fail("not upgraded", &error),
    }
}

fn in_words(answer: &Value) -> String {
    let upgraded = answer.get("upgraded").unwrap_or(answer);
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
        "holdline {} serves now, as process {}; {left}, which ends with the last, or after {} s",
        version.unwrap_or("of an unknown version"),
        number("pid"),
        number("leftMs") / 1000,
    )
}
