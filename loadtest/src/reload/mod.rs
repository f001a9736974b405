//! Sessions across reloads of the proxy's config: are they all still there, was anything lost, and
//! what is left of the configs before. One proxy after the other; how each is reloaded is a command.

mod clients;
mod connector;
mod drops;
mod echoes;
mod message;
mod report;
mod requests;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep, timeout};

use crate::procfs::{self, Memory};
use crate::progress::Progress;
use crate::server::{EchoServer, ServerOptions, Stop};
use crate::session::Dialer;
use crate::target::Target;
use crate::units::bytes;
use crate::url::Url;

pub use connector::Connects;
pub use drops::Drops;
pub use echoes::Echoes;
pub use report::{Measured, ReloadReport};
pub use requests::Requests;
pub use turns::Turns;

use clients::{Crowd, Phase};
use message::ALL_SHAPES;

/// Of a gateway that is back, until everybody who was held is.
const COMEBACK: Duration = Duration::from_secs(60);

/// What to do to each proxy.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Live sessions.
    pub sessions: usize,
    /// Each sends a message this often.
    pub every: Duration,
    /// Reloads before the first session is opened: what a proxy sets up once is not charged.
    pub warm_up: u32,
    /// Reloads.
    pub reloads: u32,
    /// From one reload to the next, if the one before is in force by then.
    pub pace: Duration,
    /// Sessions that end and are opened anew with each reload, as clients come and go.
    pub churn: usize,
    /// Tasks that open one new session after the other meanwhile.
    pub connectors: usize,
    /// A message unanswered for this long is lost, and its session stalled.
    pub patience: Duration,
    /// Handshakes at a time while opening.
    pub opening: usize,
    /// Time between two looks at the memory.
    pub look_every: Duration,
    /// Looks without a change of more than 0.5 % that count as settled, and looks after which it is
    /// not waited longer.
    pub looks: (u32, u32),
}

/// A proxy and how to reload it.
#[derive(Debug, Clone)]
pub struct Reloadable {
    /// Where its sessions go.
    pub target: Target,
    /// A shell command; `$N` is the number of the reload (warm-up included), `$LAST` is 1 with the last. It returns
    /// when the new config is in force, and prints what has changed, a line each.
    pub command: String,
    /// Another address of it, which its configs may add and remove: one session in ten is opened
    /// there.
    pub also: Option<Url>,
    /// Clients of a gateway that is away during the reloads.
    pub held: Option<Crew>,
    /// Clients of a gateway whose address the configs change.
    pub moving: Option<Crew>,
}

/// OpenClaw clients, and where this tool plays their gateway.
#[derive(Debug, Clone)]
pub struct Crew {
    /// Through the proxy.
    pub url: Url,
    /// How many.
    pub sessions: usize,
    /// The gateway's addresses.
    pub gateways: Vec<SocketAddr>,
}

/// Measures all proxies, one after the other. `dialer` opens echo sessions, `openclaw` the others.
///
/// # Errors
/// When there are not enough descriptors. A proxy that cannot be measured is in the report.
pub async fn run(
    dialer: &Dialer,
    openclaw: &Dialer,
    proxies: &[Reloadable],
    plan: &Plan,
) -> Result<ReloadReport> {
    ensure!(plan.sessions > 0, "at least one session");
    let crews = |proxy: &Reloadable| {
        let crews = proxy.held.iter().chain(&proxy.moving);
        crews.map(|crew| crew.sessions * 2).sum::<usize>()
    };
    let most = proxies.iter().map(crews).max().unwrap_or(0);
    procfs::ensure_files(plan.sessions + most + plan.connectors).map_err(anyhow::Error::msg)?;
    let mut report = ReloadReport::default();
    for proxy in proxies {
        // One that cannot be reloaded is no reason not to look at the others.
        match Box::pin(measure(dialer, openclaw, proxy, plan)).await {
            Ok(measured) => report.proxies.push(measured),
            Err(error) => report
                .failed
                .push(format!("{}: {error:#}", proxy.target.name)),
        }
    }
    Ok(report)
}

async fn measure(
    dialer: &Dialer,
    openclaw: &Dialer,
    proxy: &Reloadable,
    plan: &Plan,
) -> Result<Measured> {
    let pids = &proxy.target.pids;
    ensure!(!pids.is_empty(), "its process ids are needed");
    let moving_to = gateways(proxy.moving.as_ref()).await?;
    let mut held_by = gateways(proxy.held.as_ref()).await?;

    if plan.warm_up > 0 {
        let warmed = turns::run(&proxy.command, plan, 1..=plan.warm_up, |_| {}).await;
        warmed.context("before the first session")?;
    }
    let mut crowd = Crowd::default();
    let echo = echoes::Setting {
        dialer: dialer.clone(),
        urls: (proxy.target.url.clone(), proxy.also.clone()),
        every: plan.every,
        patience: plan.patience,
        warm: Arc::default(),
    };
    crowd.open_echoes(echo, plan).await?;
    let asking = |crew: &Crew| requests::Setting {
        dialer: openclaw.clone(),
        url: crew.url.clone(),
        every: plan.every,
        patience: requests::PATIENCE.max(plan.patience),
    };
    let held = match &proxy.held {
        Some(crew) => Some(crowd.open_crew(asking(crew), crew.sessions, plan).await?),
        None => None,
    };
    let moving = match &proxy.moving {
        Some(crew) => Some(crowd.open_crew(asking(crew), crew.sessions, plan).await?),
        None => None,
    };
    // Buffers that large messages have left behind are not the reloads'.
    let warm = async {
        while !crowd.is_warm() {
            sleep(plan.look_every).await;
        }
    };
    let patience = plan.every * u32::from(ALL_SHAPES) * 2 + plan.patience;
    let warm = timeout(patience, warm).await;
    ensure!(warm.is_ok(), "its live sessions do not get their echoes");
    let before = settle(pids, plan).await?;

    for gateway in held_by.drain(..) {
        gateway.stop(Stop::Cut).await;
    }
    let began = Instant::now();
    let connects = connector::start(dialer, &proxy.target.url, plan.connectors);
    let numbers = plan.warm_up + 1..=plan.warm_up + plan.reloads;
    let churn = |turn: u32| crowd.churn(turn - plan.warm_up, plan);
    let turned = turns::run(&proxy.command, plan, numbers, churn).await;
    let connects = connects.stop().await;
    let turns = turned?;
    let held_by = gateways(proxy.held.as_ref()).await?;
    crowd.tell(Phase::Back);
    let put_back = match held {
        Some(held) => Some(comeback(&crowd, held).await),
        None => None,
    };
    let after = settle(pids, plan).await?;

    // Each began with one handshake; every other is a move.
    let handshakes: u64 = moving_to.iter().map(|to| to.stats().handshakes).sum();
    let moves = proxy.moving.as_ref();
    let moves = moves.map(|crew| handshakes.saturating_sub(crew.sessions as u64));
    crowd.tell(Phase::Ending);
    let outcome = crowd.gather(began).await;
    for gateway in held_by.into_iter().chain(moving_to) {
        gateway.stop(Stop::Cut).await;
    }
    Ok(Measured {
        name: proxy.target.name.clone(),
        sessions: plan.sessions,
        echoes: outcome.echoes,
        held: held.and_then(|crew| outcome.crews.get(crew).cloned()),
        put_back,
        moving: moving.and_then(|crew| outcome.crews.get(crew).cloned()),
        moves,
        connects,
        turns,
        before,
        after,
    })
}

/// Plays them all.
async fn gateways(crew: Option<&Crew>) -> Result<Vec<EchoServer>> {
    let mut servers = Vec::new();
    for address in crew.into_iter().flat_map(|crew| &crew.gateways) {
        let options = ServerOptions {
            listen: *address,
            challenge: true,
            starting: Duration::ZERO,
        };
        let server = EchoServer::start(&options).await;
        servers.push(server.with_context(|| format!("a gateway on {address}"))?);
    }
    Ok(servers)
}

/// How many have had an answer to something that they asked after their gateway was back.
async fn comeback(crowd: &Crowd, crew: usize) -> usize {
    let everybody = async {
        while crowd.back(crew) < crowd.crew_size(crew) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    // Those who are not back by then are counted as such.
    let _ = timeout(COMEBACK, everybody).await;
    crowd.back(crew)
}

/// Processes and their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Footprint {
    /// The proxy's processes, children included.
    pub processes: usize,
    /// All of them together.
    #[serde(flatten)]
    pub memory: Memory,
    /// Whether the memory stood still.
    pub settled: bool,
}

/// Looks until nothing changes any more: processes that end do so first.
async fn settle(pids: &[u32], plan: &Plan) -> Result<Footprint> {
    let progress = Progress::new("settling", usize::MAX);
    let mut last = look(pids).await?;
    let mut still = 0;
    for _ in 0..plan.looks.1 {
        sleep(plan.look_every).await;
        let now = look(pids).await?;
        progress.say(&bytes(now.memory.rss as f64));
        let change = now.memory.rss.abs_diff(last.memory.rss);
        let same = change * 200 <= last.memory.rss && now.processes == last.processes;
        still = if same { still + 1 } else { 0 };
        last = now;
        if still >= plan.looks.0 {
            last.settled = true;
            break;
        }
    }
    Ok(last)
}

async fn look(pids: &[u32]) -> Result<Footprint> {
    // A child that ends between two readings is no error; the proxy itself is.
    let mut tries = 0;
    loop {
        let all = procfs::with_children(pids);
        let living: Vec<u32> = all.into_iter().filter(|pid| procfs::alive(*pid)).collect();
        match procfs::memory(&living) {
            Ok(memory) => {
                return Ok(Footprint {
                    processes: living.len(),
                    memory,
                    settled: false,
                });
            }
            Err(error) if tries == 10 => return Err(error.into()),
            Err(_) => tries += 1,
        }
        sleep(Duration::from_millis(20)).await;
    }
}
