//! Addresses as people write them: listeners, the gateway's URL, networks, hosts, paths, origins.
//!
//! Pure: nothing is resolved and nothing is opened.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;
use http::uri::PathAndQuery;
use ipnet::IpNet;

use super::model::HostPattern;
use super::units::Wrong;

/// An address to listen on, `127.0.0.1:8443`.
///
/// # Errors
/// When it is not an IP address with a port; the message says what to write.
pub fn listen_address(text: &str) -> Result<SocketAddr, Wrong> {
    let what = "not an address to listen on: an IP address and a port";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if has_port_out_of_range(text) {
        return Err(Wrong::new("not a port", "write a port from 1 to 65535"));
    }
    let remedy = if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        format!("write \"{}\"", SocketAddr::new(ip, 443))
    } else if let Some(port) = port_of(text.strip_prefix("localhost:")) {
        format!("write \"127.0.0.1:{port}\"")
    } else if let Some(port) = port_of(text.strip_prefix("*:").or_else(|| text.strip_prefix(':'))) {
        format!("write \"0.0.0.0:{port}\", or \"127.0.0.1:{port}\" for this machine only")
    } else if let Some(port) = port_of(Some(text)) {
        format!("write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for everyone")
    } else {
        "write for example \"127.0.0.1:8443\" or \"[::]:443\"".to_owned()
    };
    Err(Wrong::new(what, remedy))
}

/// Whether all is well but for a port that is too large.
fn has_port_out_of_range(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        digits && port.parse::<u16>().is_err() && format!("{host}:1").parse::<SocketAddr>().is_ok()
    })
}

/// A path on this machine as it is: nobody expands a `~` here.
pub(super) fn file_path(text: &str) -> Result<PathBuf, Wrong> {
    match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Err(Wrong::new(
            "only a shell knows what ~ stands for",
            format!("write \"${{HOME}}{rest}\", or the whole path"),
        )),
        _ => Ok(PathBuf::from(text)),
    }
}

fn port_of(text: Option<&str>) -> Option<u16> {
    text.and_then(|text| text.parse().ok())
}

/// Where a gateway is: `http://HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUrl {
    /// Host name or IP address literal, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl FromStr for GatewayUrl {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let what = "not a gateway's URL";
        let example = "write for example \"http://127.0.0.1:3001\"";
        let uri = Uri::from_str(text).map_err(|_| Wrong::new(what, example))?;
        let authority = uri.authority().map(|authority| authority.as_str());
        // A remedy must not repeat a password.
        let public = authority.map(|text| text.rsplit_once('@').map_or(text, |(_, host)| host));
        match (uri.scheme_str(), public) {
            (Some("http"), _) => from_parts(&uri, authority.unwrap_or_default()),
            (Some("https" | "wss"), Some(authority)) => Err(Wrong::new(
                "https gateways are not supported: holdline speaks plain HTTP to a gateway beside it",
                format!("write \"http://{authority}\" and let the gateway serve plain HTTP there"),
            )),
            (Some("ws"), Some(authority)) => {
                Err(Wrong::new(what, format!("write \"http://{authority}\"")))
            }
            (None, Some(authority)) => Err(Wrong::new(
                "a URL needs its scheme",
                format!("write \"http://{authority}\""),
            )),
            _ => Err(Wrong::new(what, example)),
        }
    }
}

fn from_parts(uri: &Uri, authority: &str) -> Result<GatewayUrl, Wrong> {
    let instead = || {
        let port = uri
            .port_u16()
            .map_or(String::new(), |port| format!(":{port}"));
        format!("write \"http://{}{port}\"", uri.host().unwrap_or_default())
    };
    if authority.contains('@') {
        return Err(Wrong::new(
            "a gateway's URL has no user or password",
            instead(),
        ));
    }
    if uri.path() != "/" || uri.query().is_some() {
        let what = "a gateway's URL has no path: requests keep the one they came with";
        return Err(Wrong::new(what, instead()));
    }
    let host = upstream_host(uri.host().unwrap_or_default())?;
    let numbered = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    let port = if numbered { uri.port_u16() } else { Some(80) };
    match port {
        Some(port @ 1..) => Ok(GatewayUrl { host, port }),
        _ => Err(Wrong::new("not a port", "write a port from 1 to 65535")),
    }
}

/// A name, or an address without its brackets.
fn upstream_host(host: &str) -> Result<String, Wrong> {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let known = match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => is_host(host.strip_suffix('.').unwrap_or(host)),
    };
    if known {
        return Ok(v6.unwrap_or(host).to_owned());
    }
    let remedy = "write for example \"http://127.0.0.1:3001\" or \"http://openclaw:3001\"";
    Err(Wrong::new("not a host name or address", remedy))
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

/// A network `10.0.0.0/8`, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let single = || text.parse::<IpAddr>().map(IpNet::from).ok();
    let parsed = text
        .parse::<IpNet>()
        .map(|net| net.trunc())
        .ok()
        .or_else(single);
    parsed.ok_or_else(|| {
        Wrong::new(
            "not a network",
            "write for example \"10.0.0.0/8\" or \"192.0.2.7\"",
        )
    })
}

/// A host as a route names it: `a.example.net` or `*.example.net`.
pub(super) fn host_pattern(text: &str) -> Result<HostPattern, Wrong> {
    let host = text.trim_end_matches('.').to_ascii_lowercase();
    if host == "*" || host.is_empty() {
        return Err(Wrong::new("any host is meant", "leave host out"));
    }
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(HostPattern::Exact(ip.to_string()));
    }
    if !host.is_ascii() {
        let remedy = "write it in letters that the DNS has, as xn--…: \"xn--bcher-kva.example\" \
                      stands for \"bücher.example\"";
        return Err(Wrong::new("not a host name as clients send it", remedy));
    }
    let host = match host.split_once("://") {
        // A URL's remedy is its host.
        Some((_, rest)) => format!("{}/", rest.trim_end_matches('/')),
        None => host,
    };
    let (name, under) = match host.strip_prefix("*.") {
        Some(suffix) => (suffix, true),
        None => (host.as_str(), false),
    };
    if let Some((name, _)) = name
        .split_once([':', '/'])
        .filter(|(name, _)| is_host(name))
    {
        let star = if under { "*." } else { "" };
        let remedy = format!("write \"{star}{name}\"; a path has its own key");
        return Err(Wrong::new("a host has no port, scheme or path", remedy));
    }
    if !is_host(name) {
        let remedy =
            "write a name such as \"a.example.net\", or \"*.example.net\" for all below it";
        return Err(Wrong::new("not a host name", remedy));
    }
    let name = name.to_owned();
    Ok(if under {
        HostPattern::Under(name)
    } else {
        HostPattern::Exact(name)
    })
}

/// Whether a text is a name of letters, digits, `-` and `_` in labels, without a dot at its end.
pub(super) fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A path prefix as a route names it; `/` alone is any path.
pub(super) fn path_prefix(text: &str) -> Result<Option<String>, Wrong> {
    let path = absolute_path(text)?;
    if path.contains('?') {
        return Err(Wrong::new(
            "a path prefix has no query",
            "leave out the ? and what follows",
        ));
    }
    let dots = |segment: &str| segment == "." || segment == "..";
    if path.contains("//") || path.split('/').any(dots) {
        let remedy = "write the path as it arrives, without //, /./ and /../";
        return Err(Wrong::new("this can never match", remedy));
    }
    let trimmed = path.trim_end_matches('/');
    if let Some(prefix) = trimmed.strip_suffix("/*") {
        let remedy = match prefix {
            "" => "leave path out".to_owned(),
            prefix => format!("write \"{prefix}\""),
        };
        let what = "a path is a prefix: everything below it is meant without *";
        return Err(Wrong::new(what, remedy));
    }
    Ok((!trimmed.is_empty()).then(|| trimmed.to_owned()))
}

/// A path that starts with `/`.
pub(super) fn absolute_path(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        let written = text.trim();
        return Err(Wrong::new(
            "a path starts with /",
            format!("write \"/{written}\""),
        ));
    }
    match PathAndQuery::from_str(text) {
        Ok(path) if path.as_str() == text => Ok(text.to_owned()),
        _ => Err(Wrong::new(
            "not a path of a URL",
            "percent-encode what is not allowed in a URL",
        )),
    }
}

/// A browser's `Origin`: scheme, host and port, in lower case.
pub(super) fn origin(text: &str) -> Result<String, Wrong> {
    let what = "not an origin: a scheme, a host and perhaps a port";
    if text == "*" {
        return Err(Wrong::new(
            "any origin is meant",
            "leave the list empty: the gateway decides",
        ));
    }
    let lower = text.to_ascii_lowercase();
    if lower == "null" {
        return Ok(lower);
    }
    let uri = Uri::from_str(&lower).ok();
    let parts = uri
        .as_ref()
        .and_then(|uri| Some((uri.scheme_str()?, uri.authority()?.as_str())));
    match parts {
        Some((scheme, authority)) if authority.contains('@') || authority.is_empty() => {
            Err(Wrong::new(
                what,
                format!("write for example \"{scheme}://a.example.net\""),
            ))
        }
        Some((scheme, authority)) => {
            // Browsers leave out a scheme's own port.
            let own_port = if scheme == "https" { ":443" } else { ":80" };
            let authority = authority.strip_suffix(own_port).unwrap_or(authority);
            let exact = format!("{scheme}://{authority}");
            if exact == lower {
                Ok(exact)
            } else {
                Err(Wrong::new(what, format!("write \"{exact}\"")))
            }
        }
        None if is_host(&lower) => Err(Wrong::new(what, format!("write \"https://{lower}\""))),
        None => Err(Wrong::new(
            what,
            "write for example \"https://a.example.net\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gateways_url_reads_back() {
        for url in [
            "http://127.0.0.1:3001",
            "http://[::1]:80",
            "http://open_claw.internal:1",
        ] {
            assert_eq!(
                url.parse::<GatewayUrl>().map(|gateway| gateway.to_string()),
                Ok(url.into())
            );
        }
        assert_eq!(
            "HTTP://gw/".parse(),
            Ok(GatewayUrl {
                host: "gw".to_owned(),
                port: 80
            })
        );
    }

    #[test]
    fn what_is_no_gateways_url_is_refused() {
        for url in [
            "",
            "http://",
            "/",
            "http:///x",
            "http://gw:",
            "http://gw:0",
            "http://gw:x",
            "ftp://gw",
            "http://a b",
            "http://0[0]",
            "http://[gw]",
            "http://a..b",
        ] {
            assert!(url.parse::<GatewayUrl>().is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        for url in [
            "https://u:s3cret@gw:1",
            "ws://u:s3cret@gw:1",
            "http://u:s3cret@gw:1",
        ] {
            let wrong = url.parse::<GatewayUrl>().unwrap_err();
            assert_eq!(
                wrong.remedy.split(" and ").next(),
                Some("write \"http://gw:1\"")
            );
            assert!(!wrong.to_string().contains("s3cret"), "{wrong}");
        }
    }

    #[test]
    fn hosts_lose_case_brackets_and_the_last_dot() {
        let exact = |host: &str| Ok(HostPattern::Exact(host.to_owned()));
        assert_eq!(host_pattern("A.Example.NET."), exact("a.example.net"));
        assert_eq!(host_pattern("[2001:DB8::1]"), exact("2001:db8::1"));
        assert_eq!(
            host_pattern("*.Net"),
            Ok(HostPattern::Under("net".to_owned()))
        );
        assert!(
            host_pattern("*")
                .unwrap_err()
                .remedy
                .contains("leave host out")
        );
    }

    #[test]
    fn an_origin_is_as_browsers_send_it() {
        assert_eq!(
            origin("https://A.net:8443"),
            Ok("https://a.net:8443".to_owned())
        );
        assert_eq!(origin("null"), Ok("null".to_owned()));
        assert_eq!(
            origin("https://a.net:443").unwrap_err().remedy,
            "write \"https://a.net\""
        );
        assert!(origin("*").is_err() && origin("").is_err() && origin("https://u@a").is_err());
    }

    #[test]
    fn paths_lose_the_last_slash_and_the_root_is_any() {
        assert_eq!(path_prefix("/a/b/"), Ok(Some("/a/b".to_owned())));
        assert_eq!(path_prefix("/"), Ok(None));
        for path in ["/a?b", "/a//b", "/./a", "/a b", "", "/a#b"] {
            assert!(path_prefix(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in "\\PC{0,30}|(http|ws|https)://[a-z@:/?\\[\\]0-9.]{0,20}") {
            let _ = (listen_address(&text), network(&text), host_pattern(&text));
            let _ = (path_prefix(&text), absolute_path(&text), origin(&text));
            if let Ok(url) = text.parse::<GatewayUrl>() {
                prop_assert_eq!(url.to_string().parse::<GatewayUrl>(), Ok(url));
            }
        }
    }
}
