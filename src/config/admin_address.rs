//! The admin listener's address as people write it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::addresses::listen_address;
use super::checker::NO_SECTION;
use super::problem::{MOST, Problem};
use super::settings::{SetBy, Settings};
use super::units::Wrong;

/// Where the admin listener is, if there is one: `127.0.0.1:9180` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == "off" {
            return Ok(Self(None));
        }
        let port = text.rsplit(':').next().unwrap_or_default();
        let port = port.parse::<u16>().unwrap_or(9180);
        match listen_address(text) {
            Ok(address) => Ok(Self(Some(address))),
            // It is for this machine only: other addresses are not offered.
            Err(_) => Err(Wrong::new(
                "not an address to listen on: an IP address and a port",
                format!("write \"127.0.0.1:{port}\", or \"off\""),
            )),
        }
    }
}

/// `listen` of a config that has these errors, unless they may be about it: another address could
/// be that of another holdline.
pub(super) fn despite(
    errors: &[Problem],
    settings: &Settings,
    text: &str,
    listen: Option<SocketAddr>,
) -> Option<AdminAddress> {
    let here = |problem: &Problem| problem.key.split(['.', '[']).next() == Some("admin");
    // Of more of them not all are known.
    if errors.iter().any(here) || errors.len() >= MOST {
        return None;
    }
    // Where lines are no TOML, keys may be lost, or in another section than they were written in.
    let torn = || errors.iter().filter(|problem| problem.key.is_empty());
    let sure = match settings.get("admin.listen")?.from {
        SetBy::Flag(_) => true,
        SetBy::File(_) => !torn().any(|line| line.shows("admin") || line.shows("listen")),
        SetBy::Default | SetBy::Inherited(_) => {
            // A section that there is not may be meant for this one.
            let strange = |problem: &Problem| problem.what == NO_SECTION;
            (torn().next().is_none() || !text.contains("admin")) && !errors.iter().any(strange)
        }
    };
    sure.then_some(AdminAddress(listen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_machine_is_offered() {
        for text in ["9180", ":9180", "*:9180", "localhost:9180", "localhost"] {
            let wrong = text.parse::<AdminAddress>().unwrap_err().to_string();
            assert!(
                wrong.contains("write \"127.0.0.1:9180\"") && !wrong.contains("0.0.0.0"),
                "{wrong}"
            );
        }
        assert_eq!("off".parse::<AdminAddress>().unwrap(), AdminAddress(None));
    }

    #[test]
    fn what_is_wrong_elsewhere_leaves_the_address_as_it_is() {
        use crate::config::parse;
        let there = |text: &str| parse(text, "h.toml").unwrap_err().admin;
        let said = AdminAddress(Some(([127, 0, 0, 1], 9181).into()));
        let default = AdminAddress(Some(([127, 0, 0, 1], 9180).into()));
        let admin = "[admin]\nlisten = \"127.0.0.1:9181\"\n";
        let absent = "[acme]\ncontact = [\"${HOLDLINE_TESTS_HAVE_NO_SUCH_VARIABLE}\"]\n";
        for (wrong, address) in [
            (format!("{admin}{absent}"), said),
            (format!("{admin}[hold]\nmax = 1\nmaxx = 2\n"), said),
            (format!("{admin}[nonsense]\na = 1\n"), said),
            (format!("{admin}[hold]\nmax = \"5\n"), said),
            (
                "[admin]\nlisten = \"off\"\n[hold]\nmax = 1".to_owned(),
                AdminAddress(None),
            ),
            (absent.to_owned(), default),
            ("[hold]\nmax = \"5\n".to_owned(), default),
        ] {
            assert_eq!(there(&wrong), Some(address), "{wrong}");
        }
        // Each of these may be meant to say another one than what can be read.
        for wrong in [
            "[admin]\nlisten = 7\n",
            "[admin]\nlisten = \"127.0.0.1:${HOLDLINE_TESTS_HAVE_NO_SUCH_VARIABLE}\"\n",
            "[admin]\nlisten = \"0.0.0.0:9181\"\n",
            "[admin]\nlisten = \"127.0.0.1:9181\n",
            "[admin\nlisten = \"127.0.0.1:9181\"\n",
            "[admin]\nlistne = \"127.0.0.1:9181\"\n",
            "[admni]\nlisten = \"127.0.0.1:9181\"\n",
            "[[admin]]\nlisten = \"127.0.0.1:9181\"\n",
            "[admin]\nlisten = \"127.0.0.1:9181\"\nlisten = \"127.0.0.1:9182\"\n",
            "admin = 9181\n",
        ] {
            assert_eq!(there(wrong), None, "{wrong}");
        }
    }
}
