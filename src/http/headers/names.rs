//! Which header names speak for somebody else: a client's address, or who it is.
//!
//! Names are compared without case and without anything that is not a letter or a digit, because
//! the programs behind us disagree on it: `X-Forwarded-For`, `x_forwarded_for` and
//! `X.ForwardedFor` are one name here.

use http::HeaderName;

/// Names that start like this, squeezed.
const PREFIXES: &[&str] = &[
    "forwarded",    // Forwarded (RFC 7239), Forwarded-For
    "xforwarded",   // X-Forwarded-For/-Proto/-Host/-User/-Email/-Groups/…
    "xoriginal",    // X-Original-Forwarded-For, X-Original-Host, X-Original-URL
    "xrewrite",     // X-Rewrite-URL
    "xenvoy",       // X-Envoy-External-Address
    "xazure",       // X-Azure-ClientIP, X-Azure-SocketIP
    "xappengine",   // X-Appengine-User-IP
    "xvercel",      // X-Vercel-Forwarded-For
    "xauthrequest", // oauth2-proxy; X-Auth-Token and -Key are clients' own credentials
    "xauthenticated",
    "xauthentik",
    "xauthuser",
    "xwebauth",           // X-WebAuth-User
    "xremote",            // X-Remote-User, X-Remote-IP, X-Remote-Addr
    "xgoogauthenticated", // Identity-Aware Proxy
    "xgoogiap",
    "xamznoidc",
    "xmsclientprincipal",
    "xpomerium",
    "xtailscale",
    "xclientcert",
    "xclientverify",
    "xclientdn",
    "xsslclient",
    "xsslcert",
    "remote",    // Remote-User, Remote-Groups, Remote-Email, Remote-Addr
    "tailscale", // Tailscale-User-Login, Tailscale-Funnel-Request
    "cfconnecting",
    "cfpseudo",
    "cfaccess",
    "cfworker",
    "flyclient", // Fly-Client-IP
    "flyforwarded",
    "sslclient",
    "ngrok",
];

/// Names that are exactly this, squeezed.
const NAMES: &[&str] = &[
    "xforwardfor",
    "xforward",
    "xrealip",
    "realip",
    "xrealport",
    "xclientip",
    "clientip",
    "xclusterclientip",
    "clusterclientip",
    "xoriginatingip",
    "xproxyuserip",
    "xproxyuser",
    "xhost",
    "xurlscheme",
    "xscheme",
    "xssl",
    "frontendhttps",
    "trueclientip",
    "xtrueclientip",
    "clientcert", // RFC 9440
    "clientcertchain",
    "cfipcountry",
    "cfvisitor",
    "cfray",
    "cfwarptagid",
    "fastlyclientip",
    "fastlyssl",
    "akamaiclientip",
    "incapclientip",
    "xsucuriclientip",
    "alicdnrealip",
    "cdnsrcip",
    "doconnectingip",
    "xnfclientconnectionip",
    "xarrclientip",
    "xarrssl",
    "proxyclientip",
    "wlproxyclientip",
    "xcomingfrom",
    "xspiffeid",
    "xjwtassertion",
    "proxyauthenticateduser",
    "xopenclawscopes", // caps what an identity grants
];

/// Names that show a proxy or tunnel but say nothing about the client: they pass, and yet a
/// client on loopback that carries one is not local.
const SIGNS: &[&str] = &[
    "via",
    "cdnloop",
    "xamzcfid",
    "xamzntraceid",
    "xcloudtracecontext",
];

/// Whether the header speaks for a client's address, scheme, host or identity. Clients may not:
/// such headers are removed.
#[must_use]
pub fn speaks_for_client(name: &HeaderName) -> bool {
    let name = name.as_str();
    PREFIXES.iter().any(|prefix| matches(name, prefix, false))
        || NAMES.iter().any(|exact| matches(name, exact, true))
}

/// Whether the header shows that a proxy or tunnel stands in front of us.
#[must_use]
pub fn shows_proxy(name: &HeaderName) -> bool {
    speaks_for_client(name) || SIGNS.iter().any(|sign| matches(name.as_str(), sign, true))
}

/// Compares a name, squeezed on the way, with a squeezed pattern.
fn matches(name: &str, pattern: &str, whole: bool) -> bool {
    let mut squeezed = name
        .bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(|byte| byte.to_ascii_lowercase());
    pattern.bytes().all(|want| squeezed.next() == Some(want))
        && !(whole && squeezed.next().is_some())
}

#[cfg(test)]
pub(in crate::http) mod spoofed;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::spoofed::SPOOFED;
    use super::*;

    fn name(text: &str) -> HeaderName {
        HeaderName::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_spelling_is_known() {
        for spelling in SPOOFED {
            assert!(speaks_for_client(&name(spelling)), "{spelling}");
            assert!(shows_proxy(&name(spelling)), "{spelling}");
        }
        assert!(SPOOFED.len() >= 60);
    }

    #[test]
    fn what_clients_need_passes() {
        for passes in [
            "Host",
            "Origin",
            "Cookie",
            "Authorization",
            "User-Agent",
            "Accept",
            "Content-Type",
            "Range",
            "If-None-Match",
            "Referer",
            "Sec-WebSocket-Key",
            "Sec-Fetch-Mode",
            "X-Requested-With",
            "X-Api-Key",
            "X-CSRF-Token",
            "X-OpenClaw-Session",
            "Last-Event-ID",
            "X-Request-Id",
            "X-Auth-Token",
            "X-Auth-Key",
            "X-User-Agent",
            "Traceparent",
            "Via",
            "X-Hub-Signature-256",
            "X-Telegram-Bot-Api-Secret-Token",
            "X-GitHub-Event",
            "X-Slack-Signature",
            "X-Goog-Channel-Id",
            "X-Twilio-Signature",
        ] {
            assert!(!speaks_for_client(&name(passes)), "{passes}");
        }
        assert!(shows_proxy(&name("Via")));
        assert!(shows_proxy(&name("CDN-Loop")));
        assert!(!shows_proxy(&name("Origin")));
    }

    proptest! {
        /// Whatever stands between the letters, and however they are written.
        #[test]
        fn separators_and_case_do_not_help(
            index in 0..SPOOFED.len(),
            separator in prop::sample::select(vec!["-", "_", ".", "--", "_-", "~", ""]),
            upper in any::<u64>(),
        ) {
            let spelling: String = SPOOFED[index]
                .replace(['-', '_', '.'], separator)
                .chars()
                .enumerate()
                .map(|(at, c)| if upper >> (at % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect();
            prop_assert!(speaks_for_client(&name(&spelling)), "{}", spelling);
        }
    }
}
