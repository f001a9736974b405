//! `holdline explain`: what a config comes to, and where each value came from.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use holdline::config;

use super::{Settings, USAGE, say};

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Only this key or section, with its default, its bounds and what it is for, e.g. hold.max
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// As a list of JSON objects
    #[arg(long)]
    json: bool,
    /// The JSON Schema of config files, for editors, instead of a config
    #[arg(long, conflicts_with_all = ["key", "json"])]
    schema: bool,
}

pub(crate) fn run(settings: &Settings, asked: &Explain) -> ExitCode {
    if asked.schema {
        return print(&format!("{:#}\n", config::schema()));
    }
    let loaded = match settings.load() {
        Ok(loaded) => loaded,
        Err(refused) => return refused,
    };
    let key = asked.key.as_deref();
    let text = match (asked.json, key) {
        (true, key) => {
            config::explain_json(&loaded.settings, key).map(|list| format!("{list:#}\n"))
        }
        (false, Some(key)) => config::explain_keys(&loaded.settings, key),
        (false, None) => Ok(config::explain(&loaded)),
    };
    match text {
        Ok(text) => print(&text),
        Err(wrong) => {
            say(&format!("error: {}: {wrong}\n", key.unwrap_or_default()));
            ExitCode::from(USAGE)
        }
    }
}

/// A reader may be gone before the end, as `head` is.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
