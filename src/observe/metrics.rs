//! Every number that holdline counts: one field and one row of the table each.
//!
//! There is no global: [`Metrics`] is made at start and handed around in an `Arc`.

use super::labels::{
    GatewayPhase, GrantEnd, Handshake, HttpError, HttpOutcome, ProbeResult, Refusal, ResumeWay,
    SessionEnd, SessionState, Settled, SignInOutcome, TlsFailure, UpgradeOutcome, Way,
};
use super::process;
use super::registry::{Counter, Family, Gauge, Gauges, Histogram, render};

/// The numbers. To add one: a field here, and its row in [`Metrics::render`].
#[derive(Debug, Default)]
pub struct Metrics {
    /// TCP connections accepted.
    pub connections: Counter,
    /// TCP connections of clients that are open.
    pub connections_open: Gauge,
    /// Connections closed before TLS.
    pub connections_refused: Family<Refusal>,
    /// Times that accepting paused because file descriptors or memory ran out.
    pub accept_pauses: Counter,
    /// TLS handshakes completed.
    pub tls_handshakes: Family<Handshake>,
    /// TLS handshakes not completed.
    pub tls_failures: Family<TlsFailure>,
    /// Time from accept to a completed TLS handshake.
    pub tls_seconds: Histogram,
    /// When the first of the served certificates expires.
    pub certificate_until: Gauge,
    /// HTTP connections of clients that ended early.
    pub http_errors: Family<HttpError>,
    /// Plain HTTP requests.
    pub http_requests: Family<HttpOutcome>,
    /// Passwords, cookies, tokens, certificates and words of a forward-auth service.
    pub sign_ins: Family<(Way, SignInOutcome)>,
    /// Sessions and requests of somebody known.
    pub grants: Gauges<Way>,
    /// Sessions and requests of somebody who may not be here any more.
    pub grant_ends: Family<(Way, GrantEnd)>,
    /// WebSocket upgrades.
    pub upgrades: Family<UpgradeOutcome>,
    /// WebSocket sessions by state.
    pub sessions: Gauges<SessionState>,
    /// WebSocket sessions ended.
    pub session_ends: Family<SessionEnd>,
    /// How long sessions were held.
    pub held_seconds: Histogram,
    /// Frames cut off by a gateway's death.
    pub frames_torn: Counter,
    /// Client bytes kept for held sessions.
    pub buffered_bytes: Gauge,
    /// Gateways by state.
    pub gateway: Gauges<GatewayPhase>,
    /// Readiness probes.
    pub probes: Family<ProbeResult>,
    /// Connections opened to gateways for clients.
    pub dials: Family<ProbeResult>,
    /// Times that a gateway went away.
    pub outages: Counter,
    /// How long gateways were away.
    pub outage_seconds: Histogram,
    /// Held sessions that came back.
    pub resumptions: Family<ResumeWay>,
    /// Held sessions whose handshake the gateway did not accept again.
    pub replays_refused: Counter,
    /// Requests that were unanswered when a gateway went away.
    pub settled: Family<Settled>,
    /// `gateway.down` notices sent to clients.
    pub notices: Counter,
}

// === impl Metrics ===

impl Metrics {
    /// In the Prometheus text format (0.0.4).
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        self.edge(&mut text);
        self.sign_ins(&mut text);
        self.traffic(&mut text);
        self.gateways(&mut text);
        process::render(&mut text);
        text
    }

    fn edge(&self, out: &mut String) {
        render(
            out,
            "holdline_connections_total",
            "TCP connections accepted.",
            &self.connections,
        );
        render(
            out,
            "holdline_connections_open",
            "TCP connections of clients that are open.",
            &self.connections_open,
        );
        render(
            out,
            "holdline_connections_refused_total",
            "Connections closed before TLS.",
            &self.connections_refused,
        );
        render(
            out,
            "holdline_accept_pauses_total",
            "Times that accepting paused because file descriptors or memory ran out.",
            &self.accept_pauses,
        );
        render(
            out,
            "holdline_tls_handshakes_total",
            "TLS handshakes completed.",
            &self.tls_handshakes,
        );
        render(
            out,
            "holdline_tls_failures_total",
            "TLS handshakes not completed.",
            &self.tls_failures,
        );
        render(
            out,
            "holdline_tls_handshake_seconds",
            "Time from accept to a completed TLS handshake.",
            &self.tls_seconds,
        );
        render(
            out,
            "holdline_certificate_not_after_timestamp_seconds",
            "When the first of the served certificates expires.",
            &self.certificate_until,
        );
        render(
            out,
            "holdline_http_errors_total",
            "HTTP connections of clients that ended early.",
            &self.http_errors,
        );
    }

    fn sign_ins(&self, out: &mut String) {
        render(
            out,
            "holdline_sign_ins_total",
            "Passwords that were typed, cookies refused, and requests by the other ways in.",
            &self.sign_ins,
        );
        render(
            out,
            "holdline_grants",
            "Open sessions and requests of somebody known, by the way in.",
            &self.grants,
        );
        render(
            out,
            "holdline_grants_ended_total",
            "Sessions and requests ended because their person may not be here any more.",
            &self.grant_ends,
        );
    }

    fn traffic(&self, out: &mut String) {
        render(
            out,
            "holdline_http_requests_total",
            "Plain HTTP requests.",
            &self.http_requests,
        );
        render(
            out,
            "holdline_upgrades_total",
            "WebSocket upgrades.",
            &self.upgrades,
        );
        render(
            out,
            "holdline_sessions",
            "WebSocket sessions by state.",
            &self.sessions,
        );
        render(
            out,
            "holdline_sessions_ended_total",
            "WebSocket sessions ended.",
            &self.session_ends,
        );
        render(
            out,
            "holdline_session_held_seconds",
            "How long sessions were held.",
            &self.held_seconds,
        );
        render(
            out,
            "holdline_frames_torn_total",
            "Frames cut off by a gateway's death.",
            &self.frames_torn,
        );
        render(
            out,
            "holdline_buffered_bytes",
            "Client bytes kept for held sessions.",
            &self.buffered_bytes,
        );
    }

    fn gateways(&self, out: &mut String) {
        render(
            out,
            "holdline_gateways",
            "Gateways by state.",
            &self.gateway,
        );
        render(
            out,
            "holdline_gateway_probes_total",
            "Readiness probes.",
            &self.probes,
        );
        render(
            out,
            "holdline_gateway_dials_total",
            "Connections opened to gateways for clients.",
            &self.dials,
        );
        render(
            out,
            "holdline_gateway_outages_total",
            "Times that a gateway went away.",
            &self.outages,
        );
        render(
            out,
            "holdline_gateway_outage_seconds",
            "How long gateways were away.",
            &self.outage_seconds,
        );
        render(
            out,
            "holdline_resumptions_total",
            "Held sessions that came back.",
            &self.resumptions,
        );
        render(
            out,
            "holdline_replays_refused_total",
            "Held sessions whose handshake the gateway did not accept again.",
            &self.replays_refused,
        );
        render(
            out,
            "holdline_requests_settled_total",
            "Requests that were unanswered when a gateway went away.",
            &self.settled,
        );
        render(
            out,
            "holdline_notices_total",
            "Notices of an absent gateway sent to clients.",
            &self.notices,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    #[test]
    fn counts_and_renders() {
        let metrics = Metrics::default();
        metrics.connections.inc();
        metrics.connections_refused.add(Refusal::Rate, 3);
        metrics.sessions.shift(None, Some(SessionState::Live));
        metrics
            .sessions
            .shift(Some(SessionState::Live), Some(SessionState::Held));
        metrics.resumptions.inc(ResumeWay::Replay);
        metrics.outage_seconds.observe(Duration::from_millis(700));
        let text = metrics.render();
        for line in [
            "# TYPE holdline_connections_total counter",
            "holdline_connections_total 1",
            "holdline_connections_refused_total{reason=\"rate\"} 3",
            "holdline_sessions{state=\"live\"} 0",
            "holdline_sessions{state=\"held\"} 1",
            "holdline_resumptions_total{way=\"replay\"} 1",
            "holdline_gateway_outage_seconds_bucket{le=\"0.5\"} 0",
            "holdline_gateway_outage_seconds_bucket{le=\"1\"} 1",
            "holdline_gateway_outage_seconds_bucket{le=\"+Inf\"} 1",
            "holdline_gateway_outage_seconds_sum 0.7",
        ] {
            assert!(
                text.lines().any(|each| each == line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn every_series_is_well_formed_and_unique() {
        let text = Metrics::default().render();
        let mut seen = HashSet::new();
        let mut named = HashSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(
                    named.insert(name) && name.starts_with("holdline_"),
                    "{name}"
                );
                assert!(help.ends_with('.'), "{help}");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(
                    value.parse::<f64>().is_ok() && seen.insert(series),
                    "{line}"
                );
                assert!(!series.contains("=\"\""), "{line}");
            }
        }
    }
}
