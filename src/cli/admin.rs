//! What every command that asks a running holdline shares: where it is, and a runtime to ask on.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use holdline::config::{AdminAddress, ConfigErrors};
use holdline::hint;
use holdline::observe::AdminClient;

use super::{Settings, fail, refuse, say};

impl Settings {
    /// The running holdline: where `--admin` says, or the config, or its default. Otherwise the
    /// exit code after it was said why not.
    pub(crate) fn running(&self) -> Result<AdminClient, ExitCode> {
        let address = match self.admin {
            // Asked about nothing else, so a config that is broken by now is no hindrance.
            Some(AdminAddress(address)) => address,
            None => match self.read() {
                Ok(loaded) => loaded.config.admin.listen,
                Err(errors) => self.despite(&errors)?,
            },
        };
        let off = "the admin listener is off, and this command has nobody to ask: set [admin] listen, \
                   restart holdline, and try again\n";
        match address {
            Some(address) if address.port() != 0 => Ok(AdminClient::new(address)),
            Some(_) => {
                say(
                    "error: the admin listener is on a port of chance: say which with --admin ADDR\n",
                );
                Err(ExitCode::FAILURE)
            }
            None => {
                say(&format!("error: {off}"));
                Err(ExitCode::FAILURE)
            }
        }
    }

    /// Where it is by a config with errors: they may be of this shell only, which lacks a variable or
    /// may not read a secret.
    pub(crate) fn despite(&self, errors: &ConfigErrors) -> Result<Option<SocketAddr>, ExitCode> {
        let Some(AdminAddress(address)) = errors.admin else {
            let refused = refuse(errors);
            say("where the running holdline is cannot be seen in it; say it with --admin ADDR\n");
            return Err(refused);
        };
        let file = self.config.as_deref().map(Path::display);
        let file = file.map_or_else(|| "the command line".to_owned(), |path| path.to_string());
        say(&format!(
            "note: {file} has problems, which `{}` shows; only where the running holdline is was \
             taken from it\n",
            hint::config_command("check")
        ));
        Ok(address)
    }
}

/// Runs it to its end on a runtime of its own.
pub(crate) fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A name that is still being looked up would be waited for otherwise.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail("no threads to run on", &error),
    }
}

/// Writes to standard output; `Err` when nobody reads any more.
pub(crate) fn print(text: &str) -> Result<(), ExitCode> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|_| ExitCode::FAILURE)
}
