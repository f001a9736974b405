//! The `loadtest` command: 0 done, 1 failed, 64 wrong usage.

use std::process::ExitCode;

use clap::Parser;
use loadtest::cli::{self, Cli};

const FAILED: u8 = 1;
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => {
            // Help and version are no mistakes. A closed terminal is not worth another error.
            let _ = refusal.print();
            return if refusal.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let threads = cli.threads.unwrap_or_else(cli::default_threads).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
