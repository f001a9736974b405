//! What is in the log, and what is not.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;

use super::kit::*;
use crate::auth::{SignInRefused, make_token};

/// What this thread says.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Lines {
    pub(crate) fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        // With one subscriber only, a line that another test's thread says first is off for good:
        // that thread's own subscriber is asked, and it has none.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));
        let lines = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(lines.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn with(&self, event: &str) -> Vec<String> {
        let words = format!("\"event\":\"{event}\"");
        let text = self.text();
        let lines = text.lines().filter(|line| line.contains(&words));
        lines.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn one_line_each_with_the_name_only_of_a_user() {
    let (lines, _guard) = Lines::start();
    let world = world();
    let browser = world.nick().await;
    let mut other = Browser::at("198.51.100.1");
    let typed = "my secret password";
    let _ = world.try_in(&mut other, typed, typed).await;
    let _ = world.try_in(&mut other, NICK, typed).await;
    let [signed_in] = &*lines.with("sign_in") else {
        panic!("{}", lines.text())
    };
    for words in [
        "\"target\":\"holdline::audit\"",
        "\"user\":\"nick@example.com\"",
        "\"address\":\"192.0.2.7\"",
    ] {
        assert!(signed_in.contains(words), "{signed_in}");
    }
    let [unknown, wrong] = &*lines.with("sign_in_refused") else {
        panic!("{}", lines.text())
    };
    assert!(unknown.contains("\"user\":\"(unknown)\""), "{unknown}");
    assert!(wrong.contains("\"user\":\"nick@example.com\""), "{wrong}");
    let text = lines.text();
    for secret in [typed, "nick's password", browser.cookie("__Host-holdline")] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_a_line_and_not_a_flood_of_lines() {
    let (lines, _guard) = Lines::start();
    let world = world();
    let mut browser = Browser::at("198.51.100.1");
    for _ in 0..1_000 {
        let _ = world.try_in(&mut browser, NICK, "x").await;
    }
    let limited = world.try_in(&mut browser, NICK, "x").await.err();
    assert!(matches!(limited, Some(SignInRefused::TooMany { .. })));
    let limited = lines.with("sign_in_limited");
    assert_eq!(limited.len(), 1, "{limited:#?}");
    for words in ["\"because\":\"this address\"", "\"retry_after_s\":1,"] {
        assert!(limited[0].contains(words), "{}", limited[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_for_ever_does_not_fill_the_disk() {
    let (lines, _guard) = Lines::start();
    let world = world();
    for number in 0..10_000 {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number % 20);
        world.desk.note_refused("not signed in", address.into());
    }
    assert_eq!(lines.with("refused").len(), 100);
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    world.desk.note_refused("not signed in", ip("192.0.2.1"));
    assert_eq!(lines.with("refused").len(), 101);
    let left_out = lines.with("refused_often");
    assert!(left_out[0].contains("\"count\":9900"), "{left_out:?}");
}

#[test]
fn nothing_secret_has_a_debug_form() {
    let world = world();
    let token = make_token().unwrap();
    let mut auth = world.auth.clone();
    auth.tokens = vec![access("laptop", NICK, &token)];
    let hash = auth.users[0].hash.to_phc();
    let (_, secret) = hash.rsplit_once('$').unwrap();
    let shown = format!("{auth:?} {:?}", world.desk);
    assert!(!shown.contains(secret), "{shown}");
    assert!(
        !shown.contains(&auth.tokens[0].hash.to_base64url()),
        "{shown}"
    );
}
