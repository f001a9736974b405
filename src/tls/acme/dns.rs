//! DNS-01: a command of the user's writes the record, and it is waited for until it can be seen.
//!
//! The CA is only told once the zone's own name servers show the record: a look too early would be
//! a failed validation, of which it takes a few in an hour.

mod hook;
mod records;

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
use super::underway::Underway;
use crate::config::DnsHook;
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
    dns: &DnsHook,
    what: Do,
    record: &TxtRecord,
    underway: &Underway,
) -> Result<(), String> {
    hook::run(dns, what, record, underway).await
}

/// Waits until the record can be seen everywhere.
///
/// Where no name server answers us, nobody can say: then the CA may look after the whole time.
pub(super) async fn wait_for(hook: &DnsHook, record: &TxtRecord) -> Result<(), String> {
    let deadline = Instant::now() + hook.timeout;
    let record = &TxtRecord {
        name: target(&record.name).await,
        value: record.value.clone(),
    };
    let servers = match hook.resolvers.is_empty() {
        true => authoritative(&record.name).await,
        false => hook.resolvers.clone(),
    };
    loop {
        let mut seen = Vec::new();
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
            return Err(format!(
                "the record {} cannot be seen {} s after the hook ran; check that the hook writes to the right zone, or give it longer in dns_timeout",
                record.name,
                hook.timeout.as_secs()
            ));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What the name stands for: challenges are often delegated to another zone, by a CNAME.
async fn target(name: &str) -> String {
    let Ok(system) = TokioResolver::builder_tokio().and_then(|builder| builder.build()) else {
        return name.to_owned();
    };
    let asked = system.lookup(format!("{name}."), RecordType::CNAME);
    let Ok(Ok(found)) = timeout(QUESTION, asked).await else {
        return name.to_owned();
    };
    let target = found
        .answers()
        .iter()
        .find_map(|answer| match &answer.data {
            RData::CNAME(target) => Some(target.to_string()),
            _ => None,
        });
    target.map_or_else(
        || name.to_owned(),
        |target| target.trim_end_matches('.').to_owned(),
    )
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
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(with_port);
    let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    match builder.build() {
        Ok(resolver) => look(&resolver, record).await,
        Err(_) => Seen::Silent,
    }
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
