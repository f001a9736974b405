//! What is examined, and the evidence that more than one look needs, each gathered once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::OnceCell;

use super::Patient;
use super::certificates::CertificateFile;
use super::gateway::health::Health;
use super::gateway::process::Reached;
use super::ports::Port;
use super::running::Running;
use crate::config::{AdminAddress, Config, Problem, Started, Upstream};

/// All looks share one.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) config: Option<Arc<Config>>,
    pub(super) source: String,
    file: Option<PathBuf>,
    pub(super) origins: Vec<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) admin: Option<AdminAddress>,
    /// Every gateway once.
    pub(super) gateways: Vec<Gateway>,
    /// Every address to listen on; the admin listener's is not among them.
    pub(super) ports: Vec<(SocketAddr, OnceCell<Port>)>,
    running: OnceCell<Running>,
    certificates: OnceCell<Vec<CertificateFile>>,
}

/// A gateway, and which routes lead there.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) upstream: Upstream,
    /// What findings call it.
    pub(super) name: String,
    /// A path on which it is spoken to.
    pub(super) path: String,
    reached: OnceCell<Reached>,
    health: OnceCell<Health>,
}

/// Nothing that is asked of somebody else takes longer, so that a few of them in a row are done
/// within a look's limit.
pub(super) const ANSWER: Duration = Duration::from_secs(3);

impl Case {
    pub(super) fn new(patient: Patient) -> Self {
        let config = patient.config.map(Arc::new);
        let gateways = config.as_deref().map(gateways).unwrap_or_default();
        let listen = config.as_deref().map(|config| &config.listen);
        let ports = listen
            .into_iter()
            .flat_map(|listen| listen.https.iter().chain(&listen.http));
        Self {
            gateways,
            ports: ports.map(|address| (*address, OnceCell::new())).collect(),
            source: patient.source,
            file: patient.file,
            origins: patient.origins,
            problems: patient.problems,
            admin: patient.admin,
            running: OnceCell::new(),
            certificates: OnceCell::new(),
            config,
        }
    }

    /// Whether a holdline runs here, and what it says.
    pub(super) async fn running(&self) -> &Running {
        self.running
            .get_or_init(|| Running::gather(self.admin))
            .await
    }

    /// What the holdline that runs was started with, if that is another config.
    pub(super) async fn other_config(&self) -> Option<&Started> {
        let started = self.running().await.status()?.config.as_ref()?;
        let (theirs, ours) = (started.clone(), self.file.clone());
        let same = super::blocking(move || match ours {
            Some(file) => theirs.uses(&file),
            None => theirs.file().is_none(),
        });
        (!same.await?).then_some(started)
    }

    /// The certificates of the config as they are on disk.
    pub(super) async fn certificates(&self) -> &[CertificateFile] {
        let gather = || async {
            match self.config.clone() {
                Some(config) => {
                    super::blocking(move || CertificateFile::gather(&config.tls, SystemTime::now()))
                        .await
                        .unwrap_or_default()
                }
                None => Vec::new(),
            }
        };
        self.certificates.get_or_init(gather).await
    }

    /// Who is on an address of the config.
    pub(super) async fn port(&self, address: SocketAddr) -> Option<&Port> {
        let (_, port) = self.ports.iter().find(|(other, _)| *other == address)?;
        Some(port.get_or_init(|| Port::gather(self, address)).await)
    }

    /// The TLS addresses.
    pub(super) fn https(&self) -> &[SocketAddr] {
        self.config
            .as_deref()
            .map_or(&[], |config| &config.listen.https)
    }
}

impl Gateway {
    /// Whether anybody listens there.
    pub(super) async fn reached(&self) -> &Reached {
        self.reached
            .get_or_init(|| Reached::gather(&self.upstream))
            .await
    }

    /// What it says of itself.
    pub(super) async fn health(&self) -> &Health {
        self.health.get_or_init(|| Health::gather(self)).await
    }
}

fn gateways(config: &Config) -> Vec<Gateway> {
    let mut found: Vec<(Upstream, Vec<&str>, Option<&str>)> = Vec::new();
    // The default route is the last one, and the first that a person would look at.
    for route in config.routes.iter().rev() {
        let upstream = &route.upstream;
        let same = |(other, ..): &&mut (Upstream, Vec<&str>, Option<&str>)| {
            other.authority() == upstream.authority() && other.protocol == upstream.protocol
        };
        match found.iter_mut().find(same) {
            Some((_, routes, _)) => routes.push(&route.name),
            None => found.push((upstream.clone(), vec![&route.name], route.path.as_deref())),
        }
    }
    let only = config.routes.len() == 1;
    let gateway = |(upstream, routes, path): (Upstream, Vec<&str>, Option<&str>)| Gateway {
        name: match only {
            true => upstream.authority(),
            false => format!("{} ({})", upstream.authority(), routes.join(", ")),
        },
        path: path.unwrap_or("/").to_owned(),
        upstream,
        reached: OnceCell::new(),
        health: OnceCell::new(),
    };
    found.into_iter().map(gateway).collect()
}

/// Where an address to listen on is reached from here.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
