//! `holdline reload`: lets a running holdline read its config anew, and says what came of it.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use holdline::config::{Otherwise, Started};
use holdline::hint;
use holdline::observe::AdminError;
use serde_json::{Value, json};

use super::admin::{block_on, print};
use super::words::{count, duration, printable};
use super::{BAD_CONFIG, Settings, fail, say};

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(settings: &Settings, asked: &ReloadArgs) -> ExitCode {
    let client = match settings.running() {
        Ok(client) => client,
        Err(refused) => return refused,
    };
    block_on(async {
        let status = match client.status().await {
            Ok((_, status)) => status,
            Err(error) => return fail("nothing to reload", &error),
        };
        let started = status.config.as_ref();
        if let Some(reason) = started.and_then(|it| settings.meant_for(it, client.address())) {
            let said = json!({"error": reason, "problems": []});
            if asked.json {
                let _ = print(&format!("{said:#}\n"));
            }
            return refused(&reason, &said);
        }
        match client.reload().await {
            Ok(answer) => {
                let text = match asked.json {
                    true => format!("{answer:#}\n"),
                    false => in_words(&answer),
                };
                print(&text).map_or_else(|gone| gone, |()| ExitCode::SUCCESS)
            }
            Err(AdminError::NotReloaded { reason, said }) => {
                if asked.json {
                    let _ = print(&format!("{said:#}\n"));
                }
                refused(&reason, &said)
            }
            Err(error) => fail("it is not known whether anything was taken", &error),
        }
    })
}

impl Settings {
    /// Why these cannot be meant for a holdline that was started so: a reload reads what it was
    /// started with, and nothing else.
    fn meant_for(&self, started: &Started, admin: SocketAddr) -> Option<String> {
        let otherwise = started.otherwise(self.config.as_deref(), &self.overrides())?;
        let uses = format!("the running one was started with {}", started.in_words());
        // The embedded default is nothing that can be edited.
        let edit = |what| started.file().map(|_| what).unwrap_or_default();
        Some(match otherwise {
            Otherwise::Config => format!(
                "{uses}, and that is what a reload reads: {}start holdline anew with the other one; \
                 `{}` reads it again as it is",
                edit("edit that file, or "),
                hint::command_to("reload", admin)
            ),
            Otherwise::Flag(flag) => {
                let name = |flag: &str| flag.split(' ').next().map(str::to_owned);
                // A flag that it has hides what its file says.
                let hidden = started.flags.iter().any(|it| name(it) == name(&flag));
                format!(
                    "{uses}, without {flag}, and flags stay as they are: {}start holdline anew with it",
                    if hidden {
                        ""
                    } else {
                        edit("write it into that file, or ")
                    }
                )
            }
        })
    }
}

fn refused(reason: &str, said: &Value) -> ExitCode {
    // A config's problems are shown as blocks of lines.
    let lines = reason.lines().map(printable).collect::<Vec<_>>();
    say(&format!("error: not reloaded: {}\n", lines.join("\n")));
    let problems = said.get("problems").and_then(Value::as_array);
    match problems.is_some_and(|problems| !problems.is_empty()) {
        true => ExitCode::from(BAD_CONFIG),
        false => ExitCode::FAILURE,
    }
}

/// What has changed, key by key where it is told so.
fn in_words(answer: &Value) -> String {
    let Some(answer) = answer.as_object() else {
        return format!("reloaded: {}\n", scalar(answer));
    };
    let (mut text, mut before) = (String::new(), String::new());
    for (key, value) in answer {
        match (key.as_str(), value) {
            ("changed", Value::Array(changes)) if changes.is_empty() => {
                text.push_str(match answer.contains_key("before") {
                    true => "nothing more has changed\n",
                    false => "nothing has changed since the start\n",
                });
            }
            ("before", value) => before = earlier(value),
            ("changed", Value::Array(changes)) => {
                text.extend(changes.iter().map(change));
            }
            ("sessionsEnded", value) => text.push_str(&counted(value, "session", "ended")),
            ("tokensLeft", Value::Array(left)) => text.extend(left.iter().map(token_left)),
            ("moving", value) => text.push_str(&counted(value, "session", "moving")),
            (key, value) => text.push_str(&format!("{}: {}\n", printable(key), scalar(value))),
        }
    }
    text.push_str(&before);
    match text.is_empty() {
        true => "reloaded\n".to_owned(),
        false => text,
    }
}

/// A changed file has often been taken before somebody asks for it.
fn earlier(value: &Value) -> String {
    let (Some(ago), Some(done)) = (
        value.get("agoMs").and_then(Value::as_u64),
        value.get("done"),
    ) else {
        return String::new();
    };
    let lines: String = in_words(done)
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    let what = match value.get("by").and_then(Value::as_str) {
        Some("file") => "the changed file was taken by itself",
        _ => "the last reload that changed something was",
    };
    format!("{what} {} ago:\n{lines}", duration(ago))
}

fn change(change: &Value) -> String {
    let Some(key) = change.get("key").and_then(Value::as_str) else {
        return format!("{}\n", scalar(change));
    };
    let mut text = printable(key);
    let values = (change.get("before"), change.get("after"));
    if let (Some(before), Some(after)) = values
        && before == after
    {
        text.push_str(": another secret");
    } else if let (Some(before), Some(after)) = values {
        text.push_str(&format!(": {} -> {}", scalar(before), scalar(after)));
    }
    if let Some(scope) = change.get("appliesTo") {
        let scope = scalar(scope).replace('_', " ");
        text.push_str(&format!(" (applies to {scope})"));
    }
    text.push('\n');
    text
}

fn token_left(token: &Value) -> String {
    let part = |key| token.get(key).map_or_else(String::new, scalar);
    format!(
        "token {} stays valid though its user {} is gone: take it out of auth.tokens, too\n",
        part("name"),
        part("user"),
    )
}

/// Nothing to say about none.
fn counted(value: &Value, word: &str, what: &str) -> String {
    match value.as_u64() {
        Some(0) => String::new(),
        Some(number) => format!("{} {what}\n", count(number, word)),
        None => format!("{word}s {what}: {}\n", scalar(value)),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Null => "none".to_owned(),
        other => printable(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_shape_of_an_answer_is_told() {
        for (answer, words) in [
            (
                json!({"later": "perhaps", "sessionsEnded": 1}),
                "later: perhaps\n1 session ended\n",
            ),
            (
                json!({"changed": [], "sessionsEnded": 0}),
                "nothing has changed since the start\n",
            ),
            (
                json!({"changed": [
                    {"key": "hold.max", "appliesTo": "everything", "before": "10m", "after": "5m"},
                    {"key": "auth.users", "appliesTo": "new_connections"},
                    {"key": "limits.sessions", "appliesTo": "everything", "before": null, "after": 5},
                    {"key": "auth.users[a].hash", "before": "***", "after": "***"},
                    "odd",
                ], "sessionsEnded": 0, "moving": 3}),
                "hold.max: 10m -> 5m (applies to everything)\n\
                 auth.users (applies to new connections)\n\
                 limits.sessions: none -> 5 (applies to everything)\n\
                 auth.users[a].hash: another secret\nodd\n3 sessions moving\n",
            ),
            (
                json!({"changed": [{"key": "auth.users[a]"}], "sessionsEnded": 0,
                    "tokensLeft": [{"name": "phone", "user": "a"}]}),
                "auth.users[a]\ntoken phone stays valid though its user a is gone: \
                 take it out of auth.tokens, too\n",
            ),
            (json!({}), "reloaded\n"),
            (json!("done\x1b[2J"), "reloaded: done\u{fffd}[2J\n"),
            (json!({"sessionsEnded": "some"}), "sessions ended: some\n"),
        ] {
            assert_eq!(in_words(&answer), words);
        }
    }
}
