//! From arguments to measurements: one function per command, results as text.

mod args;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

pub use args::{Cli, Command};

use crate::net::{self, Trust};
use crate::outage::Restart;
use crate::protocol::Protocol;
use crate::report::Report;
use crate::server::{EchoServer, ServerOptions, Stop};
use crate::session::Dialer;
use crate::target::Target;
use crate::url::{Scheme, Url};
use crate::{compare, echo, idle, latency, outage, reload};
use args::{
    CompareArgs, EchoArgs, IdleArgs, KillSignal, LatencyArgs, Named, NamedCrew, OutageArgs,
    ReloadArgs, ServerArgs, Wire,
};

/// Runs one command; returns what to print.
///
/// # Errors
/// With the whole chain of causes, fit for a person.
pub async fn run(cli: Cli) -> Result<String> {
    let json = cli.json;
    match cli.command {
        Command::Latency(args) => Ok(run_latency(&args).await?.render(json)?),
        Command::Echo(args) => Ok(run_echo(&args).await?.render(json)?),
        Command::Idle(args) => Ok(run_idle(args).await?.render(json)?),
        Command::Outage(args) => Ok(Box::pin(run_outage(args)).await?.render(json)?),
        Command::Compare(args) => Ok(Box::pin(run_compare(args)).await?.render(json)?),
        Command::Reload(args) => Box::pin(run_reload(args, json)).await,
        Command::EchoServer(args) => run_server(&args).await,
    }
}

/// Threads for the generator when nobody says.
#[must_use]
pub fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).max(1)
}

fn dialer(wire: &Wire, urls: &[&Url]) -> Result<Dialer> {
    if let Some(url) = urls.iter().find(|url| url.scheme == Scheme::Http) {
        bail!("{url}: write ws:// or wss:// for what is measured");
    }
    let trust = match &wire.ca {
        Some(file) => Some(Trust::Ca(file.clone())),
        None => wire.insecure.then_some(Trust::Anyone),
    };
    if trust.is_none() && urls.iter().any(|url| url.scheme == Scheme::Wss) {
        bail!("wss:// needs --ca FILE, or --insecure to accept any certificate");
    }
    let token = wire
        .token
        .clone()
        .or_else(|| std::env::var("LOADTEST_TOKEN").ok());
    Ok(Dialer {
        tls: trust.as_ref().map(net::connector).transpose()?,
        protocol: wire.protocol,
        token: token.unwrap_or_default(),
        method: wire.method.clone(),
        headers: wire.headers.clone(),
    })
}

fn targets(url: &Url, baseline: Option<&Url>, pids: &[u32]) -> Vec<Target> {
    let proxy = Target {
        name: "proxy".to_owned(),
        url: url.clone(),
        pids: pids.to_vec(),
    };
    let direct = |url: &Url| {
        let name = "baseline".to_owned();
        Target {
            name,
            url: url.clone(),
            pids: Vec::new(),
        }
    };
    std::iter::once(proxy).chain(baseline.map(direct)).collect()
}

fn urls(targets: &[Target]) -> Vec<&Url> {
    targets.iter().map(|t| &t.url).collect()
}

async fn run_latency(args: &LatencyArgs) -> Result<latency::LatencyReport> {
    let targets = targets(&args.url, args.baseline.as_ref(), &[]);
    let plan = latency::Plan {
        sessions: args.load.sessions,
        rate: args.load.rate,
        size: args.size,
        length: args.length,
        opening: args.wire.opening,
    };
    let dialer = dialer(&args.wire, &urls(&targets))?;
    latency::run(&dialer, &targets, args.baseline.is_some(), &plan).await
}

async fn run_echo(args: &EchoArgs) -> Result<echo::EchoReport> {
    let targets = targets(&args.url, args.baseline.as_ref(), &args.pids);
    let plan = echo::Plan {
        sessions: args.sessions,
        size: args.size,
        in_flight: args.in_flight,
        length: args.length,
        rounds: args.rounds,
        warm_up: Duration::from_millis(200),
        opening: args.wire.opening,
    };
    echo::run(&dialer(&args.wire, &urls(&targets))?, &targets, &plan).await
}

const fn idle_plan(sessions: usize, first_frame: Option<String>, opening: usize) -> idle::Plan {
    let (look_every, looks) = (Duration::from_millis(250), (4, 120));
    idle::Plan {
        sessions,
        first_frame,
        opening,
        look_every,
        looks,
    }
}

async fn run_idle(args: IdleArgs) -> Result<idle::IdleReport> {
    let targets = targets(&args.url, None, &args.pids);
    let dialer = dialer(&args.wire, &urls(&targets))?;
    let plan = idle_plan(args.sessions, args.first_frame, args.wire.opening);
    idle::run(&dialer, &targets, &plan).await
}

async fn run_outage(args: OutageArgs) -> Result<outage::OutageReport> {
    let dialer = dialer(&args.wire, &[&args.url])?;
    let restart = match (args.restart_command, args.kill_pid) {
        (Some(command), _) => Restart::Command(command),
        (None, Some(pid)) => {
            let signal = match args.signal {
                KillSignal::Term => Signal::TERM,
                KillSignal::Kill => Signal::KILL,
                KillSignal::Usr2 => Signal::USR2,
            };
            Restart::Process {
                pid,
                signal,
                start: args.start_command,
            }
        }
        (None, None) => Restart::Watch,
    };
    let plan = outage::Plan {
        sessions: args.sessions,
        url: args.url,
        every: args.every,
        size: args.size,
        backoff: (args.backoff, args.backoff_max),
        length: args.length,
        linger: args.linger,
        ready_url: args.ready_url,
        stats_url: args.stats_url,
        opening: args.wire.opening,
    };
    outage::run(&dialer, &plan, restart).await
}

async fn run_compare(args: CompareArgs) -> Result<compare::CompareReport> {
    let direct = args.baseline.map(|url| {
        let name = "baseline".to_owned();
        Target {
            name,
            url,
            pids: Vec::new(),
        }
    });
    let mut all = urls(&args.proxies);
    all.extend(direct.as_ref().map(|t| &t.url));
    let dialer = dialer(&args.wire, &all)?;
    let opening = args.wire.opening;
    let plan = compare::Plan {
        axes: args.only,
        latency: latency::Plan {
            sessions: args.load.sessions,
            rate: args.load.rate,
            size: args.size,
            length: args.length,
            opening,
        },
        echo: echo::Plan {
            sessions: args.echo_sessions,
            size: args.size,
            in_flight: args.in_flight,
            length: args.length,
            rounds: args.rounds,
            warm_up: Duration::from_millis(200),
            opening,
        },
        idle: idle_plan(args.idle_sessions, None, opening),
    };
    compare::run(&dialer, &args.proxies, direct.as_ref(), &plan).await
}

async fn run_reload(args: ReloadArgs, json: bool) -> Result<String> {
    let names: Vec<&str> = args.proxies.iter().map(|p| p.name.as_str()).collect();
    let mut named: Vec<&String> = args.commands.iter().map(|one| &one.name).collect();
    named.extend(args.also.iter().map(|one| &one.name));
    named.extend(args.held.iter().chain(&args.moving).map(|one| &one.name));
    named.extend(&args.must);
    if let Some(unknown) = named.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("{unknown}: there is no --proxy of that name");
    }
    let mut all = urls(&args.proxies);
    all.extend(args.also.iter().map(|one| &one.value));
    let crews = args.held.iter().chain(&args.moving);
    all.extend(crews.map(|crew| &crew.value.0));
    let dialer = Dialer {
        protocol: Protocol::Echo,
        ..dialer(&args.wire, &all)?
    };
    let openclaw = Dialer {
        protocol: Protocol::Openclaw,
        ..dialer.clone()
    };
    let crew = |crews: &[NamedCrew], name: &str, sessions| {
        let crew = crews.iter().find(|crew| crew.name == name)?;
        let (url, gateways) = crew.value.clone();
        Some(reload::Crew {
            url,
            sessions,
            gateways,
        })
    };
    let reloadable = |target: &Target| {
        let name = target.name.as_str();
        let command = of(&args.commands, name).with_context(|| format!("{name}: no --reload"))?;
        Ok(reload::Reloadable {
            target: target.clone(),
            command,
            also: of(&args.also, name),
            held: crew(&args.held, name, args.held_sessions),
            moving: crew(&args.moving, name, args.moving_sessions),
        })
    };
    let proxies: Vec<_> = args.proxies.iter().map(reloadable).collect::<Result<_>>()?;
    let plan = reload::Plan {
        sessions: args.sessions,
        every: args.every,
        warm_up: args.warm_up,
        reloads: args.reloads,
        pace: args.pace,
        churn: args.churn,
        connectors: args.connectors,
        patience: args.patience,
        opening: args.wire.opening,
        look_every: Duration::from_millis(500),
        looks: (6, 120),
    };
    let report = reload::run(&dialer, &openclaw, &proxies, &plan).await?;
    let text = report.render(json)?;
    let checked = report
        .proxies
        .iter()
        .filter(|p| args.must.contains(&p.name));
    let words = |proxy: &reload::Measured| {
        let faults = proxy.faults(args.growth).into_iter();
        let named = faults.map(|fault| format!("{}: {fault}", proxy.name));
        named.collect::<Vec<_>>()
    };
    let mut faults: Vec<String> = checked.flat_map(words).collect();
    faults.extend(report.failed.iter().cloned());
    if faults.is_empty() {
        return Ok(text);
    }
    print!("{text}");
    bail!("{}", faults.join("; "));
}

fn of<T: Clone>(values: &[Named<T>], name: &str) -> Option<T> {
    let value = values.iter().find(|value| value.name == name)?;
    Some(value.value.clone())
}

/// Serves until told to stop: SIGTERM and Ctrl-C both mean "politely".
async fn run_server(args: &ServerArgs) -> Result<String> {
    let (listen, challenge, starting) = (args.listen, args.challenge, args.starting);
    crate::procfs::raise_files();
    let options = ServerOptions {
        listen,
        challenge,
        starting,
    };
    let server = EchoServer::start(&options)
        .await
        .with_context(|| format!("--listen {listen}"))?;
    eprintln!(
        "echo backend on ws://{}/, probes /health and /startupz, /stats",
        server.addr()
    );
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    server.stop(Stop::Politely).await;
    Ok(String::new())
}
