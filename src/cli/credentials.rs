//! `holdline user add`, `holdline token add` and `holdline key rotate`: what `[auth]` needs.
//!
//! The first two print lines to paste and change nothing: a config belongs to its writer. Lines go
//! to standard output, words about them to standard error.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Subcommand;
use holdline::auth::{self, TokenHash};
use holdline::config;

use super::{BAD_CONFIG, Settings, ask, fail, say};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Ask for a password and print the user's line for users of [auth]
    ///
    /// At a terminal the password is asked for twice and not shown; else it is one line of standard
    /// input: `pass show holdline | holdline user add nick@example.com`. Never an argument, which
    /// others on this machine could see.
    Add {
        /// The name to sign in with, which the gateway is told
        #[arg(value_parser = config::user_name)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, and its line for tokens of [auth]
    Add {
        /// What the token is for, in logs
        #[arg(value_parser = config::user_name)]
        name: String,
        /// As whom it comes in
        #[arg(long, value_parser = config::user_name)]
        user: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Sign cookies with a new key from now on; nobody is signed out
    Rotate,
}

impl UserCommand {
    pub(crate) fn run(&self) -> ExitCode {
        let Self::Add { name } = self;
        let password = match ask::new_password(name) {
            Ok(password) => password,
            Err(error) => return fail("no password", &error),
        };
        let hash = match auth::hash_password(password.as_bytes()) {
            Ok(hash) => hash.to_phc(),
            Err(error) => return fail("the password cannot be hashed", &error),
        };
        say("# For the list users of [auth], whose modes have \"password\":\n");
        print(&format!(
            "{{ name = {}, hash = \"{hash}\" }}\n",
            quoted(name)
        ))
    }
}

impl TokenCommand {
    pub(crate) fn run(&self) -> ExitCode {
        let Self::Add { name, user } = self;
        let token = match auth::make_token() {
            Ok(token) => token,
            Err(error) => return fail("no token can be made", &error),
        };
        let hash = TokenHash::of(&token).to_base64url();
        say("# The token, for Authorization: Bearer; it is shown this once:\n");
        if let Err(failed) = write(&format!("{}\n", token.as_str())) {
            return failed;
        }
        say("# For the list tokens of [auth], whose modes have \"token\":\n");
        print(&format!(
            "{{ name = {}, user = {}, hash = \"{hash}\" }}\n",
            quoted(name),
            quoted(user)
        ))
    }
}

impl KeyCommand {
    pub(crate) fn run(&self, settings: &Settings) -> ExitCode {
        let Self::Rotate = self;
        let auth = match settings.load() {
            Ok(loaded) => loaded.config.auth,
            Err(refused) => return refused,
        };
        if !auth.password {
            say("error: there is no key: [auth] modes has no \"password\"\n");
            return ExitCode::from(BAD_CONFIG);
        }
        match auth::rotate_key(&auth) {
            Ok(path) => print(&format!(
                "{}: a new key is in front; a running holdline takes it within a minute\n",
                path.display()
            )),
            Err(error) => fail("the key cannot be rotated", &error),
        }
    }
}

fn print(text: &str) -> ExitCode {
    write(text).map_or_else(|failed| failed, |()| ExitCode::SUCCESS)
}

fn write(text: &str) -> Result<(), ExitCode> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|_| ExitCode::FAILURE)
}

/// A name as the config reads it back: in quotes, and no variable of the environment.
fn quoted(name: &str) -> String {
    let escaped = name
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace("${", "$${");
    format!("\"{escaped}\"")
}
