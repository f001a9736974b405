//! An outage that is longer than most clients wait for an answer.

use std::time::Duration;

use serde_json::json;

use crate::kit::gateway::{AuthMode, Options, ScriptedGateway};
use crate::kit::{Client, Proxy, Role};

/// Given back, a Control UI would say it again only seconds after the return.
#[tokio::test]
async fn what_a_person_typed_is_sent_at_the_return_and_what_a_page_asked_is_given_back_before() {
    let gateway = ScriptedGateway::with(Options {
        auth: AuthMode::Anyone,
        ..Options::default()
    })
    .await;
    let proxy = Proxy::start(&gateway).await;
    let role = Role {
        device: false,
        ..Role::control_ui()
    };
    let client = Client::connected(role, proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    let ask = |method, name| client.send_request(method, json!({"name": name}));
    let before = ask("config.set", "before");
    let first = ask("chat.send", "first");
    let between = ask("config.set", "between");
    let second = ask("chat.send", "second");
    // Most clients wait for 30 s, and some of them for less.
    let limit = Duration::from_secs(29);
    for id in [&before, &between] {
        let error = client.outcome_within(limit, id).await.error();
        assert_eq!(error["retryable"], true);
        assert_eq!(error["details"]["execution"], "not_started");
    }
    assert_eq!(client.record().answers.get(&first), None);
    gateway.begin_starting().await;
    gateway.ready();
    for id in [&first, &second] {
        client.outcome(id).await.ok();
    }
    let journal = gateway.journal();
    let sent = journal.requests("chat.send");
    let names: Vec<_> = sent.iter().map(|params| &params["name"]).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(journal.requests("config.set").len(), 0);
    client.record().assert_untouched();
}
