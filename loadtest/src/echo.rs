//! Echo throughput: every session keeps a few requests in flight for a slice of time; targets
//! take turns slice by slice. CPU time of the proxy is taken over exactly the counted window.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::procfs;
use crate::progress::Progress;
use crate::protocol;
use crate::report::{Report, Table};
use crate::session::{Dialer, Session};
use crate::target::Target;
use crate::units::bytes;
use crate::ws::WsError;

/// More than this in flight could fill every buffer on the way and stop both directions.
const MOST_IN_FLIGHT: usize = 64 * 1024;
const DRAIN: Duration = Duration::from_secs(5);

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Sessions to each target.
    pub sessions: usize,
    /// Payload bytes.
    pub size: usize,
    /// Requests a session keeps in flight; large messages go one by one.
    pub in_flight: usize,
    /// How long for each target, all slices together.
    pub length: Duration,
    /// Slices per target.
    pub rounds: u32,
    /// Before counting starts, in each slice.
    pub warm_up: Duration,
    /// Handshakes at a time while opening.
    pub opening: usize,
}

/// What one target did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throughput {
    /// Its name.
    pub name: String,
    /// Messages echoed.
    pub messages: u64,
    /// Payload bytes echoed, one way.
    pub bytes: u64,
    /// Time counted.
    pub seconds: f64,
    /// Per second.
    pub messages_per_second: f64,
    /// Per second, one way.
    pub bytes_per_second: f64,
    /// CPU time of its processes over the counted time.
    pub cpu_seconds: Option<f64>,
    /// CPU time for a million messages.
    pub cpu_seconds_per_million: Option<f64>,
    /// Sessions that ended before they should.
    pub lost: usize,
}

/// All targets.
#[derive(Debug, Clone, Serialize)]
pub struct EchoReport {
    /// One entry a target, in their order.
    pub targets: Vec<Throughput>,
}

#[derive(Default)]
struct Shared {
    messages: AtomicU64,
    stop: AtomicBool,
}

/// Measures all targets, slice by slice in turns.
///
/// # Errors
/// When a session cannot be opened, or every session of a target ends.
pub async fn run(dialer: &Dialer, targets: &[Target], plan: &Plan) -> Result<EchoReport> {
    ensure!(
        plan.sessions > 0 && plan.rounds > 0,
        "at least one session and one round"
    );
    procfs::ensure_files(plan.sessions).map_err(anyhow::Error::msg)?;
    let mut totals: Vec<Throughput> = targets.iter().map(Throughput::of).collect();
    let mut progress = Progress::new("echo slices", targets.len() * plan.rounds as usize);
    for _ in 0..plan.rounds {
        for (target, total) in targets.iter().zip(&mut totals) {
            let slice = slice(dialer, target, plan).await;
            total.add(&slice.with_context(|| format!("{}: {}", target.name, target.url))?);
            progress.step();
        }
    }
    totals.iter_mut().for_each(Throughput::settle);
    Ok(EchoReport { targets: totals })
}

async fn slice(dialer: &Dialer, target: &Target, plan: &Plan) -> Result<Throughput> {
    let sessions = dialer
        .open_many(&target.url, plan.sessions, plan.opening)
        .await?;
    let size = sessions
        .first()
        .map_or(plan.size, |s| s.template(plan.size).payload_len());
    let shared = Arc::new(Shared::default());
    let mut tasks = JoinSet::new();
    for session in sessions {
        tasks.spawn(drive(session, *plan, Arc::clone(&shared)));
    }
    sleep(plan.warm_up).await;
    let pids = procfs::with_children(&target.pids);
    let before = (
        Instant::now(),
        procfs::cpu(&pids)?,
        shared.messages.load(Ordering::Relaxed),
    );
    sleep(plan.length / plan.rounds).await;
    let (end, cpu) = (Instant::now(), procfs::cpu(&pids)?);
    let messages = shared.messages.load(Ordering::Relaxed) - before.2;
    shared.stop.store(true, Ordering::Relaxed);
    let mut lost = 0;
    while let Some(ended) = tasks.join_next().await {
        lost += usize::from(ended?.is_err());
    }
    if lost == plan.sessions {
        bail!("every session ended early");
    }
    Ok(Throughput {
        messages,
        bytes: messages * size as u64,
        seconds: (end - before.0).as_secs_f64(),
        cpu_seconds: (!pids.is_empty()).then(|| cpu.saturating_sub(before.1).as_secs_f64()),
        lost,
        ..Throughput::default()
    })
}

async fn drive(mut session: Session, plan: Plan, shared: Arc<Shared>) -> Result<(), WsError> {
    let mut template = session.template(plan.size);
    let fitting = (MOST_IN_FLIGHT / template.payload_len().max(1)).max(1);
    let (mut sent, mut answered) = (0, 0);
    for _ in 0..plan.in_flight.clamp(1, fitting) {
        session.ws.queue_raw(template.with_id(sent));
        sent += 1;
    }
    session.ws.flush().await?;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut batch = 0;
        loop {
            let message = session.ws.next().await?;
            if protocol::answered_id(session.protocol, message.payload).is_some() {
                session.ws.queue_raw(template.with_id(sent));
                sent += 1;
                batch += 1;
            }
            if !session.ws.has_buffered() {
                break;
            }
        }
        answered += batch;
        shared.messages.fetch_add(batch, Ordering::Relaxed);
        session.ws.flush().await?;
    }
    // Answers still on their way are waited for, so that the close finds an idle session.
    let drained = timeout(DRAIN, async {
        while answered < sent {
            let message = session.ws.next().await?;
            answered +=
                u64::from(protocol::answered_id(session.protocol, message.payload).is_some());
        }
        Ok::<(), WsError>(())
    });
    drained.await.unwrap_or(Ok(()))?;
    session.bye().await;
    Ok(())
}

impl Throughput {
    fn of(target: &Target) -> Self {
        Self {
            name: target.name.clone(),
            ..Self::default()
        }
    }

    fn add(&mut self, slice: &Self) {
        self.messages += slice.messages;
        self.bytes += slice.bytes;
        self.seconds += slice.seconds;
        self.lost += slice.lost;
        if let Some(cpu) = slice.cpu_seconds {
            *self.cpu_seconds.get_or_insert(0.0) += cpu;
        }
    }

    /// Works out the rates from the sums.
    fn settle(&mut self) {
        if self.seconds > 0.0 {
            self.messages_per_second = self.messages as f64 / self.seconds;
            self.bytes_per_second = self.bytes as f64 / self.seconds;
        }
        if self.messages > 0 {
            let per_million = |cpu: f64| cpu * 1e6 / self.messages as f64;
            self.cpu_seconds_per_million = self.cpu_seconds.map(per_million);
        }
    }
}

impl Report for EchoReport {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            "echo",
            "messages/s",
            "bytes/s",
            "CPU s/million",
            "CPU",
            "lost",
        ]);
        for t in &self.targets {
            let cpu = |value: Option<f64>, unit: &str| {
                value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}{unit}"))
            };
            table.row([
                t.name.clone(),
                format!("{:.0}", t.messages_per_second),
                bytes(t.bytes_per_second),
                cpu(t.cpu_seconds_per_million, ""),
                cpu(t.cpu_seconds.map(|c| c / t.seconds), " cores"),
                t.lost.to_string(),
            ]);
        }
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_add_up_before_rates_are_taken() {
        let slice = |messages, cpu| Throughput {
            messages,
            bytes: messages * 100,
            seconds: 0.5,
            cpu_seconds: Some(cpu),
            ..Throughput::default()
        };
        let mut total = Throughput::default();
        total.add(&slice(1000, 0.01));
        total.add(&slice(3000, 0.03));
        total.settle();
        assert_eq!((total.messages, total.bytes), (4000, 400_000));
        assert!((total.messages_per_second - 4000.0).abs() < 1e-9);
        assert!((total.cpu_seconds_per_million.unwrap() - 10.0).abs() < 1e-9);
    }
}
