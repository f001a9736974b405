//! From the clients' record to the numbers: pure, and every request is in exactly one of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::backend::RestartTimes;
use super::events::{Event, Kind};
use crate::report::{Report, Table};
use crate::server::Stats;
use crate::stats::median;

/// What one client went through.
#[derive(Debug, Clone, Default)]
struct Client {
    answered_before: bool,
    open: bool,
    /// Answers with a result since the outage began.
    answers: Vec<Instant>,
    /// The last one before.
    last_before: Option<Instant>,
    ended_at: Option<Instant>,
    away: Duration,
}

/// The record, as it grows.
#[derive(Debug)]
pub struct Tally {
    clients: Vec<Client>,
    every: Duration,
    outage: Option<Instant>,
    working: usize,
    opened: Vec<Instant>,
    counts: Counts,
}

/// What happened, from the first session to the last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Open sessions that ended.
    pub disconnects: usize,
    /// The same, by close code.
    pub close_codes: BTreeMap<u16, usize>,
    /// Attempts that failed, by cause.
    pub failed_attempts: BTreeMap<String, usize>,
    /// Attempts told "starting, come back", which clients hide from their users.
    pub greeted: usize,
    /// Requests sent.
    pub requests: usize,
    /// Requests answered with their result.
    pub answered: usize,
    /// Requests answered with an error, by code, reason and what is known of their execution.
    pub refused: BTreeMap<String, usize>,
    /// Requests never answered: session ended, or a client's patience.
    pub unanswered: usize,
}

/// The result. Times in milliseconds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutageReport {
    /// Clients.
    pub clients: usize,
    /// What happened.
    #[serde(flatten)]
    pub counts: Counts,
    /// Requests a client could not even send because it had no session.
    pub not_sent: usize,
    /// From the restart to the ready URL's 200.
    pub backend_away_ms: Option<f64>,
    /// From ready to a client's first result: median and worst.
    pub ready_to_usable_ms: Option<[f64; 2]>,
    /// The longest time a client went without a result: median and worst.
    pub gap_ms: Option<[f64; 2]>,
    /// Clients without a result since.
    pub not_back: usize,
    /// Upgrades within any one second, as the clients saw them.
    pub peak_upgrades_per_second: usize,
    /// The backend's own count, with `--stats-url`.
    pub backend: Option<Stats>,
}

impl Tally {
    /// Starts empty.
    #[must_use]
    pub fn new(clients: usize, every: Duration) -> Self {
        Self {
            clients: vec![Client::default(); clients],
            every,
            outage: None,
            working: 0,
            opened: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// The restart begins now.
    pub fn outage_begins(&mut self, at: Instant) {
        self.outage = Some(at);
    }

    /// Takes one event.
    pub fn on(&mut self, event: &Event) {
        let Some(client) = self.clients.get_mut(event.client) else {
            return;
        };
        let counts = &mut self.counts;
        match &event.kind {
            Kind::Opened => {
                client.open = true;
                if let Some(ended) = client.ended_at.take() {
                    client.away += event.at.saturating_duration_since(ended);
                }
                self.opened.push(event.at);
            }
            Kind::Greeted => {
                counts.greeted += 1;
                self.opened.push(event.at);
            }
            Kind::Failed { cause, upgraded } => {
                *counts.failed_attempts.entry(cause.clone()).or_default() += 1;
                if *upgraded {
                    self.opened.push(event.at);
                }
            }
            Kind::Sent => counts.requests += 1,
            Kind::Answered => {
                counts.answered += 1;
                self.working += usize::from(!client.answered_before);
                client.answered_before = true;
                match self.outage {
                    Some(_) => client.answers.push(event.at),
                    None => client.last_before = Some(event.at),
                }
            }
            Kind::Refused(refusal) => {
                let words = [&refusal.code, &refusal.reason, &refusal.execution];
                let words: Vec<_> = words
                    .into_iter()
                    .filter(|w| !w.is_empty())
                    .cloned()
                    .collect();
                *counts.refused.entry(words.join(" ")).or_default() += 1;
            }
            Kind::TimedOut => counts.unanswered += 1,
            Kind::Ended { code, unanswered } => {
                counts.disconnects += 1;
                counts.unanswered += unanswered;
                *counts.close_codes.entry(*code).or_default() += 1;
                client.open = false;
                client.ended_at = Some(event.at);
            }
            Kind::Left { unanswered } => {
                counts.unanswered += unanswered;
                client.open = false;
            }
        }
    }

    /// Whether every client has had a result.
    #[must_use]
    pub fn all_answered(&self) -> bool {
        self.working == self.clients.len()
    }

    /// How many clients have had one.
    #[must_use]
    pub const fn working(&self) -> usize {
        self.working
    }

    /// Whether every client has had a result from the new backend.
    #[must_use]
    pub fn all_back(&self, times: &RestartTimes) -> bool {
        let Some(from) = times.new_backend_from() else {
            return false;
        };
        self.clients
            .iter()
            .all(|c| c.open && c.answers.last().is_some_and(|at| *at >= from))
    }

    /// Why attempts failed so far.
    #[must_use]
    pub fn troubles(&self) -> String {
        listed(&self.counts.failed_attempts)
    }

    /// For a progress line.
    #[must_use]
    pub fn one_line(&self) -> String {
        let open = self.clients.iter().filter(|c| c.open).count();
        let failed: usize = self.counts.failed_attempts.values().sum();
        let (answered, ended) = (self.counts.answered, self.counts.disconnects);
        format!("{open} open, {ended} disconnects, {failed} failed attempts, {answered} answers")
    }

    /// The result.
    #[must_use]
    pub fn report(self, times: &RestartTimes, backend: Option<Stats>) -> OutageReport {
        let from = times.new_backend_from();
        let back = |c: &Client| c.answers.iter().copied().find(|at| Some(*at) >= from);
        let back: Vec<_> = self.clients.iter().filter_map(back).collect();
        let usable = times.ready.map(|ready| {
            back.iter()
                .map(|at| millis(at.saturating_duration_since(ready)))
                .collect::<Vec<_>>()
        });
        let gaps: Vec<_> = self
            .clients
            .iter()
            .filter_map(Client::gap)
            .map(millis)
            .collect();
        let away: Duration = self.clients.iter().map(|c| c.away).sum();
        OutageReport {
            clients: self.clients.len(),
            not_sent: (away.as_secs_f64() / self.every.as_secs_f64()) as usize,
            backend_away_ms: times.ready.map(|ready| millis(ready - times.start)),
            ready_to_usable_ms: usable.as_deref().and_then(median_and_worst),
            gap_ms: median_and_worst(&gaps),
            not_back: if from.is_some() {
                self.clients.len() - back.len()
            } else {
                0
            },
            peak_upgrades_per_second: peak(&self.opened, self.outage),
            counts: self.counts,
            backend,
        }
    }
}

impl Client {
    /// The longest time between two results, the last before the outage included.
    fn gap(&self) -> Option<Duration> {
        let times = self.last_before.iter().chain(&self.answers);
        times.clone().zip(times.skip(1)).map(|(a, b)| *b - *a).max()
    }
}

/// The most moments within one second, from the outage on.
fn peak(moments: &[Instant], from: Option<Instant>) -> usize {
    let mut sorted: Vec<_> = moments
        .iter()
        .copied()
        .filter(|at| Some(*at) >= from)
        .collect();
    sorted.sort_unstable();
    let mut start = sorted.iter().peekable();
    let (mut inside, mut most) = (0, 0);
    for at in &sorted {
        inside += 1;
        while start
            .next_if(|first| *at - **first >= Duration::from_secs(1))
            .is_some()
        {
            inside -= 1;
        }
        most = most.max(inside);
    }
    most
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median_and_worst(values: &[f64]) -> Option<[f64; 2]> {
    Some([median(values)?, values.iter().copied().fold(0.0, f64::max)])
}

fn listed<K: std::fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    let parts: Vec<_> = counts
        .iter()
        .map(|(what, n)| format!("{n} × {what}"))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

impl Report for OutageReport {
    fn text(&self) -> String {
        let counts = &self.counts;
        let pair = |pair: &Option<[f64; 2]>| {
            pair.map_or_else(
                || "-".to_owned(),
                |[p50, max]| format!("{p50:.0} / {max:.0} ms"),
            )
        };
        let away = self
            .backend_away_ms
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
        let mut table = Table::new(&["outage", ""]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("clients", self.clients.to_string());
        row("restart until ready", away);
        row(
            "ready until usable, p50 / max",
            pair(&self.ready_to_usable_ms),
        );
        row("longest gap between results, p50 / max", pair(&self.gap_ms));
        row("clients not back", self.not_back.to_string());
        row("disconnects", counts.disconnects.to_string());
        row("  close codes", listed(&counts.close_codes));
        row(
            "failed attempts",
            counts.failed_attempts.values().sum::<usize>().to_string(),
        );
        row("  causes", listed(&counts.failed_attempts));
        row(
            "told \"starting\" (unseen by users)",
            counts.greeted.to_string(),
        );
        row("requests", counts.requests.to_string());
        row("  answered", counts.answered.to_string());
        row(
            "  answered with an error",
            counts.refused.values().sum::<usize>().to_string(),
        );
        row("  errors", listed(&counts.refused));
        row("  never answered", counts.unanswered.to_string());
        row("  not sent, no session", self.not_sent.to_string());
        row(
            "upgrades in one second, most (clients' view)",
            self.peak_upgrades_per_second.to_string(),
        );
        if let Some(stats) = self.backend {
            row(
                "handshakes in one second, most (backend's view)",
                stats.peak_per_second.to_string(),
            );
            row("handshakes at the backend", stats.handshakes.to_string());
        }
        table.render()
    }
}

#[cfg(test)]
mod tests;
