//! What a gateway's life comes to in the numbers. Decides nothing.

use std::sync::Arc;

use tokio::time::Instant;

use super::dial::DialError;
use super::machine::Observation;
use super::state::{Phase, Reason, View};
use crate::observe::Metrics;
use crate::observe::labels::{GatewayPhase, ProbeResult};

/// One gateway's traces in the numbers, for as long as it is watched.
#[derive(Debug)]
pub(super) struct Tally {
    metrics: Arc<Metrics>,
    shown: Phase,
    /// When the outage began that is counted and not over.
    away_since: Option<Instant>,
}

impl Tally {
    pub(super) fn new(metrics: Arc<Metrics>, phase: Phase) -> Self {
        metrics.gateway.shift(None, Some(label(phase)));
        Self {
            metrics,
            shown: phase,
            away_since: None,
        }
    }

    /// One probe, whatever follows from it.
    pub(super) fn probed(&self, seen: Observation) {
        self.metrics.probes.inc(match seen {
            Observation::Started => ProbeResult::Ok,
            Observation::Starting | Observation::Draining => ProbeResult::NotReady,
            Observation::Failed(reason) => by_reason(reason),
            Observation::Silent => ProbeResult::Timeout,
        });
    }

    /// The state after an event. A single lost connection is no outage, and neither is a gateway
    /// that was never there: `attempt` and the later phases are a probe's word for it.
    pub(super) fn moved(&mut self, view: &View) {
        if view.phase != self.shown {
            let (from, to) = (label(self.shown), label(view.phase));
            self.metrics.gateway.shift(Some(from), Some(to));
            self.shown = view.phase;
        }
        let probed = view.attempt > 0 || matches!(view.phase, Phase::Starting | Phase::Hung);
        match view.outage_since {
            Some(since) if probed && view.generation > 0 && self.away_since.is_none() => {
                self.away_since = Some(since);
                self.metrics.outages.inc();
            }
            None => {
                if let Some(since) = self.away_since.take() {
                    let lasted = view.since.saturating_duration_since(since);
                    self.metrics.outage_seconds.observe(lasted);
                }
            }
            Some(_) => {}
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.metrics.gateway.shift(Some(label(self.shown)), None);
    }
}

/// One connection for a client.
pub(super) fn dialled<T>(metrics: &Metrics, dialled: &Result<T, DialError>) {
    metrics.dials.inc(match dialled {
        Ok(_) => ProbeResult::Ok,
        Err(error) => by_reason(error.reason()),
    });
}

fn by_reason(reason: Reason) -> ProbeResult {
    match reason {
        Reason::Refused => ProbeResult::Refused,
        Reason::Timeout => ProbeResult::Timeout,
        _ => ProbeResult::Error,
    }
}

fn label(phase: Phase) -> GatewayPhase {
    match phase {
        Phase::Ready => GatewayPhase::Ready,
        Phase::Starting => GatewayPhase::Starting,
        Phase::Draining => GatewayPhase::Draining,
        Phase::Down => GatewayPhase::Down,
        Phase::Hung => GatewayPhase::Hung,
    }
}
