//! Whether a WebSocket to a gateway works: OpenClaw's begins with a challenge.

use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpStream;

use super::health::NOBODY;
use super::{each, is_openclaw};
use crate::doctor::Finding;
use crate::doctor::ask::{AskError, Opened, Question, open};
use crate::doctor::case::{ANSWER, Case, Gateway};

/// What a WebSocket came to.
#[derive(Debug)]
enum Evidence {
    /// It was not tried: why.
    NotTried(&'static str),
    Tried(Result<Opened, AskError>),
}

pub(in crate::doctor) async fn look(case: Arc<Case>) -> Vec<Finding> {
    each(&case, |case, index| async move {
        let Some(gateway) = case.gateways.get(index) else {
            return Vec::new();
        };
        let evidence = gather(gateway).await;
        vec![judge(
            &gateway.name,
            &gateway.path,
            is_openclaw(gateway),
            &evidence,
        )]
    })
    .await
}

async fn gather(gateway: &Gateway) -> Evidence {
    let Ok(address) = gateway.reached().await.result else {
        return Evidence::NotTried("it cannot be reached");
    };
    let health = gateway.health().await;
    if !health.is_ready() {
        return Evidence::NotTried("it is not ready");
    }
    let mut question = Question::new(gateway.upstream.authority(), &gateway.path);
    if health.as_proxy {
        question = question.with("x-forwarded-for", NOBODY);
    }
    let connect = tokio::time::timeout(ANSWER, TcpStream::connect(address)).await;
    Evidence::Tried(match connect {
        Ok(Ok(stream)) => open(stream, &question, is_openclaw(gateway), ANSWER).await,
        Ok(Err(error)) => Err(AskError::Broken(error.to_string())),
        Err(_) => Err(AskError::TooSlow(ANSWER)),
    })
}

fn judge(name: &str, path: &str, openclaw: bool, evidence: &Evidence) -> Finding {
    let tried = match evidence {
        Evidence::NotTried(why) => return Finding::cannot_tell(name, *why),
        Evidence::Tried(tried) => tried,
    };
    match tried {
        Ok(Opened::Open(Some(first))) if openclaw && is_challenge(first) => {
            Finding::ok(name, "a WebSocket gets its challenge")
        }
        Ok(Opened::Open(_)) if openclaw => {
            let remedy = "if it is no OpenClaw gateway, set protocol = \"generic\" for it";
            Finding::failure(
                name,
                "a WebSocket opens, but its first message is no challenge",
                remedy,
            )
        }
        Ok(Opened::Open(_)) => Finding::ok(name, format!("a WebSocket opens on {path}")),
        Ok(Opened::Refused(status, words)) => {
            let said = if words.is_empty() {
                String::new()
            } else {
                format!(": {words}")
            };
            let seen = format!("a WebSocket on {path} is answered with {status}{said}");
            match openclaw {
                true => Finding::failure(name, seen, "see the gateway's log: openclaw logs"),
                // It may have its WebSocket elsewhere.
                false => Finding::warning(
                    name,
                    seen,
                    "if that path should open one, see the application's log",
                ),
            }
        }
        Err(error) => {
            let seen = format!("a WebSocket does not open: {error}");
            Finding::failure(
                name,
                seen,
                "see its log; openclaw gateway restart, if it hangs",
            )
        }
    }
}

/// Whether a message is what an OpenClaw gateway says first.
pub(in crate::doctor) fn is_challenge(message: &[u8]) -> bool {
    let said = serde_json::from_slice::<Value>(message).unwrap_or_default();
    said.get("event")
        .is_some_and(|event| event == "connect.challenge")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn only_openclaw_speaks_first() {
        let verdict =
            |openclaw, opened| judge("gw", "/", openclaw, &Evidence::Tried(opened)).verdict;
        let challenge = br#"{"event":"connect.challenge"}"#.as_slice();
        let open = |text: &'static [u8]| Ok(Opened::Open(Some(text.into())));
        assert_eq!(verdict(true, open(challenge)), Verdict::Ok);
        assert_eq!(verdict(true, open(b"hello")), Verdict::Failure);
        assert_eq!(verdict(false, Ok(Opened::Open(None))), Verdict::Ok);
        let refused = || Ok(Opened::Refused(StatusCode::NOT_FOUND, String::new()));
        assert_eq!(verdict(true, refused()), Verdict::Failure);
        assert_eq!(verdict(false, refused()), Verdict::Warning);
        assert_eq!(
            verdict(true, Err(AskError::TooSlow(ANSWER))),
            Verdict::Failure
        );
        let not_tried = judge("gw", "/", true, &Evidence::NotTried("it cannot be reached"));
        assert_eq!(not_tried.verdict, Verdict::CannotTell);
    }
}
