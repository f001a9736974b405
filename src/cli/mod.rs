//! The command line: arguments, exit codes, one file per command.
//!
//! What a command does beyond talking to its user is the library's business.

mod admin;
mod ask;
pub(crate) mod cert;
pub(crate) mod check;
pub(crate) mod credentials;
pub(crate) mod descriptors;
pub(crate) mod doctor;
pub(crate) mod drain;
pub(crate) mod explain;
pub(crate) mod gateway_config;
mod predecessor;
pub(crate) mod reload;
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod surroundings;
pub(crate) mod upgrade;
mod words;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use holdline::config::{self, AdminAddress, ConfigErrors, GatewayUrl, Loaded, Overrides};
use holdline::hint;
use holdline::observe::log::{colors_wanted, with_causes};

use cert::CertCommand;
use credentials::{KeyCommand, TokenCommand, UserCommand};

/// It was called in a way that it does not know (`EX_USAGE`).
const USAGE: u8 = 64;

/// The config is refused (`EX_CONFIG`).
const BAD_CONFIG: u8 = 78;

/// Holds the line in front of an OpenClaw gateway: clients stay connected while it restarts.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failure while running, 64 usage, 78 bad config";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the proxy; what happens without a command
    Run,
    /// Check a config and print every problem: where, what is wrong, what to write instead
    ///
    /// Reads the config and the files that it names. Whether ports are free and the gateway is there,
    /// `holdline doctor` looks.
    Check(check::Check),
    /// Show every value of a config, and where it came from
    ///
    /// Reads the file, as a start would. A running holdline may have other values: when the file waits
    /// for `holdline reload`, or was refused; `holdline status` says so.
    Explain(explain::Explain),
    /// What to set on the gateway for this config, and whether it is
    GatewayConfig(gateway_config::GatewayConfig),
    /// Look at everything that has to work, in order: what was seen, and what to do about it
    Doctor(doctor::DoctorArgs),
    /// How a running holdline is: gateways, sessions, outages, certificates
    Status(status::StatusArgs),
    /// Let a running holdline read its config anew, and say what has changed
    Reload(reload::ReloadArgs),
    /// Let the binary that is there now take the place of the running holdline
    ///
    /// It gets the listening sockets; the old process keeps its sessions until they end or
    /// limits.handover is over. The same as SIGUSR2, but it says what came of it.
    Upgrade,
    /// Ask a running holdline to end: nothing new is accepted, sessions end within limits.drain
    Drain(drain::DrainArgs),
    /// Certificates: what is served, until when, what happens next; renew them now
    #[command(subcommand)]
    Cert(CertCommand),
    /// Users who sign in with a password: `user add` makes one for [auth]
    #[command(subcommand)]
    User(UserCommand),
    /// Access tokens, for programs: `token add` makes one for [auth]
    #[command(subcommand)]
    Token(TokenCommand),
    /// The key that cookies are signed with: `key rotate` makes a new one
    #[command(subcommand)]
    Key(KeyCommand),
}

/// May stand before and after the command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// TOML file; without it the built-in defaults
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Serve TLS here instead of on listen.https; may be repeated
    #[arg(long, value_name = "ADDR", global = true, value_parser = config::listen_address)]
    listen: Vec<SocketAddr>,
    /// Where the gateway is, instead of gateway.url
    #[arg(long, value_name = "URL", global = true)]
    gateway: Option<GatewayUrl>,
    /// Status and control here instead of on admin.listen; "off" for none
    #[arg(long, value_name = "ADDR", global = true)]
    admin: Option<AdminAddress>,
}

/// The arguments, or the exit code after help, version or a usage error was printed.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|mut error| {
        if let Some(tip) = config_without_flag(&error) {
            let tips = ContextValue::StyledStrs(vec![tip.into()]);
            error.insert(ContextKind::Suggested, tips);
        }
        // A reader that is gone already is no reason for another message.
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(USAGE)
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// What to say to somebody who has named a config file as other programs want it.
fn config_without_flag(error: &clap::Error) -> Option<String> {
    let kinds = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand];
    let Some(ContextValue::String(named)) = kinds.iter().find_map(|kind| error.get(*kind)) else {
        return None;
    };
    let is_file = named.ends_with(".toml") || Path::new(named).is_file();
    (is_file && !named.starts_with('-')).then(|| format!("did you mean '--config {named}'?"))
}

impl Settings {
    /// Hints name these from now on. `lasting`: they are read long after, and elsewhere.
    pub(crate) fn hint(&self, lasting: bool) {
        let config = self.config.clone().map(|path| match lasting {
            true => std::path::absolute(&path).unwrap_or(path),
            false => path,
        });
        let gateway = self
            .gateway
            .iter()
            .map(|url| ("--gateway", url.to_string()));
        let listen = self.listen.iter().map(|to| ("--listen", to.to_string()));
        hint::called_with(hint::Flags {
            config,
            // A port of chance leads nowhere.
            admin: self
                .admin
                .and_then(|admin| admin.0.filter(|address| address.port() != 0))
                .map(|address| address.to_string()),
            others: gateway.chain(listen).collect(),
        });
    }

    /// The config, or the exit code after its problems were printed.
    pub(crate) fn load(&self) -> Result<Loaded, ExitCode> {
        self.read().map_err(|errors| refuse(&errors))
    }

    /// The config as it is now, or what is wrong with it.
    pub(crate) fn read(&self) -> Result<Loaded, ConfigErrors> {
        config::load(self.config.as_deref(), &self.overrides())
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen.clone(),
            gateway: self.gateway.clone(),
            admin: self.admin,
        }
    }
}

/// Prints what is wrong with a config.
pub(crate) fn refuse(errors: &ConfigErrors) -> ExitCode {
    say(&errors.render(colors()));
    ExitCode::from(BAD_CONFIG)
}

/// Prints a failure with its causes.
pub(crate) fn fail(what: &str, error: &dyn Error) -> ExitCode {
    say(&format!("error: {what}: {}\n", with_causes(error)));
    ExitCode::FAILURE
}

/// Standard error may be closed; there is nobody to tell then.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn colors() -> bool {
    io::stderr().is_terminal() && colors_wanted()
}
