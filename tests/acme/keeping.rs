//! The keeper itself: what a fault of its own, a disk that hangs, and whoever asks for a renewal do to
//! it, and that one order is one order whatever fails in the middle of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdline::observe::AdminClient;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ca::{Ca, Habits, Problem};
use crate::faults::panic_at;
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Proxy, http, ms, within};
use crate::served::{challenge, is_trusted, renew, until_failed, until_told, until_trusted};

const A: &str = "domains = [\"a.example\"]\nimport = []";

struct Bench {
    ca: Ca,
    state: TempDir,
    gateway: ScriptedGateway,
}

impl Bench {
    async fn with(habits: Habits) -> Self {
        Self {
            ca: Ca::start(habits).await,
            state: tempfile::tempdir().unwrap(),
            gateway: ScriptedGateway::start().await,
        }
    }

    async fn proxy(&self, acme: &str) -> Proxy {
        Proxy::with(&self.gateway, &self.ca.settings(self.state.path(), acme)).await
    }

    fn fails_at(&self, resource: &'static str) {
        let problem = Problem {
            resource,
            status: 503,
            kind: "",
            retry_after: None,
        };
        self.ca
            .habits
            .change(|habits| habits.problem = Some(problem));
    }

    fn is_well(&self) {
        self.ca.habits.change(|habits| habits.problem = None);
    }

    /// How often such a resource was asked for.
    fn asked(&self, resource: &str) -> usize {
        let count = |asked: &[String]| asked.iter().filter(|it| *it == resource).count();
        self.ca.book.read(|book| count(&book.asked))
    }

    /// In the folder of the certificate for `a.example`.
    fn file(&self, name: &str) -> PathBuf {
        let folder = self.state.path().join("acme/certificates/a.example");
        folder.join(name)
    }

    fn history(&self) -> Option<Value> {
        let text = std::fs::read(self.file("history.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn moment(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap()
}

/// From now.
fn seconds(value: &Value) -> i64 {
    (moment(value) - OffsetDateTime::now_utc()).whole_seconds()
}

/// An ask has to come after the last attempt, by the second.
async fn next_second() {
    tokio::time::sleep(ms(1100)).await;
}

// === its own faults ===

#[tokio::test]
async fn a_keeper_that_panics_is_started_anew_and_says_so() {
    let bench = Bench::with(Habits::default()).await;
    let of = |domains: &str| {
        let acme = format!("domains = [{domains}]\nimport = []");
        bench.ca.settings(bench.state.path(), &acme)
    };
    let settings = Arc::new(Mutex::new(of("\"b.example\"")));
    let proxy = Proxy::reloadable(&bench.gateway, &settings).await;
    until_trusted(&proxy, "b.example", &bench.ca.root).await;
    panic_at("ordering a certificate", "keeper-panics.example");
    *settings.lock().unwrap() = of("\"b.example\", \"keeper-panics.example\"");
    proxy.holdline.reload().await.unwrap();

    let fallen = until_failed(&proxy, "keeper-panics.example").await;
    assert!(
        fallen.contains("the keeper of certificates has failed by a fault of holdline on"),
        "{fallen}"
    );
    let ready = http::get(&proxy.admin(), "/readyz", &[]).await;
    let said = ready.text();
    assert!(
        ready.status == 200 && said.starts_with("ready, but the keeper of certificates has failed"),
        "{said}"
    );
    let metrics = http::get(&proxy.admin(), "/metrics", &[]).await.text();
    assert!(
        metrics.contains("\nholdline_acme_keeper_failures_total 1\n"),
        "{metrics}"
    );
    // The order that went down with it counts as failed.
    let next = until_told(&proxy, "keeper-panics.example", |told| {
        told["next"].as_str().unwrap().starts_with("is tried again")
    })
    .await;
    let wait = seconds(&next["nextAt"]);
    assert!((40..=70).contains(&wait), "{next}");
    assert!(is_trusted(proxy.addr(), "b.example", &bench.ca.root).await);
    assert_eq!(bench.ca.orders().len(), 1);
    next_second().await;
    renew(&proxy.holdline, "keeper-panics.example").await;
    until_trusted(&proxy, "keeper-panics.example", &bench.ca.root).await;
    assert_eq!(bench.ca.orders().len(), 2);
}

#[tokio::test]
async fn a_panic_while_a_ca_is_asked_when_to_renew_ends_in_a_known_next_time() {
    let habits = Habits {
        window: Some((86_400, 86_401)),
        explanation: Some("https://explanation.example/panics".to_owned()),
        ..Habits::default()
    };
    let bench = Bench::with(habits).await;
    panic_at("the CA explains", "https://explanation.example/panics");
    let proxy = bench.proxy(A).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    let again = within("when it is asked again", async {
        loop {
            let known = bench.history().map(|it| it["renewal"]["ask_again"].clone());
            match known {
                Some(at) if at.is_string() => return seconds(&at),
                _ => tokio::time::sleep(ms(20)).await,
            }
        }
    })
    .await;
    assert!((3_500..=3_600).contains(&again), "in {again} s");
    assert_eq!((bench.asked("ari"), bench.ca.orders().len()), (1, 1));
}

// === a disk that hangs ===

/// Whoever opens it waits until it is dropped, as with a disk that is gone.
struct Hangs(PathBuf);

impl Hangs {
    fn at(path: PathBuf) -> Self {
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        Self(path)
    }
}

impl Drop for Hangs {
    fn drop(&mut self) {
        let to = self.0.clone();
        // Those who wait get an end of file; whoever comes later finds an empty one.
        let mut waits = std::fs::OpenOptions::new();
        let released = waits.read(true).write(true).open(&to);
        std::fs::write(to.with_extension("empty"), "").unwrap();
        std::fs::rename(to.with_extension("empty"), &to).unwrap();
        drop(released);
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_neither_who_asks_nor_other_commands() {
    let bench = Bench::with(Habits::default()).await;
    let proxy = bench.proxy(A).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    until_told(&proxy, "a.example", |told| {
        told["next"].as_str().unwrap().starts_with("is renewed on")
    })
    .await;
    let hangs = Hangs::at(bench.file("history.json"));
    let admin = AdminClient::new(proxy.holdline.admin_addr().unwrap());
    for _ in 0..12 {
        // More than fit into its queue: asked, and not waited for.
        let ask = tokio::spawn(async move { admin.renew_certificates(None).await });
        drop(ask);
    }
    let asked = tokio::time::Instant::now();
    let error = admin.renew_certificates(None).await.unwrap_err();
    let waited = asked.elapsed();
    let said = error.to_string();
    assert!(
        said.contains("it is not known yet: the disk of [acme] state_dir does not answer")
            && said.contains("See `holdline cert list`"),
        "{said}"
    );
    assert!(waited < Duration::from_millis(2_900), "{waited:?}");
    let reload = admin.reload().await;
    assert!(reload.is_err(), "it has no file, and says so at once");
    assert!(is_trusted(proxy.addr(), "a.example", &bench.ca.root).await);
    drop(hangs);
}

// === whoever asks for a renewal ===

async fn ask(proxy: &Proxy) -> Value {
    let admin = AdminClient::new(proxy.holdline.admin_addr().unwrap());
    let told = admin.renew_certificates(Some("a.example")).await.unwrap();
    assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
    told[0].clone()
}

#[tokio::test]
async fn who_asks_in_the_middle_of_an_order_is_told_so_and_gets_that_one() {
    let habits = Habits {
        challenge: Some("tls-alpn-01"),
        undecided: true,
        ..Habits::default()
    };
    let bench = Bench::with(habits).await;
    let proxy = bench.proxy(A).await;
    let ordered = |told: &Value| {
        let next = told["next"].as_str().unwrap();
        next.starts_with("is being ordered at https://127.0.0.1:")
    };
    until_told(&proxy, "a.example", ordered).await;
    next_second().await;
    for _ in 0..2 {
        let told = ask(&proxy).await;
        assert!(ordered(&told), "{told}");
    }
    bench.ca.believe(0).await;
    let told = until_told(&proxy, "a.example", |told| {
        told["next"].as_str().unwrap().starts_with("is renewed on")
    })
    .await;
    assert_eq!(
        (told["failures"].as_u64(), bench.ca.orders().len()),
        (Some(0), 1)
    );
}

#[tokio::test]
async fn two_who_ask_at_once_get_one_new_certificate() {
    let bench = Bench::with(Habits::default()).await;
    let proxy = bench.proxy(A).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    next_second().await;
    bench.ca.habits.change(|habits| {
        habits.challenge = Some("tls-alpn-01");
        habits.undecided = true;
    });
    let (one, other) = tokio::join!(ask(&proxy), ask(&proxy));
    for told in [one, other] {
        let next = told["next"].as_str().unwrap().to_owned();
        assert!(
            next == "is ordered in a moment" || next.starts_with("is being ordered at"),
            "{next}"
        );
    }
    bench.ca.believe(1).await;
    until_told(&proxy, "a.example", |told| {
        told["next"].as_str().unwrap().starts_with("is renewed on")
    })
    .await;
    assert_eq!(bench.ca.orders().len(), 2);
}

#[tokio::test]
async fn who_asks_while_the_ca_wants_to_be_left_alone_is_told_until_when_and_why() {
    let bench = Bench::with(Habits {
        problem: Some(Problem {
            resource: "order",
            status: 429,
            kind: "rateLimited",
            retry_after: Some("7200"),
        }),
        ..Habits::default()
    })
    .await;
    let proxy = bench.proxy(A).await;
    until_failed(&proxy, "a.example").await;
    next_second().await;
    for _ in 0..3 {
        let told = ask(&proxy).await;
        assert!(
            told["next"]
                .as_str()
                .unwrap()
                .starts_with("is tried again on"),
            "{told}"
        );
        let wait = seconds(&told["nextAt"]);
        assert!((7_000..=7_200).contains(&wait), "{told}");
        let why = told["lastError"]["reason"].as_str().unwrap();
        assert!(why.contains("a limit of the CA is reached"), "{why}");
    }
    assert_eq!(bench.asked("order"), 1);
}

// === one order is one order ===

/// The certificate cannot be fetched, or not be asked for, twice in a row.
#[tokio::test]
async fn whatever_fails_in_the_middle_of_an_order_it_stays_one() {
    for (resource, restarts) in [
        ("cert", false),
        ("cert", true),
        ("finalize", false),
        ("finalize", true),
        ("authz", true),
    ] {
        let bench = Bench::with(Habits::default()).await;
        bench.fails_at(resource);
        let mut proxy = bench.proxy(A).await;
        until_failed(&proxy, "a.example").await;
        for failures in 2..4 {
            next_second().await;
            if restarts {
                drop(proxy);
                proxy = bench.proxy(A).await;
            }
            renew(&proxy.holdline, "a.example").await;
            until_told(&proxy, "a.example", |told| {
                told["failures"] == failures
                    && told["next"].as_str().unwrap().contains("tried again")
            })
            .await;
        }
        bench.is_well();
        next_second().await;
        renew(&proxy.holdline, "a.example").await;
        until_trusted(&proxy, "a.example", &bench.ca.root).await;
        assert_eq!(bench.ca.orders().len(), 1, "{resource}, {restarts}");
        let history = bench.history().unwrap();
        let attempts = history["attempts"].as_array().unwrap().iter();
        let signed = attempts.filter(|it| it["outcome"]["signed"] == true);
        assert!(signed.count() <= 1, "{resource}: {history}");
        assert!(!bench.file("order.json").exists());
    }
}

/// An order that the CA refuses to sign is of no use any more; the next one may be.
#[tokio::test]
async fn an_order_that_the_ca_refuses_is_not_asked_for_again() {
    let bench = Bench::with(Habits {
        problem: Some(Problem {
            resource: "finalize",
            status: 403,
            kind: "badCSR",
            retry_after: None,
        }),
        ..Habits::default()
    })
    .await;
    let proxy = bench.proxy(A).await;
    until_failed(&proxy, "a.example").await;
    assert!(!bench.file("order.json").exists());
    bench.is_well();
    next_second().await;
    renew(&proxy.holdline, "a.example").await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    assert_eq!(bench.ca.orders().len(), 2);
}

/// Ended in the middle of being validated; the challenge is answered by the next process.
#[tokio::test]
async fn an_order_that_was_being_validated_is_taken_up_by_the_next_process() {
    let bench = Bench::with(Habits {
        challenge: Some("tls-alpn-01"),
        undecided: true,
        ..Habits::default()
    })
    .await;
    let proxy = bench.proxy(A).await;
    bench.ca.comes_to_look(0).await;
    drop(proxy);
    next_second().await;
    let proxy = bench.proxy(A).await;
    renew(&proxy.holdline, "a.example").await;
    until_told(&proxy, "a.example", |told| {
        told["next"]
            .as_str()
            .unwrap()
            .starts_with("is being ordered")
    })
    .await;
    within("the challenge, shown again", async {
        while challenge(proxy.addr(), "a.example").await.is_none() {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
    bench.ca.believe(0).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    assert_eq!(bench.ca.orders().len(), 1);
}

/// As ZeroSSL does: it says a day, and has decided after seconds.
#[tokio::test]
async fn an_order_is_not_left_alone_for_a_day_because_the_ca_has_not_decided_yet() {
    let bench = Bench::with(Habits {
        challenge: Some("tls-alpn-01"),
        undecided: true,
        ask_again: Some("86400"),
        ..Habits::default()
    })
    .await;
    let proxy = bench.proxy(A).await;
    bench.ca.comes_to_look(0).await;
    let placed = bench.asked("order");
    // It has been asked what it makes of it, and has said so.
    bench
        .ca
        .book
        .wait_for("a look at the order", |book| {
            let asked = book.asked.iter().filter(|it| *it == "order").count();
            (asked > placed).then_some(())
        })
        .await;
    bench.ca.believe(0).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    assert_eq!(bench.ca.orders().len(), 1);
}

// === a disk that fills up in the middle ===

/// Nothing can be put in the place of a folder that is not empty.
fn fill(file: &Path) {
    std::fs::create_dir_all(file.join("in the way")).unwrap();
}

#[tokio::test]
async fn a_certificate_that_cannot_be_written_is_served_and_written_when_it_can_be() {
    let bench = Bench::with(Habits::default()).await;
    let file = bench.file("certificate.pem");
    fill(&file);
    let proxy = bench.proxy(A).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    let told = until_told(&proxy, "a.example", |told| {
        told["next"].as_str().unwrap().starts_with("is renewed on")
    })
    .await;
    let error = told["lastError"]["reason"].as_str().unwrap();
    assert!(error.contains("would be lost with this process"), "{error}");
    assert_eq!(http::get(&proxy.admin(), "/readyz", &[]).await.status, 200);
    std::fs::remove_dir_all(&file).unwrap();
    until_told(&proxy, "a.example", |told| told["lastError"].is_null()).await;
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    assert_eq!(bench.ca.orders().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_was_never_written_is_fetched_again_and_not_ordered() {
    let bench = Bench::with(Habits::default()).await;
    let file = bench.file("certificate.pem");
    fill(&file);
    let proxy = bench.proxy(A).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    drop(proxy);
    std::fs::remove_dir_all(&file).unwrap();
    let proxy = bench.proxy(A).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    assert_eq!((bench.ca.orders().len(), bench.asked("cert")), (1, 2));
    assert!(file.is_file());
}

// === limits ===

#[tokio::test]
async fn after_a_limit_every_name_has_its_time_and_none_is_asked_for_before() {
    let bench = Bench::with(Habits {
        problem: Some(Problem {
            resource: "order",
            status: 429,
            kind: "rateLimited",
            retry_after: Some("14"),
        }),
        ..Habits::default()
    })
    .await;
    let names: Vec<String> = (0..6).map(|n| format!("n{n}.example")).collect();
    let proxy = bench
        .proxy(&format!("domains = {names:?}\nimport = []"))
        .await;
    for name in &names {
        until_told(&proxy, name, |told| {
            told["next"].as_str().unwrap().starts_with("is tried again")
        })
        .await;
    }
    bench.is_well();
    let asked = bench.asked("order");
    assert!(asked <= 4, "those that were under way already: {asked}");
    next_second().await;
    // Nothing of our own is in the way then.
    let admin = AdminClient::new(proxy.holdline.admin_addr().unwrap());
    let all = admin.renew_certificates(None).await.unwrap();
    let next: Vec<_> = all.as_array().unwrap().iter().collect();
    let times: Vec<_> = next.iter().map(|told| moment(&told["nextAt"])).collect();
    assert!(
        times.len() == 6
            && next
                .iter()
                .all(|told| (1..=14).contains(&seconds(&told["nextAt"]))),
        "{all}"
    );
    let soonest = *times.iter().min().unwrap();
    while OffsetDateTime::now_utc() < soonest {
        assert_eq!(bench.asked("order"), asked);
        tokio::time::sleep(ms(20)).await;
    }
    for name in &names {
        until_trusted(&proxy, name, &bench.ca.root).await;
    }
    assert_eq!(bench.ca.orders().len(), 6);
}

// === what another server left ===

/// A certificate of this CA as certbot keeps it, and what it says of where it came from.
async fn left_by_certbot(bench: &Bench, server: &str) -> TempDir {
    let state = tempfile::tempdir().unwrap();
    let settings = bench.ca.settings(state.path(), A);
    let proxy = Proxy::with(&bench.gateway, &settings).await;
    until_trusted(&proxy, "a.example", &bench.ca.root).await;
    drop(proxy);
    let kept = state
        .path()
        .join("acme/certificates/a.example/certificate.pem");
    let pem = std::fs::read_to_string(kept).unwrap();
    let (key, chain) = pem.split_at(pem.find("-----BEGIN CERTIFICATE").unwrap());
    let left = tempfile::tempdir().unwrap();
    let live = left.path().join("live/a.example");
    std::fs::create_dir_all(&live).unwrap();
    std::fs::create_dir_all(left.path().join("renewal")).unwrap();
    std::fs::write(live.join("fullchain.pem"), chain).unwrap();
    std::fs::write(live.join("privkey.pem"), key).unwrap();
    let conf = format!("[renewalparams]\naccount = 0\nserver = {server}\n");
    std::fs::write(left.path().join("renewal/a.example.conf"), conf).unwrap();
    left
}

#[tokio::test]
async fn the_ca_of_what_another_server_left_is_asked_when_to_renew_and_told_what_is_replaced() {
    let bench = Bench::with(Habits::default()).await;
    let left = left_by_certbot(&bench, &bench.ca.directory).await;
    bench
        .ca
        .habits
        .change(|habits| habits.window = Some((-7200, -3600)));
    let acme = format!("domains = [\"a.example\"]\nimport = [{:?}]", left.path());
    let proxy = bench.proxy(&acme).await;
    bench
        .ca
        .book
        .wait_for("a renewal", |book| (book.orders.len() >= 2).then_some(()))
        .await;
    let replaces = bench.ca.orders()[1].replaces.clone();
    assert!(replaces.is_some_and(|it| it.contains('.')));
    until_told(&proxy, "a.example", |told| told["failures"] == 0).await;
}

#[tokio::test]
async fn of_another_cas_certificate_ours_is_asked_nothing() {
    let bench = Bench::with(Habits::default()).await;
    let left = left_by_certbot(&bench, "https://elsewhere.example/directory").await;
    bench
        .ca
        .habits
        .change(|habits| habits.window = Some((-7200, -3600)));
    let acme = format!("domains = [\"a.example\"]\nimport = [{:?}]", left.path());
    let proxy = bench.proxy(&acme).await;
    let told = until_told(&proxy, "a.example", |told| told["state"] == "served").await;
    assert!(told["next"].as_str().unwrap().starts_with("is renewed on"));
    // Asked for, it is ordered as a new one.
    renew(&proxy.holdline, "a.example").await;
    bench
        .ca
        .book
        .wait_for("an order", |book| (book.orders.len() >= 2).then_some(()))
        .await;
    let asked_before_the_order = bench.ca.book.read(|book| {
        let order = book.asked.iter().rposition(|it| it == "order").unwrap();
        book.asked[..order].iter().filter(|it| *it == "ari").count()
    });
    assert_eq!(
        (
            asked_before_the_order,
            bench.ca.orders()[1].replaces.clone()
        ),
        (0, None)
    );
}

#[tokio::test]
async fn a_ca_that_does_not_take_what_is_replaced_is_asked_without_at_once() {
    for (status, kind) in [
        (409, "alreadyReplaced"),
        (404, "malformed"),
        (403, "unauthorized"),
        (400, "malformed"),
        (409, "conflict"),
        (404, "unheardOf"),
    ] {
        let bench = Bench::with(Habits {
            window: Some((86_400, 86_401)),
            refuses_replaces: Some((status, kind)),
            ..Habits::default()
        })
        .await;
        let proxy = bench.proxy(A).await;
        until_trusted(&proxy, "a.example", &bench.ca.root).await;
        next_second().await;
        renew(&proxy.holdline, "a.example").await;
        bench
            .ca
            .book
            .wait_for("a renewal", |book| (book.orders.len() >= 2).then_some(()))
            .await;
        let told = until_told(&proxy, "a.example", |told| {
            told["next"].as_str().unwrap().starts_with("is renewed on")
        })
        .await;
        assert_eq!(told["failures"], 0, "{kind}: {told}");
        // With it, and without.
        let placed = bench.ca.book.read(|book| book.refused_replaces);
        assert_eq!((placed, bench.ca.orders()[1].replaces.clone()), (1, None));
        let history = bench.history().unwrap();
        let attempts = history["attempts"].as_array().unwrap();
        let issued = attempts
            .iter()
            .filter(|it| it["outcome"]["result"] == "issued");
        assert_eq!((attempts.len(), issued.count()), (2, 2), "{history}");
    }
}
