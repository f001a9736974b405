//! `holdline check`: is this config good, and if not, what should be written? Writes nothing itself.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use holdline::auth;
use holdline::config::{Loaded, Problem};
use serde_json::Value;

use super::{BAD_CONFIG, Settings, colors, fail, refuse, say};

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// As a list of JSON objects, which is empty if there is nothing to say
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(settings: &Settings, asked: &Check) -> ExitCode {
    let read = settings.read();
    let unusable = read
        .as_ref()
        .ok()
        .and_then(|loaded| auth::check(&loaded.config.auth).err());
    if let Some(error) = unusable {
        return fail("[auth] cannot be served by this user", &error);
    }
    match read {
        Ok(loaded) if asked.json => list(&loaded.warnings, ExitCode::SUCCESS),
        Ok(loaded) => approve(&loaded),
        Err(refused) if asked.json => list(
            refused.errors.iter().chain(&refused.warnings),
            ExitCode::from(BAD_CONFIG),
        ),
        Err(refused) => refuse(&refused),
    }
}

fn list<'p>(problems: impl IntoIterator<Item = &'p Problem>, code: ExitCode) -> ExitCode {
    let list: Value = problems.into_iter().map(Problem::json).collect();
    match writeln!(io::stdout(), "{list:#}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn approve(loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        say(&format!("{}\n", warning.render(colors())));
    }
    let verdict = match loaded.warnings.len() {
        0 => "ok".to_owned(),
        1 => "ok, with 1 warning".to_owned(),
        more => format!("ok, with {more} warnings"),
    };
    match writeln!(io::stdout(), "{}: {verdict}", loaded.source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
