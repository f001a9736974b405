//! What `[acme]` says of dns-01: by what records are written.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use zeroize::Zeroizing;

/// What writes the records for `dns-01`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    /// A command.
    Hook(DnsHook),
    /// holdline itself, at a name server that takes updates.
    Update(DnsUpdate),
}

impl Dns {
    /// Writing a record may take so long, and the record as long again to be seen.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match self {
            Self::Hook(hook) => hook.timeout,
            Self::Update(update) => update.timeout,
        }
    }

    /// Who is asked whether it is there; empty: the zone's own name servers.
    #[must_use]
    pub fn resolvers(&self) -> &[SocketAddr] {
        match self {
            Self::Hook(hook) => &hook.resolvers,
            Self::Update(update) => &update.resolvers,
        }
    }
}

/// `[acme] dns_hook` and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHook {
    /// Program and its first arguments; `present NAME VALUE` or `cleanup NAME VALUE` follows.
    pub command: Vec<String>,
    /// The hook may take so long, and the record as long again to be seen.
    pub timeout: Duration,
    /// Who is asked whether it is there; empty: the zone's own name servers.
    pub resolvers: Vec<SocketAddr>,
}

/// `[acme.dns_update]` and what belongs to it (RFC 2136).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsUpdate {
    /// Host name or IP address literal (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The zone there, without a dot at its end; `None`: the server is asked.
    pub zone: Option<String>,
    /// Signs everything that is said.
    pub key: TsigKey,
    /// Of the records.
    pub ttl: Duration,
    /// An update may take so long, and the record as long again to be seen.
    pub timeout: Duration,
    /// Who is asked whether it is there; empty: the zone's own name servers.
    pub resolvers: Vec<SocketAddr>,
}

/// A key that a name server knows as well (RFC 8945).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsigKey {
    /// As the server has it, without a dot at its end.
    pub name: String,
    /// What signs with it.
    pub algorithm: TsigAlgorithm,
    /// Never empty.
    pub secret: TsigSecret,
}

/// `[acme.dns_update] tsig_algorithm`: the keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TsigAlgorithm {
    /// `hmac-sha256`
    HmacSha256,
    /// `hmac-sha384`
    HmacSha384,
    /// `hmac-sha512`
    HmacSha512,
}

/// The bytes of a key; wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TsigSecret(pub(crate) Zeroizing<Vec<u8>>);

impl fmt::Debug for TsigSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TsigSecret(***)")
    }
}

impl fmt::Display for TsigAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        })
    }
}
