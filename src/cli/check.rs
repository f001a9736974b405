//! `holdline check`: is this config good, and if not, what should be written?

use std::io::{self, Write};
use std::process::ExitCode;

use holdline::config::{self, Loaded, Overrides};

use super::{CheckArgs, colors, refuse, say};

pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    match config::load(args.config.as_deref(), &Overrides::default()) {
        Ok(loaded) => approve(&loaded),
        Err(errors) => refuse(&errors),
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
