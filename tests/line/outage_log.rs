//! What an operator reads in the log of an outage: two lines, however many sessions there are.

use serde_json::Value;

use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Client, Log, Proxy, Role};

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    gateway.ready();
}

fn number(line: &Value, field: &str) -> u64 {
    line[field].as_u64().expect("a number")
}

#[tokio::test]
async fn how_many_are_held_and_what_became_of_them() {
    let log = Log::start();
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut stays = Vec::new();
    for _ in 0..5 {
        stays.push(Client::connected(Role::backend(), proxy.target()).await);
    }
    let goes_round = Client::connected(Role::official(), proxy.target()).await;
    let leaves = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    for client in stays.iter().chain([&goes_round, &leaves]) {
        client.event("gateway.down", 2).await;
    }
    leaves.close(1000);
    proxy.holds(6).await;
    back(&gateway).await;
    for client in &stays {
        client.event("gateway.up", 1).await;
    }
    goes_round.hello(2).await;
    let [held] = &log.said("sessions held")[..] else {
        panic!("{:?}", log.said("sessions held"));
    };
    assert_eq!(
        (number(held, "sessions"), &held["level"]),
        (7, &"INFO".into())
    );
    assert_eq!(held["route"], "default");
    let [over] = &log.said("no session held any more")[..] else {
        panic!("{:?}", log.said("no session held any more"));
    };
    let fates = ["sessions", "back", "sent_round", "given_up", "left"];
    assert_eq!(fates.map(|fate| number(over, fate)), [7, 5, 1, 0, 1]);
    assert!(number(over, "after_ms") >= 500, "{over}");

    // The next one is counted for itself.
    gateway.kill().await;
    stays[0].event("gateway.down", 4).await;
    drop((stays, goes_round, leaves));
    proxy.is_empty().await;
    let over = log.said("no session held any more");
    assert_eq!(fates.map(|fate| number(&over[1], fate)), [6, 0, 0, 0, 6]);
}

#[tokio::test]
async fn who_is_given_up_is_said_and_who_noticed_nothing_is_not() {
    let log = Log::start();
    let gateway = ScriptedGateway::start().await;
    let settings = "[hold]\nnotice_after = \"6s\"\nmax = \"7s\"";
    let proxy = Proxy::with(&gateway, settings).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    gateway.kill().await;
    back(&gateway).await;
    client.event("gateway.up", 1).await;
    assert_eq!(log.said("no session held any more"), [Value::Null; 0]);
    gateway.kill().await;
    client
        .wait_for("the end of the hold", |record| {
            record.disconnects.len() == 1
        })
        .await;
    let over = log.said("no session held any more");
    assert_eq!(number(&over[0], "given_up"), 1, "{over:?}");
    assert_eq!(log.said("sessions held").len(), 1);
}

#[tokio::test]
async fn a_start_in_good_order_is_no_change_of_anything() {
    let log = Log::start();
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let _client = Client::connected(Role::backend(), proxy.target()).await;
    let [there] = &log.said("the gateway is there")[..] else {
        panic!("{:?}", log.said("the gateway is there"));
    };
    assert_eq!(
        (&there["state"], &there["level"]),
        (&"ready".into(), &"INFO".into())
    );
    assert_eq!(log.said("gateway state"), [Value::Null; 0]);
    gateway.kill().await;
    proxy.holds(1).await;
    let [away] = &log.said("gateway state")[..] else {
        panic!("{:?}", log.said("gateway state"));
    };
    assert_eq!(
        (&away["from"], &away["to"]),
        (&"ready".into(), &"down".into())
    );
}
