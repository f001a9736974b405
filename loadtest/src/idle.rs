//! Memory of idle sessions: proxy at rest, N sessions opened and settled, difference divided by N.
//! A few sessions are opened and closed first, so that what a proxy sets up once is not charged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::procfs::{self, Memory};
use crate::progress::Progress;
use crate::report::{Report, Table};
use crate::session::{Dialer, Session};
use crate::target::Target;
use crate::units::bytes;
use crate::ws::Opcode;

const FIRST_ANSWER: Duration = Duration::from_secs(10);
const FIRST_USE: usize = 16;

/// What to open.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Sessions to each target.
    pub sessions: usize,
    /// A text each session sends first, and whose answer it waits for.
    pub first_frame: Option<String>,
    /// Handshakes at a time while opening.
    pub opening: usize,
    /// Time between two looks at the memory.
    pub look_every: Duration,
    /// Looks without change that count as settled, and looks after which it is not waited longer.
    pub looks: (u32, u32),
}

/// What one target needed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdleMemory {
    /// Its name.
    pub name: String,
    /// Sessions open at the second reading.
    pub sessions: usize,
    /// Sessions that ended while they should have been idle.
    pub lost: usize,
    /// Before.
    pub before: Memory,
    /// With all sessions open.
    pub after: Memory,
    /// Resident bytes a session.
    pub rss_per_session: f64,
    /// Proportional bytes a session, where readable.
    pub pss_per_session: Option<f64>,
    /// Whether memory stood still at both readings.
    pub settled: bool,
}

/// All targets.
#[derive(Debug, Clone, Serialize)]
pub struct IdleReport {
    /// One entry a target, in their order.
    pub targets: Vec<IdleMemory>,
}

/// Measures all targets, one after the other.
///
/// # Errors
/// When a session cannot be opened, or a process is gone.
pub async fn run(dialer: &Dialer, targets: &[Target], plan: &Plan) -> Result<IdleReport> {
    ensure!(plan.sessions > 0, "at least one session");
    procfs::ensure_files(plan.sessions).map_err(anyhow::Error::msg)?;
    let mut measured = Vec::new();
    for target in targets {
        ensure!(
            !target.pids.is_empty(),
            "{}: idle needs the proxy's --pid",
            target.name
        );
        let one = measure(dialer, target, plan).await;
        measured.push(one.with_context(|| format!("{}: {}", target.name, target.url))?);
    }
    Ok(IdleReport { targets: measured })
}

async fn measure(dialer: &Dialer, target: &Target, plan: &Plan) -> Result<IdleMemory> {
    for session in dialer
        .open_many(&target.url, FIRST_USE, plan.opening)
        .await?
    {
        session.bye().await;
    }
    let pids = procfs::with_children(&target.pids);
    let (before, at_rest) = settle(&pids, plan).await?;
    let mut sessions = dialer
        .open_many(&target.url, plan.sessions, plan.opening)
        .await?;
    if let Some(text) = &plan.first_frame {
        for session in &mut sessions {
            session.ws.send(Opcode::Text, text.as_bytes()).await?;
            timeout(FIRST_ANSWER, session.ws.next())
                .await
                .context("first frame: no answer")??;
        }
    }
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for session in sessions {
        tasks.spawn(keep(session, stopped.clone()));
    }
    let (after, settled) = settle(&pids, plan).await?;
    let lost = (0..plan.sessions)
        .map_while(|_| tasks.try_join_next())
        .count();
    stop.send_replace(true);
    tasks.join_all().await;
    let open = plan.sessions - lost;
    let each = |after: u64, before: u64| (after as f64 - before as f64) / open.max(1) as f64;
    Ok(IdleMemory {
        name: target.name.clone(),
        sessions: open,
        lost,
        before,
        after,
        rss_per_session: each(after.rss, before.rss),
        pss_per_session: after.pss.zip(before.pss).map(|(a, b)| each(a, b)),
        settled: at_rest && settled,
    })
}

/// Answers pings and drops events until the session ends, or all are told to.
async fn keep(mut session: Session, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.changed() => return session.bye().await,
            message = session.ws.next() => if message.is_err() { return },
        }
    }
}

/// Looks until memory stands still (within 0.2 %), and says whether it did.
async fn settle(pids: &[u32], plan: &Plan) -> Result<(Memory, bool)> {
    let progress = Progress::new("settling", usize::MAX);
    let (mut last, mut still) = (procfs::memory(pids)?, 0);
    for _ in 0..plan.looks.1 {
        sleep(plan.look_every).await;
        let now = procfs::memory(pids)?;
        progress.say(&bytes(now.rss as f64));
        still = if now.rss.abs_diff(last.rss) * 500 <= last.rss {
            still + 1
        } else {
            0
        };
        last = now;
        if still >= plan.looks.0 {
            return Ok((last, true));
        }
    }
    Ok((last, false))
}

impl Report for IdleReport {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            "idle",
            "sessions",
            "RSS before",
            "RSS after",
            "RSS/session",
            "PSS/session",
            "lost",
            "",
        ]);
        for t in &self.targets {
            let word = if t.settled { "" } else { "did not settle" };
            table.row([
                t.name.clone(),
                t.sessions.to_string(),
                bytes(t.before.rss as f64),
                bytes(t.after.rss as f64),
                bytes(t.rss_per_session),
                t.pss_per_session.map_or_else(|| "-".to_owned(), bytes),
                t.lost.to_string(),
                word.to_owned(),
            ]);
        }
        table.render()
    }
}
