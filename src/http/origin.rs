//! Whose page made a request (`Origin`, RFC 6454; `Sec-Fetch-Site`).

use http::{HeaderMap, Method, header};

use super::route::Host;

/// Whether no page of somebody else made this request. `needs_proof`: whoever says nothing may be a
/// browser all the same, because only browsers have cookies.
pub(super) fn is_own_request(
    method: &Method,
    headers: &HeaderMap,
    host: &Host,
    upgrades: bool,
    needs_proof: bool,
) -> bool {
    let harmless = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if harmless && !upgrades {
        return true;
    }
    match (origin(headers, host), headers.get("sec-fetch-site")) {
        (Origin::Own, _) => true,
        (Origin::Foreign, _) => false,
        (Origin::Unnamed, Some(site)) => !upgrades && (site == "same-origin" || site == "none"),
        (Origin::Unnamed, None) => !needs_proof,
    }
}

/// Whose page made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// One of this very host.
    Own,
    /// Another's, or one that hides.
    Foreign,
    /// Nothing is said.
    Unnamed,
}

/// Reads `Origin` (RFC 6454) against the host that was asked.
pub(super) fn origin(headers: &HeaderMap, host: &Host) -> Origin {
    let mut named = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (named.next(), named.next()) else {
        let several = headers.contains_key(header::ORIGIN);
        return if several {
            Origin::Foreign
        } else {
            Origin::Unnamed
        };
    };
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("https://"));
    let asked = host.value.to_str().unwrap_or_default();
    match authority {
        Some(authority) if without_default_port(authority) == without_default_port(asked) => {
            Origin::Own
        }
        _ => Origin::Foreign,
    }
}

fn without_default_port(authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    match authority.strip_suffix(":443") {
        Some(host) => host.to_owned(),
        None => authority,
    }
}
