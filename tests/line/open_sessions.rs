//! What the owner of an open session notices of an outage, per kind of client and of loss.

use serde_json::json;
use tokio::time::Instant;

use crate::kit::frame::CONTINUATION;
use crate::kit::gateway::{AuthMode, Options, ScriptedGateway, Stop, UpgradeAnswer};
use crate::kit::{Client, Frame, Proxy, Raw, Role, ms};

const WAYS: [Stop; 4] = [Stop::Sigterm, Stop::Restart, Stop::Kill, Stop::Fin];

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    tokio::time::sleep(ms(200)).await;
    gateway.ready();
}

#[tokio::test]
async fn a_session_without_a_device_survives_every_kind_of_restart_on_its_own_socket() {
    for how in WAYS {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let client = Client::connected(Role::backend(), proxy.target()).await;
        client.request("sessions.subscribe", json!({})).await.ok();
        let first = gateway.boot_id();

        gateway.stop(how).await;
        client.event("gateway.down", 1).await;
        back(&gateway).await;
        let up = client.event("gateway.up", 1).await;
        assert_eq!(up["resumed"], "replay", "{how:?}");
        assert!(up["downMs"].as_u64().unwrap() >= 200, "{up}");

        let answer = client.request("sessions.list", json!({})).await.ok();
        assert_eq!(answer["bootId"], gateway.boot_id());
        assert_ne!(answer["bootId"], first);
        gateway.publish("sessions.subscribe", "sessions.changed", &json!({"n": 1}));
        assert_eq!(client.event("sessions.changed", 1).await["n"], 1, "{how:?}");
        let record = client.record();
        record.assert_untouched();
        assert_eq!(record.hellos.len(), 1, "the second hello-ok is kept back");
        assert_eq!(gateway.journal().hellos(), 2);
    }
}

#[tokio::test]
async fn the_latest_subscriptions_are_restored_and_those_taken_back_are_not() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    for (method, params) in [
        ("sessions.subscribe", json!({})),
        ("sessions.viewers.set", json!({"sessionKeys": ["old"]})),
        ("sessions.viewers.set", json!({"sessionKeys": ["new"]})),
        ("sessions.messages.subscribe", json!({"key": "a"})),
        ("sessions.messages.subscribe", json!({"key": "b"})),
        ("sessions.messages.unsubscribe", json!({"key": "a"})),
    ] {
        client.request(method, params).await.ok();
    }
    let before = gateway.journal().entries.len();
    gateway.restart(ms(200), ms(100)).await;
    client.event("gateway.up", 1).await;
    client.request("health", json!({})).await.ok();

    let mut after = gateway.journal();
    after.entries.drain(..before);
    assert_eq!(after.requests("sessions.subscribe").len(), 1);
    assert_eq!(
        after.requests("sessions.viewers.set"),
        [&json!({"sessionKeys": ["new"]})]
    );
    assert_eq!(
        after.requests("sessions.messages.subscribe"),
        [&json!({"key": "b"})]
    );
    client.record().assert_untouched();
}

/// What a Control UI says when a chat opens.
#[tokio::test]
async fn a_chat_that_was_opened_is_no_obstacle_to_a_replay_and_its_subscription_is_restored() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let of_session = Client::connected(Role::backend(), proxy.target()).await;
    let of_all = Client::connected(Role::backend(), proxy.target()).await;
    let params = json!({"sessionKey": "main"});
    of_session.request("chat.startup", params).await.ok();
    of_all.request("chat.startup", json!({})).await.ok();
    gateway.kill().await;
    back(&gateway).await;
    for client in [&of_session, &of_all] {
        client.event("gateway.up", 1).await;
        client.request("health", json!({})).await.ok();
    }
    gateway.publish("sessions.subscribe", "sessions.changed", &json!({"n": 1}));
    assert_eq!(of_all.event("sessions.changed", 1).await["n"], 1);
    gateway.broadcast("last", &json!({}));
    of_session.event("last", 1).await;
    let seen = of_session.record().events("sessions.changed");
    assert_eq!(seen, [json!(null); 0], "it had not subscribed");
    of_session.record().assert_untouched();
    of_all.record().assert_untouched();
    let journal = gateway.journal();
    assert_eq!(journal.requests("sessions.subscribe").len(), 1);
    assert_eq!(journal.requests("chat.startup").len(), 2);
}

#[tokio::test]
async fn what_opening_a_chat_subscribed_to_can_be_taken_back() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    for method in ["chat.startup", "sessions.unsubscribe"] {
        client.request(method, json!({})).await.ok();
    }
    gateway.kill().await;
    back(&gateway).await;
    client.event("gateway.up", 1).await;
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
    assert_eq!(gateway.journal().requests("sessions.subscribe").len(), 0);
}

#[tokio::test]
async fn after_a_replay_numbers_leave_a_gap_so_that_a_client_knows_what_it_missed() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    for n in 1..=3 {
        gateway.broadcast("sessions.changed", &json!({"n": n}));
        client.event("sessions.changed", n).await;
    }
    for gaps in [vec![(4, 5)], vec![(4, 5), (2, 3)]] {
        // The second time nothing numbered came before it.
        gateway.kill().await;
        back(&gateway).await;
        client
            .wait_for("the gap", |record| record.gaps == gaps)
            .await;
    }
    gateway.broadcast("sessions.changed", &json!({"n": 4}));
    client.event("sessions.changed", 4).await;
    assert_eq!(client.record().gaps.len(), 2, "new numbers are no gap");
    client.record().assert_untouched();
}

#[tokio::test]
async fn a_control_ui_that_is_replayed_sees_no_gap_and_does_not_reconnect() {
    let auth = AuthMode::Anyone;
    let gateway = ScriptedGateway::with(Options {
        auth,
        ..Options::default()
    })
    .await;
    let proxy = Proxy::start(&gateway).await;
    let role = Role {
        device: false,
        ..Role::control_ui()
    };
    let client = Client::connected(role, proxy.target()).await;
    gateway.broadcast("sessions.changed", &json!({}));
    client.event("sessions.changed", 1).await;
    gateway.kill().await;
    back(&gateway).await;
    assert_eq!(client.event("gateway.up", 1).await["resumed"], "replay");
    client.request("health", json!({})).await.ok();
    client.record().assert_untouched();
    assert_eq!(client.record().gaps, []);
}

#[tokio::test]
async fn the_official_client_with_a_device_is_closed_once_and_its_first_attempt_succeeds() {
    for how in WAYS {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let client = Client::connected(Role::official(), proxy.target()).await;
        gateway.stop(how).await;
        client.event("gateway.down", 1).await;
        assert_eq!(
            client.record().disconnects,
            [],
            "closed before the gateway is back: {how:?}"
        );
        back(&gateway).await;
        client.hello(2).await;

        let record = client.record();
        record.assert_sound();
        assert_eq!(record.disconnects.len(), 1, "{how:?}");
        assert_eq!(record.disconnects[0].code, 1012, "{how:?}");
        assert_eq!((record.attempts, record.quiet_retries), (2, 0), "{how:?}");
        let answer = client.request("sessions.list", json!({})).await.ok();
        assert_eq!(answer["bootId"], gateway.boot_id());
        assert_eq!(
            gateway.journal().refused("DEVICE_AUTH_NONCE_MISMATCH"),
            0,
            "{how:?}"
        );
    }
}

#[tokio::test]
async fn the_official_client_is_closed_while_the_gateway_starts_so_that_its_own_wait_runs() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::official(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    gateway.begin_starting().await;
    client
        .wait_for("the close", |record| record.disconnects.len() == 1)
        .await;
    client
        .wait_for("its next attempt", |record| record.attempts == 2)
        .await;
    gateway.ready();
    client.hello(2).await;
    client.record().assert_sound();
    assert_eq!(client.record().quiet_retries, 0);
}

/// A starting gateway's event loop stalls: nobody loses the time until its first answer.
#[tokio::test]
async fn the_official_client_is_closed_as_soon_as_the_gateways_port_is_open_again() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::official(), proxy.target()).await;
    gateway.kill().await;
    client.event("gateway.down", 1).await;
    gateway.begin_starting().await;
    gateway.hang();
    // An answer is what the gateway does not give before it goes on; and nobody is closed for one
    // that is known to hang.
    client
        .wait_for("the close", |record| record.disconnects.len() == 1)
        .await;
    gateway.resume();
    gateway.ready();
    client.hello(2).await;
    client.record().assert_sound();
}

#[tokio::test]
async fn the_control_ui_is_shown_a_restart_and_comes_back_through_a_gap() {
    for how in [Stop::Sigterm, Stop::Kill] {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let client = Client::connected(Role::control_ui(), proxy.target()).await;
        gateway.broadcast("sessions.changed", &json!({}));
        client.event("sessions.changed", 1).await;
        gateway.stop(how).await;
        let shutdown = client.event("shutdown", 1).await;
        let expected = shutdown["restartExpectedMs"].as_u64().expect("a number");
        assert!(
            expected > 1500,
            "the gateway's own constant is of no use: {shutdown}"
        );
        back(&gateway).await;
        client.hello(2).await;

        let record = client.record();
        record.assert_sound();
        assert_eq!(record.disconnects, [], "{how:?}");
        assert_eq!(record.gaps.len(), 1, "{how:?}");
        assert_eq!((record.attempts, record.quiet_retries), (2, 0), "{how:?}");
    }
}

#[tokio::test]
async fn openclaw_node_shakes_hands_again_on_the_same_socket() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::node(), proxy.target()).await;
    gateway.restart(ms(200), ms(200)).await;
    client
        .wait_for("a second hello", |record| record.hellos.len() == 2)
        .await;
    client.request("sessions.list", json!({})).await.ok();
    client.record().assert_untouched();
    assert_eq!(gateway.journal().refused("DEVICE_AUTH_NONCE_MISMATCH"), 0);
}

#[tokio::test]
async fn what_is_said_of_an_outage_is_true_and_repeated() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[hold]\nnotice_every = \"100ms\"").await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    let third = client.event("gateway.down", 3).await;
    let first = client.event("gateway.down", 1).await;
    assert_eq!(first["state"], "down");
    assert!(
        ["refused", "reset"].contains(&first["reason"].as_str().unwrap()),
        "{first}"
    );
    assert!(first["downMs"].as_u64().unwrap() < third["downMs"].as_u64().unwrap());
    assert_eq!(first["since"], third["since"], "one outage, one beginning");
    assert_eq!(first["crashLoop"], false);
    for number in ["since", "retryAfterMs", "attempt"] {
        assert!(first[number].is_u64(), "{number}: {first}");
    }
    assert!(
        third["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "{third}"
    );
    let injected = client.record().frames;
    let injected = injected
        .iter()
        .filter(|seen| seen.value["event"] == "gateway.down");
    assert!(injected.clone().all(|seen| seen.value.get("seq").is_none()));

    gateway.begin_starting().await;
    client
        .wait_for("news that it is starting", |record| {
            record
                .events("gateway.down")
                .iter()
                .any(|down| down["state"] == "starting")
        })
        .await;
    gateway.ready();
    client.event("gateway.up", 1).await;
}

#[tokio::test]
async fn an_outage_shorter_than_the_notice_goes_unnoticed() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[hold]\nnotice_after = \"10s\"").await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    back(&gateway).await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], gateway.boot_id());
    client.record().assert_untouched();
    assert_eq!(client.record().events("gateway.down"), [json!(null); 0]);
}

#[tokio::test]
async fn the_expected_length_is_learnt_from_earlier_outages() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    let before = Instant::now();
    gateway.restart(ms(300), ms(200)).await;
    client.event("gateway.up", 1).await;
    let took = before.elapsed();
    let seen = client.record().events("gateway.down").len();
    gateway.kill().await;
    let second = client.event("gateway.down", seen + 1).await;
    let expected = second["expectedMs"].as_u64().expect("a number");
    let least = ms(400).min(took);
    assert!(
        (least..=took).contains(&ms(expected)),
        "{expected}, and it took {took:?}"
    );
}

#[tokio::test]
async fn a_gateway_that_dies_again_while_it_starts_is_waited_for() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.restart(ms(100), ms(0)).await;
    client.event("gateway.up", 1).await;
    gateway.kill().await;
    for _ in 0..2 {
        gateway.begin_starting().await;
        tokio::time::sleep(ms(150)).await;
        gateway.kill().await;
    }
    back(&gateway).await;
    client.event("gateway.up", 2).await;
    let answer = client.request("sessions.list", json!({})).await.ok();
    assert_eq!(answer["bootId"], gateway.boot_id());
    client.record().assert_untouched();
}

#[tokio::test]
async fn a_gateway_that_dies_in_the_middle_of_a_replay_is_waited_for() {
    use crate::kit::gateway::UpgradeAnswer;
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    gateway.answer_upgrades(UpgradeAnswer::NoChallenge);
    back(&gateway).await;
    gateway
        .wait_for("the replay's upgrade", |journal| {
            journal.upgrades().len() == 2
        })
        .await;
    gateway.kill().await;
    gateway.answer_upgrades(UpgradeAnswer::Normal);
    back(&gateway).await;
    client.request("sessions.list", json!({})).await.ok();
    client.record().assert_untouched();
}

#[tokio::test]
async fn a_gateway_that_starts_four_seconds_late_is_waited_for() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let backend = Client::connected(Role::backend(), proxy.target()).await;
    let official = Client::connected(Role::official(), proxy.target()).await;
    gateway.restart(ms(4000), ms(500)).await;
    backend.event("gateway.up", 1).await;
    backend.request("health", json!({})).await.ok();
    backend.record().assert_untouched();
    official.hello(2).await;
    official.record().assert_sound();
    assert_eq!(official.record().attempts, 2);
}

#[tokio::test]
async fn resume_reconnect_closes_every_session_once() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[hold]\nresume = \"reconnect\"").await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.outage(Stop::Kill, ms(200), ms(200)).await;
    client.hello(2).await;
    let record = client.record();
    record.assert_sound();
    assert_eq!(
        (record.disconnects.len(), record.disconnects[0].code),
        (1, 1012)
    );
}

#[tokio::test]
async fn resume_off_passes_the_loss_on_at_once() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::with(&gateway, "[hold]\nresume = \"off\"").await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    gateway.kill().await;
    assert_eq!(raw.closed().await.0, 1012);
}

#[tokio::test]
async fn a_replay_that_is_refused_is_not_tried_again_and_the_client_is_asked_to_reconnect() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    gateway.kill().await;
    gateway.set_token("another");
    back(&gateway).await;
    assert_eq!(
        raw.closed().await.0,
        1012,
        "never 1008: clients take that as final"
    );
    assert_eq!(gateway.journal().refused("AUTH_TOKEN_MISMATCH"), 1);
}

/// What was not seen whole cannot be said again: such a session has to reconnect.
#[tokio::test]
async fn a_handshake_in_fragments_is_not_replayed_in_part() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    let challenge = raw.next().await.json();
    let connect = Role::backend().connect("connect", challenge["payload"]["nonce"].as_str());
    let (head, tail) = connect.split_at(60);
    raw.send(&Frame::text(head).not_final()).await;
    raw.send(&Frame::new(CONTINUATION, tail.to_owned())).await;
    assert_eq!(raw.next().await.json()["ok"], true);
    gateway.kill().await;
    gateway.begin_starting().await;
    gateway.ready();
    assert_eq!(raw.closed().await.0, 1012);
    assert_eq!(
        gateway.journal().connects().len(),
        1,
        "a broken connect was said"
    );
}

/// Whoever resets every replay is not asked for ever, and the others' way stays free.
#[tokio::test]
async fn a_gateway_that_resets_every_replay_is_not_asked_for_ever() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    gateway.answer_upgrades(UpgradeAnswer::Reset);
    gateway.kill().await;
    gateway.begin_starting().await;
    gateway.ready();
    assert_eq!(raw.closed().await.0, 1012, "sent back after some tries");
}
