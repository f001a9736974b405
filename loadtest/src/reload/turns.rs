//! The reloads themselves: a command each, at an even pace, and how long each took to be in force.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Plan;
use crate::progress::Progress;
use crate::stats::median;

/// A reload that is not in force by then is a failure.
const LONGEST: Duration = Duration::from_secs(60);

/// How the reloads went. Times in milliseconds, from the command's start to its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Turns {
    /// How many.
    pub reloads: u32,
    /// Median, from asked for to in force.
    pub median_ms: f64,
    /// The slowest.
    pub slowest_ms: f64,
    /// The last.
    pub last_ms: f64,
    /// All of them, from the first to the last.
    pub seconds: f64,
    /// What the commands said has changed.
    pub changed: BTreeSet<String>,
}

/// Carries `numbers` out; `each` is called before every one.
pub(super) async fn run(
    command: &str,
    plan: &Plan,
    numbers: RangeInclusive<u32>,
    mut each: impl FnMut(u32),
) -> Result<Turns> {
    let mut progress = Progress::new("reloads", numbers.clone().count());
    let mut pace = interval(plan.pace.max(Duration::from_millis(1)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let (mut took, mut changed) = (Vec::new(), BTreeSet::new());
    let last = *numbers.end();
    for turn in numbers {
        pace.tick().await;
        each(turn);
        let asked = Instant::now();
        let said = reload(command, turn, turn == last).await;
        changed.extend(said.with_context(|| format!("reload {turn}"))?);
        took.push(asked.elapsed().as_secs_f64() * 1000.0);
        progress.step();
    }
    Ok(Turns {
        reloads: u32::try_from(took.len()).unwrap_or(u32::MAX),
        median_ms: median(&took).unwrap_or_default(),
        slowest_ms: took.iter().copied().fold(0.0, f64::max),
        last_ms: took.last().copied().unwrap_or_default(),
        seconds: began.elapsed().as_secs_f64(),
        changed,
    })
}

async fn reload(command: &str, turn: u32, last: bool) -> Result<Vec<String>> {
    let run = Command::new("sh")
        .args(["-c", command])
        .env("N", turn.to_string())
        .env("LAST", if last { "1" } else { "" })
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = timeout(LONGEST, run).await.context("it took too long")??;
    if !done.status.success() {
        let words = String::from_utf8_lossy(&done.stderr);
        bail!("{}: {}", done.status, words.trim());
    }
    let said = String::from_utf8_lossy(&done.stdout);
    Ok(said.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            sessions: 1,
            every: Duration::from_secs(1),
            warm_up: 0,
            reloads: 3,
            pace: Duration::from_millis(1),
            churn: 0,
            connectors: 0,
            patience: Duration::from_secs(1),
            opening: 1,
            look_every: Duration::ZERO,
            looks: (1, 1),
        }
    }

    #[tokio::test]
    async fn each_reload_knows_its_number_and_the_last_that_it_is() {
        let mut numbers = Vec::new();
        let turns = run("echo \"$N$LAST\"", &plan(), 5..=7, |turn| {
            numbers.push(turn)
        })
        .await
        .unwrap();
        assert_eq!(numbers, [5, 6, 7]);
        let expected = ["5", "6", "71"].map(str::to_owned);
        assert_eq!(turns.changed, BTreeSet::from(expected));
        assert!(turns.slowest_ms >= turns.median_ms && turns.last_ms > 0.0);
    }

    #[tokio::test]
    async fn a_reload_that_fails_ends_the_run_with_its_words() {
        let failed = run("echo no >&2; exit 3", &plan(), 1..=3, |_| {}).await;
        let words = format!("{:#}", failed.unwrap_err());
        assert!(
            words.contains("reload 1") && words.contains("no"),
            "{words}"
        );
    }
}
