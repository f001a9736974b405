//! `holdline check`: is this config good, and if not, what should be written? Writes nothing itself.

use std::io::{self, Write};
use std::process::ExitCode;

use holdline::auth;
use holdline::config::Loaded;

use super::{Settings, colors, fail, say};

pub(crate) fn run(settings: &Settings) -> ExitCode {
    match settings.load() {
        Ok(loaded) => match auth::check(&loaded.config.auth) {
            Ok(()) => approve(&loaded),
            Err(error) => fail("[auth] cannot be served by this user", &error),
        },
        Err(refused) => refused,
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
