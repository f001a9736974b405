//! `[gateway]`: the default route's upstream, and what the other routes inherit.

use std::time::Duration;

use crate::config::Overrides;
use crate::config::addresses::{GatewayUrl, absolute_path};
use crate::config::checker::{At, Item};
use crate::config::model::{LoopbackClients, Probe, ProtocolKind, Resume, Upstream};
use crate::config::section::{Bounds, Section};
use crate::config::units::Wrong;

const PROBE_INTERVAL: Bounds<Duration> = Bounds::up_to(
    Duration::from_secs(60),
    "a gateway that is back would go unnoticed",
);
const PROBE_INTERVAL_READY: Bounds<Duration> = Bounds::up_to(
    Duration::from_secs(300),
    "a hung gateway would go unnoticed",
);
const CONNECT_TIMEOUT: Bounds<Duration> =
    Bounds::up_to(Duration::from_secs(14), "clients give up at 15 s");

/// The section with its places.
pub(super) struct Draft {
    pub(super) url: Item<GatewayUrl>,
    pub(super) protocol: Item<ProtocolKind>,
    pub(super) probe: Probe,
    pub(super) probe_interval: Duration,
    pub(super) probe_interval_ready: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) loopback_clients: LoopbackClients,
    pub(super) resume: Item<Resume>,
}

/// Without `resume`, which stands in `[hold]`.
pub(super) struct Unfinished(Draft);

impl Unfinished {
    pub(super) fn with_resume(self, resume: Item<Resume>) -> Draft {
        Draft { resume, ..self.0 }
    }
}

pub(super) fn read(section: &mut Section<'_, '_>, overrides: &Overrides) -> Unfinished {
    let default = GatewayUrl {
        host: "127.0.0.1".to_owned(),
        port: 3001,
    };
    let mut url = section.text("url", default, str::parse);
    if let Some(flag) = &overrides.gateway {
        url = Item {
            value: flag.clone(),
            at: At::Flag("--gateway", flag.to_string()),
            ..url
        };
        section.overridden("url", "--gateway", format!("\"{flag}\""));
    }
    let seconds = Duration::from_secs;
    let half = Duration::from_millis(500);
    let loopback = [
        ("local", LoopbackClients::Local),
        ("refuse", LoopbackClients::Refuse),
    ];
    let resume = Item {
        value: Resume::Auto,
        key: String::new(),
        at: At::Default,
    };
    Unfinished(Draft {
        url,
        protocol: section.choice("protocol", ProtocolKind::Openclaw, PROTOCOLS),
        probe: section.text("probe", Probe::Auto, read_probe).value,
        probe_interval: section
            .duration("probe_interval", half, PROBE_INTERVAL)
            .value,
        probe_interval_ready: section
            .duration("probe_interval_ready", seconds(5), PROBE_INTERVAL_READY)
            .value,
        connect_timeout: section
            .duration("connect_timeout", seconds(2), CONNECT_TIMEOUT)
            .value,
        loopback_clients: section
            .choice("loopback_clients", LoopbackClients::Local, loopback)
            .value,
        resume,
    })
}

/// The words of `protocol`.
pub(super) const PROTOCOLS: [(&str, ProtocolKind); 2] = [
    ("openclaw", ProtocolKind::Openclaw),
    ("generic", ProtocolKind::Generic),
];

/// `auto`, `tcp`, or a path.
pub(super) fn read_probe(text: &str) -> Result<Probe, Wrong> {
    match text {
        "auto" => Ok(Probe::Auto),
        "tcp" => Ok(Probe::Tcp),
        path if path.starts_with('/') => absolute_path(path).map(Probe::Path),
        "" => Err(Wrong::new(
            "no way to ask",
            "write \"auto\", \"tcp\", or a path as \"/health\"",
        )),
        word => Err(Wrong::new(
            "neither \"auto\", \"tcp\" nor a path",
            format!("write \"auto\", \"tcp\", or the path \"/{word}\""),
        )),
    }
}

impl Draft {
    /// The upstream of the default route.
    pub(super) fn upstream(&self) -> Upstream {
        Upstream {
            host: self.url.value.host.clone(),
            port: self.url.value.port,
            protocol: self.protocol.value,
            probe: self.probe.clone(),
            probe_interval: self.probe_interval,
            probe_interval_ready: self.probe_interval_ready,
            connect_timeout: self.connect_timeout,
            loopback_clients: self.loopback_clients,
            resume: self.resume.value,
        }
    }
}
