//! The `holdline` command: from arguments to an exit code.

mod cli;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use holdline::config::Loaded;
use holdline::observe::log;
use holdline::{Holdline, Source};

use cli::signals::{Asked, Signals};
use cli::surroundings::Started;
use cli::{Command, Settings};

/// For what is dropped at the end.
const LAST: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(done) => return done,
    };
    cli.settings
        .hint(matches!(cli.command, Some(Command::Run) | None));
    match cli.command {
        Some(Command::Check(asked)) => cli::check::run(&cli.settings, &asked),
        Some(Command::Explain(asked)) => cli::explain::run(&cli.settings, &asked),
        Some(Command::Doctor(asked)) => cli::doctor::run(&cli.settings, &asked),
        Some(Command::Status(asked)) => cli::status::run(&cli.settings, &asked),
        Some(Command::Reload(asked)) => cli::reload::run(&cli.settings, &asked),
        Some(Command::Drain(asked)) => cli::drain::run(&cli.settings, &asked),
        Some(Command::User(user)) => user.run(),
        Some(Command::Token(token)) => token.run(),
        Some(Command::Key(key)) => key.run(&cli.settings),
        Some(Command::Cert(cert)) => cert.run(&cli.settings),
        Some(Command::Upgrade) => cli::upgrade::run(&cli.settings),
        Some(Command::GatewayConfig(asked)) => cli::gateway_config::run(&cli.settings, &asked),
        Some(Command::Run) | None => match Started::take() {
            Ok(started) => run(&cli.settings, started),
            Err(failed) => failed,
        },
    }
}

fn run(settings: &Settings, started: Started) -> ExitCode {
    let loaded = match settings.read() {
        Ok(loaded) => loaded,
        Err(errors) => {
            started.refuse(&errors.render(false));
            return cli::refuse(&errors);
        }
    };
    let log = match log::init(&loaded.config.log) {
        Ok(control) => control,
        Err(error) => return cli::fail("logging cannot be set up", &error),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %loaded.source, "starting");
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    cli::descriptors::raise(&loaded.config.limits);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            log::flush(LAST);
            return cli::fail("no threads to run on", &error);
        }
    };
    let again = settings.clone();
    let source = Source {
        load: Box::new(move || again.read()),
        log: Some(log),
    };
    let code = runtime.block_on(serve(loaded, source, started));
    // What still runs is past its time: the drain is over, or was cut short on purpose. It is
    // dropped, a hook with all that it has started; only a disk could hold that up.
    runtime.shutdown_timeout(LAST);
    log::flush(LAST);
    code
}

/// Runs until a drain is over, whoever asked for it.
async fn serve(loaded: Loaded, source: Source, started: Started) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cli::fail("signals cannot be received", &error),
    };
    let running = started.arrival.clone();
    let proxy = tokio::select! {
        proxy = Holdline::start_in(loaded, started.surround(source)) => match proxy {
            Ok(proxy) => Arc::new(proxy),
            Err(error) => {
                let words = log::with_causes(&error);
                tracing::error!("cannot start: {words}");
                if let Some(running) = &running {
                    running.refuse(&words);
                }
                return ExitCode::FAILURE;
            }
        },
        signal = signals.stop() => {
            tracing::info!(signal, "stopped while starting");
            return ExitCode::SUCCESS;
        }
    };
    drop(running);
    loop {
        tokio::select! {
            () = proxy.wait_for_shutdown() => {
                tracing::info!("stopped");
                return ExitCode::SUCCESS;
            }
            asked = signals.next() => match asked {
                Asked::Stop(signal) => {
                    tracing::info!(signal, "draining; a second signal stops at once");
                    break;
                }
                // Its outcome is in the log; a stop does not wait for it.
                Asked::Reload => {
                    let proxy = Arc::clone(&proxy);
                    tokio::spawn(async move { proxy.reload().await });
                }
                Asked::Upgrade => {
                    let proxy = Arc::clone(&proxy);
                    tokio::spawn(async move { proxy.upgrade().await });
                }
            }
        }
    }
    tokio::select! {
        () = proxy.drain() => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        signal = signals.stop() => {
            tracing::warn!(signal, "stopped before the drain was over");
            ExitCode::FAILURE
        }
    }
}
