//! What a CA is told about accounts, signed (RFC 8555, 6.2): JSON Web Signatures by ECDSA P-256.
//!
//! The library makes the keys of accounts by itself and shows them when the CA has them already; an
//! end in between would lose them. Here a key is there first, to be written down.

use aws_lc_rs::digest;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// The key of an account.
pub(super) struct AccountKey {
    /// PKCS #8 in base64url.
    text: Zeroizing<String>,
    pair: EcdsaKeyPair,
}

/// By what the CA is to find the key.
pub(super) enum Signer<'a> {
    /// By itself: the CA does not know it, or is asked whether it does.
    Key(&'a AccountKey),
    /// By the URL of its account.
    Account(&'a str, &'a AccountKey),
}

/// A customer of a CA, to whom an account is to be bound (RFC 8555, 7.3.4).
pub(super) struct Customer {
    pub(super) kid: String,
    pub(super) key: Zeroizing<Vec<u8>>,
}

// === impl AccountKey ===

impl AccountKey {
    pub(super) fn generate() -> Result<Self, Unspecified> {
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(kind, &SystemRandom::new())?;
        Self::from_text(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(&der))).ok_or(Unspecified)
    }

    /// From what [`Self::text`] says.
    pub(super) fn from_text(text: Zeroizing<String>) -> Option<Self> {
        let der = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(&*text).ok()?);
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).ok()?;
        Some(Self { text, pair })
    }

    pub(super) fn text(&self) -> &Zeroizing<String> {
        &self.text
    }

    /// What tells it from other keys (RFC 7638).
    pub(super) fn thumbprint(&self) -> String {
        // Its members are sorted, as they have to be.
        let hash = digest::digest(&digest::SHA256, self.jwk().to_string().as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(hash)
    }

    fn jwk(&self) -> Value {
        // 4, then both halves of the point.
        let point = self.pair.public_key().as_ref();
        let half = |from| point.get(from..from + 32).unwrap_or_default();
        json!({
            "crv": "P-256",
            "kty": "EC",
            "x": BASE64_URL_SAFE_NO_PAD.encode(half(1)),
            "y": BASE64_URL_SAFE_NO_PAD.encode(half(33)),
        })
    }

    fn sign(&self, header: &Value, payload: Option<&Value>) -> Result<Value, Unspecified> {
        flattened(header, payload, |text| {
            let signature = self.pair.sign(&SystemRandom::new(), text)?;
            Ok(BASE64_URL_SAFE_NO_PAD.encode(signature))
        })
    }

    /// That this key takes the place of `old` (RFC 8555, 7.3.5): the inner part of the request.
    pub(super) fn takes_over(
        &self,
        old: &Self,
        account: &str,
        url: &str,
    ) -> Result<Value, Unspecified> {
        let header = json!({"alg": "ES256", "jwk": self.jwk(), "url": url});
        self.sign(
            &header,
            Some(&json!({"account": account, "oldKey": old.jwk()})),
        )
    }

    /// That this key is of that customer.
    pub(super) fn bound_to(&self, customer: &Customer, url: &str) -> Result<Value, Unspecified> {
        let header = json!({"alg": "HS256", "kid": customer.kid, "url": url});
        let key = hmac::Key::new(hmac::HMAC_SHA256, &customer.key);
        flattened(&header, Some(&self.jwk()), |text| {
            Ok(BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, text)))
        })
    }
}

/// A key as the library wants it, from its text; it says what is wrong with it.
pub(super) fn pkcs8(text: &str) -> PrivatePkcs8KeyDer<'static> {
    PrivatePkcs8KeyDer::from(BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default())
}

// === impl Signer ===

impl Signer<'_> {
    /// The body of a request; without a payload it only reads.
    pub(super) fn request(
        &self,
        nonce: &str,
        url: &str,
        payload: Option<&Value>,
    ) -> Result<Vec<u8>, Unspecified> {
        let (header, key) = match self {
            Self::Key(key) => (json!({"jwk": key.jwk()}), key),
            Self::Account(account, key) => (json!({"kid": account}), key),
        };
        let Value::Object(mut header) = header else {
            return Err(Unspecified);
        };
        header.insert("alg".to_owned(), json!("ES256"));
        header.insert("nonce".to_owned(), json!(nonce));
        header.insert("url".to_owned(), json!(url));
        let signed = key.sign(&Value::Object(header), payload)?;
        Ok(signed.to_string().into_bytes())
    }
}

fn flattened(
    header: &Value,
    payload: Option<&Value>,
    sign: impl FnOnce(&[u8]) -> Result<String, Unspecified>,
) -> Result<Value, Unspecified> {
    let protected = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
    let payload = payload.map(|payload| BASE64_URL_SAFE_NO_PAD.encode(payload.to_string()));
    let payload = payload.unwrap_or_default();
    let signature = sign(format!("{protected}.{payload}").as_bytes())?;
    Ok(json!({"protected": protected, "payload": payload, "signature": signature}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_key_outlives_being_written_and_is_the_one_that_the_library_uses() {
        let key = AccountKey::generate().unwrap();
        let again = AccountKey::from_text(key.text().clone()).unwrap();
        assert_eq!(key.thumbprint(), again.thumbprint());
        let ours = instant_acme::Key::from_pkcs8_der(pkcs8(key.text()));
        assert!(ours.is_ok());
        let (_, theirs) = instant_acme::Key::generate_pkcs8().unwrap();
        let text = BASE64_URL_SAFE_NO_PAD.encode(theirs.secret_pkcs8_der());
        assert!(AccountKey::from_text(Zeroizing::new(text)).is_some());
        assert!(AccountKey::from_text(Zeroizing::new("AAAA".to_owned())).is_none());
    }

    #[test]
    fn what_is_signed_is_what_is_sent() {
        let key = AccountKey::generate().unwrap();
        let body = Signer::Account("https://ca.example/acct/1", &key)
            .request("n-1", "https://ca.example/order", Some(&json!({"a": 1})))
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let part = |name: &str| body[name].as_str().unwrap().to_owned();
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        let header: Value = serde_json::from_slice(&decode(&part("protected"))).unwrap();
        let expected = json!({
            "alg": "ES256", "kid": "https://ca.example/acct/1", "nonce": "n-1",
            "url": "https://ca.example/order",
        });
        assert_eq!(header, expected);
        assert_eq!(decode(&part("payload")), b"{\"a\":1}");
        let signed = format!("{}.{}", part("protected"), part("payload"));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(&part("signature")))
            .unwrap();
    }
}
