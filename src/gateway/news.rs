//! What the log says of a gateway. Decides nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::state::{Phase, View};
use crate::config::Upstream;
use crate::protocol::rescue::millis;

/// A gateway that answers in words of its own for this long is perhaps something else.
const STRANGE_FOR: Duration = Duration::from_secs(20);

/// Says what has changed, if it is worth a line.
pub(super) fn changed(upstream: &Upstream, before: &View, after: &View) {
    let gateway = upstream.authority();
    if before.phase == after.phase {
        let first = after.generation == 0 && before.attempt == 0 && after.phase == Phase::Down;
        if let (true, None, Some(reason)) = (first, before.reason, after.reason) {
            let (reason, hint) = (reason.as_str(), reason.hint());
            tracing::warn!(gateway, reason, hint, "the gateway is not there yet");
        }
        return;
    }
    if before.phase == Phase::Down && before.reason.is_none() && before.attempt == 0 {
        return first(&gateway, after);
    }
    let lasted = after.since.saturating_duration_since(before.since);
    let lasted_ms = millis(lasted);
    let (from, to) = (before.phase.as_str(), after.phase.as_str());
    let improves = after.phase == Phase::Starting && before.phase == Phase::Down;
    let reason = after.reason.filter(|_| !improves);
    let reason = reason.map(|reason| reason.as_str());
    match (reason, after.crash_loop) {
        (None, _) => tracing::info!(gateway, from, to, lasted_ms, "gateway state"),
        (reason, None) => tracing::warn!(gateway, from, to, lasted_ms, reason, "gateway state"),
        (reason, Some(crash)) => tracing::warn!(
            gateway,
            from,
            to,
            lasted_ms,
            reason,
            outages = crash.outages,
            window_ms = millis(after.since.saturating_duration_since(crash.since)),
            "gateway state: crash loop"
        ),
    }
}

/// Before the first answer nothing was known, so nothing has changed.
fn first(gateway: &str, view: &View) {
    let state = view.phase.as_str();
    match (view.hint(), view.reason) {
        (None, _) => tracing::info!(gateway, state, "the gateway is there"),
        (hint, None) => tracing::info!(gateway, state, hint, "the gateway is there"),
        (hint, Some(_)) => tracing::warn!(gateway, state, hint, "the gateway is not there yet"),
    }
}

/// Notices that what answers is no OpenClaw gateway.
#[derive(Debug, Default)]
pub(super) struct Stranger {
    since: Option<Instant>,
    said: bool,
}

impl Stranger {
    /// Takes one probe; whether it is time to say so, once.
    pub(super) fn answered(&mut self, strangely: bool, view: &View, now: Instant) -> bool {
        // What was ready once is one.
        if !strangely || view.generation > 0 {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let due = !self.said && now.saturating_duration_since(since) >= STRANGE_FOR;
        self.said |= due;
        due
    }

    /// The line.
    pub(super) fn say(upstream: &Upstream) {
        tracing::warn!(
            gateway = upstream.authority(),
            "what answers there does not speak as an OpenClaw gateway does: for another application write protocol = \"generic\"; for a gateway behind something else write its readiness path in probe, or probe = \"tcp\""
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Machine;

    #[test]
    fn a_stranger_is_pointed_out_once_and_not_at_first() {
        let start = Instant::now();
        let view = Machine::new(start).view();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stranger = Stranger::default();
        let heard = [
            (0, true),
            (19, true),
            (20, true),
            (40, true),
            (41, false),
            (70, true),
        ];
        let said = heard.map(|(seconds, odd)| stranger.answered(odd, &view, at(seconds)));
        assert_eq!(said, [false, false, true, false, false, false]);
        let known = View {
            generation: 1,
            ..view
        };
        let mut gateway = Stranger::default();
        assert!(!gateway.answered(true, &known, at(0)) && !gateway.answered(true, &known, at(60)));
    }
}
