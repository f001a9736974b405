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
    /// Valid from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Moment>,
    /// Valid until.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Who signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// From which of the CAs it came, by its name in `directories`, else its URL; not of one that
    /// another server left and that came from none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// By which others its names are served as long as it is not there itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meanwhile: Vec<Meanwhile>,
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

/// A name that is served by a certificate that is not its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Meanwhile {
    /// The name.
    pub name: String,
    /// The certificate is valid from.
    pub from: Moment,
    /// It is valid until.
    pub until: Moment,
    /// Who signed it.
    pub issuer: String,
}

impl CertificateStatus {
    /// From when until when clients take what they are shown for this name of it.
    fn valid(&self, name: &str) -> Option<(Moment, Moment)> {
        let other = self.meanwhile.iter().find(|it| it.name == name);
        let other = other.map(|it| (it.from, it.until));
        other.or_else(|| self.from.zip(self.until))
    }
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
    type Value = fn(&CertificateStatus, &str) -> Option<u64>;
    let gauges: [(&str, &str, Value); 5] = [
        (
            "holdline_acme_certificate_not_before_seconds",
            "From when the certificate that is served for a name is valid, as a Unix time.",
            |one, name| one.valid(name).map(|(from, _)| from.seconds()),
        ),
        (
            "holdline_acme_certificate_not_after_seconds",
            "When the certificate that is served for a name expires, as a Unix time.",
            |one, name| one.valid(name).map(|(_, until)| until.seconds()),
        ),
        (
            "holdline_acme_next_attempt_seconds",
            "When the certificate of a name is ordered next, as a Unix time.",
            |one, _| one.next_at.map(Moment::seconds),
        ),
        (
            "holdline_acme_last_error_seconds",
            "When an order for a name failed last with no success since, as a Unix time.",
            |one, _| one.last_error.as_ref().map(|error| error.at.seconds()),
        ),
        (
            "holdline_acme_failures",
            "Failed orders for a name since the last that did not fail.",
            |one, _| u64::try_from(one.failures).ok(),
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
            for name in &one.names {
                if let Some(value) = value(one, name) {
                    let _ = writeln!(out, "{gauge}{{name=\"{name}\"}} {value}");
                }
            }
        }
    }
}
