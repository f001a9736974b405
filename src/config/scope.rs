//! To what a changed key applies when a config is reloaded: one table, which a test proves complete.

use std::fmt;

/// To what a reload applies a changed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// To everything, also to sessions that are open or held: at their next decision.
    Everything,
    /// To connections, handshakes, sessions and waits that begin after it. What has begun goes on
    /// as it began.
    NewConnections,
    /// To the next order of a certificate. One that is under way goes on as it began.
    NextOrder,
}

use Scope::{Everything, NewConnections, NextOrder};

/// By name, without indices. The entry of a list of tables is what counts when one is added or
/// removed.
const SCOPES: &[(&str, Scope)] = &[
    ("listen.https", NewConnections),
    ("listen.http", NewConnections),
    ("listen.proxy_protocol", NewConnections),
    ("listen.trusted_proxies", NewConnections),
    ("tls.certificate", NewConnections),
    ("tls.files", NewConnections),
    ("tls.files.cert", NewConnections),
    ("tls.files.key", NewConnections),
    ("tls.min_version", NewConnections),
    ("tls.client_ca", Everything),
    ("acme.domains", NewConnections),
    ("acme.contact", Everything),
    ("acme.directories", Everything),
    ("acme.challenges", NextOrder),
    ("acme.dns_hook", NextOrder),
    ("acme.dns_timeout", NextOrder),
    ("acme.dns_resolvers", NextOrder),
    ("acme.dns_update.server", NextOrder),
    ("acme.dns_update.zone", NextOrder),
    ("acme.dns_update.tsig_name", NextOrder),
    ("acme.dns_update.tsig_algorithm", NextOrder),
    ("acme.dns_update.tsig_secret", NextOrder),
    ("acme.dns_update.ttl", NextOrder),
    ("acme.profile", NextOrder),
    ("acme.eab", NextOrder),
    ("acme.eab.directory", NextOrder),
    ("acme.eab.kid", NextOrder),
    ("acme.eab.key_file", NextOrder),
    ("acme.ca_root", Everything),
    ("acme.state_dir", Everything),
    ("acme.import", Everything),
    ("gateway.url", Everything),
    ("gateway.protocol", NewConnections),
    ("gateway.probe", Everything),
    ("gateway.probe_interval", Everything),
    ("gateway.probe_interval_ready", Everything),
    ("gateway.connect_timeout", Everything),
    ("gateway.loopback_clients", NewConnections),
    ("route", NewConnections),
    ("route.host", NewConnections),
    ("route.path", NewConnections),
    ("route.url", Everything),
    ("route.protocol", NewConnections),
    ("route.probe", Everything),
    ("route.resume", Everything),
    ("hold.max", Everything),
    ("hold.upgrade", NewConnections),
    ("hold.handshake", NewConnections),
    ("hold.notice_after", Everything),
    ("hold.notice_every", Everything),
    ("hold.buffer", Everything),
    ("hold.buffer_total", Everything),
    ("hold.resume", Everything),
    ("hold.resume_rate", Everything),
    ("hold.unfinished_handshakes", Everything),
    ("hold.unfinished_per_ip", Everything),
    ("hold.replay_requests", Everything),
    ("http.hold", NewConnections),
    ("http.page_after", NewConnections),
    ("limits.sessions", NewConnections),
    ("limits.sessions_per_ip", NewConnections),
    ("limits.handshakes_per_ip", NewConnections),
    ("limits.header_timeout", NewConnections),
    ("limits.tls_timeout", NewConnections),
    ("limits.frame", Everything),
    ("limits.preauth_frame", Everything),
    ("limits.ping_every", Everything),
    ("limits.origins", NewConnections),
    ("limits.drain", NewConnections),
    ("limits.handover", NewConnections),
    ("auth.modes", Everything),
    ("auth.users", Everything),
    ("auth.users.name", Everything),
    ("auth.users.hash", Everything),
    ("auth.tokens", Everything),
    ("auth.tokens.name", Everything),
    ("auth.tokens.user", Everything),
    ("auth.tokens.hash", Everything),
    ("auth.public", NewConnections),
    ("auth.user_header", NewConnections),
    ("auth.loopback_as", NewConnections),
    ("auth.certificate_name", Everything),
    ("auth.session_idle", Everything),
    ("auth.session_max", Everything),
    ("auth.state_dir", Everything),
    ("auth.forward.url", Everything),
    ("auth.forward.ca_root", Everything),
    ("auth.forward.recheck", Everything),
    ("auth.forward.without_answer", Everything),
    ("auth.forward.user", Everything),
    ("auth.forward.copy", NewConnections),
    ("auth.forward.timeout", Everything),
    ("auth.forward.cache", Everything),
    ("admin.listen", Everything),
    ("log.level", Everything),
    ("log.format", Everything),
];

impl Scope {
    /// Of a key without indices: `route.url`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let known = SCOPES.iter().find(|(key, _)| *key == name);
        known.map_or(NewConnections, |(_, scope)| *scope)
    }

    /// For a program: `everything`, `new_connections` or `next_order`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Everything => "everything",
            NewConnections => "new_connections",
            NextOrder => "next_order",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Everything => "everything",
            NewConnections => "new connections",
            NextOrder => "the next order",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::keys;

    /// How long a wait may take is settled when it begins.
    #[test]
    fn a_wait_goes_on_as_it_began() {
        let waits = [
            "hold.upgrade",
            "hold.handshake",
            "http.hold",
            "http.page_after",
        ];
        for key in waits.into_iter().chain(["limits.drain", "limits.handover"]) {
            assert_eq!(Scope::of(key), NewConnections, "{key}");
        }
    }

    #[test]
    fn every_key_has_its_scope_and_every_scope_its_key() {
        let keys = keys();
        let there: BTreeSet<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let listed: BTreeSet<&str> = SCOPES.iter().map(|(key, _)| *key).collect();
        assert_eq!(listed.len(), SCOPES.len(), "a key is listed twice");
        let missing: Vec<_> = there.difference(&listed).collect();
        assert!(
            missing.is_empty(),
            "say in SCOPES to what a reload applies {missing:?}"
        );
        let gone: Vec<_> = listed.difference(&there).collect();
        assert!(gone.is_empty(), "no such keys: {gone:?}");
    }
}
