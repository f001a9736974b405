//! A device identity that lives for one question and is never stored.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::connect::{CLIENT, MODE, ROLE};

/// The `device` of a `connect`: signs the challenge as a browser does. `None` without randomness.
pub(super) fn signed(challenge: &Value, scopes: &[&str], platform: &str) -> Option<Value> {
    let key = Ed25519KeyPair::generate().ok()?;
    let public = key.public_key().as_ref();
    let id: String = digest(&SHA256, public)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (nonce, at) = (challenge.get("nonce")?.as_str()?, challenge.get("ts")?);
    let at_text = at.to_string();
    let scopes = scopes.join(",");
    let payload = [
        "v3", &id, CLIENT, MODE, ROLE, &scopes, &at_text, "", nonce, platform, "",
    ]
    .join("|");
    let signature = key.sign(payload.as_bytes());
    Some(json!({
        "id": id,
        "publicKey": URL_SAFE_NO_PAD.encode(public),
        "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()),
        "signedAt": at,
        "nonce": nonce,
    }))
}
