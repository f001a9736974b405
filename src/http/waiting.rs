//! The page a person sees while the gateway is away: self-contained, and it goes on by itself.
//!
//! One document without any outside resource; its style and script are allowed by hash and
//! nothing else is. Only words from fixed tables are put into it.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tokio::time::Instant;

use crate::config::ProtocolKind;
use crate::gateway::{Phase, Reason, View};

const TEMPLATE: &str = include_str!("waiting.html");

/// `Content-Security-Policy` of the page.
pub(super) fn policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let script = hash_of(TEMPLATE, "<script>", "</script>");
        let rest = format!(
            "script-src '{script}'; connect-src 'self'; form-action 'none'; frame-ancestors 'self'"
        );
        policy_for(TEMPLATE, &rest)
    });
    POLICY.clone()
}

/// A policy that allows a page its own style, and `rest`.
pub(super) fn policy_for(template: &str, rest: &str) -> HeaderValue {
    let style = hash_of(template, "<style>", "</style>");
    let policy =
        format!("default-src 'none'; style-src '{style}'; img-src data:; base-uri 'none'; {rest}");
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// The hash by which a policy allows an inline element.
fn hash_of(template: &str, open: &str, close: &str) -> String {
    let inside = template
        .split_once(open)
        .and_then(|(_, rest)| rest.split_once(close))
        .map_or("", |(inside, _)| inside);
    let hash = digest::digest(&digest::SHA256, inside.as_bytes());
    format!("sha256-{}", STANDARD.encode(hash))
}

/// The page for a gateway in this state; `None`: it is holdline itself that restarts.
pub(super) fn page(view: Option<&View>, protocol: ProtocolKind, now: Instant) -> String {
    let phase = view.map(|view| view.phase);
    let reason = view.and_then(|view| view.reason);
    let away = view
        .and_then(|view| view.outage_since)
        .map(|since| now.duration_since(since));
    let (headline, hint) = words(view);
    let fields = [
        ("state", phase.map_or("proxy", Phase::as_str).to_owned()),
        (
            "reason",
            reason.map_or("", |reason| reason.as_str()).to_owned(),
        ),
        ("away_ms", away.unwrap_or_default().as_millis().to_string()),
        ("go", goes_on(protocol).to_owned()),
        ("headline", headline.to_owned()),
        ("hint", hint.to_owned()),
        (
            "time",
            away.map(|away| format!("For {} now.", length(away)))
                .unwrap_or_default(),
        ),
        (
            "usual",
            view.and_then(|view| view.expected)
                .map(|usual| format!("Its last restarts took about {}.", length(usual)))
                .unwrap_or_default(),
        ),
    ];
    fields
        .iter()
        .fold(TEMPLATE.to_owned(), |page, (name, value)| {
            page.replace(&format!("{{{{{name}}}}}"), value)
        })
}

/// The states in which loading the page anew leads on. OpenClaw serves its UI while it starts,
/// and the UI's WebSocket is held by us until it is ready: seconds sooner than after that.
/// Another application might show an error of its own then.
fn goes_on(protocol: ProtocolKind) -> &'static str {
    match protocol {
        ProtocolKind::Openclaw => "ready starting",
        ProtocolKind::Generic => "ready",
    }
}

/// What is happening, and what it means. The page's script has the same words, to go on with.
fn words(view: Option<&View>) -> (&'static str, &'static str) {
    let Some(view) = view else {
        return ("The proxy is restarting", "It will be back in a moment.");
    };
    let (headline, hint) = match view.phase {
        Phase::Ready => ("The gateway is back", "Loading…"),
        Phase::Starting => (
            "The gateway is starting",
            "It will take a few more seconds.",
        ),
        Phase::Draining => (
            "The gateway is about to restart",
            "It finishes what it is doing first.",
        ),
        Phase::Hung => (
            "The gateway does not answer",
            "It runs, but is too busy or stuck.",
        ),
        Phase::Down => ("The gateway is down", view.reason.map_or("", in_words)),
    };
    (headline, hint)
}

fn in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::Refused => "Nothing listens on its port; it may be restarting.",
        Reason::Reset | Reason::Closed => {
            "Its process ended its connections; it may be restarting."
        }
        Reason::Timeout => "Its machine does not answer.",
        Reason::Dns => "Its host name has no address.",
        Reason::Unreachable => "Its machine cannot be reached.",
        Reason::UpgradeRejected => "It refuses connections.",
        Reason::Hung => "It runs, but is too busy or stuck.",
    }
}

fn length(duration: Duration) -> String {
    match duration.as_secs() {
        secs @ 0..120 => format!("{secs} s"),
        secs => format!("{} min {} s", secs / 60, secs % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_field_is_filled_in_every_state() {
        let now = Instant::now();
        let phases = [
            Phase::Ready,
            Phase::Starting,
            Phase::Draining,
            Phase::Down,
            Phase::Hung,
        ];
        let views = phases.map(|phase| View {
            phase,
            since: now,
            outage_since: Some(now),
            reason: Some(Reason::Refused),
            attempt: 1,
            expected: Some(Duration::from_secs(14)),
            expected_starting: None,
            crash_loop: None,
            generation: 1,
        });
        for view in views.iter().map(Some).chain([None]) {
            let page = page(view, ProtocolKind::Openclaw, now);
            assert!(!page.contains("{{") && !page.contains("}}"), "{view:?}");
            assert!(page.contains("data-go=\"ready starting\""));
        }
    }

    #[test]
    fn the_script_goes_on_with_the_same_words() {
        for reason in [
            Reason::Refused,
            Reason::Reset,
            Reason::Dns,
            Reason::Unreachable,
        ] {
            let line = format!("{}: \"{}\"", reason.as_str(), in_words(reason));
            assert!(TEMPLATE.contains(&line), "{line}");
        }
    }

    #[test]
    fn the_page_is_self_contained_and_its_policy_strict() {
        assert!(!TEMPLATE.contains("http://") && !TEMPLATE.contains("https://"));
        assert!(!TEMPLATE.contains("style=") && !TEMPLATE.contains("onload"));
        assert_eq!(TEMPLATE.matches("<script").count(), 1);
        assert_eq!(TEMPLATE.matches("<style").count(), 1);
        let policy = policy();
        let policy = policy.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let (_, script) = TEMPLATE.split_once("<script>").unwrap();
        assert!(
            !script.contains("{{"),
            "a field in the script would change its hash"
        );
    }
}
