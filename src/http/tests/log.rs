//! What of a request gets into the log.

use http::Request;

use super::super::account::Account;

#[test]
fn a_request_is_logged_without_its_secrets_and_not_at_length() {
    let logged = |uri: &str| Account::of(&Request::get(uri).body(()).unwrap()).path();
    assert_eq!(
        logged("/__openclaw__/cap/s3cret/a?token=s3cret"),
        "/__openclaw__/cap/[redacted]/a"
    );
    assert!(logged(&format!("/{}", "a".repeat(5_000))).len() < 300);
}
