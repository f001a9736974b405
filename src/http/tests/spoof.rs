//! Nobody gets in by what it says of itself.

use super::kit::*;
use crate::http::headers::SPOOFED;

#[tokio::test]
async fn no_spelling_of_a_claim_reaches_the_gateway() {
    let upstream = Scripted::answering(OK).await;
    let mut setup = Setup::to(upstream.address);
    setup.remote = Some("203.0.113.7:4711".parse().unwrap());
    let proxy = setup.start_ready().await;
    assert!(SPOOFED.len() >= 60);
    for (index, spelling) in SPOOFED.iter().enumerate() {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{spelling}: 127.0.0.1\r\n{spelling}: admin\r\n\
             Connection: {spelling}\r\n\r\n"
        );
        assert_eq!(
            status(&Wire::to(&proxy).await.ask(&request).await.0),
            200,
            "{spelling}"
        );
        let head = upstream.head(index).to_ascii_lowercase();
        let ours =
            "x-forwarded-for: 203.0.113.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: a\r\n";
        assert!(head.contains(ours), "{head}");
        assert!(
            !head.contains("127.0.0.1") && !head.contains("admin"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_local_client_is_local_by_silence_alone() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Setup::to(upstream.address).start_ready().await;
    assert_eq!(status(&Wire::to(&proxy).await.ask(GET).await.0), 200);
    let head = upstream.head(0).to_ascii_lowercase();
    assert!(!head.contains("forwarded") && !head.contains("real-ip") && !head.contains("via"));
    for spelling in SPOOFED {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{spelling}: 203.0.113.7\r\n\r\n");
        let (head, body) = Wire::to(&proxy).await.ask(&request).await;
        assert_eq!(status(&head), 403, "{spelling}");
        assert!(
            body.contains("trusted_proxies") && body.contains("tunnel_not_trusted"),
            "{body}"
        );
    }
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_clients() {
    let upstream = Scripted::answering(OK).await;
    let mut setup = Setup::to(upstream.address);
    setup.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let proxy = setup.start_ready().await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1, 198.51.100.4\r\n\r\n";
    assert_eq!(status(&Wire::to(&proxy).await.ask(request).await.0), 200);
    assert_eq!(
        field(&upstream.head(0), "x-forwarded-for"),
        Some("198.51.100.4")
    );
    let (head, body) = Wire::to(&proxy).await.ask(GET).await;
    assert_eq!(status(&head), 403, "nobody knows whose request this is");
    assert!(body.contains("client_unknown"), "{body}");
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn loopback_of_another_machine_is_not_ours() {
    let upstream = Scripted::answering(OK).await;
    let mut setup = Setup::to(upstream.address);
    (setup.remote, setup.local) = (
        Some("127.0.0.1:4711".parse().unwrap()),
        Some("192.0.2.1:443".parse().unwrap()),
    );
    let proxy = setup.start_ready().await;
    let (head, body) = Wire::to(&proxy).await.ask(GET).await;
    assert_eq!(status(&head), 403);
    assert!(body.contains("forwarded_loopback"), "{body}");
    assert_eq!(upstream.requests(), 0);
}
