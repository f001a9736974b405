//! `[acme.dns_update]`: a name server that takes signed updates, for dns-01.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::config::addresses::is_host;
use crate::config::checker::Item;
use crate::config::model::{DnsUpdate, TsigAlgorithm, TsigKey, TsigSecret};
use crate::config::section::{Bounds, Section};
use crate::config::units::Wrong;

/// Where DNS is spoken.
const PORT: u16 = 53;
const TTL: Bounds<Duration> = Bounds::new(
    Duration::from_secs(1),
    Duration::from_secs(3600),
    "a resolver would keep the last record while the next one is looked for",
);
/// A key of fewer bytes is more likely a word (RFC 8945, 8: 128 bits at least).
const SHORT: usize = 16;

/// The section with its places.
pub(super) struct Draft {
    server: Item<Option<(String, u16)>>,
    zone: Item<String>,
    name: Item<String>,
    algorithm: Item<TsigAlgorithm>,
    secret: Item<Zeroizing<Vec<u8>>>,
    ttl: Item<Duration>,
}

pub(super) fn read(section: &mut Section<'_, '_>) -> Draft {
    let draft = Draft {
        server: section.text("server", None, server),
        zone: section.text("zone", String::new(), |text| {
            domain(text, "write the zone's name, such as \"example.net\"")
        }),
        name: section.text("tsig_name", String::new(), |text| {
            domain(
                text,
                "write the key's name as the server has it, such as \"holdline\"",
            )
        }),
        algorithm: section.choice(
            "tsig_algorithm",
            TsigAlgorithm::HmacSha256,
            [
                ("hmac-sha256", TsigAlgorithm::HmacSha256),
                ("hmac-sha384", TsigAlgorithm::HmacSha384),
                ("hmac-sha512", TsigAlgorithm::HmacSha512),
            ],
        ),
        secret: section.text("tsig_secret", Zeroizing::default(), secret),
        ttl: section.duration("ttl", Duration::from_secs(60), TTL),
    };
    draft.check(section);
    draft
}

// === impl Draft ===

impl Draft {
    /// Whether somebody named a server, readably or not.
    pub(super) fn is_wanted(&self) -> bool {
        self.server.value.is_some() || !self.server.is_sound()
    }

    pub(super) fn server(&self) -> &Item<Option<(String, u16)>> {
        &self.server
    }

    pub(super) fn into_model(
        self,
        timeout: Duration,
        resolvers: &[SocketAddr],
    ) -> Option<DnsUpdate> {
        let (host, port) = self.server.value?;
        Some(DnsUpdate {
            host,
            port,
            zone: Some(self.zone.value).filter(|zone| !zone.is_empty()),
            key: TsigKey {
                name: self.name.value,
                algorithm: self.algorithm.value,
                secret: TsigSecret(self.secret.value),
            },
            ttl: self.ttl.value,
            timeout,
            resolvers: resolvers.to_owned(),
        })
    }

    /// One without the other does nothing.
    fn check(&self, section: &mut Section<'_, '_>) {
        let empty = |item: &Item<String>| item.is_sound() && item.value.is_empty();
        let no_secret = self.secret.is_sound() && self.secret.value.is_empty();
        if !self.is_wanted() {
            let unused = [
                (self.zone.with(()), empty(&self.zone)),
                (self.name.with(()), empty(&self.name)),
                (self.secret.with(()), no_secret),
            ];
            for (item, _) in unused
                .iter()
                .filter(|(item, empty)| item.is_set() && !empty)
            {
                let remedy = "write server = \"ns.example.net\", or remove this";
                let wrong = Wrong::new("no server is named that it could be used at", remedy);
                section.checker().error(item, wrong);
            }
            return;
        }
        for (key, missing) in [("tsig_name", empty(&self.name)), ("tsig_secret", no_secret)] {
            if missing {
                let remedy = "make a key with `tsig-keygen holdline`, give it to the server, and \
                              write its name and its secret here";
                let what = format!("{key} is missing: every update is signed");
                let header = section.header();
                section.checker().error(&header, Wrong::new(what, remedy));
            }
        }
        if !no_secret && self.secret.is_sound() && self.secret.value.len() < SHORT {
            let what = format!("a key of {} bytes can be guessed", self.secret.value.len());
            let wrong = Wrong::new(what, "make one with `tsig-keygen holdline`");
            section.checker().warn(&self.secret, wrong);
        }
    }
}

// === values ===

/// Host and port; none if there is none.
fn server(text: &str) -> Result<Option<(String, u16)>, Wrong> {
    let wrong = || {
        Wrong::new(
            "not a name server",
            "write for example \"127.0.0.1\", \"[2001:db8::53]:5353\" or \"ns.example.net\"",
        )
    };
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(Some((ip.to_string(), PORT)));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (text, PORT),
    };
    let bare = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<IpAddr>().map_err(|_| wrong())?.to_string(),
        None => host.trim_end_matches('.').to_ascii_lowercase(),
    };
    let good = is_host(&bare) || bare.parse::<IpAddr>().is_ok();
    match good && port != 0 {
        true => Ok(Some((bare, port))),
        false => Err(wrong()),
    }
}

/// A name in the DNS; empty stays so.
fn domain(text: &str, remedy: &str) -> Result<String, Wrong> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    match text.is_empty() || is_host(&name) {
        true => Ok(name),
        false => Err(Wrong::new("not a name in the DNS", remedy)),
    }
}

fn secret(text: &str) -> Result<Zeroizing<Vec<u8>>, Wrong> {
    BASE64_STANDARD
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|_| {
            let whole = text.contains('{') || text.contains("secret");
            match whole {
                true => Wrong::fixed(
                    "a whole key, and only its secret belongs here",
                    "write only the text in quotes after `secret`, without the quotes",
                ),
                false => Wrong::new(
                    "not base64, as TSIG keys are written",
                    "write the secret as `tsig-keygen` prints it, with the = at its end",
                ),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_name_or_an_address_with_or_without_a_port() {
        for (text, host, port) in [
            ("127.0.0.1", "127.0.0.1", 53),
            ("127.0.0.1:5353", "127.0.0.1", 5353),
            ("2001:db8::53", "2001:db8::53", 53),
            ("[2001:db8::53]", "2001:db8::53", 53),
            ("[2001:db8::53]:5353", "2001:db8::53", 5353),
            ("NS.example.net.", "ns.example.net", 53),
            ("ns:5353", "ns", 5353),
        ] {
            assert_eq!(
                server(text).unwrap(),
                Some((host.to_owned(), port)),
                "{text}"
            );
        }
        assert_eq!(server("").unwrap(), None);
        for text in [
            "ns:", "ns:dns", "ns:0", ":53", "[ns]:53", "tcp://ns", "a b", "ns:65536",
        ] {
            server(text).unwrap_err();
        }
    }
}
