//! What clients go through while the backend restarts. N clients that behave like the official
//! one work on their sessions; the backend is restarted; every event is written down with its
//! time, and the tally is made from that record alone.

mod backend;
mod client;
mod events;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

pub use backend::{Restart, RestartTimes};
pub use events::{Event, Kind};
pub use tally::{OutageReport, Tally};

use crate::http;
use crate::progress::Progress;
use crate::server::Stats;
use crate::session::Dialer;
use crate::url::Url;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Clients, one session each.
    pub sessions: usize,
    /// Where they connect.
    pub url: Url,
    /// A request of each client this often.
    pub every: Duration,
    /// Payload bytes of a request.
    pub size: usize,
    /// First wait before a reconnect; doubled at every failure.
    pub backoff: (Duration, Duration),
    /// The longest wait for everybody to be back.
    pub length: Duration,
    /// Watched on after everybody is back: a proxy may move clients late.
    pub linger: Duration,
    /// Says 200 when the backend is ready.
    pub ready_url: Option<Url>,
    /// The echo backend's own counters.
    pub stats_url: Option<Url>,
    /// Handshakes at a time while opening the first sessions.
    pub opening: usize,
}

/// How long the first sessions may take to work.
const OPEN: Duration = Duration::from_secs(120);
/// How often the whole tally is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the clients through one restart.
///
/// # Errors
/// When the clients cannot start, or the restart itself fails.
pub async fn run(dialer: &Dialer, plan: &Plan, restart: Restart) -> Result<OutageReport> {
    crate::procfs::ensure_files(plan.sessions).map_err(anyhow::Error::msg)?;
    let (events, mut record) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    let shared = Arc::new(client::Shared {
        dialer: dialer.clone(),
        plan: plan.clone(),
        gate: Semaphore::new(plan.opening.max(1)),
        events,
    });
    for id in 0..plan.sessions {
        clients.spawn(client::run(id, Arc::clone(&shared), stopped.clone()));
    }
    drop(shared);
    let mut tally = Tally::new(plan.sessions, plan.every);
    let opened = timeout(
        OPEN,
        gather(&mut record, &mut tally, Tally::all_answered, "clients open"),
    );
    if opened.await.is_err() {
        bail!(
            "only {} of {} clients work: {}",
            tally.working(),
            plan.sessions,
            tally.troubles()
        );
    }
    let times = observe(plan, restart, &mut record, &mut tally).await?;
    let _ = timeout(
        plan.linger,
        gather(&mut record, &mut tally, |_| false, "lingering"),
    )
    .await;
    stop.send_replace(true);
    while clients.join_next().await.is_some() {}
    while let Ok(event) = record.try_recv() {
        tally.on(&event);
    }
    let backend = match &plan.stats_url {
        Some(url) => Some(backend_stats(url).await?),
        None => None,
    };
    Ok(tally.report(&times, backend))
}

/// Restarts the backend and gathers until everybody is back, or time is up.
async fn observe(
    plan: &Plan,
    restart: Restart,
    record: &mut mpsc::UnboundedReceiver<Event>,
    tally: &mut Tally,
) -> Result<RestartTimes> {
    let start = Instant::now();
    tally.outage_begins(start);
    let mut times = RestartTimes::never(start);
    let mut restarted = tokio::spawn(restart.perform(plan.ready_url.clone()));
    let both = async {
        times = loop {
            tokio::select! {
                done = &mut restarted => break done.context("the restart task failed")??,
                event = record.recv() => if let Some(event) = event { tally.on(&event) },
            }
        };
        gather(record, tally, |t| t.all_back(&times), "clients back").await;
        anyhow::Ok(())
    };
    let finished = timeout(plan.length, both).await;
    restarted.abort();
    // Time is up and not everybody is back: that is a result, not an error.
    finished.unwrap_or(Ok(()))?;
    Ok(times)
}

/// Takes events into the tally until it is satisfied.
async fn gather(
    record: &mut mpsc::UnboundedReceiver<Event>,
    tally: &mut Tally,
    done: impl Fn(&Tally) -> bool,
    label: &str,
) {
    let progress = Progress::new(label, usize::MAX);
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            biased;
            _ = look.tick() => {
                if done(tally) {
                    return;
                }
                progress.say(&tally.one_line());
            }
            Some(event) = record.recv() => tally.on(&event),
        }
    }
}

async fn backend_stats(url: &Url) -> Result<Stats> {
    let (_, body) = http::get(url, Duration::from_secs(5))
        .await
        .context("--stats-url")?;
    serde_json::from_slice(&body).context("--stats-url: not the echo backend's counters")
}
