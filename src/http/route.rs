//! Which host a request is for, and which route answers for it.
//!
//! Pure. A request whose host is missing, malformed or contradictory never gets past
//! [`host_of`]; [`choose`] is total over what does.

use std::net::Ipv6Addr;

use http::uri::Authority;
use http::{HeaderValue, Method, Version, header, request};

use crate::config::{HostPattern, Route};

/// The host a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As the client wrote it, port included: the gateway gets this.
    pub value: HeaderValue,
    /// For comparing: lower case, no port, no brackets, no trailing dot.
    pub name: String,
}

/// Why a request's target cannot be believed. Each is answered 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Neither `Host` nor `:authority`.
    #[error("no Host")]
    Missing,
    /// More than one `Host`.
    #[error("more than one Host")]
    Duplicate,
    /// No host name, address or port is written like this.
    #[error("malformed Host")]
    Malformed,
    /// The target's authority and `Host` name different hosts.
    #[error("the request target and Host disagree")]
    Mismatch,
    /// `CONNECT` that is no WebSocket, or a target that is no path.
    #[error("not a proxy for other hosts")]
    NotOrigin,
}

/// Longest host with port: 253 for the name, the rest for brackets and port.
const MAX_HOST: usize = 262;

/// The host that this request is for, if it says so exactly once.
///
/// # Errors
///
/// See [`BadTarget`].
pub fn host_of(head: &request::Parts) -> Result<Host, BadTarget> {
    let extended_connect = head.extensions.get::<hyper::ext::Protocol>().is_some();
    let connect = head.method == Method::CONNECT && !extended_connect;
    if connect || !head.uri.path().starts_with('/') {
        return Err(BadTarget::NotOrigin);
    }
    if !matches!(head.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(BadTarget::NotOrigin);
    }
    let mut lines = head.headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(BadTarget::Duplicate);
    }
    let line = line
        .map(|line| parse(line.as_bytes()).map(|name| (line, name)))
        .transpose()?;
    let authority = head.uri.authority().map(Authority::as_str);
    match (line, authority) {
        (None, None) => Err(BadTarget::Missing),
        // HTTP/1.1 clients must send Host whatever the target's form (RFC 9112, 3.2).
        (None, Some(_)) if head.version < Version::HTTP_2 => Err(BadTarget::Missing),
        (None, Some(authority)) => {
            let name = parse(authority.as_bytes())?;
            let value = HeaderValue::from_str(authority).map_err(|_| BadTarget::Malformed)?;
            Ok(Host { value, name })
        }
        (Some((line, name)), None) => Ok(Host {
            value: line.clone(),
            name,
        }),
        (Some((line, name)), Some(authority)) => {
            if !line.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) {
                return Err(BadTarget::Mismatch);
            }
            Ok(Host {
                value: line.clone(),
                name,
            })
        }
    }
}

/// Checks a host with an optional port, and brings it to the form in which hosts are compared.
fn parse(host: &[u8]) -> Result<String, BadTarget> {
    let host = std::str::from_utf8(host).map_err(|_| BadTarget::Malformed)?;
    if host.len() > MAX_HOST {
        return Err(BadTarget::Malformed);
    }
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(BadTarget::Malformed)?;
        let address: Ipv6Addr = address.parse().map_err(|_| BadTarget::Malformed)?;
        if !port.is_empty() {
            check_port(port.strip_prefix(':').ok_or(BadTarget::Malformed)?)?;
        }
        return Ok(address.to_string());
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    check_port(port)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !name.split('.').all(label) {
        return Err(BadTarget::Malformed);
    }
    Ok(name.to_ascii_lowercase())
}

fn check_port(port: &str) -> Result<(), BadTarget> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if port.is_empty() || (digits && port.parse::<u16>().is_ok()) {
        return Ok(());
    }
    Err(BadTarget::Malformed)
}

/// The index of the route for this host (as in [`Host::name`]) and path: an exact host before a
/// wildcard (the longer suffix first) before any; then the longer path; then the earlier route.
/// `None` only where no route matches everything.
#[must_use]
pub fn choose(routes: &[Route], host: &str, path: &str) -> Option<usize> {
    let mut best: Option<((HostRank, usize), usize)> = None;
    for (index, route) in routes.iter().enumerate() {
        let host = rank_host(route.host.as_ref(), host);
        let path = rank_path(route.path.as_deref(), path);
        if let (Some(host), Some(path)) = (host, path)
            && best.is_none_or(|(rank, _)| (host, path) > rank)
        {
            best = Some(((host, path), index));
        }
    }
    best.map(|(_, index)| index)
}

/// How exactly a host matched; the greater, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Any,
    Under(usize),
    Exact,
}

fn rank_host(pattern: Option<&HostPattern>, host: &str) -> Option<HostRank> {
    match pattern {
        None => Some(HostRank::Any),
        Some(HostPattern::Exact(name)) => {
            let name = name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'))
                .unwrap_or(name);
            (name == host).then_some(HostRank::Exact)
        }
        Some(HostPattern::Under(suffix)) => {
            let label = host.strip_suffix(suffix.as_str())?.strip_suffix('.')?;
            (!label.is_empty()).then_some(HostRank::Under(suffix.len()))
        }
    }
}

/// Whether `path` is `prefix` or lies below it, segment by segment.
#[must_use]
pub fn is_under(prefix: &str, path: &str) -> bool {
    rank_path(Some(prefix), path).is_some()
}

/// The length of the matching prefix; it ends where a segment ends.
fn rank_path(prefix: Option<&str>, path: &str) -> Option<usize> {
    let prefix = prefix.unwrap_or_default().trim_end_matches('/');
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

#[cfg(test)]
mod tests;
