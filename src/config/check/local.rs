//! `[admin]` and `[log]`: what concerns this machine only.

use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use crate::config::admin_address::AdminAddress;
use crate::config::checker::{At, Item, nearest};
use crate::config::model::{Admin, Log, LogFormat};
use crate::config::section::Section;
use crate::config::units::Wrong;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `[admin]` with its place.
pub(super) struct AdminDraft {
    pub(super) listen: Item<Option<SocketAddr>>,
}

pub(super) fn read_admin(section: &mut Section<'_, '_>, flag: Option<AdminAddress>) -> AdminDraft {
    let default = SocketAddr::from(([127, 0, 0, 1], 9180));
    let mut listen = section.text("listen", Some(default), |text| {
        text.parse().map(|AdminAddress(address)| address)
    });
    if let Some(AdminAddress(value)) = flag {
        let shown = value.map_or_else(|| "off".to_owned(), |address| address.to_string());
        section.overridden("listen", "--admin", format!("\"{shown}\""));
        let at = At::Flag("--admin", shown);
        listen = Item {
            value,
            at,
            ..listen
        };
    }
    if let Some(address) = listen.value.filter(|address| !address.ip().is_loopback()) {
        let what = "the admin listener has no sign-in, so it is for this machine only";
        let remedy = format!("write \"127.0.0.1:{}\", or \"off\"", address.port());
        section.checker().error(&listen, Wrong::new(what, remedy));
    }
    AdminDraft { listen }
}

impl AdminDraft {
    pub(super) fn into_model(self) -> Admin {
        Admin {
            listen: self.listen.value,
        }
    }
}

pub(super) fn read_log(section: &mut Section<'_, '_>) -> Log {
    let formats = [
        ("auto", LogFormat::Auto),
        ("pretty", LogFormat::Pretty),
        ("json", LogFormat::Json),
    ];
    Log {
        level: section.text("level", "info".to_owned(), read_level).value,
        format: section.choice("format", LogFormat::Auto, formats).value,
    }
}

/// A level, or `tracing` directives. A misspelt level is a valid directive there (a target of that
/// name, at its most talkative), so single words are checked here.
fn read_level(text: &str) -> Result<String, Wrong> {
    let example =
        "write error, warn, info, debug or trace; or e.g. \"info,holdline::session=debug\"";
    let words = text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.contains('='));
    for word in words {
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
            let remedy = nearest(word, &LEVELS).map(|level| format!("did you mean \"{level}\"?"));
            let wrong = |remedy| Wrong::new("not a log level", remedy);
            return Err(wrong(remedy.unwrap_or_else(|| example.to_owned())));
        }
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Wrong::new(format!("not a log filter ({error})"), example)),
    }
}
