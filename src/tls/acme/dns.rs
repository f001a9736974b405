//! DNS-01: a command of the user's or we ourselves write the record, and it is waited for until it
//! can be seen.
//!
//! The CA is only told once the zone's own name servers show the record: a look too early would be
//! a failed validation, of which it takes a few in an hour.

mod hook;
mod records;
mod update;

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

pub(super) use self::records::{Records, tidy};
use super::state::StateDir;
use super::underway::Underway;
use crate::config::Dns;
use crate::network::look_up;

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// One question to one server.
const QUESTION: Duration = Duration::from_secs(5);
/// More name servers of a zone are not asked.
const MOST_SERVERS: usize = 8;

/// What is to be done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Do {
    Present,
    Cleanup,
}

/// A TXT record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TxtRecord {
    /// `_acme-challenge.a.example`, without a dot at its end.
    pub(super) name: String,
    pub(super) value: String,
}

/// Whether a name server shows a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Yes,
    No,
    /// It does not answer.
    Silent,
}

// === impl Do ===

impl Do {
    /// As a hook is told.
    fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
        }
    }
}

// === impl TxtRecord ===

impl TxtRecord {
    /// For a name with or without `*.`.
    pub(super) fn new(identifier: &str, value: String) -> Self {
        let bare = identifier.strip_prefix("*.").unwrap_or(identifier);
        Self {
            name: format!("_acme-challenge.{bare}"),
            value,
        }
    }
}

/// Adds a record, or takes it away; the error is a sentence.
async fn change(
    dns: &Dns,
    what: Do,
    record: &TxtRecord,
    state: &StateDir,
    underway: &Underway,
) -> Result<(), String> {
    match dns {
        Dns::Hook(hook) => hook::run(hook, what, record, state, underway).await,
        Dns::Update(update) => update::run(update, what, record).await,
    }
}

/// Waits until the record can be seen everywhere.
///
/// Where no name server answers us, nobody can say: then the CA may look after the whole time.
pub(super) async fn wait_for(dns: &Dns, record: &TxtRecord) -> Result<(), String> {
    let deadline = Instant::now() + dns.timeout();
    // The server that has taken an update may not be among those that the zone names.
    let (name, first) = match dns {
        Dns::Hook(_) => (alias(&record.name, &[]).await, None),
        Dns::Update(update) => {
            let (name, seen) = update::see(update, record, deadline).await?;
            (Some(name), Some(seen))
        }
    };
    let record = &TxtRecord {
        name: name.unwrap_or_else(|| record.name.clone()),
        value: record.value.clone(),
    };
    let servers = match dns.resolvers() {
        [] => authoritative(&record.name).await,
        resolvers => resolvers.to_vec(),
    };
    if servers.is_empty() && first == Some(Seen::Yes) {
        return Ok(());
    }
    loop {
        let mut seen = Vec::from_iter(first);
        for server in servers.iter().take(MOST_SERVERS) {
            seen.push(ask(*server, record).await);
        }
        if servers.is_empty() {
            seen.push(ask_system(record).await);
        }
        let missing = seen.contains(&Seen::No);
        if !missing && seen.contains(&Seen::Yes) {
            return Ok(());
        }
        if Instant::now() + LOOK_EVERY > deadline {
            if !missing {
                tracing::warn!(
                    name = record.name,
                    "no name server answers whether the record is there; the CA may look all the same"
                );
                return Ok(());
            }
            let (seconds, advice) = (dns.timeout().as_secs(), unseen(dns));
            return Err(format!(
                "the record {} cannot be seen at the zone's name servers {seconds} s after {advice}, \
                 or give it longer in dns_timeout",
                record.name,
            ));
        }
        sleep(LOOK_EVERY).await;
    }
}

fn unseen(dns: &Dns) -> &'static str {
    match dns {
        Dns::Hook(_) => "the hook ran; check that the hook writes to the right zone",
        Dns::Update(_) => {
            "the update was taken; check that [acme.dns_update] names their primary server, and that it notifies the others"
        }
    }
}

/// What the name stands for: challenges are often delegated to another zone, by a CNAME. Without
/// servers to ask, the system's are.
async fn alias(name: &str, resolvers: &[SocketAddr]) -> Option<String> {
    let resolver = match resolvers {
        [] => TokioResolver::builder_tokio().and_then(|builder| builder.build()),
        servers => uncached(servers),
    };
    let resolver = resolver.ok()?;
    let asked = resolver.lookup(format!("{name}."), RecordType::CNAME);
    let found = timeout(QUESTION, asked).await.ok()?.ok()?;
    let target = found
        .answers()
        .iter()
        .find_map(|answer| match &answer.data {
            RData::CNAME(target) => Some(target.to_ascii()),
            _ => None,
        })?;
    Some(target.trim_end_matches('.').to_owned())
}

/// The name servers of the zone that the name is in; none if they cannot be found.
async fn authoritative(name: &str) -> Vec<SocketAddr> {
    let Ok(system) = TokioResolver::builder_tokio().and_then(|builder| builder.build()) else {
        return Vec::new();
    };
    let mut zone = name;
    // The name itself may be a zone of its own.
    while zone.contains('.') {
        let found = timeout(QUESTION, system.ns_lookup(format!("{zone}."))).await;
        if let Ok(Ok(found)) = found {
            let hosts: Vec<String> = found
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::NS(server) => Some(server.to_string()),
                    _ => None,
                })
                .take(MOST_SERVERS)
                .collect();
            if !hosts.is_empty() {
                return addresses(&hosts).await;
            }
        }
        zone = zone.split_once('.').map_or("", |(_, parent)| parent);
    }
    Vec::new()
}

async fn addresses(hosts: &[String]) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for host in hosts {
        let found = timeout(QUESTION, look_up(host, LookupIpStrategy::Ipv4thenIpv6)).await;
        if let Ok(Ok(found)) = found {
            all.extend(found.first().map(|ip| SocketAddr::new(*ip, 53)));
        }
    }
    all
}

async fn ask(server: SocketAddr, record: &TxtRecord) -> Seen {
    match uncached(&[server]) {
        Ok(resolver) => look(&resolver, record).await,
        Err(_) => Seen::Silent,
    }
}

/// Asks these servers only.
fn uncached(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let servers = servers.iter().map(|server| {
        let with_port = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(with_port);
        NameServerConfig::new(server.ip(), true, connections.to_vec())
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.build()
}

async fn ask_system(record: &TxtRecord) -> Seen {
    let Ok(mut builder) = TokioResolver::builder_tokio() else {
        return Seen::Silent;
    };
    builder.options_mut().cache_size = 0;
    match builder.build() {
        Ok(resolver) => look(&resolver, record).await,
        Err(_) => Seen::Silent,
    }
}

async fn look(resolver: &TokioResolver, record: &TxtRecord) -> Seen {
    let asked = resolver.txt_lookup(format!("{}.", record.name));
    let answer = match timeout(QUESTION, asked).await {
        Err(_) => return Seen::Silent,
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(_)))) => return Seen::No,
        Ok(Err(_)) => return Seen::Silent,
        Ok(Ok(answer)) => answer,
    };
    let there = answer.answers().iter().any(|answer| match &answer.data {
        RData::TXT(text) => text.txt_data.concat() == record.value.as_bytes(),
        _ => false,
    });
    if there { Seen::Yes } else { Seen::No }
}
