//! Hosts are read strictly; the most specific route wins.

use std::time::Duration;

use http::Request;
use proptest::prelude::*;

use super::*;
use crate::config::{LoopbackClients, Probe, ProtocolKind, Resume, Upstream};

fn route(host: Option<&str>, path: Option<&str>) -> Route {
    Route {
        name: "test".into(),
        host: host.map(|host| match host.strip_prefix("*.") {
            Some(suffix) => HostPattern::Under(suffix.into()),
            None => HostPattern::Exact(host.into()),
        }),
        path: path.map(Into::into),
        upstream: Upstream {
            host: "127.0.0.1".into(),
            port: 1,
            protocol: ProtocolKind::Openclaw,
            probe: Probe::Auto,
            probe_interval: Duration::from_secs(1),
            probe_interval_ready: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            loopback_clients: LoopbackClients::Local,
            resume: Resume::Auto,
        },
    }
}

fn head(version: Version, target: &str, hosts: &[&str]) -> request::Parts {
    let mut request = Request::builder().version(version).uri(target);
    for host in hosts {
        request = request.header("host", *host);
    }
    request.body(()).unwrap().into_parts().0
}

fn h1(target: &str, hosts: &[&str]) -> Result<String, BadTarget> {
    host_of(&head(Version::HTTP_11, target, hosts)).map(|host| host.name)
}

fn h2(target: &str, hosts: &[&str]) -> Result<String, BadTarget> {
    host_of(&head(Version::HTTP_2, target, hosts)).map(|host| host.name)
}

#[test]
fn hosts_are_brought_to_one_form() {
    for (written, name) in [
        ("claw.example", "claw.example"),
        ("CLAW.Example:8443", "claw.example"),
        ("claw.example.", "claw.example"),
        ("claw.example.:443", "claw.example"),
        ("claw.example:", "claw.example"),
        ("localhost", "localhost"),
        ("127.0.0.1:8443", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:8443", "::1"),
        ("[2001:DB8::0:1]", "2001:db8::1"),
        ("my_host-1", "my_host-1"),
    ] {
        assert_eq!(h1("/", &[written]).as_deref(), Ok(name), "{written}");
        assert_eq!(h2("/", &[written]).as_deref(), Ok(name), "{written}");
    }
}

#[test]
fn what_is_no_host_is_refused() {
    for written in [
        "",
        " ",
        ".",
        "a..b",
        ".a",
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "user:pw@host",
        "a:b",
        "a:1:2",
        "a:65536",
        "a:-1",
        "a:+1",
        "::1",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]:x",
        "[1.2.3.4]",
        "[::1%eth0]",
        "a,b",
        "a\\b",
        "http://a",
        "*",
        "a%00",
        "a\"",
        "<a>",
    ] {
        assert_eq!(h1("/", &[written]), Err(BadTarget::Malformed), "{written}");
    }
    let long = "a".repeat(300);
    assert_eq!(h1("/", &[&long]), Err(BadTarget::Malformed));
    let bytes = HeaderValue::from_bytes(b"caf\xe9").unwrap();
    let mut parts = head(Version::HTTP_11, "/", &[]);
    parts.headers.insert("host", bytes);
    assert_eq!(host_of(&parts), Err(BadTarget::Malformed));
}

#[test]
fn exactly_one_host() {
    assert_eq!(h1("/", &[]), Err(BadTarget::Missing));
    assert_eq!(h2("/", &[]), Err(BadTarget::Missing));
    assert_eq!(h1("/", &["a", "b"]), Err(BadTarget::Duplicate));
    assert_eq!(h1("/", &["a", "a"]), Err(BadTarget::Duplicate));
    assert_eq!(h1("http://a/", &[]), Err(BadTarget::Missing));
    assert_eq!(h1("http://a/", &["a"]).as_deref(), Ok("a"));
    assert_eq!(h1("http://a/", &["A"]).as_deref(), Ok("a"));
    assert_eq!(h1("http://a/", &["b"]), Err(BadTarget::Mismatch));
    assert_eq!(h1("http://a:1/", &["a"]), Err(BadTarget::Mismatch));
    assert_eq!(h2("https://a/", &[]).as_deref(), Ok("a"));
    assert_eq!(h2("https://a/", &["a"]).as_deref(), Ok("a"));
    assert_eq!(h2("https://a/", &["b"]), Err(BadTarget::Mismatch));
    assert_eq!(h2("https://u@a/", &[]), Err(BadTarget::Malformed));
}

#[test]
fn the_value_passed_on_is_the_clients_own() {
    let host = host_of(&head(Version::HTTP_11, "/", &["Claw.Example.:8443"])).unwrap();
    assert_eq!(host.value, "Claw.Example.:8443");
    let host = host_of(&head(Version::HTTP_2, "https://claw.example:8443/x", &[])).unwrap();
    assert_eq!(host.value, "claw.example:8443");
}

#[test]
fn not_a_forward_proxy() {
    let mut connect = head(Version::HTTP_11, "a:443", &["a:443"]);
    connect.method = Method::CONNECT;
    assert_eq!(host_of(&connect), Err(BadTarget::NotOrigin));
    assert_eq!(h1("*", &["a"]), Err(BadTarget::NotOrigin));
    assert_eq!(h1("ftp://a/", &["a"]), Err(BadTarget::NotOrigin));
}

#[test]
fn the_most_specific_route_wins() {
    let routes = [
        route(None, Some("/hooks")),
        route(Some("*.example.net"), None),
        route(Some("*.preview.example.net"), None),
        route(Some("a.preview.example.net"), None),
        route(Some("a.preview.example.net"), Some("/api/")),
        route(Some("a.preview.example.net"), Some("/api/v1")),
        route(Some("::1"), None),
        route(None, None),
    ];
    for (host, path, index) in [
        ("other.org", "/", 7),
        ("other.org", "/hooks", 0),
        ("other.org", "/hooks/x", 0),
        ("other.org", "/hooksx", 7),
        ("example.net", "/", 7),
        ("x.example.net", "/hooks", 1),
        ("x.preview.example.net", "/", 2),
        ("preview.example.net", "/", 1),
        ("xpreview.example.net", "/", 1),
        ("a.preview.example.net", "/", 3),
        ("a.preview.example.net", "/api", 4),
        ("a.preview.example.net", "/api/", 4),
        ("a.preview.example.net", "/api/v1", 5),
        ("a.preview.example.net", "/api/v1x", 4),
        ("a.preview.example.net", "/API", 3),
        ("::1", "/", 6),
    ] {
        assert_eq!(choose(&routes, host, path), Some(index), "{host}{path}");
    }
    assert_eq!(choose(&routes[..7], "other.org", "/"), None);
}

fn any_route() -> impl Strategy<Value = Route> {
    let hosts = vec![None, Some("a.b"), Some("*.b"), Some("*.a.b"), Some("c")];
    let paths = vec![
        None,
        Some("/"),
        Some("/x"),
        Some("/x/y"),
        Some("/x/y/"),
        Some("/z"),
    ];
    (prop::sample::select(hosts), prop::sample::select(paths))
        .prop_map(|(host, path)| route(host, path))
}

proptest! {
    /// The default last always catches; what was chosen matches; nothing more specific does.
    #[test]
    fn choose_is_total_and_best(
        mut routes in prop::collection::vec(any_route(), 0..8),
        host in prop::sample::select(vec!["a.b", "x.b", "x.a.b", "b", "c", "d"]),
        path in prop::sample::select(vec!["/", "/x", "/xx", "/x/y", "/x/y/z", "/z/x"]),
    ) {
        routes.push(route(None, None));
        let chosen = choose(&routes, host, path).unwrap();
        let rank = |route: &Route| Some((
            rank_host(route.host.as_ref(), host)?,
            rank_path(route.path.as_deref(), path)?,
        ));
        let best = routes.iter().filter_map(rank).max();
        prop_assert!(best.is_some());
        prop_assert_eq!(rank(&routes[chosen]), best);
        prop_assert!(routes[..chosen].iter().all(|route| rank(route) < best));
    }

    /// No bytes make it panic, and what passes is a comparable name.
    #[test]
    fn any_host_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(name) = parse(&bytes) {
            prop_assert!(!name.is_empty());
            prop_assert_eq!(&name.to_ascii_lowercase(), &name);
            prop_assert!(!name.contains(['/', '@', ' ', ',', '[', ']', '*']));
        }
    }
}
