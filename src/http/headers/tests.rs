//! What goes, what stays, what is added.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

const HOST: HeaderValue = HeaderValue::from_static("claw.example:8443");

fn remote() -> Presented {
    Presented {
        address: IpAddr::from([203, 0, 113, 7]),
        local: false,
    }
}

fn local() -> Presented {
    Presented {
        address: IpAddr::from([127, 0, 0, 1]),
        local: true,
    }
}

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

fn sent(lines: &[(&str, &str)], presented: &Presented) -> HeaderMap {
    let mut headers = map(lines);
    request_for_gateway(&mut headers, presented, &HOST, &[]);
    headers
}

#[test]
fn hop_by_hop_goes_and_the_rest_stays() {
    let headers = sent(
        &[
            ("host", "other"),
            ("connection", "keep-alive, X-Internal, upgrade"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-internal", "1"),
            ("trailer", "checksum"),
            ("expect", "100-continue"),
            ("authorization", "Bearer x"),
            ("accept", "a"),
            ("accept", "b"),
        ],
        &local(),
    );
    let expected = map(&[
        ("host", "claw.example:8443"),
        ("trailer", "checksum"),
        ("expect", "100-continue"),
        ("authorization", "Bearer x"),
        ("accept", "a"),
        ("accept", "b"),
    ]);
    assert_eq!(headers, expected);
}

#[test]
fn only_trailers_of_te_stays() {
    let headers = sent(&[("te", "gzip, Trailers;q=1, trailers")], &local());
    assert_eq!(headers.get("te").unwrap(), "trailers");
    assert_eq!(headers.get("connection").unwrap(), "te");
    assert!(!sent(&[("te", "gzip"), ("connection", "te")], &local()).contains_key("te"));
}

#[test]
fn connection_cannot_hide_what_matters() {
    let lines = [
        (
            "connection",
            "host, x-forwarded-for, content-length, cookie, origin, sec-fetch-site",
        ),
        ("content-length", "3"),
        ("cookie", "a=b"),
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("x-forwarded-for", "127.0.0.1"),
    ];
    let headers = sent(&lines, &remote());
    for kept in ["content-length", "cookie", "origin", "sec-fetch-site"] {
        assert!(headers.contains_key(kept), "{kept}");
    }
    assert_eq!(headers.get("x-forwarded-for").unwrap(), "203.0.113.7");
    assert_eq!(headers.get("host").unwrap(), HOST);
}

#[test]
fn remote_clients_are_presented_with_the_truth() {
    let spoofed = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-for", "::1"),
        ("x-forwarded-proto", "http"),
        ("x_forwarded_host", "evil"),
        ("forwarded", "for=127.0.0.1"),
        ("x-forwarded-user", "admin"),
        ("tailscale-user-login", "admin"),
    ];
    let expected = map(&[
        ("host", "claw.example:8443"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "claw.example:8443"),
    ]);
    assert_eq!(sent(&spoofed, &remote()), expected);
}

#[test]
fn local_clients_are_presented_by_silence() {
    assert_eq!(
        sent(&[("host", "x")], &local()),
        map(&[("host", "claw.example:8443")])
    );
}

#[test]
fn cookies_are_joined() {
    let headers = sent(
        &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")],
        &local(),
    );
    let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

#[test]
fn responses_lose_their_connection_and_nothing_else() {
    let mut headers = map(&[
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authenticate", "Basic"),
        ("server", "openclaw"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-forwarded-for", "kept"),
        ("trailer", "checksum"),
        ("content-length", "12"),
    ]);
    response_for_client(&mut headers);
    let expected = map(&[
        ("server", "openclaw"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-forwarded-for", "kept"),
        ("trailer", "checksum"),
        ("content-length", "12"),
    ]);
    assert_eq!(headers, expected);
}

proptest! {
    /// Whatever a client sends and names, the gateway reads exactly our three claims, or none.
    #[test]
    fn claims_are_ours_alone(
        lines in prop::collection::vec(("[a-z_.-]{1,3}[a-z_-]{0,20}", "[ -~]{0,20}"), 0..12),
        claims in prop::collection::vec(
            (prop::sample::select(vec!["x-forwarded-for", "x_forwarded_for", "forwarded",
                "x-real-ip", "x-forwarded-host", "x-forwarded-user", "cf-connecting-ip"]),
             "[ -~]{0,20}"), 0..6),
        options in prop::collection::vec("[a-z-]{1,18}", 0..6),
        is_local in any::<bool>(),
    ) {
        let mut headers = HeaderMap::new();
        let claims = claims.into_iter().map(|(name, value)| (name.to_owned(), value));
        for (name, value) in lines.into_iter().chain(claims) {
            if let Ok(name) = name.parse::<HeaderName>() {
                headers.append(name, HeaderValue::from_str(&value).unwrap());
            }
        }
        headers.append("connection", HeaderValue::from_str(&options.join(", ")).unwrap());
        let presented = if is_local { local() } else { remote() };
        request_for_gateway(&mut headers, &presented, &HOST, &[]);
        let said: Vec<&str> =
            headers.keys().filter(|name| speaks_for_client(name)).map(HeaderName::as_str).collect();
        prop_assert_eq!(said.len(), if is_local { 0 } else { 3 });
        if !is_local {
            let address: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
            prop_assert_eq!(address, ["203.0.113.7"]);
        }
        prop_assert_eq!(headers.get_all("host").iter().count(), 1);
    }
}
