//! `holdline check`: is this config good, and if not, what should be written?

use std::io::{self, Write};
use std::process::ExitCode;

use holdline::config::Loaded;

use super::{Settings, colors, say};

pub(crate) fn run(settings: &Settings) -> ExitCode {
    match settings.load() {
        Ok(loaded) => approve(&loaded),
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
