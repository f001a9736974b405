//! Whether a file that has changed may be taken without being asked: it could be half-written.
//!
//! Pure. A file that ends too soon is often a good config, only another one: with its last sections
//! gone the defaults hold, and `[auth]` is off by default. So what opens the door, or looks like a
//! torn file, waits for somebody's word.

use std::fmt;

use crate::config::{Auth, SetBy, Settings, Text};

/// What speaks against taking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// It sets nothing at all.
    Empty,
    /// It is the beginning of what it was.
    Beginning,
    /// Ways to sign in are gone, or all of them: these.
    LetsIn(Vec<&'static str>),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it sets nothing"),
            Self::Beginning => f.write_str("it is only the beginning of what it was"),
            Self::LetsIn(modes) => {
                write!(f, "{} would be gone from [auth] modes", modes.join(", "))
            }
        }
    }
}

/// What is in force.
pub(super) struct Known<'k> {
    pub(super) text: &'k Text,
    pub(super) settings: &'k Settings,
    pub(super) auth: &'k Auth,
}

/// What speaks against taking `new` in place of `old` unasked. That it is only a beginning is said
/// last: a whole file may be that.
pub(super) fn doubt(old: &Known<'_>, new: &Known<'_>) -> Option<Doubt> {
    if sets_nothing(new.settings) && !sets_nothing(old.settings) {
        return Some(Doubt::Empty);
    }
    let gone: Vec<&'static str> = modes(old.auth)
        .into_iter()
        .filter(|mode| !modes(new.auth).contains(mode))
        .collect();
    if !gone.is_empty() {
        return Some(Doubt::LetsIn(gone));
    }
    let beginning = new.text.is_only_the_beginning_of(old.text);
    beginning.then_some(Doubt::Beginning)
}

fn sets_nothing(settings: &Settings) -> bool {
    !settings
        .iter()
        .any(|setting| matches!(setting.from, SetBy::File(_)))
}

fn modes(auth: &Auth) -> Vec<&'static str> {
    [
        ("password", auth.password),
        ("token", auth.token),
        ("mtls", auth.certificate.is_some()),
        ("forward", auth.forward.is_some()),
    ]
    .into_iter()
    .filter(|(_, on)| *on)
    .map(|(mode, _)| mode)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Loaded};

    const TOKENS: &str = "tokens = [{ name = \"a\", user = \"b\", hash = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" }]\n";

    fn loaded(text: &str) -> Loaded {
        config::parse(text, "t").unwrap()
    }

    fn of(loaded: &Loaded) -> Known<'_> {
        Known {
            text: &loaded.text,
            settings: &loaded.settings,
            auth: &loaded.config.auth,
        }
    }

    fn between(old: &str, new: &str) -> Option<Doubt> {
        doubt(&of(&loaded(old)), &of(&loaded(new)))
    }

    /// The rest of it may come, which brings no sign-in back in the meantime.
    #[test]
    fn that_it_is_a_beginning_is_said_last() {
        let both = "[hold]\nmax = \"5m\"\n[limits]\nsessions = 7\n";
        let first = "[hold]\nmax = \"5m\"\n";
        assert_eq!(between(both, first), Some(Doubt::Beginning));
        assert_eq!(between(both, ""), Some(Doubt::Empty));
        let auth = format!("{first}[auth]\nmodes = [\"token\"]\n{TOKENS}");
        let opened = between(&auth, first);
        assert_eq!(opened, Some(Doubt::LetsIn(vec!["token"])));
    }

    #[test]
    fn every_beginning_of_a_file_waits_for_a_word() {
        let whole = format!("[hold]\nmax = \"5m\"\n[auth]\nmodes = [\"token\"]\n{TOKENS}");
        for end in 0..whole.len() {
            let torn = &whole[..end];
            if config::parse(torn, "t").is_ok() {
                assert!(between(&whole, torn).is_some(), "{torn}");
            }
        }
        assert_eq!(between(&whole, &whole), None);
    }

    #[test]
    fn what_lets_more_people_in_waits_for_a_word() {
        let auth = format!("[auth]\nmodes = [\"token\"]\n{TOKENS}");
        let gone = between(&auth, "[hold]\nmax = \"5m\"\n");
        assert_eq!(gone, Some(Doubt::LetsIn(vec!["token"])));
        assert_eq!(between("[hold]\nmax = \"5m\"\n", &auth), None);
    }

    #[test]
    fn an_edit_is_an_edit() {
        assert_eq!(between("", "[hold]\nmax = \"5m\"\n"), None);
        let (long, short) = ("[hold]\nmax = \"5m\"\n", "[hold]\nmax = \"5s\"\n");
        assert_eq!(between(long, short), None);
        assert_eq!(between(long, "# nothing\n"), Some(Doubt::Empty));
        assert_eq!(between("# one\n", "# two\n"), None);
    }
}
