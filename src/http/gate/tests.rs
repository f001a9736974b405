use std::time::Duration;

use futures_util::FutureExt as _;
use http::HeaderMap;

use super::*;
use crate::auth::tests::logged::Lines;
use crate::auth::{TokenHash, make_token};
use crate::config;

fn config(text: &str) -> Arc<Config> {
    Arc::new(config::parse(text, "test").unwrap().config)
}

/// `[auth]` that knows this token.
fn knowing(token: &str) -> Arc<Config> {
    let hash = TokenHash::of(token).to_base64url();
    config(&format!(
        "[auth]\nmodes = [\"token\"]\ntokens = [{{ name = \"laptop\", user = \"nick\", hash = \"{hash}\" }}]\n"
    ))
}

fn reload(gate: &Gate, old: &Config, new: &Config) -> usize {
    let desk = gate.prepare(&old.auth, &new.auth).unwrap();
    gate.turn(desk, &old.auth, &new.auth)
}

fn entrant(gate: &Gate, config: &Config, token: &str) -> Entrant {
    let mut headers = HeaderMap::new();
    let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    headers.insert(header::AUTHORIZATION, bearer);
    let address = "192.0.2.1".parse().unwrap();
    let found = gate.desk().by_token(&config.auth, &headers, address);
    let TokenCheck::Good(identity) = found else {
        panic!("{found:?}")
    };
    Welcome::of(identity).entrant()
}

#[tokio::test(start_paused = true)]
async fn who_is_revoked_between_the_look_and_the_entry_is_out_at_once() {
    let token = make_token().unwrap();
    let (old, new) = (knowing(&token), knowing("hl_another"));
    // Before it enters, and when it has entered but was not judged yet.
    for entered in [false, true] {
        let gate = Gate::new(Desk::open(&old.auth).unwrap());
        let entrant = Some(entrant(&gate, &old, &token));
        if !entered {
            assert_eq!(reload(&gate, &old, &new), 0);
        }
        let in_force = || {
            if entered {
                assert_eq!(reload(&gate, &old, &new), 1);
            }
            Arc::clone(&new)
        };
        let grant = gate.grant(&old.auth, entrant, &Arc::default(), in_force);
        assert!(matches!(grant, Err(Cause::SignedOut)), "{entered}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_not_asked_is_not_in_when_people_are_asked() {
    let (old, new) = (config(""), knowing("hl_another"));
    let gate = Gate::new(Desk::open(&old.auth).unwrap());
    let grant =
        |now: &Arc<Config>| gate.grant(&old.auth, None, &Arc::default(), || Arc::clone(now));
    let before = grant(&old).unwrap();
    reload(&gate, &old, &new);
    let ended = tokio::time::timeout(Duration::from_secs(1), before.ended());
    ended.await.expect("it was in when the reload came");
    let late = grant(&new);
    assert!(matches!(late, Err(Cause::SignedOut)));
    // A public path: nobody is asked there, before and after.
    let public = gate.grant(&new.auth, None, &Arc::default(), || Arc::clone(&new));
    assert!(public.is_ok());
}

/// A machine that was asleep has waited for less than has passed.
#[tokio::test(start_paused = true)]
async fn whose_time_is_over_by_the_clock_is_out_at_the_next_look() {
    let token = make_token().unwrap();
    let config = knowing(&token);
    let gate = Gate::new(Desk::open(&config.auth).unwrap());
    let end = SystemTime::now() + Duration::from_millis(50);
    let entrant = Entrant {
        term: Term::Until(end),
        ..entrant(&gate, &config, &token)
    };
    let in_force = || Arc::clone(&config);
    let grant = gate.grant(&config.auth, Some(entrant), &Arc::default(), in_force);
    let grant = grant.unwrap();
    let mut ended = Box::pin(grant.ended());
    assert!((&mut ended).now_or_never().is_none());
    while SystemTime::now() <= end {
        std::hint::spin_loop();
    }
    gate.sweep(&config.auth);
    assert!((&mut ended).now_or_never().is_some());
}

/// What a request comes to, and what is left of it.
async fn enters(
    gate: &Gate,
    auth: &Auth,
    headers: &[(&str, &str)],
) -> (Result<Entry, Cause>, HeaderMap) {
    let mut request = http::Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (mut head, ()) = request.body(()).unwrap().into_parts();
    let address = "192.0.2.1".parse().unwrap();
    let peer = Peer {
        remote: std::net::SocketAddr::new(address, 4711),
        local: "192.0.2.9:443".parse().unwrap(),
        via_trusted_proxy: false,
        server_name: None,
        alpn_h2: false,
        client_certificate: None,
    };
    let host = Host {
        value: HeaderValue::from_static("gw.example"),
        name: "gw.example".to_owned(),
    };
    let caller = Caller {
        auth,
        peer: &peer,
        presented: Presented {
            address,
            local: false,
        },
        host: &host,
        asker: Asker::of(&head),
        upgrades: false,
        metrics: &Metrics::default(),
    };
    let entry = gate.enter(&caller, &mut head).await;
    (entry, head.headers)
}

#[tokio::test]
async fn every_refusal_is_written_down_with_its_reason() {
    const PAGE: (&str, &str) = ("sec-fetch-mode", "navigate");
    const FORGED: (&str, &str) = ("cookie", "__Host-holdline=forged");
    let folder = tempfile::tempdir().unwrap();
    let mut auth = config("").auth.clone();
    auth.password = true;
    auth.state_dir = folder.path().to_owned();
    let gate = Gate::new(Desk::open(&auth).unwrap());
    let forged = Some("a session cookie that is not ours");
    for (headers, because) in [
        (&[FORGED][..], forged),
        (&[FORGED, PAGE][..], forged),
        (&[][..], Some("not signed in")),
        // Nobody has tried anything: it is sent to the form.
        (&[PAGE][..], None),
    ] {
        let (lines, _guard) = Lines::start();
        let (entry, _) = enters(&gate, &auth, headers).await;
        assert!(!matches!(entry, Ok(Entry::Open | Entry::As(_))));
        let lines = lines.with("refused");
        assert_eq!(lines.len(), usize::from(because.is_some()), "{lines:?}");
        let said = because.is_none_or(|because| lines[0].contains(because));
        assert!(said, "{lines:?}");
    }
}

#[tokio::test]
async fn what_is_ours_stays_here_also_where_it_is_good_for_nothing() {
    let token = make_token().unwrap();
    let bearer = format!("Bearer {}", token.as_str());
    let ours = [
        ("authorization", bearer.as_str()),
        ("cookie", "a=1; __Host-holdline=x; b=2"),
    ];
    let mut without_tokens = config("").auth.clone();
    without_tokens.password = true;
    without_tokens.public = vec!["/".to_owned()];
    let gate = Gate::new(Desk::open(&config("").auth).unwrap());
    for auth in [&config("").auth, &without_tokens] {
        let (entry, left) = enters(&gate, auth, &ours).await;
        assert!(matches!(entry, Ok(Entry::Open)));
        assert_eq!(left.get("authorization"), None);
        assert_eq!(left["cookie"], "a=1; b=2");
        // The gateway's own, whatever it begins with.
        for other in ["Bearer hl_gateway", "Bearer sk-x"] {
            let (_, left) = enters(&gate, auth, &[("authorization", other)]).await;
            assert_eq!(left["authorization"], other);
        }
    }
}
