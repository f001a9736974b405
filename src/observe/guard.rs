//! Whether an admin request comes from where it should: pure checks on its headers.

use std::net::IpAddr;

use http::Request;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;

/// Whether the request is meant for us: `localhost`, a loopback address, or one of `ours`.
///
/// A page whose name was rebound to this machine's address still says its own name here. A client
/// without a `Host` is no browser.
pub(super) fn host_is_ours<B>(request: &Request<B>, ours: [IpAddr; 2]) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let authority = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, None) => authority.clone(),
        (None, None, None) => return true,
        (None, Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) => authority,
            Err(_) => return false,
        },
        (_, _, Some(_)) => return false,
    };
    is_ours(authority.host(), ours)
}

fn is_ours(host: &str, ours: [IpAddr; 2]) -> bool {
    let host = host.to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(&host);
    bare.parse::<IpAddr>().is_ok_and(|address| {
        let address = address.to_canonical();
        address.is_loopback() || ours.contains(&address)
    })
}

/// Whether a command may come from this page, if it comes from a page at all: browsers send
/// `Origin` with every cross-site POST.
pub(super) fn same_site<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let fetched = headers
        .get("sec-fetch-site")
        .is_none_or(|site| site == "same-origin" || site == "none");
    let origin = headers.get(ORIGIN).is_none_or(|origin| {
        let from = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://"));
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        from.is_some() && from == host
    });
    fetched && origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn only_our_names() {
        let ours = ["10.0.0.1".parse().unwrap(), "0.0.0.0".parse().unwrap()];
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:9180", true),
            ("app.localhost", true),
            ("127.0.0.1:9180", true),
            ("127.8.9.1", true),
            ("[::1]:9180", true),
            ("[::ffff:127.0.0.1]", true),
            ("10.0.0.1:9180", true),
            ("10.0.0.2", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(
                host_is_ours(&request("/", &[("host", host)]), ours),
                expected,
                "{host}"
            );
        }
        assert!(host_is_ours(&request("/", &[]), ours));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert!(!host_is_ours(&request("/", &two), ours));
        let absolute = request("http://evil.example/", &[("host", "localhost")]);
        assert!(!host_is_ours(&absolute, ours));
    }

    #[test]
    fn commands_only_from_our_own_pages() {
        let host = ("host", "127.0.0.1:9180");
        for (headers, expected) in [
            (vec![host], true),
            (vec![host, ("origin", "http://127.0.0.1:9180")], true),
            (vec![host, ("origin", "http://127.0.0.1:9999")], false),
            (vec![host, ("origin", "https://127.0.0.1:9180")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("origin", "http://evil.example")], false),
            (vec![("origin", "http://evil.example")], false),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
        ] {
            assert_eq!(same_site(&request("/", &headers)), expected, "{headers:?}");
        }
    }
}
