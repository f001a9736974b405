//! What `/status` and `/readyz` say of a running proxy. Reads only; decides nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::observe::{Metrics, StatusSource};
use crate::protocol::rescue::millis;
use crate::reload::LastReload;
use crate::session::{Line, Lines, Sessions};

/// Where the answers come from.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) lines: Arc<ArcSwap<Lines>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) last_reload: Arc<LastReload>,
    pub(crate) started: Instant,
    pub(crate) stopping: CancellationToken,
}

impl StatusSource for Status {
    fn status(&self) -> Value {
        let now = Instant::now();
        let lines = self.lines.load();
        let gateways: Vec<Value> = lines
            .current()
            .iter()
            .map(|line| gateway(line, now))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptimeMs": millis(now.saturating_duration_since(self.started)),
            "draining": self.stopping.is_cancelled(),
            "lastReload": self.last_reload.json(now),
            "gateways": gateways,
            "sessions": {"open": self.sessions.count(), "keptBytes": self.sessions.kept()},
        })
    }

    fn measure(&self, metrics: &Metrics) {
        let kept = i64::try_from(self.sessions.kept()).unwrap_or(i64::MAX);
        metrics.buffered_bytes.set(kept);
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            Err("draining".to_owned())
        } else {
            Ok(())
        }
    }
}

fn gateway(line: &Line, now: Instant) -> Value {
    let view = line.gateway.view();
    json!({
        "route": line.route,
        "gateway": line.upstream.authority(),
        "state": view.phase.as_str(),
        "sinceMs": millis(now.saturating_duration_since(view.since)),
        "reason": view.reason.map(|reason| reason.as_str()),
        "hint": view.hint(),
        "attempt": view.attempt,
        "expectedMs": view.expected.map(millis),
        "crashLoop": view.crash_loop.map(|crash| json!({
            "outages": crash.outages,
            "sinceMs": millis(now.saturating_duration_since(crash.since)),
        })),
    })
}
