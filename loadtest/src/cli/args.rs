//! The command line, as data.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::Axis;
use crate::protocol::Protocol;
use crate::target::Target;
use crate::units;
use crate::url::{Url, UrlError};

/// Measures a WebSocket proxy: added latency, throughput, idle memory, and what clients go through
/// while the backend restarts.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Results as JSON, for scripts.
    #[arg(long, global = true)]
    pub json: bool,
    /// Threads of the generator; by default half the cores, so that the proxy has the others.
    #[arg(long, global = true)]
    pub threads: Option<usize>,
}

/// The measurements.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Round trips at a fixed rate, through the URL and (interleaved) through a baseline.
    Latency(LatencyArgs),
    /// Messages and bytes per second, and CPU time per message of the proxy.
    Echo(EchoArgs),
    /// Memory of idle sessions.
    Idle(IdleArgs),
    /// Clients across a restart of the backend.
    Outage(OutageArgs),
    /// Sessions across reloads of the proxy's config.
    Reload(ReloadArgs),
    /// A small backend that echoes, or (with --challenge) behaves like an OpenClaw gateway.
    EchoServer(ServerArgs),
    /// Idle, latency and echo for several proxies in one interleaved run.
    Compare(CompareArgs),
}

/// How to talk to the other side.
#[derive(Debug, Args)]
pub struct Wire {
    /// Accept any certificate.
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
    /// Trust the CAs in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What the backend speaks.
    #[arg(long, value_enum, default_value = "echo")]
    pub protocol: Protocol,
    /// Gateway token for OpenClaw; or set LOADTEST_TOKEN, which does not show in process lists.
    #[arg(long)]
    pub token: Option<String>,
    /// The method that OpenClaw requests call.
    #[arg(long, default_value = "health")]
    pub method: String,
    /// Header of the upgrade, `Name: value`; may be given again.
    #[arg(long = "header", value_name = "HEADER", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// Handshakes at a time while opening (an OpenClaw gateway takes 32 from one address).
    #[arg(long, default_value_t = 16)]
    pub opening: usize,
}

/// `latency`
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// Through the proxy.
    #[arg(long)]
    pub url: Url,
    /// The same backend without the proxy.
    #[arg(long)]
    pub baseline: Option<Url>,
    #[command(flatten)]
    /// How often.
    pub load: LatencyLoad,
    /// Payload bytes.
    #[arg(long, default_value = "256", value_parser = units::size)]
    pub size: usize,
    /// How long.
    #[arg(long = "for", default_value = "10s", value_parser = units::duration)]
    pub length: Duration,
    #[command(flatten)]
    /// How to talk.
    pub wire: Wire,
}

/// How often latency is sampled.
#[derive(Debug, Args)]
pub struct LatencyLoad {
    /// Sessions to each target.
    #[arg(long = "sessions", id = "latency-sessions", default_value_t = 10)]
    pub sessions: usize,
    /// Requests per second to each target, all sessions together.
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
}

/// `echo`
#[derive(Debug, Args)]
pub struct EchoArgs {
    /// Through the proxy.
    #[arg(long)]
    pub url: Url,
    /// The same backend without the proxy.
    #[arg(long)]
    pub baseline: Option<Url>,
    /// The proxy's process, its children included; may be given again.
    #[arg(long = "pid")]
    pub pids: Vec<u32>,
    /// Sessions.
    #[arg(long, default_value_t = 32)]
    pub sessions: usize,
    /// Requests a session keeps in flight.
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// Payload bytes.
    #[arg(long, default_value = "256", value_parser = units::size)]
    pub size: usize,
    /// How long for each target.
    #[arg(long = "for", default_value = "10s", value_parser = units::duration)]
    pub length: Duration,
    /// Slices that this time is cut into; targets take turns.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    #[command(flatten)]
    /// How to talk.
    pub wire: Wire,
}

/// `idle`
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// Through the proxy.
    #[arg(long)]
    pub url: Url,
    /// The proxy's process, its children included; may be given again.
    #[arg(long = "pid", required = true)]
    pub pids: Vec<u32>,
    /// Sessions.
    #[arg(long, default_value_t = 1000)]
    pub sessions: usize,
    /// A text that each session sends first; its answer is waited for.
    #[arg(long)]
    pub first_frame: Option<String>,
    #[command(flatten)]
    /// How to talk.
    pub wire: Wire,
}

/// Signals for `--kill-pid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KillSignal {
    /// Asks.
    Term,
    /// Does not ask.
    Kill,
    /// An OpenClaw gateway restarts itself.
    Usr2,
}

/// `outage`
#[derive(Debug, Args)]
pub struct OutageArgs {
    /// Through the proxy.
    #[arg(long)]
    pub url: Url,
    /// Clients.
    #[arg(long, default_value_t = 20)]
    pub sessions: usize,
    /// A shell command that restarts the backend.
    #[arg(long, conflicts_with = "kill_pid")]
    pub restart_command: Option<String>,
    /// The backend's process, ended by --signal.
    #[arg(long, requires = "start_command")]
    pub kill_pid: Option<u32>,
    /// How to end it.
    #[arg(long, value_enum, default_value = "term")]
    pub signal: KillSignal,
    /// A shell command that starts it again; it is left running.
    #[arg(long, requires = "kill_pid")]
    pub start_command: Option<String>,
    /// Answers 200 when the backend is ready, asked directly: http://127.0.0.1:3001/startupz
    #[arg(long)]
    pub ready_url: Option<Url>,
    /// The echo backend's counters: http://ADDR/stats
    #[arg(long)]
    pub stats_url: Option<Url>,
    /// A request of each client this often.
    #[arg(long, default_value = "250ms", value_parser = units::duration)]
    pub every: Duration,
    /// Payload bytes.
    #[arg(long, default_value = "128", value_parser = units::size)]
    pub size: usize,
    /// A client's first wait before it reconnects; doubled at each failure.
    #[arg(long, default_value = "1s", value_parser = units::duration)]
    pub backoff: Duration,
    /// The longest of these waits.
    #[arg(long, default_value = "30s", value_parser = units::duration)]
    pub backoff_max: Duration,
    /// The longest time from the restart until everybody is back.
    #[arg(long = "for", default_value = "3m", value_parser = units::duration)]
    pub length: Duration,
    /// Watched on after everybody is back.
    #[arg(long, default_value = "3s", value_parser = units::duration)]
    pub linger: Duration,
    #[command(flatten)]
    /// How to talk.
    pub wire: Wire,
}

/// `echo-server`
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:3001")]
    pub listen: SocketAddr,
    /// Challenge, hello, and an `ok` answer to every request, as an OpenClaw gateway.
    #[arg(long)]
    pub challenge: bool,
    /// Say "starting" for this long after the port is open.
    #[arg(long, default_value = "0s", value_parser = units::duration)]
    pub starting: Duration,
}

/// `NAME=VALUE`, where the value may hold anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<T> {
    /// Which proxy.
    pub name: String,
    /// What of it.
    pub value: T,
}

/// OpenClaw clients: `NAME=URL,GATEWAY[,GATEWAY…]`.
pub(super) type NamedCrew = Named<(Url, Vec<SocketAddr>)>;

/// `reload`
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// NAME=URL,PID…; may be given again. They are measured one after the other.
    #[arg(long = "proxy", value_name = "NAME=URL,PID…", required = true)]
    pub proxies: Vec<Target>,
    /// NAME=COMMAND for each proxy: a shell command that makes the config number $N and returns
    /// when it is in force; $LAST is 1 with the last. What it prints has changed, a line each.
    #[arg(long = "reload", value_name = "NAME=COMMAND", value_parser = named, required = true)]
    pub commands: Vec<Named<String>>,
    /// NAME=URL: another address of the proxy, which its configs may add and remove; one session in
    /// ten is opened there.
    #[arg(long = "also", value_name = "NAME=URL", value_parser = named_url)]
    pub also: Vec<Named<Url>>,
    /// NAME=URL,HOST:PORT: OpenClaw clients through this URL, whose gateway (played there by this
    /// command) is away during the reloads.
    #[arg(long, value_name = "NAME=URL,GATEWAY", value_parser = named_crew)]
    pub held: Vec<NamedCrew>,
    /// NAME=URL,HOST:PORT,HOST:PORT: OpenClaw clients through this URL, whose gateway (played there
    /// by this command) the configs move from one address to the other.
    #[arg(long, value_name = "NAME=URL,GATEWAY,GATEWAY", value_parser = named_crew)]
    pub moving: Vec<NamedCrew>,
    /// A proxy that must not drop, lose, reorder or refuse anything, nor leave processes or more
    /// memory than --growth: else this fails.
    #[arg(long, value_name = "NAME")]
    pub must: Vec<String>,
    /// By so many percent its memory may grow.
    #[arg(long, default_value_t = 5.0)]
    pub growth: f64,
    /// Live sessions.
    #[arg(long, default_value_t = 1000)]
    pub sessions: usize,
    /// Clients of each --held.
    #[arg(long, default_value_t = 100)]
    pub held_sessions: usize,
    /// Clients of each --moving.
    #[arg(long, default_value_t = 50)]
    pub moving_sessions: usize,
    /// A message of each session this often.
    #[arg(long, default_value = "1s", value_parser = units::duration)]
    pub every: Duration,
    /// Reloads before the first session is opened: what a proxy sets up once is not charged. Their
    /// numbers come first.
    #[arg(long, default_value_t = 0)]
    pub warm_up: u32,
    /// Reloads.
    #[arg(long, default_value_t = 50)]
    pub reloads: u32,
    /// From one reload to the next, if the one before is in force by then.
    #[arg(long, default_value = "150ms", value_parser = units::duration)]
    pub pace: Duration,
    /// Sessions that end and are opened anew with each reload, as clients come and go.
    #[arg(long, default_value_t = 1)]
    pub churn: usize,
    /// Tasks that open one new session after the other meanwhile.
    #[arg(long, default_value_t = 2)]
    pub connectors: usize,
    /// A message unanswered for this long is lost.
    #[arg(long, default_value = "10s", value_parser = units::duration)]
    pub patience: Duration,
    #[command(flatten)]
    /// How to talk.
    pub wire: Wire,
}

/// `compare`
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// NAME=URL[,PID…]; may be given again. The first is what the others are compared with.
    #[arg(long = "proxy", value_name = "NAME=URL[,PID…]", required = true)]
    pub proxies: Vec<Target>,
    /// The same backend without a proxy.
    #[arg(long)]
    pub baseline: Option<Url>,
    /// What to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "idle,latency,echo"
    )]
    pub only: Vec<Axis>,
    /// Idle sessions.
    #[arg(long, default_value_t = 1000)]
    pub idle_sessions: usize,
    #[command(flatten)]
    /// Latency samples.
    pub load: LatencyLoad,
    /// Echo sessions.
    #[arg(long, default_value_t = 32)]
    pub echo_sessions: usize,
    /// Requests an echo session keeps in flight.
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// Payload bytes.
    #[arg(long, default_value = "256", value_parser = units::size)]
    pub size: usize,
    /// How long each proxy is measured on each axis.
    #[arg(long = "for", default_value = "10s", value_parser = units::duration)]
    pub length: Duration,
    /// Slices of the echo time; proxies take turns.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    #[command(flatten)]
    /// How to talk.
    pub wire: Wire,
}

fn named(text: &str) -> Result<Named<String>, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(Named {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("write NAME=…".to_owned()),
    }
}

fn named_url(text: &str) -> Result<Named<Url>, String> {
    let Named { name, value } = named(text)?;
    let value = value.parse().map_err(|wrong: UrlError| wrong.to_string())?;
    Ok(Named { name, value })
}

fn named_crew(text: &str) -> Result<NamedCrew, String> {
    let Named { name, value } = named(text)?;
    let mut parts = value.split(',');
    let url = parts.next().unwrap_or_default().parse();
    let url = url.map_err(|wrong: UrlError| wrong.to_string())?;
    let gateway = |text: &str| text.parse().map_err(|_| format!("{text:?} is not IP:PORT"));
    let gateways: Vec<SocketAddr> = parts.map(gateway).collect::<Result<_, String>>()?;
    if gateways.is_empty() {
        return Err("write NAME=URL,IP:PORT: where the gateway is to be".to_owned());
    }
    Ok(Named {
        name,
        value: (url, gateways),
    })
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write Name: value")?;
    if name.is_empty() || text.contains(['\r', '\n']) {
        return Err("write Name: value, on one line".to_owned());
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_belongs_to_a_proxy_is_named_after_it() {
        let command = named("a=x=1 kill -HUP 2").unwrap();
        assert_eq!(
            (command.name.as_str(), command.value.as_str()),
            ("a", "x=1 kill -HUP 2")
        );
        let crew = named_crew("a=wss://h:1/x,127.0.0.1:2,[::1]:3").unwrap();
        assert_eq!((crew.value.0.port, crew.value.1.len()), (1, 2));
        for wrong in ["a", "=x", "a="] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
        for wrong in ["a=wss://h", "a=wss://h,x", "a=h,127.0.0.1:1"] {
            assert!(named_crew(wrong).is_err(), "{wrong}");
        }
        assert!(named_url("a=h").is_err());
    }

    #[test]
    fn a_header_is_one_line() {
        assert_eq!(
            header("Origin: https://a"),
            Ok(("Origin".into(), "https://a".into()))
        );
        assert!(header("Origin").is_err() && header("a: b\r\nc: d").is_err());
    }
}
