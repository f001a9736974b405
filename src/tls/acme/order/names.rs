//! Which of the names that were ordered an authorization of the CA is for.
//!
//! What a CA says goes no further than this: a hook, a log and an answer to a challenge get our own
//! spelling of a name that we have ordered.

use std::net::IpAddr;

use instant_acme::Identifier;

use super::Job;
use crate::tls::acme::problem::Failure;

/// Of what a CA says, in an error.
const MOST: usize = 100;

impl Job {
    /// The name as it was ordered.
    pub(super) fn ordered(&self, identifier: &Identifier, wildcard: bool) -> Result<&str, Failure> {
        find(&self.names, identifier, wildcard).ok_or_else(|| {
            let named = identifier.authorized(wildcard).to_string();
            let named: String = named.chars().take(MOST).collect();
            Failure::ca(format!(
                "the CA at {} wants to be shown {named:?}, which was not ordered; nothing was done \
                 for it. Check directories, and ask whoever runs that CA",
                self.ca
            ))
        })
    }
}

/// Type, value and wildcard are those of one of the names.
fn find<'n>(names: &'n [String], identifier: &Identifier, wildcard: bool) -> Option<&'n str> {
    let same = |name: &&String| match (identifier, name.parse::<IpAddr>()) {
        (Identifier::Ip(address), Ok(ours)) => !wildcard && *address == ours,
        (Identifier::Dns(value), Err(_)) => match name.strip_prefix("*.") {
            Some(base) => wildcard && base.eq_ignore_ascii_case(value),
            None => !wildcard && name.eq_ignore_ascii_case(value),
        },
        _ => false,
    };
    names.iter().find(same).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(value: &str) -> Identifier {
        Identifier::Dns(value.to_owned())
    }

    #[test]
    fn only_what_was_ordered_is_found() {
        let names = ["a.example", "*.b.example", "192.0.2.7", "2001:db8::1"].map(str::to_owned);
        for (identifier, wildcard, expected) in [
            (dns("a.example"), false, Some("a.example")),
            (dns("A.Example"), false, Some("a.example")),
            (dns("b.example"), true, Some("*.b.example")),
            (
                Identifier::Ip("192.0.2.7".parse().unwrap()),
                false,
                Some("192.0.2.7"),
            ),
            (
                Identifier::Ip("2001:db8:0::1".parse().unwrap()),
                false,
                Some("2001:db8::1"),
            ),
            // Another wildcard flag, another type, another name.
            (dns("a.example"), true, None),
            (dns("b.example"), false, None),
            (dns("*.b.example"), true, None),
            (dns("*.b.example"), false, None),
            (dns("192.0.2.7"), false, None),
            (Identifier::Ip("192.0.2.7".parse().unwrap()), true, None),
            (dns("c.example"), false, None),
            (dns("x.b.example"), false, None),
            (dns("a.example\n; rm -rf /"), false, None),
            (dns("-rf"), false, None),
            (dns(""), false, None),
            (
                Identifier::PermanentIdentifier("a.example".to_owned()),
                false,
                None,
            ),
        ] {
            assert_eq!(
                find(&names, &identifier, wildcard),
                expected,
                "{identifier:?}"
            );
        }
    }
}
