//! Rules over several sections.

use std::net::{IpAddr, SocketAddr};

use crate::config::checker::{At, Checker, Item};
use crate::config::model::{Auth, CertificateSource, ProtocolKind, Resume, Tls};
use crate::config::units::Wrong;

use super::local::AdminDraft;
use super::{gateway, listen, routes};

/// Two listeners on one address: the second could not be bound.
pub(super) fn listeners(checker: &mut Checker<'_>, listen: &listen::Draft, admin: &AdminDraft) {
    let all = ours(listen, admin);
    for (index, later) in all.iter().enumerate() {
        // Among the public ones `[::]` leaves IPv4 to those that name it; admin is bound apart.
        let apart = later.key == admin.listen.key;
        let earlier = all
            .iter()
            .take(index)
            .find(|earlier| collide(earlier.value, later.value, apart));
        if let Some(earlier) = earlier {
            // The one that somebody wrote is the one to change.
            let (place, other) = if later.is_set() {
                (later, earlier)
            } else {
                (earlier, later)
            };
            let what = format!("the address is taken by {} ({})", other.key, other.value);
            checker.error(place, Wrong::new(what, "write another address or port"));
        }
    }
}

/// A certificate that nobody trusts, on an address that everybody reaches.
pub(super) fn certificate(checker: &mut Checker<'_>, listen: &listen::Draft, tls: &Tls) {
    if !matches!(tls.certificate, CertificateSource::Dev { .. }) {
        return;
    }
    for public in listen
        .https
        .iter()
        .filter(|item| !item.value.ip().is_loopback())
    {
        let what = "reachable from other machines, where nobody trusts the development certificate";
        let remedy = "set [tls] certificate = \"acme\" and [acme] domains, or \"files\" and name a certificate";
        checker.warn(public, Wrong::new(what, remedy));
    }
}

/// Certificates that nobody is asked for.
pub(super) fn client_certificates(checker: &mut Checker<'_>, auth: &Auth, tls: &Tls) {
    if auth.certificate.is_some() && tls.client_ca.is_none() {
        let modes = Item {
            value: (),
            key: "auth.modes".to_owned(),
            at: At::Default,
        };
        let wrong = Wrong::new(
            "\"mtls\" takes client certificates, but none are asked for",
            "set [tls] client_ca to the CA of your clients' certificates",
        );
        checker.error(&modes, wrong);
    }
}

/// A gateway address that is one of our own listeners would be a loop.
pub(super) fn gateway_is_not_us(
    checker: &mut Checker<'_>,
    listen: &listen::Draft,
    admin: &AdminDraft,
    default: &gateway::Draft,
    routes: &[routes::Draft],
) {
    let ours = ours(listen, admin);
    let written = routes
        .iter()
        .map(|route| &route.url)
        .filter(|url| url.is_set());
    for url in written.chain([&default.url]).filter(|url| url.is_sound()) {
        let host = match url.value.host.as_str() {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            host => host.parse().ok(),
        };
        let Some(target) = host.map(|ip| SocketAddr::new(ip, url.value.port)) else {
            continue;
        };
        if let Some(own) = ours.iter().find(|own| reaches(target, own.value)) {
            let what = format!("this is holdline itself ({} {})", own.key, own.value);
            let place = if url.is_set() {
                url.with(())
            } else {
                own.with(())
            };
            checker.error(
                &place,
                Wrong::new(what, "write the gateway's own address and port"),
            );
        }
    }
}

/// Two routes for the same requests, and ways to resume that cannot work.
pub(super) fn routes(
    checker: &mut Checker<'_>,
    default: &gateway::Draft,
    routes: &[routes::Draft],
) {
    let same = |a: &routes::Draft, b: &routes::Draft| {
        a.host.value == b.host.value && a.path.value == b.path.value
    };
    for (index, route) in routes.iter().enumerate() {
        let readable = route.host.is_sound() && route.path.is_sound();
        let anything = route.host.value.is_none() && route.path.value.is_none();
        let earlier = routes
            .iter()
            .take(index)
            .find(|earlier| same(earlier, route));
        if let Some(earlier) = earlier.filter(|_| readable && !anything) {
            let what = format!("{} has the same host and path", earlier.header.key);
            let remedy = "remove one of them, or give it another host or path";
            checker.error(&route.header, Wrong::new(what, remedy));
        }
        splice(checker, &route.resume, route.upstream.protocol);
    }
    splice(checker, &default.resume, default.protocol.value);
}

/// A spliced connection starts in the middle; an OpenClaw gateway wants its handshake first.
fn splice(checker: &mut Checker<'_>, resume: &Item<Resume>, protocol: ProtocolKind) {
    if resume.is_set() && resume.value == Resume::Splice && protocol == ProtocolKind::Openclaw {
        let what = "an OpenClaw gateway refuses a connection without its handshake";
        let remedy = "write \"auto\"; \"splice\" is for a [[route]] with protocol = \"generic\"";
        checker.error(resume, Wrong::new(what, remedy));
    }
}

fn ours(listen: &listen::Draft, admin: &AdminDraft) -> Vec<Item<SocketAddr>> {
    let admin_item = admin.listen.value.map(|address| admin.listen.with(address));
    listen
        .https
        .iter()
        .chain(&listen.http)
        .cloned()
        .chain(admin_item)
        .collect()
}

/// Whether the kernel would refuse the second of two listeners. Port 0 is any free one.
fn collide(a: SocketAddr, b: SocketAddr, apart: bool) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    let both_families = apart && a.is_ipv6() && a.ip().is_unspecified();
    let same_family = a.is_ipv4() == b.is_ipv4() || both_families;
    a.port() == b.port() && a.port() != 0 && same_family && same_ip
}

/// Whether a connection to `target` ends at a listener of this machine.
fn reaches(target: SocketAddr, own: SocketAddr) -> bool {
    let here = target.ip().is_loopback() || target.ip().is_unspecified();
    let family = own.is_ipv6() || target.is_ipv4();
    let same = target.ip() == own.ip() || (own.ip().is_unspecified() && here && family);
    target.port() == own.port() && same
}
