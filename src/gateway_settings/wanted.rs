//! The settings that a config of ours asks of its gateway.
//!
//! Pure: from a config to values, the commands that set them, and what a person must know.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::{Map, Value, json};

use super::Looked;
use super::check::{ORIGINS, PROXIES};
use super::identities::{Identities, SCOPES_OF};
use crate::config::{Config, HostPattern, ProtocolKind, Route, Upstream};

/// Every scope of an operator, as the Control UI asks for them.
pub const SCOPES: [&str; 6] = [
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
    "operator.pairing",
];

/// Stands for what only the gateway's side knows.
const OUR_ADDRESS: &str = "ADDRESS-OF-HOLDLINE";

/// What the config does not say.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What users may do of whom `users` does not say it; empty: what the gateway grants them, or
    /// where that was not seen, everything ([`SCOPES`]).
    pub scopes: Vec<String>,
    /// Users beyond those in the config, for certificates and forward-auth services, and of any
    /// user what they may do; empty: as of the others.
    pub users: Vec<(String, Vec<String>)>,
    /// Addresses in browsers beyond those of the listeners.
    pub origins: Vec<String>,
    /// What clients may call us by, as [`super::names()`] finds it.
    pub names: Vec<String>,
}

/// The settings.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The routes that lead to this gateway.
    pub routes: Vec<String>,
    /// Where the gateway is.
    pub(super) upstream: Upstream,
    /// `gateway.trustedProxies`.
    pub(super) trusted_proxies: Vec<String>,
    /// `gateway.controlUi.allowedOrigins`.
    pub(super) origins: Vec<String>,
    /// `gateway.auth`, where it is decided here who comes in.
    pub(super) identity: Option<Identities>,
    /// Whether the lists have in them what the gateway has there already.
    lists_seen: bool,
    notes: Vec<String>,
}

/// Why there is nothing to set.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    /// There is no OpenClaw gateway.
    #[error(
        "the protocol of every gateway is \"generic\": only an OpenClaw gateway has these settings"
    )]
    NotOpenclaw,
}

// === impl Wanted ===

impl Wanted {
    /// For every OpenClaw gateway of a config, that of `[gateway]` first.
    ///
    /// # Errors
    /// If there is none.
    pub fn of_every(config: &Config, options: &Options) -> Result<Vec<Self>, WantedError> {
        let mut gateways: Vec<Vec<&Route>> = Vec::new();
        // The default route is the last one.
        for route in config.routes.iter().rev() {
            let same = |other: &&mut Vec<&Route>| {
                other
                    .first()
                    .is_some_and(|other| other.upstream.authority() == route.upstream.authority())
            };
            match gateways.iter_mut().find(same) {
                _ if route.upstream.protocol != ProtocolKind::Openclaw => {}
                Some(routes) => routes.push(route),
                None => gateways.push(vec![route]),
            }
        }
        let wanted = gateways
            .iter()
            .filter_map(|routes| Self::of(config, routes, options));
        let wanted: Vec<Self> = wanted.collect();
        match wanted.is_empty() {
            true => Err(WantedError::NotOpenclaw),
            false => Ok(wanted),
        }
    }

    /// For the gateway that these routes have in common; `None` without any.
    fn of(config: &Config, routes: &[&Route], options: &Options) -> Option<Self> {
        let upstream = routes.first()?.upstream.clone();
        let mut notes = Vec::new();
        let loopback = is_loopback(&upstream.host);
        let trusted_proxies = if loopback {
            vec!["127.0.0.1".to_owned(), "::1".to_owned()]
        } else {
            notes.push(format!(
                "put the address that holdline has for the gateway in place of {OUR_ADDRESS}: \
                 that of its machine or container, and of nothing else",
            ));
            vec![OUR_ADDRESS.to_owned()]
        };
        let origins = origins(config, routes, options, &mut notes);
        let auth = &config.auth;
        let identity = auth
            .is_on()
            .then(|| Identities::of(auth, options, loopback));
        Some(Self {
            routes: routes.iter().map(|route| route.name.clone()).collect(),
            upstream,
            trusted_proxies,
            origins,
            identity,
            lists_seen: false,
            notes,
        })
    }

    /// `host:port` of the gateway.
    #[must_use]
    pub fn gateway(&self) -> String {
        self.upstream.authority()
    }

    /// As they stand in `openclaw.json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut gateway = Map::new();
        gateway.insert("trustedProxies".to_owned(), json!(self.trusted_proxies));
        if let Some(identity) = &self.identity {
            let auth = json!({
                "mode": "trusted-proxy",
                "trustedProxy": identity.trusted_proxy(),
                "identityScopes": identity.by_user(|_| true),
            });
            gateway.insert("auth".to_owned(), auth);
        }
        let control_ui = json!({"allowedOrigins": self.origins});
        gateway.insert("controlUi".to_owned(), control_ui);
        json!({ "gateway": gateway })
    }

    /// What a person must know.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let identity = self.identity.iter().flat_map(Identities::notes);
        let lists = (!self.lists_seen).then(|| {
            format!(
                "what {PROXIES} and {ORIGINS} have already was not seen, and is replaced: `openclaw \
                 config get` of each shows what to add to its command; --origin https://NAME adds an \
                 origin"
            )
        });
        let notes = self.notes.iter().cloned().chain(lists);
        notes.chain(identity).collect()
    }

    /// Takes over what a gateway that was looked at has already, where nobody said otherwise.
    pub fn keep(&mut self, looked: &Looked) {
        if let Some(lists) = &looked.lists {
            self.lists_seen = true;
            for (wanted, has) in [
                (&mut self.trusted_proxies, &lists.trusted_proxies),
                (&mut self.origins, &lists.origins),
            ] {
                let more = wanted.iter().filter(|one| !has.contains(one));
                *wanted = has.iter().chain(more).cloned().collect();
            }
        }
        if let Some(identity) = &mut self.identity {
            identity.keep(looked);
        }
    }

    /// The same as commands, in an order in which each of them leaves a valid config. What they do
    /// not name stays as it is.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        let mut commands = vec![
            set(PROXIES, &json!(self.trusted_proxies)),
            set(ORIGINS, &json!(self.origins)),
        ];
        if let Some(identity) = &self.identity {
            let proxy = &identity.trusted_proxy();
            commands.push(merge("gateway.auth.trustedProxy", proxy));
            let by_user = identity.by_user(|person| !person.is_kept());
            if by_user.as_object().is_some_and(|map| !map.is_empty()) {
                commands.push(merge(SCOPES_OF, &by_user));
            }
            // Removes a token that is set.
            commands.push(set("gateway.auth.mode", &json!("trusted-proxy")));
        }
        commands
    }
}

fn set(path: &str, value: &Value) -> String {
    let value = value.to_string().replace('\'', r"'\''");
    format!("openclaw config set {path} '{value}' --strict-json")
}

/// Leaves alone what an object there has beyond this one: other people, `allowUsers`.
pub(super) fn merge(path: &str, value: &Value) -> String {
    format!("{} --merge", set(path, value))
}

fn origins(
    config: &Config,
    routes: &[&Route],
    options: &Options,
    notes: &mut Vec<String>,
) -> Vec<String> {
    let (here, public): (Vec<SocketAddr>, Vec<SocketAddr>) = config
        .listen
        .https
        .iter()
        .partition(|address| address.ip().to_canonical().is_loopback());
    // Where nobody else gets to, something before us brings them.
    let reached = match public.is_empty() {
        true => &here,
        false => &public,
    };
    let at_ports = |host: &str| -> Vec<String> {
        let ports = reached.iter().map(SocketAddr::port);
        ports.filter_map(|port| origin(host, port)).collect()
    };
    let (patterns, names): (Vec<&String>, Vec<&String>) = options
        .names
        .iter()
        .filter(|name| leads_here(config, routes, name))
        .partition(|name| name.starts_with("*."));
    let mut found = Vec::new();
    let mut unnamed = false;
    for route in routes {
        match &route.host {
            // What stands in a browser is the route's name.
            Some(HostPattern::Exact(host)) => found.extend(at_ports(host)),
            Some(pattern @ HostPattern::Under(suffix)) => {
                let under = names.iter().filter(|name| covers(pattern, name));
                let before = found.len();
                found.extend(under.flat_map(|name| at_ports(name)));
                if found.len() == before {
                    notes.push(format!(
                        "pages of *.{suffix} are no single origin: name those that there are with --origin https://NAME"
                    ));
                }
            }
            None => {
                found.extend(names.iter().flat_map(|name| at_ports(name)));
                found.extend(here.iter().copied().flat_map(of_listener));
                if options.names.is_empty() {
                    found.extend(public.iter().copied().flat_map(of_listener));
                }
                unnamed |= names.is_empty() && !public.is_empty();
            }
        }
    }
    let named = options.origins.iter().chain(&config.limits.origins);
    let mut origins: Vec<String> = Vec::new();
    for origin in found.iter().chain(named) {
        if !origins.contains(origin) {
            origins.push(origin.clone());
        }
    }
    if unnamed && options.origins.is_empty() && config.limits.origins.is_empty() {
        let pattern = patterns
            .first()
            .map(|pattern| format!("; {pattern} of the certificate is no single origin"));
        notes.push(format!(
            "holdline listens for other machines: add the address that stands in their browsers \
             with --origin https://NAME{}",
            pattern.unwrap_or_default()
        ));
    }
    origins
}

/// Whether pages under a name are, all or some, of one of these routes: those with the most specific
/// host are, and of the less specific ones only if those take a part of the paths.
fn leads_here(config: &Config, routes: &[&Route], name: &str) -> bool {
    let closeness = |route: &Route| match &route.host {
        None => Some(0),
        Some(pattern) => covers(pattern, name).then_some(match pattern {
            HostPattern::Exact(_) => usize::MAX,
            HostPattern::Under(suffix) => suffix.len(),
        }),
    };
    let whole = config.routes.iter().filter(|route| route.path.is_none());
    let closest = whole.filter_map(closeness).max().unwrap_or_default();
    let mut here = routes.iter().filter_map(|route| closeness(route));
    here.any(|close| close >= closest)
}

fn covers(pattern: &HostPattern, name: &str) -> bool {
    match pattern {
        HostPattern::Exact(host) => host.eq_ignore_ascii_case(name),
        HostPattern::Under(suffix) => name
            .to_ascii_lowercase()
            .strip_suffix(suffix.as_str())
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
    }
}

/// How a browser writes it; `None`: the port is chosen at the start.
fn origin(host: &str, port: u16) -> Option<String> {
    let host = match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => host.to_owned(),
    };
    match port {
        0 => None,
        443 => Some(format!("https://{host}")),
        port => Some(format!("https://{host}:{port}")),
    }
}

/// What browsers call a listener of ours, by its address alone.
fn of_listener(address: SocketAddr) -> Vec<String> {
    let hosts = match address.ip().to_canonical() {
        ip if !ip.is_loopback() && !ip.is_unspecified() => vec![ip.to_string()],
        IpAddr::V4(_) => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        IpAddr::V6(_) => vec!["localhost".to_owned(), "::1".to_owned()],
    };
    let origins = hosts.iter().filter_map(|host| origin(host, address.port()));
    origins.collect()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}
