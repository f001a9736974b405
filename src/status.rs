//! What `/status` and `/readyz` say of a running proxy. Reads only; decides nothing.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Started};
use crate::observe::{Metrics, StatusSource, status};
use crate::protocol::rescue::millis;
use crate::reload::LastReload;
use crate::run::Succession;
use crate::session::{Line, Lines, Sessions};
use crate::tls::Tls;
use crate::tls::acme::AcmeKeeper;

/// Where the answers come from.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) lines: Arc<ArcSwap<Lines>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) last_reload: Arc<LastReload>,
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) keeper: Arc<AcmeKeeper>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
    pub(crate) started_with: Option<Started>,
    pub(crate) succession: Arc<Succession>,
    pub(crate) draining_since: Arc<OnceLock<Instant>>,
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
        let drain = self.draining_since.get().map(|since| {
            let passed = now.saturating_duration_since(*since);
            let left = self.config.load().limits.drain.saturating_sub(passed);
            json!({"sinceMs": millis(passed), "leftMs": millis(left)})
        });
        let (open, kept) = (self.sessions.count(), self.sessions.kept());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptimeMs": millis(now.saturating_duration_since(self.started)),
            "draining": self.stopping.is_cancelled(),
            "drain": drain,
            "config": self.started_with,
            "process": self.succession.json(),
            "lastReload": self.last_reload.json(now),
            "outages": self.metrics.outages.get(),
            "gateways": gateways,
            "sessions": status::sessions(&self.metrics, open, kept),
            "certificates": status::certificates(&self.tls.certificates()),
            "acme": self.keeper.status(),
        })
    }

    fn measure(&self, metrics: &Metrics) {
        let kept = i64::try_from(self.sessions.kept()).unwrap_or(i64::MAX);
        metrics.buffered_bytes.set(kept);
    }

    fn numbers(&self, out: &mut String) {
        self.keeper.numbers(out);
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("draining".to_owned());
        }
        self.keeper.awaited().map_or(Ok(()), Err)
    }

    fn concern(&self) -> Option<String> {
        self.keeper.fallen()
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
