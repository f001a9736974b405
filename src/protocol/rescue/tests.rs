//! Every cause has a complete answer.

use super::*;
use crate::gateway::Reason;

fn view(phase: Phase, reason: Option<Reason>) -> View {
    let now = Instant::now();
    View {
        phase,
        since: now,
        outage_since: Some(now),
        reason,
        attempt: 3,
        expected: None,
        expected_starting: None,
        crash_loop: None,
        generation: 1,
    }
}

fn all_causes() -> Vec<Cause> {
    let mut all = vec![
        Cause::BadAnswer,
        Cause::Stopping,
        Cause::SessionLimit,
        Cause::SessionsPerIp,
        Cause::HandshakeRate,
        Cause::WebSocketVersion,
        Cause::BadUpgrade("x".repeat(500).into()),
        Cause::BadRequest("no Host".into()),
        Cause::HeadersTooLarge,
        Cause::OriginRefused,
        Cause::LoopbackRefused,
        Cause::TunnelNotTrusted(HeaderName::from_static("cf-connecting-ip")),
        Cause::ClientUnknown,
        Cause::ForwardedForBroken,
        Cause::ForwardedLoopback([127, 0, 0, 1].into()),
        Cause::NotFound,
        Cause::FrameTooBig { limit: 26_214_400 },
        Cause::ProtocolError("ü".repeat(200).into()),
        Cause::HoldBufferFull,
    ];
    for phase in [
        Phase::Ready,
        Phase::Starting,
        Phase::Draining,
        Phase::Down,
        Phase::Hung,
    ] {
        for reason in [None, Some(Reason::Refused), Some(Reason::UpgradeRejected)] {
            let view = view(phase, reason);
            let waited = Duration::from_secs(601);
            all.extend([
                Cause::GatewayAway(view),
                Cause::GatewayRestarting(view),
                Cause::HoldExpired { view, waited },
                Cause::TooManyWaiting(view),
                Cause::MayHaveExecuted(view),
            ]);
        }
    }
    all
}

#[tokio::test]
async fn every_answer_is_complete_and_fits() {
    for cause in all_causes() {
        let answer = cause.answer(Instant::now());
        assert!(
            answer.status.is_client_error() || answer.status.is_server_error(),
            "{cause:?}"
        );
        assert!(answer.close.reason.len() <= MAX_CLOSE_REASON, "{cause:?}");
        assert!(!answer.close.reason.is_empty(), "{cause:?}");
        assert!((1002..=1013).contains(&answer.close.code), "{cause:?}");
        let json = answer.json().to_string();
        assert!(
            json.len() < 2048,
            "the official client reads 2 KiB: {cause:?}"
        );
        if cause.view().is_some() || answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(
                answer.retry_after_secs().is_some_and(|secs| secs >= 1),
                "{cause:?}"
            );
        }
    }
}

#[tokio::test]
async fn down_is_never_final() {
    for cause in all_causes() {
        let answer = cause.answer(Instant::now());
        if answer.status.is_server_error() {
            assert!(
                matches!(answer.close.code, 1012 | 1013),
                "{cause:?} would make clients give up: {}",
                answer.close.code
            );
        }
    }
}

#[tokio::test]
async fn the_documented_rows() {
    let down = view(Phase::Down, Some(Reason::Refused));
    let waited = Duration::from_secs(12);
    let rows = [
        (
            Cause::GatewayAway(down),
            503,
            1013,
            "gateway down (refused)",
        ),
        (Cause::GatewayRestarting(down), 503, 1012, "service restart"),
        (
            Cause::HoldExpired { view: down, waited },
            503,
            1013,
            "gateway down (refused) after 12 s",
        ),
        (Cause::Stopping, 503, 1012, "service restart"),
        (Cause::SessionLimit, 503, 1013, "too many sessions"),
        (
            Cause::SessionsPerIp,
            429,
            1013,
            "too many sessions from this address",
        ),
        (
            Cause::WebSocketVersion,
            426,
            1002,
            "only WebSocket version 13",
        ),
        (Cause::BadUpgrade("no key".into()), 400, 1002, "no key"),
        (Cause::HeadersTooLarge, 431, 1008, "headers too large"),
        (Cause::OriginRefused, 403, 1008, "origin_refused"),
        (
            Cause::FrameTooBig { limit: 9 },
            413,
            1009,
            "frame larger than 9 bytes",
        ),
        (
            Cause::ProtocolError("bad mask".into()),
            400,
            1002,
            "bad mask",
        ),
        (Cause::HoldBufferFull, 503, 1013, "hold buffer full"),
        (Cause::MayHaveExecuted(down), 503, 1012, "service restart"),
    ];
    for (cause, status, code, reason) in rows {
        let answer = cause.answer(Instant::now());
        assert_eq!(answer.status.as_u16(), status, "{cause:?}");
        assert_eq!(
            (answer.close.code, answer.close.reason.as_ref()),
            (code, reason),
            "{cause:?}"
        );
    }
}

#[tokio::test]
async fn the_json_says_state_reason_and_execution() {
    let view = view(Phase::Down, Some(Reason::Dns));
    let json = Cause::MayHaveExecuted(view).answer(Instant::now()).json();
    let error = &json["error"];
    assert_eq!(error["type"], "gateway_lost");
    assert_eq!(error["state"], "down");
    assert_eq!(error["reason"], "dns");
    assert_eq!(error["execution"], "may_have_executed");
    assert_eq!(error["retryAfterMs"], 1000);
    let json = Cause::GatewayAway(view).answer(Instant::now()).json();
    assert_eq!(json["error"]["type"], "gateway_down");
    assert!(json["error"]["execution"].is_null());
}
