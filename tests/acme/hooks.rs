//! DNS-01 from the order to the name server, on good days and when somebody ends in the middle.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::ca::{Ca, Habits};
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Proxy, ms, within};
use crate::served::{is_trusted, until_failed, until_told, until_trusted};
use crate::zone::Zone;

const RECORD: &str = "_acme-challenge.a.example";

/// A CA that looks for records in a zone, and a state directory.
async fn start() -> (Ca, Zone, TempDir) {
    let zone = Zone::start().await;
    let habits = Habits {
        challenge: Some("dns-01"),
        zone: Some(zone.clone()),
        ..Habits::default()
    };
    (Ca::start(habits).await, zone, tempfile::tempdir().unwrap())
}

/// Of the only certificate there is, or was.
fn noted(state: &Path, folder: &str) -> bool {
    state
        .join("acme/certificates")
        .join(folder)
        .join("records.json")
        .exists()
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    within(what, async {
        while !so() {
            tokio::time::sleep(ms(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_and_its_wildcard_have_their_records_at_once_and_none_is_left() {
    let (ca, zone, state) = start().await;
    let gateway = ScriptedGateway::start().await;
    let acme = zone.settings("add \"$@\"", "del \"$@\"");
    let acme = format!("domains = [\"a.example *.a.example\"]\n{acme}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    until_trusted(&proxy, "x.a.example", &ca.root).await;
    assert!(is_trusted(proxy.addr(), "a.example", &ca.root).await);
    let told = zone.told();
    let (present, cleanup) = (format!("present {RECORD}"), format!("cleanup {RECORD}"));
    assert_eq!(told, [present.clone(), present, cleanup.clone(), cleanup]);
    assert!(zone.records(RECORD).is_empty() && !noted(state.path(), "a.example"));
}

#[tokio::test]
async fn what_was_not_ordered_is_refused_and_no_hook_is_run_for_it() {
    for wants in [
        json!({"identifier": {"type": "dns", "value": "somebody.else.example"}}),
        json!({"identifier": {"type": "dns", "value": "$(reboot)"}}),
        json!({"wildcard": true}),
        json!({"identifier": {"type": "ip", "value": "192.0.2.7"}}),
        json!({"identifier": {"type": "dns", "value": "b.example"}}),
    ] {
        let (ca, zone, state) = start().await;
        ca.habits
            .change(|habits| habits.wants = Some(wants.clone()));
        let gateway = ScriptedGateway::start().await;
        let acme = zone.settings("add \"$@\"", "del \"$@\"");
        let acme = format!("domains = [\"a.example b.example\"]\n{acme}");
        let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
        let reason = until_failed(&proxy, "a.example").await;
        assert!(reason.contains(&ca.directory), "{wants}: {reason}");
        let why = ["was not ordered", "twice in one order"];
        assert!(
            why.iter().any(|why| reason.contains(why)),
            "{wants}: {reason}"
        );
        assert!(zone.told().is_empty(), "{wants}: {:?}", zone.told());
    }
}

#[tokio::test]
async fn what_a_hook_added_before_it_hung_is_taken_away() {
    let (ca, zone, state) = start().await;
    let gateway = ScriptedGateway::start().await;
    let acme = zone.settings("add \"$@\"; sleep 60 & wait", "del \"$@\"");
    let acme = format!("domains = [\"a.example\"]\ndns_timeout = \"1s\"\n{acme}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    let reason = until_failed(&proxy, "a.example").await;
    assert!(reason.contains("longer than 1 s"), "{reason}");
    assert!(zone.records(RECORD).is_empty() && !noted(state.path(), "a.example"));
}

#[tokio::test]
async fn a_record_that_the_ca_did_not_believe_is_taken_away() {
    let (ca, zone, state) = start().await;
    let elsewhere = Zone::start().await;
    ca.habits.change(|habits| habits.zone = Some(elsewhere));
    let gateway = ScriptedGateway::start().await;
    let acme = zone.settings("add \"$@\"", "del \"$@\"");
    let acme = format!("domains = [\"a.example\"]\n{acme}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    let reason = until_failed(&proxy, "a.example").await;
    assert!(reason.contains("a.example by dns-01"), "{reason}");
    assert_eq!(zone.told().len(), 2);
    assert!(zone.records(RECORD).is_empty() && !noted(state.path(), "a.example"));
}

#[tokio::test]
async fn what_cannot_be_taken_away_is_by_the_next_order() {
    let (ca, zone, state) = start().await;
    let gateway = ScriptedGateway::start().await;
    let acme = zone.settings("add \"$@\"", "test -e $Z/good && del \"$@\"");
    let acme = format!("domains = [\"a.example\"]\n{acme}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    assert_eq!(zone.records(RECORD).len(), 1);
    assert!(noted(state.path(), "a.example"));
    std::fs::write(zone.path("good"), "").unwrap();
    let before = ca.orders().len();
    crate::served::renew(&proxy.holdline, "a.example").await;
    until_told(&proxy, "a.example", |_| ca.orders().len() > before).await;
    until("the end of both", || zone.records(RECORD).is_empty()).await;
    until("nothing to remember", || !noted(state.path(), "a.example")).await;
}

#[tokio::test]
async fn what_cannot_be_taken_away_at_a_start_is_without_a_further_one() {
    let (ca, zone, state) = start().await;
    let gateway = ScriptedGateway::start().await;
    let acme = zone.settings("add \"$@\"", "test -e $Z/good && del \"$@\"");
    let of = |name: &str| format!("domains = [\"{name}\"]\n{acme}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &of("a.example"))).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    proxy.holdline.drain().await;
    assert_eq!(zone.records(RECORD).len(), 1);
    let tried = || zone.told().iter().filter(|it| it.ends_with(RECORD)).count();
    let before = tried();
    // Not wanted any more: no order takes it away.
    let settings = ca.settings(state.path(), &of("b.example"));
    let _proxy = Proxy::with(&gateway, &settings).await;
    until("an attempt at the start", || tried() > before).await;
    std::fs::write(zone.path("good"), "").unwrap();
    until("no record", || zone.records(RECORD).is_empty()).await;
    until("nothing to remember", || !noted(state.path(), "a.example")).await;
}

#[tokio::test]
async fn a_stop_in_the_middle_ends_the_hook_and_takes_away_what_it_added() {
    let (ca, zone, state) = start().await;
    let gateway = ScriptedGateway::start().await;
    let present = "add \"$@\"; sleep 60 & echo $! >$Z/child; wait";
    let acme = zone.settings(present, "del \"$@\"");
    let acme = format!("domains = [\"a.example\"]\n{acme}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    until("the record", || zone.path("child").exists()).await;
    let started = Instant::now();
    proxy.holdline.drain().await;
    // The hook would take a minute, and may take two.
    assert!(started.elapsed() < Duration::from_secs(15));
    assert!(zone.records(RECORD).is_empty() && !noted(state.path(), "a.example"));
    let child = std::fs::read_to_string(zone.path("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    let gone = || std::fs::read_to_string(&stat).is_ok_and(|it| it.contains(") Z"));
    until("the end of the child", || {
        gone() || !Path::new(&stat).exists()
    })
    .await;
}

#[tokio::test]
async fn a_hook_that_hangs_holds_up_no_stop() {
    let (ca, zone, state) = start().await;
    let gateway = ScriptedGateway::start().await;
    let stubborn = "trap '' TERM; add \"$@\"; : >$Z/hangs; sleep 60";
    let acme = zone.settings(stubborn, "sleep 60");
    let acme = format!("domains = [\"a.example\"]\n{acme}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    until("the record", || zone.path("hangs").exists()).await;
    let started = Instant::now();
    proxy.holdline.drain().await;
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(zone.records(RECORD).len(), 1);
    assert!(noted(state.path(), "a.example"), "for the next start");
}

/// As by SIGKILL: nothing of it is run any more.
#[tokio::test]
async fn what_a_crash_left_is_taken_away_at_the_next_start_whatever_is_wanted_then() {
    let (ca, zone, state) = start().await;
    let gateway = ScriptedGateway::start().await;
    let acme = zone.settings("add \"$@\"; : >$Z/there; sleep 60", "del \"$@\"");
    let acme = format!("domains = [\"a.example\"]\n{acme}");
    let (settings, url) = (ca.settings(state.path(), &acme), gateway.url());
    let there = zone.path("there");
    let crashed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let proxy = runtime.block_on(async {
            let proxy = Proxy::in_front_of(&url, &settings).await;
            until("the record", || there.exists()).await;
            proxy
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(proxy);
    });
    tokio::task::spawn_blocking(move || crashed.join())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(zone.records(RECORD).len(), 1);
    assert!(noted(state.path(), "a.example"));
    let acme = zone.settings("add \"$@\"", "del \"$@\"");
    let acme = format!("domains = [\"b.example\"]\n{acme}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    until("no record", || zone.records(RECORD).is_empty()).await;
    until("nothing to remember", || !noted(state.path(), "a.example")).await;
    until_trusted(&proxy, "b.example", &ca.root).await;
}
