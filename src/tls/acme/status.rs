//! What is told of each certificate: for people, for scripts and for a monitoring system.

use std::fmt::Write as _;

use serde::Serialize;

use super::moment::Moment;

/// One certificate: what is served, until when, and what happens next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// All of its names; never empty.
    pub names: Vec<String>,
    /// Whether it is there.
    pub state: State,
    /// Valid until.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Who signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What happens next, in words.
    pub next: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Moment>,
    /// Failed orders since the last that did not.
    pub failures: usize,
    /// What went wrong last, if nothing has gone right since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// Whether a certificate is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is served.
    Served,
    /// There is none that could be served.
    Awaited,
    /// It could not be looked for.
    Unknown,
}

/// An order that has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// When.
    pub at: Moment,
    /// At which CA; empty if it did not come that far.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// In words, with what to do.
    pub reason: String,
}

/// Appends one gauge per name, and how often the keeper fell (Prometheus text format).
pub(super) fn numbers(all: &[CertificateStatus], falls: u64, out: &mut String) {
    type Value = fn(&CertificateStatus) -> Option<u64>;
    let gauges: [(&str, &str, Value); 4] = [
        (
            "holdline_acme_certificate_not_after_seconds",
            "When the certificate of a name expires, as a Unix time.",
            |one| one.until.map(Moment::seconds),
        ),
        (
            "holdline_acme_next_attempt_seconds",
            "When the certificate of a name is ordered next, as a Unix time.",
            |one| one.next_at.map(Moment::seconds),
        ),
        (
            "holdline_acme_last_error_seconds",
            "When an order for a name failed last with no success since, as a Unix time.",
            |one| one.last_error.as_ref().map(|error| error.at.seconds()),
        ),
        (
            "holdline_acme_failures",
            "Failed orders for a name since the last that did not fail.",
            |one| u64::try_from(one.failures).ok(),
        ),
    ];
    if all.is_empty() {
        return;
    }
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        out,
        "# HELP holdline_acme_keeper_failures_total How often what looks after the certificates \
         panicked and was started anew.\n# TYPE holdline_acme_keeper_failures_total counter\n\
         holdline_acme_keeper_failures_total {falls}"
    );
    for (gauge, help, value) in gauges {
        let _ = writeln!(out, "# HELP {gauge} {help}\n# TYPE {gauge} gauge");
        for one in all {
            for name in value(one)
                .into_iter()
                .flat_map(|value| one.names.iter().map(move |name| (name, value)))
            {
                let _ = writeln!(out, "{gauge}{{name=\"{}\"}} {}", name.0, name.1);
            }
        }
    }
}
