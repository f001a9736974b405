//! DNS-01: a command of the user's writes the record, and it is waited for until it can be seen.
//!
//! The CA is only told once the zone's own name servers show the record: a look too early would be
//! a failed validation, of which it takes a few in an hour.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::config::DnsHook;
use crate::network::look_up;

/// Of what the hook says, kept for the one who has to mend it.
const OUTPUT: u64 = 4096;
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// One question to one server.
const QUESTION: Duration = Duration::from_secs(5);
/// More name servers of a zone are not asked.
const MOST_SERVERS: usize = 8;

/// What the hook is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Do {
    Present,
    Cleanup,
}

/// A TXT record.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Runs the hook; the error is a sentence with what it said.
pub(super) async fn run(hook: &DnsHook, what: Do, record: &TxtRecord) -> Result<(), String> {
    let what = match what {
        Do::Present => "present",
        Do::Cleanup => "cleanup",
    };
    let Some((program, arguments)) = hook.command.split_first() else {
        return Err("[acme] dns_hook is empty; name a command".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .args([what, &record.name, &record.value])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            format!("the hook {program} cannot be run: {error}; check dns_hook, and that the file is executable")
        })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let whole = async { tokio::join!(child.wait(), output(out), output(err)) };
    let Ok((status, out, err)) = timeout(hook.timeout, whole).await else {
        return Err(format!(
            "the hook `{program} {what} {}` was ended: it took longer than {} s; see dns_timeout",
            record.name,
            hook.timeout.as_secs()
        ));
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(
            "the hook `{program} {what} {}` failed ({status}): {}",
            record.name,
            said(&out, &err)
        )),
        Err(error) => Err(format!("the hook {program} got lost: {error}")),
    }
}

/// All of it is read, or the hook would wait for us; the beginning is kept.
async fn output(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        let _ = (&mut from).take(OUTPUT).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    kept
}

fn said(out: &[u8], err: &[u8]) -> String {
    let all = [err, b" ", out].concat();
    let text = String::from_utf8_lossy(&all);
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match line.split_whitespace().collect::<Vec<_>>().join(" ") {
        said if said.is_empty() => "it said nothing; let it write to standard error why".to_owned(),
        said => said,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str) -> DnsHook {
        DnsHook {
            command: ["sh", "-c", script, "hook"].map(str::to_owned).to_vec(),
            timeout: Duration::from_millis(1500),
            resolvers: Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_hook_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("said");
        let record = TxtRecord::new("*.a.example", "v-1".to_owned());
        let hook = hook(&format!("echo \"$@\" >> {}", file.display()));
        run(&hook, Do::Present, &record).await.unwrap();
        run(&hook, Do::Cleanup, &record).await.unwrap();
        let said = std::fs::read_to_string(&file).unwrap();
        let expected =
            "present _acme-challenge.a.example v-1\ncleanup _acme-challenge.a.example v-1\n";
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn a_hook_that_fails_is_quoted_and_one_that_hangs_is_ended() {
        let record = TxtRecord::new("a.example", "v".to_owned());
        let mean = hook("echo no rights >&2; exit 3");
        let failed = run(&mean, Do::Present, &record).await.unwrap_err();
        assert!(
            failed.contains("no rights") && failed.contains("3"),
            "{failed}"
        );
        let loud = hook("yes | head -c 1000000; exit 1");
        let loud = run(&loud, Do::Present, &record).await.unwrap_err();
        assert!(loud.len() < 6000);
        let hung = run(&hook("exec sleep 60"), Do::Present, &record)
            .await
            .unwrap_err();
        assert!(hung.contains("longer than 1 s"), "{hung}");
        let absent = DnsHook {
            command: vec!["/nowhere/hook".to_owned()],
            ..hook("")
        };
        let absent = run(&absent, Do::Present, &record).await.unwrap_err();
        assert!(absent.contains("cannot be run"), "{absent}");
    }
}
