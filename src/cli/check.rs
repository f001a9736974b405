//! `holdline check`: is this config good, and if not, what should be written? Writes nothing itself.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use holdline::auth;
use holdline::config::{Loaded, Place, Problem, Severity};
use holdline::observe::log::with_causes;
use serde_json::Value;

use super::{BAD_CONFIG, Settings, colors, fail, refuse, say};

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// As a list of JSON objects, which is empty if there is nothing to say
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(settings: &Settings, asked: &Check) -> ExitCode {
    let loaded = match settings.read() {
        Ok(loaded) => loaded,
        Err(refused) if asked.json => {
            let all = refused.errors.iter().chain(&refused.warnings);
            return list(all, ExitCode::from(BAD_CONFIG));
        }
        Err(refused) => return refuse(&refused),
    };
    match (auth::check(&loaded.config.auth), asked.json) {
        (Ok(()), true) => list(&loaded.warnings, ExitCode::SUCCESS),
        (Ok(()), false) => approve(&loaded),
        (Err(error), true) => {
            let problem = [unusable(&loaded, &with_causes(&error))];
            list(problem.iter().chain(&loaded.warnings), ExitCode::FAILURE)
        }
        (Err(error), false) => fail("[auth] cannot be served by this user", &error),
    }
}

/// A good config that this machine has something against. What follows the last semicolon of the
/// error is the remedy.
fn unusable(loaded: &Loaded, error: &str) -> Problem {
    let remedy = "run it as a user who can";
    let (what, remedy) = error.rsplit_once("; ").unwrap_or((error, remedy));
    Problem {
        severity: Severity::Error,
        place: Place::File(loaded.source.to_string().into()),
        key: "auth".to_owned(),
        seen: None,
        what: what.to_owned(),
        remedy: remedy.to_owned(),
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
