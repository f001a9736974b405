//! What every command that asks a running holdline shares: where it is, and a runtime to ask on.

use std::io::{self, Write as _};
use std::process::ExitCode;

use holdline::config::{self, AdminAddress};
use holdline::observe::AdminClient;

use super::{Settings, fail, refuse, say};

impl Settings {
    /// The running holdline: where `--admin` says, or the config, or its default. Otherwise the
    /// exit code after it was said why not.
    pub(crate) fn running(&self) -> Result<AdminClient, ExitCode> {
        let address = match self.admin {
            // Asked about nothing else, so a config that is broken by now is no hindrance.
            Some(AdminAddress(address)) => address,
            None => match config::load(self.config.as_deref(), &self.overrides()) {
                Ok(loaded) => loaded.config.admin.listen,
                Err(errors) => {
                    let refused = refuse(&errors);
                    say("where the running holdline is can be said as well: --admin ADDR\n");
                    return Err(refused);
                }
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
