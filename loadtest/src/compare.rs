//! Several proxies in one run: idle memory first (while their heaps are young), then latency with
//! all of them at once, then echo slices in turns. Ratios are relative to the first.

use anyhow::Result;
use serde::Serialize;

use crate::report::{Report, Table};
use crate::session::Dialer;
use crate::target::Target;
use crate::{echo, idle, latency};

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Axis {
    /// Memory of idle sessions.
    Idle,
    /// Added latency.
    Latency,
    /// Throughput and CPU.
    Echo,
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which axes.
    pub axes: Vec<Axis>,
    /// For latency.
    pub latency: latency::Plan,
    /// For echo.
    pub echo: echo::Plan,
    /// For idle.
    pub idle: idle::Plan,
}

/// Everything measured.
#[derive(Debug, Clone, Serialize)]
pub struct CompareReport {
    /// Idle memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<idle::IdleReport>,
    /// Latency; the baseline, where given, is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<latency::LatencyReport>,
    /// Throughput; the baseline, where given, is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<echo::EchoReport>,
    /// The figures that matter side by side.
    pub summary: Vec<Line>,
}

/// One proxy's figures. Latency in microseconds, added to the baseline where there is one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Resident bytes an idle session.
    pub rss_per_session: Option<f64>,
    /// Median latency.
    pub p50: Option<f64>,
    /// 99 % latency.
    pub p99: Option<f64>,
    /// CPU seconds for a million messages.
    pub cpu_per_million: Option<f64>,
    /// Messages a second.
    pub messages_per_second: Option<f64>,
}

/// Measures all proxies on the chosen axes.
///
/// # Errors
/// With the first measurement that fails.
pub async fn run(
    dialer: &Dialer,
    proxies: &[Target],
    baseline: Option<&Target>,
    plan: &Plan,
) -> Result<CompareReport> {
    let with_baseline: Vec<Target> = proxies.iter().chain(baseline).cloned().collect();
    let wanted = |axis| plan.axes.contains(&axis);
    let (mut idle, mut latency, mut echo) = (None, None, None);
    if wanted(Axis::Idle) {
        let watched: Vec<_> = proxies
            .iter()
            .filter(|p| !p.pids.is_empty())
            .cloned()
            .collect();
        idle = Some(idle::run(dialer, &watched, &plan.idle).await?);
    }
    if wanted(Axis::Latency) {
        let based = baseline.is_some();
        latency = Some(latency::run(dialer, &with_baseline, based, &plan.latency).await?);
    }
    if wanted(Axis::Echo) {
        echo = Some(echo::run(dialer, &with_baseline, &plan.echo).await?);
    }
    let line = |(n, proxy): (usize, &Target)| {
        let latency = latency.as_ref();
        let added = latency.and_then(|r| r.added.get(n));
        let summary = added.or_else(|| latency.and_then(|r| Some(&r.targets.get(n)?.latency)));
        let echo = echo.as_ref().and_then(|r| r.targets.get(n));
        let idle = idle
            .as_ref()
            .and_then(|r| r.targets.iter().find(|t| t.name == proxy.name));
        Line {
            name: proxy.name.clone(),
            rss_per_session: idle.map(|i| i.rss_per_session),
            p50: summary.map(|s| s.p50),
            p99: summary.map(|s| s.p99),
            cpu_per_million: echo.and_then(|e| e.cpu_seconds_per_million),
            messages_per_second: echo.map(|e| e.messages_per_second),
        }
    };
    let summary = proxies.iter().enumerate().map(line).collect();
    Ok(CompareReport {
        idle,
        latency,
        echo,
        summary,
    })
}

impl CompareReport {
    fn ratios(&self) -> String {
        let mut table = Table::new(&[
            "relative to the first",
            "RSS/session",
            "latency p50",
            "latency p99",
            "CPU/message",
            "messages/s",
        ]);
        let Some(first) = self.summary.first() else {
            return String::new();
        };
        for line in &self.summary {
            table.row([
                line.name.clone(),
                ratio(line.rss_per_session, first.rss_per_session),
                ratio(line.p50, first.p50),
                ratio(line.p99, first.p99),
                ratio(line.cpu_per_million, first.cpu_per_million),
                ratio(line.messages_per_second, first.messages_per_second),
            ]);
        }
        table.render()
    }
}

/// `1.00`, `2.31`; a dash where either is missing or the first is not above zero.
fn ratio(value: Option<f64>, first: Option<f64>) -> String {
    match (value, first) {
        (Some(value), Some(first)) if first > 0.0 => format!("{:.2}", value / first),
        _ => "-".to_owned(),
    }
}

impl Report for CompareReport {
    fn text(&self) -> String {
        let parts = [
            self.idle.as_ref().map(Report::text),
            self.latency.as_ref().map(Report::text),
            self.echo.as_ref().map(Report::text),
            Some(self.ratios()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_need_both_sides() {
        assert_eq!(ratio(Some(30.0), Some(20.0)), "1.50");
        assert_eq!(ratio(Some(30.0), Some(0.0)), "-");
        assert_eq!(ratio(None, Some(1.0)), "-");
    }
}
