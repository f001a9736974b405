//! What is printed: one line a proxy, and below it what does not fit there.

use std::collections::BTreeMap;

use serde::Serialize;

use super::drops::Drops;
use super::{Connects, Echoes, Footprint, Requests, Turns};
use crate::report::{Report, Table};
use crate::units::bytes;

/// One proxy across its reloads.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Live sessions.
    pub sessions: usize,
    /// What they saw.
    pub echoes: Echoes,
    /// Clients whose gateway was away.
    pub held: Option<Requests>,
    /// How many of these were answered by the gateway that came back.
    pub put_back: Option<usize>,
    /// Clients whose gateway had one address or another.
    pub moving: Option<Requests>,
    /// How often one of these got another gateway.
    pub moves: Option<u64>,
    /// New sessions meanwhile.
    pub connects: Connects,
    /// The reloads.
    pub turns: Turns,
    /// Before the first.
    pub before: Footprint,
    /// After the last.
    pub after: Footprint,
}

/// All proxies.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReloadReport {
    /// One entry a proxy, in their order.
    pub proxies: Vec<Measured>,
    /// Those that could not be measured, and why.
    pub failed: Vec<String>,
}

impl Measured {
    /// Memory after the last reload as a part of that before the first; shared pages divided among
    /// their users where that can be read.
    #[must_use]
    pub fn growth(&self) -> f64 {
        let (before, after) = (self.before.memory, self.after.memory);
        let (before, after) = match before.pss.zip(after.pss) {
            Some(pss) => pss,
            None => (before.rss, after.rss),
        };
        after as f64 / (before as f64).max(1.0)
    }

    /// All drops, of whatever kind of session.
    fn drops(&self) -> Drops {
        let mut all = self.echoes.drops.clone();
        for crew in self.held.iter().chain(&self.moving) {
            all.add(crew.drops.clone());
        }
        all
    }

    /// What a reload must not do, in words; empty if it did nothing of it. Memory may grow by
    /// `growth` percent.
    #[must_use]
    pub fn faults(&self, growth: f64) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, words: String| {
            if wrong {
                faults.push(words);
            }
        };
        let dropped = self.drops().sessions;
        fault(dropped > 0, format!("{dropped} sessions dropped"));
        fault(
            !self.echoes.is_true(),
            "messages lost, repeated, reordered or altered".to_owned(),
        );
        for (name, crew) in [("held", &self.held), ("moving", &self.moving)] {
            let untrue = crew.as_ref().is_some_and(|crew| !crew.is_true());
            fault(
                untrue,
                format!("{name}: requests lost, answered twice or out of turn"),
            );
        }
        let missing =
            self.held.as_ref().map_or(0, |held| held.sessions) - self.put_back.unwrap_or(0);
        fault(missing > 0, format!("{missing} held sessions not put back"));
        let refused = self.connects.refused();
        fault(refused > 0, format!("{refused} new sessions refused"));
        let grown = (self.growth() - 1.0) * 100.0;
        let words = format!("{grown:.1} % more memory than before");
        fault(grown > growth, words);
        let processes = (self.before.processes, self.after.processes);
        let left = format!("{} processes, {} before", processes.1, processes.0);
        fault(processes.1 > processes.0, left);
        faults
    }

    fn cells(&self) -> Vec<String> {
        let flaws = self.echoes.duplicated + self.echoes.reordered + self.echoes.altered;
        let memory = |at: &Footprint| bytes(at.memory.pss.unwrap_or(at.memory.rss) as f64);
        vec![
            self.name.clone(),
            format!("{} of {}", self.echoes.drops.sessions, self.sessions),
            format!("{} of {}", self.echoes.lost, self.echoes.sent),
            flaws.to_string(),
            format!("{} of {}", self.connects.refused(), self.connects.tried),
            format!("{} → {}", self.before.processes, self.after.processes),
            memory(&self.before),
            memory(&self.after),
            format!("{:+.1} %", (self.growth() - 1.0) * 100.0),
            format!("{:.0} ms", self.turns.median_ms),
            format!("{:.0} ms", self.turns.last_ms),
        ]
    }

    fn details(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let turns = &self.turns;
        lines.push(match turns.changed.len() {
            0 => format!("{} reloads in {:.1} s", turns.reloads, turns.seconds),
            keys => format!(
                "{} reloads in {:.1} s, which changed {keys} settings",
                turns.reloads, turns.seconds
            ),
        });
        let drops = self.drops();
        if let Some([first, last]) = drops.seconds {
            let how = listed(&drops.how);
            lines.push(format!(
                "ended from {first:.1} s to {last:.1} s after the first reload: {how}"
            ));
        }
        if !self.connects.failed.is_empty() {
            let causes = listed(&self.connects.failed);
            lines.push(format!("new sessions refused: {causes}"));
        }
        if !self.echoes.failed_returns.is_empty() {
            let causes = listed(&self.echoes.failed_returns);
            lines.push(format!("came again in vain: {causes}"));
        }
        if let (Some(held), Some(back)) = (&self.held, self.put_back) {
            let all = held.sessions;
            lines.push(format!("held: {back} of {all} put back, {}", asked(held)));
        }
        if let Some(moving) = &self.moving {
            let (all, dropped) = (moving.sessions, moving.drops.sessions);
            let asked = asked(moving);
            let moves = self.moves.unwrap_or(0);
            lines.push(format!(
                "moved: {all} sessions {moves} times, {dropped} dropped, {asked}"
            ));
        }
        if !(self.before.settled && self.after.settled) {
            lines.push("its memory did not come to rest".to_owned());
        }
        lines
    }
}

fn asked(crew: &Requests) -> String {
    let refused: u64 = crew.refused.values().sum();
    let mut text = format!(
        "{} requests: {} answered, {refused} answered with an error, {} lost, {} twice, {} out of turn",
        crew.asked, crew.answered, crew.lost, crew.duplicated, crew.reordered
    );
    if refused > 0 {
        text.push_str(&format!(" (errors: {})", listed(&crew.refused)));
    }
    text
}

fn listed<N: std::fmt::Display>(counts: &BTreeMap<String, N>) -> String {
    let parts = counts.iter().map(|(what, n)| format!("{n} × {what}"));
    parts.collect::<Vec<_>>().join(", ")
}

impl Report for ReloadReport {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            "reloads",
            "dropped",
            "lost",
            "other flaws",
            "refused",
            "processes",
            "PSS before",
            "PSS after",
            "",
            "reload p50",
            "last",
        ]);
        for proxy in &self.proxies {
            table.row(proxy.cells());
        }
        let mut text = table.render();
        for proxy in &self.proxies {
            text.push_str(&format!("\n{}\n", proxy.name));
            for line in proxy.details() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text
    }
}
