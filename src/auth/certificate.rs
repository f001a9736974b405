//! A client certificate as a way in: which of its names says who it is.
//!
//! Only names, and when they end. That the certificate is good (its CA, its dates, the key behind
//! it) has been seen in the TLS handshake; who goes on after that looks at the end itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::identity::{Credential, Identity};
use super::name::is_name;
use crate::config::{Auth, CertificateName};
use crate::listen::Peer;
use crate::tls::{Authorities, Authority};

/// The names in one certificate that can be said in a header; taken once per connection, so that
/// neither is the certificate kept nor read again for every request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    subject_cn: Option<Arc<str>>,
    san_email: Option<Arc<str>>,
    san_dns: Option<Arc<str>>,
    san_uri: Option<Arc<str>>,
    not_after: Option<SystemTime>,
    authorities: Arc<[Authority]>,
}

impl CertificateNames {
    /// Those of the chain that was shown in a handshake, and verified there against these CAs.
    /// `None`: it is empty.
    #[must_use]
    pub fn shown(chain: &[CertificateDer<'_>], client_cas: &Authorities) -> Option<Self> {
        Some(Self {
            authorities: client_cas.behind(chain),
            ..Self::of(chain.first()?)
        })
    }

    /// The names in a certificate; none where it cannot be read.
    fn of(der: &[u8]) -> Self {
        let Ok((rest, x509)) = X509Certificate::from_der(der) else {
            return Self::default();
        };
        if !rest.is_empty() {
            return Self::default();
        }
        // An extension that stands there twice is an error, and then nothing in it counts.
        let alternative = x509.subject_alternative_name().ok().flatten();
        let alternative = alternative.map(|san| &*san.value.general_names);
        let first = |pick| first(alternative.unwrap_or_default(), pick);
        Self {
            subject_cn: common_name(&x509),
            san_email: first(|name| match name {
                GeneralName::RFC822Name(name) => Some(name),
                _ => None,
            }),
            san_dns: first(|name| match name {
                GeneralName::DNSName(name) => Some(name),
                _ => None,
            }),
            san_uri: first(|name| match name {
                GeneralName::URI(name) => Some(name),
                _ => None,
            }),
            not_after: Some(end(&x509)),
            authorities: Arc::default(),
        }
    }

    /// When the certificate ends; `None` where it could not be read, and so has no name either.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// The one that the rule asks for.
    #[must_use]
    pub fn get(&self, rule: CertificateName) -> Option<&Arc<str>> {
        match rule {
            CertificateName::SubjectCn => self.subject_cn.as_ref(),
            CertificateName::SanEmail => self.san_email.as_ref(),
            CertificateName::SanDns => self.san_dns.as_ref(),
            CertificateName::SanUri => self.san_uri.as_ref(),
        }
    }
}

/// Who the peer is by its certificate, where `[auth]` takes certificates.
#[must_use]
pub fn identify(peer: &Peer, auth: &Auth) -> Option<Identity> {
    let rule = auth.certificate?;
    let names = peer.client_certificate.as_ref()?;
    let user = names.get(rule)?;
    // A connection may be older than the config.
    auth.client_cas.count(&names.authorities).then(|| Identity {
        user: Arc::clone(user),
        credential: Credential::Certificate(rule, Arc::clone(&names.authorities)),
    })
}

/// What cannot be said in our own time, as a date before 1970, is over.
fn end(x509: &X509Certificate<'_>) -> SystemTime {
    let seconds = x509.validity().not_after.timestamp();
    let seconds = u64::try_from(seconds).unwrap_or_default();
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH)
}

/// The subject's common name. Two of them could be read either way, so that is none.
fn common_name(x509: &X509Certificate<'_>) -> Option<Arc<str>> {
    let mut names = x509.subject().iter_common_name();
    let (name, another) = (names.next()?, names.next());
    if another.is_some() {
        return None;
    }
    // One byte per character, and ASCII: other strings (BMPString, T61String) can spell a name
    // in ways that look alike.
    let plain = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String];
    if !plain.contains(&name.attr_value().tag()) {
        return None;
    }
    usable(name.as_str().ok()?)
}

/// The first alternative name of a kind. If it is not usable, the next one is not asked: a rule
/// that picks by content could be led.
fn first<'a>(
    names: &'a [GeneralName<'a>],
    pick: fn(&'a GeneralName<'a>) -> Option<&'a str>,
) -> Option<Arc<str>> {
    // What the parser refuses could have been the first.
    if names
        .iter()
        .any(|name| matches!(name, GeneralName::Invalid(..)))
    {
        return None;
    }
    usable(names.iter().find_map(pick)?)
}

fn usable(name: &str) -> Option<Arc<str>> {
    is_name(name).then(|| name.into())
}

#[cfg(test)]
mod tests;
