//! Why there is no certificate, in a sentence that says what to do.
//!
//! Every problem type of RFC 8555 (6.7) and RFC 9773 has one. Whose fault it is decides for whom
//! the failure counts: a CA that is down says nothing about a name.

use instant_acme::{Error, Problem};

use super::history::Concerns;
use super::moment::{HOUR, MINUTE, Moment};
use super::state::StateError;
use super::transport::TransportError;
use crate::config::Challenge;

/// With an answer that is no error a CA says when it wants to be asked again how an order does. Some
/// say a day for what takes them minutes: no reason to leave a name without a certificate for a day, nor
/// the order until nobody knows it any more.
pub(super) const NEXT_LOOK_MOST: u64 = 30 * MINUTE;

/// Why an order has ended without a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) concerns: Concerns,
    /// For people; a sentence without its full stop.
    pub(super) reason: String,
    /// The CA wants to hear no more of it until then.
    pub(super) not_before: Option<Moment>,
    /// The names could not be shown to be ours: another kind of challenge may do better.
    pub(super) unproved: bool,
    /// The CA has not heard of it: no connection was to be had.
    pub(super) unreached: bool,
    /// The CA has not found out yet whether the names are ours: it may still do so.
    pub(super) undecided: bool,
}

/// How far an order had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Directory,
    Account,
    Order,
    Validation,
    Issue,
}

// === impl Failure ===

impl Failure {
    pub(super) fn names(reason: impl Into<String>) -> Self {
        Self {
            concerns: Concerns::Names,
            reason: reason.into(),
            not_before: None,
            unproved: false,
            unreached: false,
            undecided: false,
        }
    }

    pub(super) fn ca(reason: impl Into<String>) -> Self {
        Self {
            concerns: Concerns::Ca,
            ..Self::names(reason)
        }
    }

    /// Of this machine; says what, where, and what to do.
    pub(super) fn here(reason: impl Into<String>) -> Self {
        Self {
            concerns: Concerns::Here,
            ..Self::names(reason)
        }
    }

    /// Of what shows that names are ours, for want of which the CA was not even told to look.
    pub(super) fn unproved(self) -> Self {
        Self {
            unproved: true,
            ..self
        }
    }

    /// From what the library says. `wait_until` is what the CA's last answer asked for.
    pub(super) fn of(error: &Error, stage: Stage, wait_until: Option<Moment>) -> Self {
        let failure = Self::of_error(error, stage, wait_until);
        Self {
            unproved: stage == Stage::Validation && failure.concerns == Concerns::Names,
            ..failure
        }
    }

    fn of_error(error: &Error, stage: Stage, wait_until: Option<Moment>) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(problem, stage, wait_until),
            Error::Other(inner) => match inner.downcast_ref::<TransportError>() {
                Some(error) => Self {
                    concerns: match error {
                        TransportError::Status(status) if !status.is_server_error() => {
                            concerns(stage)
                        }
                        _ => Concerns::Ca,
                    },
                    reason: unreachable(error),
                    not_before: wait_until,
                    unproved: false,
                    unreached: error.is_unreached(),
                    undecided: false,
                },
                None => Self {
                    not_before: wait_until,
                    ..Self::ca(clean(&inner.to_string()))
                },
            },
            Error::Timeout(again) => Self {
                concerns: concerns(stage),
                unproved: false,
                unreached: false,
                undecided: stage == Stage::Validation,
                reason: match stage {
                    Stage::Validation => {
                        "the CA has not decided yet whether the names are ours; the same order is taken up"
                            .to_owned()
                    }
                    _ => "the CA did not issue in time; it is tried again".to_owned(),
                },
                // It may have said when to look again: later than an order waits.
                not_before: wait_until.or_else(|| {
                    let now = tokio::time::Instant::now().into_std();
                    let wait = (*again)?.saturating_duration_since(now);
                    Some(Moment::now().after(wait.as_secs().min(NEXT_LOOK_MOST)))
                }),
            },
            other => Self {
                not_before: wait_until,
                ..Self::ca(format!(
                    "the CA's answer cannot be used ({other}); check the directory URL"
                ))
            },
        }
    }

    fn of_problem(problem: &Problem, stage: Stage, wait_until: Option<Moment>) -> Self {
        let kind = kind(problem.r#type.as_deref());
        let limited = is_limit(problem);
        Self {
            concerns: match kind {
                "accountDoesNotExist"
                | "badNonce"
                | "badPublicKey"
                | "badSignatureAlgorithm"
                | "externalAccountRequired"
                | "invalidContact"
                | "serverInternal"
                | "unsupportedContact"
                | "userActionRequired" => Concerns::Ca,
                // Before it has looked at any name: the next one would be told the same.
                "rateLimited" if stage == Stage::Order => Concerns::Ca,
                _ => concerns(stage),
            },
            reason: match (stage, kind) {
                (Stage::Account, "unauthorized" | "malformed") => of_account(problem),
                _ => sentence(problem, None),
            },
            // A limit without a date is one all the same.
            not_before: wait_until.or_else(|| limited.then(|| Moment::now().after(HOUR))),
            unproved: false,
            unreached: false,
            undecided: false,
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::here(format!("{error}; {}", error.remedy()))
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        match &error {
            TransportError::Root(said) => {
                Self::here(format!("{said}; name a PEM file with the root certificate"))
            }
            _ => Self {
                unreached: error.is_unreached(),
                ..Self::ca(unreachable(&error))
            },
        }
    }
}

fn concerns(stage: Stage) -> Concerns {
    match stage {
        Stage::Directory | Stage::Account => Concerns::Ca,
        Stage::Order | Stage::Validation | Stage::Issue => Concerns::Names,
    }
}

/// Whether a limit of the CA is reached, or one for a part of what was asked for.
pub(super) fn is_limit(problem: &Problem) -> bool {
    let parts = problem.subproblems.iter().map(|part| &part.r#type);
    std::iter::once(&problem.r#type)
        .chain(parts)
        .any(|urn| kind(urn.as_deref()) == "rateLimited")
}

/// Whether a person has to open an address that the CA names (RFC 8555, 7.3.3).
pub(super) fn wants_a_person(problem: &Problem) -> bool {
    kind(problem.r#type.as_deref()) == "userActionRequired"
}

/// The last part of a problem's URN.
pub(super) fn kind(urn: Option<&str>) -> &str {
    urn.unwrap_or_default()
        .rsplit(':')
        .next()
        .unwrap_or_default()
}

/// A problem of a CA in words: ours, its own, and what to do about it. `by` is the challenge that it
/// is about, if it is about one.
pub(super) fn sentence(problem: &Problem, by: Option<Challenge>) -> String {
    let mut text = one(problem.r#type.as_deref(), problem.detail.as_deref(), by);
    for part in problem.subproblems.iter().take(8) {
        let name = part
            .identifier
            .as_ref()
            .map(|id| id.authorized(false).to_string());
        let said = one(part.r#type.as_deref(), part.detail.as_deref(), by);
        text.push_str(&match name {
            Some(name) => format!("; {name}: {said}"),
            None => format!("; {said}"),
        });
    }
    text
}

/// Before any name was asked for: it is about who asks.
fn of_account(problem: &Problem) -> String {
    format!(
        "the CA does not accept our account{}; check kid and key_file in [acme] eab, if the CA has \
         given you these",
        said(problem.detail.as_deref())
    )
}

/// What a CA says to an order of an account that it does not let order, in words.
pub(super) fn no_orders(problem: &Problem, closed: bool) -> String {
    let said = said(problem.detail.as_deref());
    match closed {
        true => {
            format!("the CA has closed our account{said}; a new one is made at the next attempt")
        }
        false => format!(
            "the CA does not let our account order this{said}; ask it why, or name another CA in \
             [acme] directories"
        ),
    }
}

/// What a CA says itself, in brackets.
fn said(detail: Option<&str>) -> String {
    let said = detail.map(clean).unwrap_or_default();
    match said.is_empty() {
        true => String::new(),
        false => format!(" (the CA: {said})"),
    }
}

fn one(urn: Option<&str>, detail: Option<&str>, by: Option<Challenge>) -> String {
    let kind = kind(urn);
    let said = said(detail);
    match advice(kind) {
        Some((what, remedy)) => {
            let remedy = by.and_then(|by| remedy_by(kind, by)).unwrap_or(remedy);
            format!("{what}{said}; {remedy}")
        }
        None if kind.is_empty() => format!("the CA refuses{said}"),
        None => format!("the CA refuses: {kind}{said}"),
    }
}

/// What to do where it is known how the name was to be shown.
fn remedy_by(kind: &str, by: Challenge) -> Option<&'static str> {
    let reach = matches!(
        kind,
        "connection" | "tls" | "incorrectResponse" | "unauthorized"
    );
    match by {
        Challenge::Http01 if reach => Some(
            "let port 80 of the name's address (AAAA as well) reach [listen] http of this machine, \
             in every firewall, with no other server or CDN before it",
        ),
        Challenge::TlsAlpn01 if reach => Some(
            "let port 443 of the name's address (AAAA as well) reach this machine with TLS \
             untouched, in every firewall, with no other server or CDN before it",
        ),
        Challenge::Dns01 if reach || kind == "dns" => Some(
            "check that the hook, or the server of [acme.dns_update], adds the value to the zone that \
             everybody sees, and leaves other values of the name alone",
        ),
        Challenge::Http01 | Challenge::TlsAlpn01 if kind == "dns" => {
            Some("check that the name exists for everybody, and its zone's DNSSEC")
        }
        Challenge::Http01 | Challenge::TlsAlpn01 | Challenge::Dns01 => None,
    }
}

/// What it means, and what to do.
fn advice(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "accountDoesNotExist" => (
            "the CA does not know our account any more",
            "a new one is made at the next attempt",
        ),
        "alreadyReplaced" => (
            "the CA says that the certificate has been replaced already",
            "it is ordered as a new one",
        ),
        "alreadyRevoked" => (
            "the certificate is revoked already",
            "nothing is to be done",
        ),
        "badCSR" => (
            "the CA does not take the request for these names",
            "check domains and profile under [acme]",
        ),
        "badNonce" => (
            "the CA kept refusing fresh nonces",
            "its servers may disagree; it is tried again",
        ),
        "badPublicKey" | "badSignatureAlgorithm" => (
            "the CA does not take keys of our kind (ECDSA P-256)",
            "name another CA in [acme] directories",
        ),
        "badRevocationReason" => (
            "the CA does not revoke for this reason",
            "nothing is to be done",
        ),
        "caa" => (
            "a CAA record forbids this CA to issue for the name",
            "allow the CA in the CAA records of the name's zone, or name another CA in [acme] \
             directories",
        ),
        "compound" => ("several things are wrong", "see each of them"),
        "connection" => (
            "the CA cannot connect to the name",
            "let its address be this machine's, and open port 80 for http-01 or port 443 for \
             tls-alpn-01 in every firewall; an AAAA record counts, too",
        ),
        "dns" => (
            "the CA cannot look the name up",
            "check that the name exists for everybody, and its zone's DNSSEC; for dns-01, that \
             the record was added",
        ),
        "externalAccountRequired" => (
            "the CA takes only accounts that are bound to one of its customers",
            "get kid and key from it, and set them in [acme] eab",
        ),
        "incorrectResponse" => (
            "something else answered in our place",
            "check that the name's address (AAAA as well) is this machine, and that no other \
             server or CDN stands before it on port 80 or 443",
        ),
        "invalidContact" | "unsupportedContact" => (
            "the CA does not take the contact",
            "write a working e-mail address in [acme] contact, or none",
        ),
        "invalidProfile" => (
            "the CA has no such profile",
            "write one of its profiles in [acme] profile, or none",
        ),
        "malformed" => (
            "the CA cannot make sense of the request",
            "check domains under [acme]: the names have to be public ones",
        ),
        "orderNotReady" => ("the order was not ready yet", "it is tried again"),
        "rateLimited" => (
            "a limit of the CA is reached",
            "nothing is to be done but to wait; a second CA in [acme] directories would step in",
        ),
        "rejectedIdentifier" => (
            "the CA does not issue for this name",
            "remove it from [acme] domains, or name another CA in directories",
        ),
        "serverInternal" => (
            "the CA has a fault of its own",
            "it is tried again; its status page may say more",
        ),
        "tls" => (
            "the CA found no TLS that it could use at the name",
            "check that port 443 of the name's address reaches this machine with TLS untouched",
        ),
        "unauthorized" => (
            "the CA is not convinced that the name is ours",
            "check that the name's address (AAAA as well) is this machine; for dns-01, that the \
             record has the value that was given",
        ),
        "unsupportedIdentifier" => (
            "the CA does not issue for names of this kind",
            "for IP addresses at Let's Encrypt, set profile = \"shortlived\" under [acme]",
        ),
        "userActionRequired" => (
            "the CA wants a person to do something, such as to agree to new terms",
            "do so, then run `holdline cert renew`",
        ),
        _ => return None,
    })
}

/// An address that a CA names, for a log.
pub(super) fn address(text: &str) -> String {
    const MOST: usize = 300;
    let printable = text.chars().filter(char::is_ascii_graphic);
    printable.take(MOST).collect()
}

/// One line of printable text, of a length that a log bears.
fn clean(text: &str) -> String {
    const MOST: usize = 600;
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST)
        .collect();
    line.trim().trim_end_matches('.').to_owned()
}

/// Why the CA could not be asked, and what to do.
fn unreachable(error: &TransportError) -> String {
    let said = clean(&error.to_string());
    let dates = ["expired", "Expired", "NotValidYet", "not valid yet"];
    let remedy = match error {
        TransportError::Name(_) => "check the name servers of this machine".to_owned(),
        TransportError::Connect(_) | TransportError::TooSlow => {
            "let this machine open connections to it; if it is down, it is tried again".to_owned()
        }
        // Then it is our clock that is wrong.
        TransportError::Tls(_) if dates.iter().any(|word| said.contains(word)) => {
            format!("check this machine's clock, it says {}", Moment::now())
        }
        TransportError::NotTls(_) => "check the port in [acme] directories".to_owned(),
        TransportError::Tls(_) => {
            "if it is a CA of your own, name its root certificate in [acme] ca_root".to_owned()
        }
        TransportError::Status(status) if status.is_client_error() => {
            "check the URL in [acme] directories".to_owned()
        }
        TransportError::Status(_) | TransportError::Broken(_) => {
            "it seems to be in trouble, its status page may say more; it is tried again".to_owned()
        }
        TransportError::NotHttps => "write an https:// URL in [acme] directories".to_owned(),
        TransportError::Root(_) => "name a PEM file with the root certificate".to_owned(),
    };
    format!("the CA cannot be asked: {said}; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str) -> Problem {
        let json = format!(
            "{{\"type\":\"urn:ietf:params:acme:error:{kind}\",\"detail\":\"so\\nit is.\"}}"
        );
        serde_json::from_str(&json).unwrap()
    }

    /// RFC 8555, 6.7, and RFC 9773, 7.4.
    const KINDS: [&str; 24] = [
        "accountDoesNotExist",
        "alreadyRevoked",
        "badCSR",
        "badNonce",
        "badPublicKey",
        "badRevocationReason",
        "badSignatureAlgorithm",
        "caa",
        "compound",
        "connection",
        "dns",
        "externalAccountRequired",
        "incorrectResponse",
        "invalidContact",
        "malformed",
        "orderNotReady",
        "rateLimited",
        "rejectedIdentifier",
        "serverInternal",
        "tls",
        "unauthorized",
        "unsupportedContact",
        "unsupportedIdentifier",
        "userActionRequired",
    ];

    #[test]
    fn every_problem_says_what_to_do() {
        for kind in KINDS
            .into_iter()
            .chain(["alreadyReplaced", "invalidProfile"])
        {
            let said = sentence(&problem(kind), None);
            assert!(said.contains(" (the CA: so it is); "), "{said}");
        }
        assert_eq!(
            sentence(&problem("novel"), None),
            "the CA refuses: novel (the CA: so it is)"
        );
    }

    #[test]
    fn what_to_do_depends_on_the_challenge() {
        let by = |kind: &str, by| sentence(&problem(kind), Some(by));
        assert!(by("connection", Challenge::Http01).contains("port 80"));
        assert!(by("connection", Challenge::TlsAlpn01).contains("port 443"));
        assert!(by("unauthorized", Challenge::Dns01).contains("the hook"));
        assert!(!by("dns", Challenge::Http01).contains("hook"));
        assert!(by("caa", Challenge::Http01).contains("CAA"));
    }

    #[test]
    fn a_wrong_key_of_a_customer_is_no_failed_challenge() {
        for kind in ["unauthorized", "malformed"] {
            let failure = Failure::of(&Error::Api(problem(kind)), Stage::Account, None);
            assert!(failure.reason.contains("(the CA: so it is)"), "{failure:?}");
            assert!(failure.reason.contains("kid and key_file"), "{failure:?}");
            assert!(!failure.reason.contains("address"), "{failure:?}");
            assert_eq!(failure.concerns, Concerns::Ca);
        }
        let later = Failure::of(&Error::Api(problem("unauthorized")), Stage::Order, None);
        assert!(!later.reason.contains("eab"), "{later:?}");
    }

    #[test]
    fn an_order_that_is_not_decided_is_taken_up_while_the_ca_knows_it() {
        let again = tokio::time::Instant::now().into_std() + std::time::Duration::from_secs(86_400);
        for (again, most) in [(Some(again), NEXT_LOOK_MOST), (None, 0)] {
            for stage in [Stage::Validation, Stage::Issue] {
                let failure = Failure::of(&Error::Timeout(again), stage, None);
                assert_eq!(failure.concerns, Concerns::Names);
                assert_eq!(failure.undecided, stage == Stage::Validation);
                let wait = failure.not_before.map_or(0, |at| at.since(Moment::now()));
                assert!(wait <= most && wait + 5 >= most, "{wait}");
            }
        }
        let refused = Failure::of(&Error::Api(problem("caa")), Stage::Validation, None);
        assert!(!refused.undecided);
    }

    #[test]
    fn a_limit_is_kept_even_without_a_date() {
        let of = |kind: &str, stage, until| Failure::of(&Error::Api(problem(kind)), stage, until);
        let limited = of("rateLimited", Stage::Order, None);
        assert!(limited.not_before.unwrap() > Moment::now().after(HOUR - 60));
        assert_eq!(limited.concerns, Concerns::Ca);
        let account = of("rateLimited", Stage::Account, Some(Moment(5)));
        assert_eq!(
            (account.concerns, account.not_before),
            (Concerns::Ca, Some(Moment(5)))
        );
        assert_eq!(
            of("serverInternal", Stage::Order, None).concerns,
            Concerns::Ca
        );
        assert_eq!(of("caa", Stage::Order, None).not_before, None);
    }
}
