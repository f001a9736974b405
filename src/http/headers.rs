//! Header hygiene, both ways: what belongs to one connection goes, what clients may not say goes,
//! what the gateway must know is added. Everything else passes untouched.
//!
//! Pure. Who a client is, is decided in [`present()`]; routing and framing are elsewhere.

mod names;
mod present;

use http::{HeaderMap, HeaderName, HeaderValue, header};

#[cfg(test)]
pub(in crate::http) use names::spoofed::SPOOFED;
pub use names::{shows_proxy, speaks_for_client};
pub use present::{Presented, Refused, present};

/// Fields that belong to one connection whether or not `Connection` names them (RFC 9110, 7.6.1).
/// `Trailer` is not among them (it describes the message), `TE` is dealt with apart.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields that a sender cannot have removed by naming them in `Connection`: dropping one would
/// change what the message means, or hide who sent it.
const KEPT: [HeaderName; 12] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::TRAILER,
    header::TE,
    header::EXPECT,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::ORIGIN,
    header::CACHE_CONTROL,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Makes a client's headers the ones that the gateway gets, for plain requests and upgrades alike.
///
/// `host` is what the client asked for (`Host`, or `:authority`) and is passed on as it is: the
/// gateway compares `Origin` with it. `Connection` and `Upgrade` are removed; an upgrade adds its
/// own afterwards. Only TLS listeners lead here, so the scheme is always https. `told` is what we
/// say of who the client is, in place of whatever it said of that itself.
pub fn request_for_gateway(
    headers: &mut HeaderMap,
    presented: &Presented,
    host: &HeaderValue,
    told: &[(HeaderName, HeaderValue)],
) {
    let trailers_wanted = wants_trailers(headers);
    remove_hop_by_hop(headers);
    headers.remove(header::TE);
    remove_client_claims(headers);
    join_cookies(headers);
    headers.insert(header::HOST, host.clone());
    if trailers_wanted {
        // RFC 9110, 10.1.4: who sends TE names it in Connection.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if !presented.local {
        if let Ok(address) = HeaderValue::from_str(&presented.address.to_string()) {
            headers.insert(X_FORWARDED_FOR, address);
        }
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    for (name, _) in told {
        headers.remove(name);
    }
    for (name, value) in told {
        headers.append(name, value.clone());
    }
}

/// Makes a gateway's response headers the ones that the client gets, over HTTP/1.1 or HTTP/2.
pub fn response_for_client(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}

/// Removes every header (or trailer) that speaks for a client's address or identity.
pub fn remove_client_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| speaks_for_client(name))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Removes what belongs to the connection it came over, and what `Connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        .filter(|name| !KEPT.contains(name) && !name.as_str().starts_with("sec-"))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// `TE: trailers` is the one coding that means something end to end.
fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// HTTP/2 clients may send cookies in many fields; HTTP/1.1 has one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(mut joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
