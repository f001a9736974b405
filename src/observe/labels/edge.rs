//! What can be told apart about connections and plain requests.

use crate::observe::Label;

/// Why a connection was closed before TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// More new connections per second than `limits.handshakes_per_ip`.
    Rate,
    /// Too many open connections of one address.
    Address,
    /// Too many addresses at once to keep count of.
    Table,
    /// As many open connections in all as our descriptors allow.
    Full,
    /// A trusted proxy sent no or a malformed PROXY header.
    ProxyHeader,
}

/// How a TLS handshake was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With certificates.
    Full,
    /// From a ticket.
    Resumed,
}

/// Why a TLS handshake was not completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFailure {
    /// Not done within `limits.tls_timeout`.
    Timeout,
    /// The client spoke plain HTTP.
    PlainHttp,
    /// The client spoke something else.
    NotTls,
    /// The client went away.
    Closed,
    /// The two sides could not agree, or a certificate was refused.
    Rejected,
}

/// Why a client's HTTP connection ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// A request that cannot be parsed.
    Malformed,
    /// A request head over the limits.
    TooLarge,
    /// A request head not complete within `limits.header_timeout`.
    Timeout,
    /// The client went away in the middle.
    Aborted,
    /// Anything else.
    Other,
}

/// What became of a plain request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpOutcome {
    /// Answered by the gateway.
    Forwarded,
    /// Answered by holdline itself.
    Own,
    /// Sent to https.
    Redirected,
    /// Waited for the gateway and was answered by it.
    Held,
    /// Got the waiting page.
    Page,
    /// The gateway was away for too long.
    Unavailable,
    /// Over a limit or not allowed.
    Refused,
    /// Failed on the way.
    Failed,
}

// === impl Label ===

impl Label for Refusal {
    const KEY: &'static str = "reason";
    const NAMES: &'static [&'static str] = &["rate", "address", "table", "full", "proxy_header"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for Handshake {
    const KEY: &'static str = "kind";
    const NAMES: &'static [&'static str] = &["full", "resumed"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for TlsFailure {
    const KEY: &'static str = "reason";
    const NAMES: &'static [&'static str] =
        &["timeout", "plain_http", "not_tls", "closed", "rejected"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for HttpError {
    const KEY: &'static str = "kind";
    const NAMES: &'static [&'static str] =
        &["malformed", "too_large", "timeout", "aborted", "other"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for HttpOutcome {
    const KEY: &'static str = "outcome";
    const NAMES: &'static [&'static str] = &[
        "forwarded",
        "own",
        "redirected",
        "held",
        "page",
        "unavailable",
        "refused",
        "failed",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::labels::ends_with;

    #[test]
    fn every_variant_has_a_name() {
        ends_with(Refusal::ProxyHeader);
        ends_with(Handshake::Resumed);
        ends_with(TlsFailure::Rejected);
        ends_with(HttpError::Other);
        ends_with(HttpOutcome::Failed);
    }
}
