//! Nobody becomes local by what it says.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

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

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

fn ask(peer: &str, lines: &[(&str, &str)], trusted: &[&str]) -> Result<Presented, Refused> {
    let (peer, trusted): (IpAddr, _) = (peer.parse().unwrap(), nets(trusted));
    let via_proxy = is_trusted(&trusted, peer.to_canonical());
    present(
        peer,
        via_proxy,
        &map(lines),
        &trusted,
        LoopbackClients::Local,
    )
}

fn remote(address: &str) -> Result<Presented, Refused> {
    Ok(Presented {
        address: address.parse().unwrap(),
        local: false,
    })
}

fn local(address: &str) -> Result<Presented, Refused> {
    Ok(Presented {
        address: address.parse().unwrap(),
        local: true,
    })
}

#[test]
fn plain_clients() {
    assert_eq!(ask("203.0.113.7", &[], &[]), remote("203.0.113.7"));
    assert_eq!(ask("::ffff:203.0.113.7", &[], &[]), remote("203.0.113.7"));
    assert_eq!(ask("127.0.0.1", &[], &[]), local("127.0.0.1"));
    assert_eq!(ask("::ffff:127.0.0.1", &[], &[]), local("127.0.0.1"));
    assert_eq!(ask("127.8.8.8", &[], &[]), local("127.8.8.8"));
    assert_eq!(
        ask("::1", &[("host", "x"), ("connection", "upgrade")], &[]),
        local("::1")
    );
}

#[test]
fn a_remote_client_may_say_what_it_likes() {
    for header in [
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "cf-connecting-ip",
        "via",
    ] {
        assert_eq!(
            ask("203.0.113.7", &[(header, "127.0.0.1")], &[]),
            remote("203.0.113.7")
        );
    }
}

#[test]
fn a_tunnel_on_loopback_is_not_local() {
    for header in [
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "CF-Connecting-IP",
        "Tailscale-User-Login",
        "x_forwarded_for",
        "X-Forwarded-Proto",
        "Via",
    ] {
        let refused = ask("127.0.0.1", &[(header, "203.0.113.7")], &[]);
        assert_eq!(
            refused,
            Err(Refused::TunnelNotTrusted(header.parse().unwrap()))
        );
    }
    let hidden = ask(
        "127.0.0.1",
        &[("connection", "close, X-Forwarded-For")],
        &[],
    );
    assert_eq!(hidden, Err(Refused::TunnelNotTrusted(FORWARDED_FOR)));
}

#[test]
fn a_trusted_proxy_names_its_client() {
    let trusted = &["127.0.0.0/8", "10.0.0.0/8"];
    let xff = |value| ask("127.0.0.1", &[("x-forwarded-for", value)], trusted);
    assert_eq!(xff("203.0.113.7"), remote("203.0.113.7"));
    assert_eq!(xff("198.51.100.1, 203.0.113.7"), remote("203.0.113.7"));
    assert_eq!(xff("127.0.0.1, 203.0.113.7"), remote("203.0.113.7"));
    assert_eq!(
        xff("198.51.100.1, 203.0.113.7, 10.0.0.4"),
        remote("203.0.113.7")
    );
    assert_eq!(xff("10.0.0.9, 10.0.0.4"), remote("10.0.0.9"));
    assert_eq!(xff("203.0.113.7:4711"), remote("203.0.113.7"));
    assert_eq!(xff("[2001:db8::7]:4711"), remote("2001:db8::7"));
    assert_eq!(xff("[2001:db8::7]"), remote("2001:db8::7"));
    assert_eq!(xff("2001:db8::7"), remote("2001:db8::7"));
    let two = [
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-for", "203.0.113.7"),
    ];
    assert_eq!(ask("10.0.0.4", &two, trusted), remote("203.0.113.7"));
    assert_eq!(ask("10.0.0.4", &[], trusted), remote("10.0.0.4"));
}

#[test]
fn a_trusted_proxy_cannot_make_anybody_local() {
    let trusted = &["127.0.0.0/8"];
    for claim in [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::ffff:127.0.0.1",
        "127.0.0.1, 127.0.0.1",
    ] {
        let refused = ask("127.0.0.1", &[("x-forwarded-for", claim)], trusted);
        assert!(
            matches!(refused, Err(Refused::ForwardedLoopback(_))),
            "{claim}: {refused:?}"
        );
    }
    for broken in [
        "",
        "unknown",
        "203.0.113.7,",
        "1.2.3",
        "203.0.113.7 127.0.0.1",
        "[::1",
        "a]",
    ] {
        let refused = ask("127.0.0.1", &[("x-forwarded-for", broken)], trusted);
        assert_eq!(refused, Err(Refused::ForwardedForBroken), "{broken}");
    }
    let no_address = ask("127.0.0.1", &[("x-real-ip", "203.0.113.7")], trusted);
    assert!(matches!(no_address, Err(Refused::TunnelNotTrusted(_))));
}

#[test]
fn a_trusted_proxy_on_this_machine_that_names_nobody_is_not_local() {
    for trusted in ["127.0.0.1/32", "127.0.0.0/8", "0.0.0.0/0"] {
        let silent = ask("127.0.0.1", &[("host", "x")], &[trusted]);
        assert_eq!(silent, Err(Refused::ClientUnknown), "{trusted}");
        let mapped = ask("::ffff:127.0.0.1", &[], &[trusted]);
        assert_eq!(mapped, Err(Refused::ClientUnknown), "{trusted}");
        // How clients of this machine go past that proxy.
        assert_eq!(ask("::1", &[], &[trusted]), local("::1"));
    }
    let unnamed = ask("0.0.0.0", &[], &["127.0.0.1/32"]);
    assert_eq!(unnamed, Err(Refused::ClientUnknown));
}

#[test]
fn only_a_peer_that_is_a_trusted_proxy_is_heard() {
    let headers = map(&[("x-forwarded-for", "198.51.100.4")]);
    let trusted = nets(&["203.0.113.0/24"]);
    let peer = "192.0.2.7".parse().unwrap();
    let presented = present(peer, false, &headers, &trusted, LoopbackClients::Local);
    assert_eq!(presented, remote("192.0.2.7"));
}

#[test]
fn refuse_refuses_all_of_loopback() {
    for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let peer = peer.parse().unwrap();
        let refused = present(peer, false, &HeaderMap::new(), &[], LoopbackClients::Refuse);
        assert_eq!(refused, Err(Refused::Loopback));
    }
}

prop_compose! {
    fn any_ip()(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(), which in 0..4) -> IpAddr {
        match which {
            0 => IpAddr::from(v4),
            1 => IpAddr::from(v6),
            2 => IpAddr::from([127, 0, 0, v4[0]]),
            _ => "::1".parse().unwrap(),
        }
    }
}

proptest! {
    /// Local means: from loopback, and not a word about anybody in front. And the gateway is
    /// never told a loopback address.
    #[test]
    fn local_is_only_who_is(
        peer in any_ip(),
        via_proxy in any::<bool>(),
        hops in prop::collection::vec(any_ip(), 0..4),
        other in prop::option::of(prop::sample::select(vec!["forwarded", "via", "x-real-ip"])),
        trust_loopback in any::<bool>(),
        trust_all in any::<bool>(),
    ) {
        let mut lines = Vec::new();
        let list = hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !hops.is_empty() { lines.push(("x-forwarded-for", list.as_str())); }
        if let Some(other) = other { lines.push((other, "127.0.0.1")); }
        let mut trusted = Vec::new();
        if trust_loopback { trusted.extend(nets(&["127.0.0.0/8", "::1/128"])); }
        if trust_all { trusted.extend(nets(&["0.0.0.0/0", "::/0"])); }
        let got = present(peer, via_proxy, &map(&lines), &trusted, LoopbackClients::Local);
        if let Ok(presented) = got {
            if presented.local {
                prop_assert!(peer.to_canonical().is_loopback() && !via_proxy && lines.is_empty());
                prop_assert_eq!(presented.address, peer.to_canonical());
            } else {
                prop_assert!(!is_here(presented.address));
            }
            if !lines.is_empty() && !via_proxy {
                prop_assert_eq!(presented.address, peer.to_canonical());
            }
        }
    }
}
