//! The settings that a config of ours asks of its gateway.
//!
//! Pure: from a config to values, the commands that set them, and what a person must know.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::{Map, Value, json};

use crate::config::{Auth, Config, HostPattern, ProtocolKind, Route, Upstream};

/// Every scope of an operator, as the Control UI asks for them.
pub const SCOPES: [&str; 6] = [
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
    "operator.pairing",
];

/// What no device gets for nothing more than the person at it being signed in.
const NEVER_APPROVED: [&str; 2] = ["operator.admin", "operator.pairing"];
/// What the gateway must find on every request of ours for somebody who signed in.
const REQUIRED_HEADERS: [&str; 2] = ["x-forwarded-proto", "x-forwarded-host"];
/// Stands for what only the gateway's side knows.
const OUR_ADDRESS: &str = "ADDRESS-OF-HOLDLINE";

/// What the config does not say.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What users may do; empty: everything ([`SCOPES`]).
    pub scopes: Vec<String>,
    /// Users beyond those in the config, for certificates and forward-auth services.
    pub users: Vec<String>,
    /// Addresses in browsers beyond those of the listeners.
    pub origins: Vec<String>,
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
    /// What a person must know.
    pub notes: Vec<String>,
}

/// `gateway.auth` for a gateway that believes us who somebody is.
#[derive(Debug, Clone)]
pub(super) struct Identities {
    pub(super) user_header: String,
    pub(super) loopback: bool,
    pub(super) users: Vec<String>,
    pub(super) scopes: Vec<String>,
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
            .then(|| identities(auth, options, loopback, &mut notes));
        Some(Self {
            routes: routes.iter().map(|route| route.name.clone()).collect(),
            upstream,
            trusted_proxies,
            origins,
            identity,
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
                "identityScopes": identity.scopes_by_user(),
            });
            gateway.insert("auth".to_owned(), auth);
        }
        let control_ui = json!({"allowedOrigins": self.origins});
        gateway.insert("controlUi".to_owned(), control_ui);
        json!({ "gateway": gateway })
    }

    /// The same as commands, in an order in which each of them leaves a valid config.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        let set = |path: &str, value: &Value| {
            let value = value.to_string().replace('\'', r"'\''");
            format!("openclaw config set {path} '{value}' --strict-json")
        };
        let mut commands = vec![
            set("gateway.trustedProxies", &json!(self.trusted_proxies)),
            set("gateway.controlUi.allowedOrigins", &json!(self.origins)),
        ];
        if let Some(identity) = &self.identity {
            commands.extend([
                set("gateway.auth.trustedProxy", &identity.trusted_proxy()),
                set("gateway.auth.identityScopes", &identity.scopes_by_user()),
                // Removes a token that is set.
                set("gateway.auth.mode", &json!("trusted-proxy")),
            ]);
        }
        commands
    }
}

// === impl Identities ===

impl Identities {
    fn trusted_proxy(&self) -> Value {
        let mut value = json!({
            "userHeader": self.user_header,
            "requiredHeaders": REQUIRED_HEADERS,
            "deviceAutoApprove": self.device_auto_approve(),
        });
        if let (true, Some(map)) = (self.loopback, value.as_object_mut()) {
            map.insert("allowLoopback".to_owned(), json!(true));
        }
        value
    }

    /// Without scopes of its own the gateway would give a device more than its person may do.
    fn device_auto_approve(&self) -> Value {
        let scopes = self.device_scopes();
        match scopes.is_empty() {
            true => json!({"enabled": false}),
            false => json!({"enabled": true, "scopes": scopes}),
        }
    }

    /// What a device of somebody signed in is approved for by itself; empty: nothing.
    pub(super) fn device_scopes(&self) -> Vec<&str> {
        let scopes = self.scopes.iter().map(String::as_str);
        scopes
            .filter(|scope| !NEVER_APPROVED.contains(scope))
            .collect()
    }

    fn scopes_by_user(&self) -> Value {
        let by_user = self.users.iter();
        let by_user = by_user.map(|user| (user.clone(), json!(self.scopes)));
        Value::Object(by_user.collect())
    }
}

fn identities(
    auth: &Auth,
    options: &Options,
    loopback: bool,
    notes: &mut Vec<String>,
) -> Identities {
    let mut users: Vec<String> = Vec::new();
    let named = auth.users.iter().map(|user| &user.name);
    let tokens = auth.tokens.iter().map(|token| &token.user);
    for user in named.chain(tokens).chain(&options.users) {
        if !users.contains(user) {
            users.push(user.clone());
        }
    }
    let elsewhere = auth.certificate.is_some() || auth.forward.is_some();
    if elsewhere && options.users.is_empty() {
        notes.push(
            "users who come in by a certificate or through the sign-in service are not in this \
             config: name each with --user NAME, else they may do nothing at the gateway"
                .to_owned(),
        );
    }
    notes.push(
        "a gateway in trusted-proxy mode does not start with a shared token: remove \
         gateway.auth.token (the commands do), and OPENCLAW_GATEWAY_TOKEN from its environment. For programs on its \
         own machine set gateway.auth.password"
            .to_owned(),
    );
    notes.push(
        "identityScopes alone do not limit what an approved device may do: the gateway adds the \
         device's scopes to the person's, and the device keeps them. deviceAutoApprove.scopes \
         limits devices approved from now on; for earlier ones see openclaw devices list"
            .to_owned(),
    );
    let scopes = match options.scopes.is_empty() {
        true => SCOPES.map(str::to_owned).to_vec(),
        false => options.scopes.clone(),
    };
    Identities {
        user_header: auth.user_header.to_string(),
        loopback,
        users,
        scopes,
    }
}

fn origins(
    config: &Config,
    routes: &[&Route],
    options: &Options,
    notes: &mut Vec<String>,
) -> Vec<String> {
    let listening = || config.listen.https.iter().copied();
    let mut found = Vec::new();
    let mut anonymous = false;
    for route in routes {
        match &route.host {
            // What stands in a browser is the route's name.
            Some(HostPattern::Exact(host)) => {
                found.extend(listening().filter_map(|address| origin(host, address.port())));
            }
            Some(HostPattern::Under(suffix)) => notes.push(format!(
                "pages of *.{suffix} are no single origin: name those that there are with --origin https://NAME"
            )),
            None => {
                anonymous |= listening().any(|address| !address.ip().is_loopback());
                found.extend(listening().flat_map(of_listener));
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
    if anonymous && options.origins.is_empty() && config.limits.origins.is_empty() {
        notes.push(
            "holdline listens for other machines: add the address that stands in their browsers \
             with --origin https://NAME"
                .to_owned(),
        );
    }
    origins
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
