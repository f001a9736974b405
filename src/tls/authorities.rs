//! Which of our clients' CAs a certificate is of, so that it can be said later whether that one
//! still counts. Whether it is good is seen in the handshake.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// One CA: its name and its key. A certificate of it that was renewed says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Authority([u8; 32]);

/// The CAs of `[tls] client_ca`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorities(Arc<[Named]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: Box<[u8]>,
    authority: Authority,
}

impl Authorities {
    pub(super) fn of(roots: &RootCertStore) -> Self {
        Self(roots.roots.iter().map(Named::of).collect())
    }

    /// Those that may have issued a chain which has been verified against these: more than one only
    /// where several have the same name.
    pub fn behind(&self, chain: &[CertificateDer<'_>]) -> Arc<[Authority]> {
        let issuers: Vec<X509Certificate<'_>> = chain
            .iter()
            .filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1))
            .collect();
        let issued_one = |named: &&Named| {
            issuers
                .iter()
                .any(|shown| shown.issuer().as_raw() == &*named.name)
        };
        let found = self.0.iter().filter(issued_one);
        found.map(|named| named.authority).collect()
    }

    /// Whether all of these count; none of them is nobody's word.
    #[must_use]
    pub fn count(&self, authorities: &[Authority]) -> bool {
        let known = |wanted: &Authority| self.0.iter().any(|named| named.authority == *wanted);
        !authorities.is_empty() && authorities.iter().all(known)
    }
}

impl Named {
    fn of(anchor: &TrustAnchor<'_>) -> Self {
        let constraints = anchor.name_constraints.as_deref().unwrap_or_default();
        let parts: [&[u8]; 3] = [
            &anchor.subject,
            &anchor.subject_public_key_info,
            constraints,
        ];
        // Each with its length before it, so that no two are one text.
        let text: Vec<u8> = parts
            .iter()
            .flat_map(|part| [&(part.len() as u64).to_be_bytes(), *part].concat())
            .collect();
        let mut authority = [0; 32];
        for (to, from) in authority.iter_mut().zip(digest(&SHA256, &text).as_ref()) {
            *to = *from;
        }
        Self {
            name: DistinguishedName::in_sequence(&anchor.subject)
                .as_ref()
                .into(),
            authority: Authority(authority),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair,
    };

    use super::*;

    type Ca = CertifiedIssuer<'static, KeyPair>;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn ca(name: &str, key: KeyPair) -> Ca {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, key).unwrap()
    }

    fn authorities(all: &[&Ca]) -> Authorities {
        let mut roots = RootCertStore::empty();
        for ca in all {
            roots.add(ca.der().clone()).unwrap();
        }
        Authorities::of(&roots)
    }

    fn issued(issuer: &Issuer<'_, KeyPair>) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let made = params("nick").signed_by(&key, issuer).unwrap();
        made.der().clone()
    }

    #[test]
    fn a_chain_counts_for_as_long_as_its_own_ca_does() {
        let key = KeyPair::generate().unwrap();
        let again = KeyPair::try_from(key.serialize_der()).unwrap();
        let (one, two) = (ca("one", key), ca("two", KeyPair::generate().unwrap()));
        let namesake = ca("one", KeyPair::generate().unwrap());
        let both = authorities(&[&one, &two]);
        let shown = both.behind(&[issued(&one)]);
        assert_eq!(shown.len(), 1);
        assert!(both.count(&shown) && authorities(&[&one]).count(&shown));
        assert!(!authorities(&[&two]).count(&shown));
        assert!(!authorities(&[&namesake]).count(&shown), "another key");
        assert!(!Authorities::default().count(&shown));
        let renewed = ca("one", again);
        assert!(authorities(&[&renewed]).count(&shown), "the same key");
        // Which of two it was cannot be seen by the name.
        let either = authorities(&[&one, &namesake]).behind(&[issued(&one)]);
        assert_eq!(either.len(), 2);
        assert!(!authorities(&[&one]).count(&either));
    }

    #[test]
    fn an_intermediate_is_of_the_ca_above_it() {
        let root = ca("root", KeyPair::generate().unwrap());
        let mut between = params("between");
        between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let between = CertifiedIssuer::signed_by(between, key, &root).unwrap();
        let roots = authorities(&[&root]);
        let chain = [issued(&between), between.der().clone()];
        assert!(roots.count(&roots.behind(&chain)));
        assert!(!roots.count(&roots.behind(&[issued(&between)])), "nobody's");
        assert!(!roots.count(&roots.behind(&[vec![1, 2, 3].into()])));
    }
}
