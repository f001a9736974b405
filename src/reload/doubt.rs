//! Whether a file that has changed may be taken without being asked: it could be half-written.
//!
//! Pure. A file that ends too soon is often a good config, only another one: with its last sections
//! gone the defaults hold, and `[auth]` is off by default. So what opens the door, or looks like a
//! torn file, waits for somebody's word.

use std::fmt;
use std::net::SocketAddr;

use crate::config::{Auth, ClientCertificates, Config, SetBy, Settings, Text};
use crate::hint;

/// What speaks against taking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// It sets nothing at all.
    Empty,
    /// It is the beginning of what it was.
    Beginning,
    /// Ways to sign in are gone, or all of them: these.
    LetsIn(Vec<&'static str>),
    /// Nobody has to show a certificate any more, nor to sign in.
    AnyClient,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it sets nothing"),
            Self::Beginning => f.write_str("it is only the beginning of what it was"),
            Self::LetsIn(modes) => {
                write!(f, "{} would be gone from [auth] modes", modes.join(", "))
            }
            Self::AnyClient => {
                f.write_str("clients would need no certificate of [tls] client_ca any more")
            }
        }
    }
}

/// A file that waits for somebody's word. Shown with what to do if it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubted {
    /// What speaks against it.
    pub doubt: Doubt,
    /// The admin listener, where the file says another one.
    pub admin: Option<SocketAddr>,
}

impl Doubted {
    pub(super) fn of(doubt: Doubt, old: &Config, new: &Config) -> Self {
        let (now, then) = (old.admin.listen, new.admin.listen);
        let admin = now.filter(|now| then != Some(*now) && now.port() != 0);
        Self { doubt, admin }
    }
}

impl fmt::Display for Doubted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reload = match self.admin {
            Some(admin) => hint::command_at("reload", admin),
            None => hint::command("reload"),
        };
        write!(f, "{}; if that is meant, run `{reload}`", self.doubt)
    }
}

/// What is in force.
pub(super) struct Known<'k> {
    pub(super) text: &'k Text,
    pub(super) settings: &'k Settings,
    pub(super) config: &'k Config,
}

/// What speaks against taking `new` in place of `old` unasked. That it is only a beginning is said
/// last: a whole file may be that.
pub(super) fn doubt(old: &Known<'_>, new: &Known<'_>) -> Option<Doubt> {
    if sets_nothing(new.settings) && !sets_nothing(old.settings) {
        return Some(Doubt::Empty);
    }
    let gone: Vec<&'static str> = modes(&old.config.auth)
        .into_iter()
        .filter(|mode| !modes(&new.config.auth).contains(mode))
        .collect();
    if !gone.is_empty() {
        return Some(Doubt::LetsIn(gone));
    }
    if needs_certificate(old.config) && !needs_certificate(new.config) && !new.config.auth.is_on() {
        return Some(Doubt::AnyClient);
    }
    let beginning = new.text.is_only_the_beginning_of(old.text);
    beginning.then_some(Doubt::Beginning)
}

fn sets_nothing(settings: &Settings) -> bool {
    !settings
        .iter()
        .any(|setting| matches!(setting.from, SetBy::File(_)))
}

fn needs_certificate(config: &Config) -> bool {
    let needed = config.tls.client_certificates == ClientCertificates::Required;
    needed && config.tls.client_ca.is_some()
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
            config: &loaded.config,
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
    fn a_client_ca_that_is_all_that_keeps_the_door_waits_for_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let with = format!("[tls]\nclient_ca = {ca:?}\n[hold]\nmax = \"5m\"\n");
        // Torn in the middle of another edit, so no beginning of what it was.
        let without = "[hold]\nmax = \"6m\"\n";
        assert_eq!(between(&with, without), Some(Doubt::AnyClient));
        assert_eq!(between(without, &with), None);
        let signed_in = format!("{without}[auth]\nmodes = [\"token\"]\n{TOKENS}");
        assert_eq!(between(&with, &signed_in), None);
    }

    /// Whoever types what is told must not end up where nobody listens.
    #[test]
    fn what_to_type_leads_to_the_listener_that_is_in_force() {
        let (nine, default) = (loaded("[admin]\nlisten = \"127.0.0.1:9\""), loaded(""));
        let told = |old: &Loaded, new: &Loaded| {
            Doubted::of(Doubt::Empty, &old.config, &new.config).to_string()
        };
        let words = "it sets nothing; if that is meant, run `holdline reload";
        assert_eq!(
            told(&nine, &default),
            format!("{words} --admin 127.0.0.1:9`")
        );
        assert_eq!(told(&nine, &nine), format!("{words}`"));
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
