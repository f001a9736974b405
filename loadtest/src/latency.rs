//! Added latency: sessions to every target send at fixed, staggered times in one run, so that
//! noise of the machine hits all targets alike. Safe against coordinated omission: see
//! [`stats::began`](crate::stats::began).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::pace::{Beat, Metronome, Slot};
use crate::progress::Progress;
use crate::report::{Report, Table};
use crate::session::{Dialer, Session};
use crate::stats::{Latencies, Summary, began};
use crate::target::Target;
use crate::units::micros;

/// A request unanswered for this long is lost, and its session with it.
const LOST: Duration = Duration::from_secs(10);
const WARM_UP: u64 = 20;
/// From the last warm-up to the first turn.
const LEAD: Duration = Duration::from_millis(200);

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Sessions to each target.
    pub sessions: usize,
    /// Requests per second to each target, all its sessions together.
    pub rate: f64,
    /// Payload bytes.
    pub size: usize,
    /// How long.
    pub length: Duration,
    /// Handshakes at a time while opening.
    pub opening: usize,
}

/// One target's round trips.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// Round trips, in microseconds.
    pub latency: Summary,
    /// Sessions that ended before the run did.
    pub lost: usize,
}

/// All round trips of one run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyReport {
    /// One entry a target, in their order.
    pub targets: Vec<Measured>,
    /// What each but the last adds to the last, when that is the baseline.
    pub added: Vec<Summary>,
    /// How late this generator itself was; the same for all targets and in none of the figures.
    pub generator_late: Summary,
}

struct Outcome {
    target: usize,
    took: Vec<Duration>,
    late: Vec<Duration>,
    lost: bool,
}

/// Measures all targets in one run. With `baseline`, the last target is what the others are
/// compared with.
///
/// # Errors
/// When a session cannot be opened.
pub async fn run(
    dialer: &Dialer,
    targets: &[Target],
    baseline: bool,
    plan: &Plan,
) -> Result<LatencyReport> {
    ensure!(
        plan.sessions > 0 && plan.rate > 0.0,
        "at least one session and a rate above zero"
    );
    let files = targets.len() * plan.sessions;
    crate::procfs::ensure_files(files).map_err(anyhow::Error::msg)?;
    let mut opened = Vec::new();
    for target in targets {
        let sessions = dialer
            .open_many(&target.url, plan.sessions, plan.opening)
            .await;
        opened.push(sessions.with_context(|| format!("{}: {}", target.name, target.url))?);
    }
    let every = Duration::from_secs_f64(plan.sessions as f64 / plan.rate);
    let turns = (plan.length.as_secs_f64() / every.as_secs_f64())
        .ceil()
        .max(1.0) as u32;
    let warm = opened
        .iter_mut()
        .flatten()
        .map(|session| warm_up(session, plan.size));
    for warmed in warm.collect::<Vec<_>>() {
        warmed.await?;
    }
    let beat = Beat {
        start: Instant::now() + LEAD,
        every,
        turns,
    };
    let (_metronome, slots) = Metronome::start(beat, targets.len() * plan.sessions)?;
    // Slots go round the targets first, so that two targets never have two turns in a row.
    let mut queues: Vec<_> = opened.into_iter().map(Vec::into_iter).collect();
    let mut tasks = JoinSet::new();
    for (n, slot) in slots.into_iter().enumerate() {
        let target = n % targets.len();
        let session = queues.get_mut(target).and_then(Iterator::next);
        let session = session.context("fewer sessions than slots")?;
        tasks.spawn(drive(session, target, slot, plan.size));
    }
    let collected = collect(tasks, targets, baseline);
    Progress::during("latency", plan.length, collected).await
}

async fn warm_up(session: &mut Session, size: usize) -> Result<()> {
    let mut template = session.template(size);
    for id in 1..=WARM_UP {
        session.ws.queue_raw(template.with_id(id));
        session.ws.flush().await?;
        timeout(LOST, session.answer(id))
            .await
            .context("no answer while warming up")??;
    }
    Ok(())
}

/// One session: send on time, wait for the answer, remember how long it took.
async fn drive(mut session: Session, target: usize, slot: Slot, size: usize) -> Outcome {
    let mut outcome = Outcome {
        target,
        took: Vec::new(),
        late: Vec::new(),
        lost: false,
    };
    outcome.lost = exchange(&mut session, slot, size, &mut outcome)
        .await
        .is_err();
    session.bye().await;
    outcome
}

async fn exchange(
    session: &mut Session,
    mut slot: Slot,
    size: usize,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut template = session.template(size);
    let (mut id, mut previous) = (WARM_UP, None);
    while let Some(at) = slot.next().await {
        id += 1;
        let sent = Instant::now();
        session.ws.queue_raw(template.with_id(id));
        session.ws.flush().await?;
        timeout(LOST, session.answer(id)).await??;
        let answered = Instant::now();
        let start = began(at, previous, sent);
        outcome.took.push(answered - start);
        if start == sent {
            outcome.late.push(sent.saturating_duration_since(at));
        }
        previous = Some(answered);
    }
    Ok(())
}

async fn collect(
    mut tasks: JoinSet<Outcome>,
    targets: &[Target],
    baseline: bool,
) -> Result<LatencyReport> {
    let mut late = Latencies::new()?;
    let fresh = || Ok::<_, hdrhistogram::CreationError>((Latencies::new()?, 0));
    let mut sums = targets
        .iter()
        .map(|_| fresh())
        .collect::<Result<Vec<_>, _>>()?;
    while let Some(outcome) = tasks.join_next().await {
        let outcome = outcome?;
        let Some((latencies, lost)) = sums.get_mut(outcome.target) else {
            continue;
        };
        *lost += usize::from(outcome.lost);
        outcome.took.iter().for_each(|took| latencies.record(*took));
        outcome.late.iter().for_each(|took| late.record(*took));
    }
    let measured = |(target, (latencies, lost)): (&Target, (Latencies, usize))| Measured {
        name: target.name.clone(),
        url: target.url.to_string(),
        latency: latencies.summary(),
        lost,
    };
    let measured: Vec<_> = targets.iter().zip(sums).map(measured).collect();
    let added = match measured.split_last() {
        Some((base, others)) if baseline => others
            .iter()
            .map(|m| m.latency.minus(&base.latency))
            .collect(),
        _ => Vec::new(),
    };
    Ok(LatencyReport {
        targets: measured,
        added,
        generator_late: late.summary(),
    })
}

impl Report for LatencyReport {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            "round trip",
            "count",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "lost",
        ]);
        let cells = |name: String, s: &Summary, lost: String| {
            let count = s.count.to_string();
            [
                name,
                count,
                micros(s.p50),
                micros(s.p90),
                micros(s.p99),
                micros(s.p999),
            ]
            .into_iter()
            .chain([micros(s.max), lost])
            .collect::<Vec<_>>()
        };
        for target in &self.targets {
            table.row(cells(
                target.name.clone(),
                &target.latency,
                target.lost.to_string(),
            ));
        }
        for (target, added) in self.targets.iter().zip(&self.added) {
            table.row(cells(
                format!("added by {}", target.name),
                added,
                String::new(),
            ));
        }
        table.row(cells(
            "generator late".to_owned(),
            &self.generator_late,
            String::new(),
        ));
        table.render()
    }
}
