//! The URLs this tool takes: `ws`, `wss` and, for probes, `http`.
//! Not a general URL parser: no user info, no fragments, nothing is normalised.

use std::fmt;
use std::str::FromStr;

/// How the bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// WebSocket over plain TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// Plain HTTP, for probes.
    Http,
}

/// A parsed URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// How the bytes travel.
    pub scheme: Scheme,
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port, from the URL or the scheme.
    pub port: u16,
    /// Path and query, at least `/`.
    pub path: String,
}

/// Why a URL was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// No or another scheme.
    #[error("{0:?}: write ws://HOST[:PORT][/PATH], wss://… or, for a probe, http://…")]
    Scheme(String),
    /// No host, or one that cannot be read.
    #[error("{0:?} has no usable host")]
    Host(String),
    /// A port that is not 1 to 65535.
    #[error("{0:?} has no usable port")]
    Port(String),
}

impl Url {
    /// `host:port` for the resolver, brackets put back around IPv6.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let wrong = || UrlError::Scheme(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (scheme, default_port) = match scheme {
            "ws" => (Scheme::Ws, 80),
            "wss" => (Scheme::Wss, 443),
            "http" => (Scheme::Http, 80),
            _ => return Err(wrong()),
        };
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let (host, port) = split_authority(authority, default_port)
            .ok_or_else(|| UrlError::Host(text.to_owned()))?;
        let port = port.parse().ok().filter(|p| *p != 0);
        let port = port.ok_or_else(|| UrlError::Port(text.to_owned()))?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@') {
            return Err(UrlError::Host(text.to_owned()));
        }
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            path,
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
            Scheme::Http => "http",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

fn split_authority(authority: &str, default_port: u16) -> Option<(&str, String)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        return match tail.strip_prefix(':') {
            Some(port) => Some((host, port.to_owned())),
            None if tail.is_empty() => Some((host, default_port.to_string())),
            None => None,
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, port.to_owned())),
        None => Some((authority, default_port.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Scheme, String, u16, String) {
        let url: Url = text.parse().unwrap();
        (url.scheme, url.host, url.port, url.path)
    }

    #[test]
    fn default_ports_follow_the_scheme() {
        assert_eq!(
            parts("wss://a.example"),
            (Scheme::Wss, "a.example".into(), 443, "/".into())
        );
        assert_eq!(
            parts("ws://a.example/x?y"),
            (Scheme::Ws, "a.example".into(), 80, "/x?y".into())
        );
        assert_eq!(parts("ws://h?token=1").3, "/?token=1");
    }

    #[test]
    fn ipv6_keeps_its_brackets_only_in_the_authority() {
        let url: Url = "wss://[::1]:8443/ws".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 8443));
        assert_eq!(url.to_string(), "wss://[::1]:8443/ws");
        assert_eq!("ws://[::1]".parse::<Url>().unwrap().port, 80);
    }

    #[test]
    fn nonsense_is_refused_by_kind() {
        assert!(matches!(
            "localhost:3001".parse::<Url>(),
            Err(UrlError::Scheme(_))
        ));
        assert!(matches!("ftp://x".parse::<Url>(), Err(UrlError::Scheme(_))));
        assert!(matches!("ws://".parse::<Url>(), Err(UrlError::Host(_))));
        assert!(matches!("ws://u@h".parse::<Url>(), Err(UrlError::Host(_))));
        assert!(matches!(
            "ws://::1:80".parse::<Url>(),
            Err(UrlError::Host(_))
        ));
        assert!(matches!("ws://h:0".parse::<Url>(), Err(UrlError::Port(_))));
        assert!(matches!(
            "ws://h:99999".parse::<Url>(),
            Err(UrlError::Port(_))
        ));
    }
}
