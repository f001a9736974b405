use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use rcgen::string::{BmpString, TeletexString};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, SanType};

use super::*;
use CertificateName::{SanDns, SanEmail, SanUri, SubjectCn};

fn name_of(der: &[u8], rule: CertificateName) -> Option<String> {
    let names = CertificateNames::of(der);
    names.get(rule).map(|name| name.to_string())
}

const ALL: [CertificateName; 4] = [SubjectCn, SanEmail, SanDns, SanUri];

fn params(cn: &[DnValue], alternative: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (index, cn) in cn.iter().enumerate() {
        // A name is a map by type: a second CN is spelt as what its OID says.
        let kind = match index {
            0 => DnType::CommonName,
            _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
        };
        params.distinguished_name.push(kind, cn.clone());
    }
    params.subject_alt_names = alternative;
    params
}

fn issue(params: CertificateParams) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn with_cn(cn: impl Into<DnValue>) -> Vec<u8> {
    issue(params(&[cn.into()], Vec::new()))
}

fn email(text: &str) -> SanType {
    SanType::Rfc822Name(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A subjectAltName extension with these bytes for a value.
fn raw_san(value: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, 17], value.to_vec())
}

#[test]
fn each_rule_takes_its_own_first_name() {
    let der = issue(params(
        &["nick".into()],
        vec![
            dns("laptop.example"),
            email("nick@example.com"),
            dns("other.example"),
            email("root@example.com"),
            uri("spiffe://example/nick"),
        ],
    ));
    let names = ALL.map(|rule| name_of(&der, rule));
    let names = names.each_ref().map(|name| name.as_deref().unwrap());
    assert_eq!(
        names,
        [
            "nick",
            "nick@example.com",
            "laptop.example",
            "spiffe://example/nick"
        ]
    );
}

#[test]
fn its_end_is_known_whatever_it_is() {
    let seconds = |year| {
        let mut params = params(&["nick".into()], Vec::new());
        params.not_before = rcgen::date_time_ymd(1960, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 6, 15);
        let end = CertificateNames::of(&issue(params)).not_after();
        end.map(|end| end.duration_since(UNIX_EPOCH).unwrap().as_secs())
    };
    assert_eq!(seconds(2026), Some(1_781_481_600));
    // Past 2049 a date is written in another way.
    assert_eq!(seconds(2051), Some(2_570_400_000));
    assert_eq!(seconds(9999), Some(253_385_020_800));
    assert_eq!(seconds(1969), Some(0), "over, not without an end");
    assert_eq!(CertificateNames::of(b"no certificate").not_after(), None);
    assert_eq!(CertificateNames::default().not_after(), None);
}

#[test]
fn what_is_not_there_is_no_name() {
    let der = issue(params(&[], Vec::new()));
    for rule in ALL {
        assert_eq!(name_of(&der, rule), None, "{rule:?}");
    }
    // No rule falls back to another.
    let der = issue(params(&["nick".into()], vec![dns("laptop.example")]));
    assert_eq!(name_of(&der, SanEmail), None);
}

#[test]
fn a_common_name_that_a_header_cannot_say_is_none() {
    for cn in [
        "",
        " ",
        "nick example",
        "nick\r\nx-forwarded-user: root",
        "nick\0root",
        "nick\t",
        "nick\u{7f}",
        "niсk", // with a Cyrillic letter
        "nick\u{200b}",
        &"n".repeat(201),
    ] {
        let der = with_cn(DnValue::Utf8String(cn.to_owned()));
        assert_eq!(name_of(&der, SubjectCn), None, "{cn:?}");
    }
    let longest = "n".repeat(200);
    let der = with_cn(DnValue::Utf8String(longest.clone()));
    assert_eq!(name_of(&der, SubjectCn), Some(longest));
}

#[test]
fn a_common_name_in_a_string_of_another_kind_is_none() {
    let wide = DnValue::BmpString(BmpString::try_from("nick").unwrap());
    let telex = DnValue::TeletexString(TeletexString::try_from("nick").unwrap());
    for cn in [wide, telex] {
        assert_eq!(name_of(&with_cn(cn.clone()), SubjectCn), None, "{cn:?}");
    }
    for cn in [
        DnValue::PrintableString("nick".try_into().unwrap()),
        DnValue::Ia5String("nick".try_into().unwrap()),
    ] {
        assert_eq!(name_of(&with_cn(cn), SubjectCn).as_deref(), Some("nick"));
    }
}

#[test]
fn two_common_names_are_none() {
    let der = issue(params(&["nick".into(), "root".into()], Vec::new()));
    let (_, x509) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(x509.subject().iter_common_name().count(), 2);
    assert_eq!(name_of(&der, SubjectCn), None);
}

#[test]
fn a_bad_first_alternative_name_is_not_passed_over() {
    for bad in [
        "nick@example.com\r\nx: y",
        "",
        "n k@example.com",
        "nick\0@x",
    ] {
        let der = issue(params(&[], vec![email(bad), email("root@example.com")]));
        assert_eq!(name_of(&der, SanEmail), None, "{bad:?}");
    }
}

#[test]
fn an_alternative_name_that_cannot_be_read_hides_the_rest() {
    // [1] with a byte that is no ASCII, then [1] "root@e".
    let mut value = vec![0x30, 11, 0x81, 1, 0xff, 0x81, 6];
    value.extend(b"root@e");
    let mut params = params(&[], Vec::new());
    params.custom_extensions = vec![raw_san(&value)];
    assert_eq!(name_of(&issue(params), SanEmail), None);
}

#[test]
fn an_extension_that_stands_there_twice_counts_for_nothing() {
    let mut params = params(&["nick".into()], vec![email("nick@example.com")]);
    let mut value = vec![0x30, 8, 0x81, 6];
    value.extend(b"root@e");
    params.custom_extensions = vec![raw_san(&value)];
    assert_eq!(name_of(&issue(params), SanEmail), None);
}

#[test]
fn a_certificate_with_something_behind_it_has_no_names() {
    let mut der = with_cn("nick");
    assert_eq!(name_of(&der, SubjectCn).as_deref(), Some("nick"));
    der.push(0);
    assert_eq!(name_of(&der, SubjectCn), None);
}

/// The CAs of a file with this one certificate.
fn cas(der: &[u8]) -> Authorities {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = BASE64_STANDARD.encode(der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    std::fs::write(file.path(), pem).unwrap();
    crate::tls::read_client_ca(file.path()).unwrap()
}

#[test]
fn only_where_certificates_are_taken_they_identify_anybody() {
    let mut auth = crate::config::parse("", "test").unwrap().config.auth;
    let (der, other) = (with_cn("nick"), with_cn("nick"));
    let (ca, other) = (cas(&der), cas(&other));
    let names = CertificateNames::shown(&[der.into()], &ca).unwrap();
    let authorities = Arc::clone(&names.authorities);
    auth.client_cas = ca;
    let mut peer = Peer {
        remote: "203.0.113.7:1".parse().unwrap(),
        local: "203.0.113.8:443".parse().unwrap(),
        via_trusted_proxy: false,
        server_name: None,
        alpn_h2: false,
        client_certificate: Some(Arc::new(names)),
    };
    assert_eq!(identify(&peer, &auth), None);
    auth.certificate = Some(SubjectCn);
    let nick = Identity {
        user: "nick".into(),
        credential: Credential::Certificate(SubjectCn, authorities),
    };
    assert_eq!(identify(&peer, &auth), Some(nick));
    let before = std::mem::replace(&mut auth.client_cas, other);
    assert_eq!(identify(&peer, &auth), None, "its CA is gone");
    auth.client_cas = before;
    auth.certificate = Some(SanEmail);
    assert_eq!(identify(&peer, &auth), None);
    auth.certificate = Some(SubjectCn);
    peer.client_certificate = None;
    assert_eq!(identify(&peer, &auth), None);
}

proptest! {
    /// No certificate, however broken, is a panic or a name that a header cannot say.
    #[test]
    fn damaged_certificates_do_no_harm(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        shorten in any::<bool>(),
    ) {
        static WHOLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let whole = WHOLE.get_or_init(|| {
            let names = vec![email("nick@example.com"), dns("a.example"), uri("x:y")];
            issue(params(&["nick".into()], names))
        });
        let mut der = whole.clone();
        for (at, byte) in flips {
            let at = at.index(der.len());
            der[at] = byte;
        }
        if shorten {
            der.truncate(cut.index(der.len()));
        }
        for rule in ALL {
            if let Some(name) = name_of(&der, rule) {
                prop_assert!(is_name(&name));
            }
        }
    }
}
