use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::super::update::tests::{Mood, Primary, primary};
use super::*;
use crate::config::DnsHook;

const FOLDER: &str = "certificates/a.example";
const LONG: Duration = Duration::from_secs(60);

fn acme(dir: &TempDir, dns: Option<Dns>) -> Acme {
    Acme {
        certificates: vec![vec!["a.example".to_owned()]],
        contact: Vec::new(),
        directories: Vec::new(),
        challenges: Vec::new(),
        dns,
        profile: None,
        eab: Vec::new(),
        ca_root: None,
        state_dir: dir.path().to_owned(),
        import: Vec::new(),
    }
}

fn record() -> TxtRecord {
    TxtRecord::new("*.a.example", "v-1".to_owned())
}

struct Case {
    dir: TempDir,
    server: Primary,
    records: Records,
    underway: Underway,
}

impl Case {
    async fn new() -> Self {
        let (dir, server) = (tempfile::tempdir().unwrap(), primary().await);
        let records = Records::of(&StateDir::new(dir.path()), FOLDER);
        let underway = Underway::default();
        Self {
            dir,
            server,
            records,
            underway,
        }
    }

    fn dns(&self) -> Dns {
        Dns::Update(self.server.dns.clone())
    }

    async fn add(&self) {
        let (dns, record) = (self.dns(), record());
        let added = self.records.add(&dns, &record, &self.underway).await;
        added.unwrap();
        assert_eq!((self.server.count(), self.noted().await), (1, 1));
    }

    async fn noted(&self) -> usize {
        self.records.load().await.unwrap().records.len()
    }

    fn feels(&self, mood: Mood) {
        *self.server.mood.lock().unwrap() = mood;
    }

    /// As at the start of a process.
    async fn tidy(&self, dns: Option<Dns>) -> bool {
        tidy(&acme(&self.dir, dns), &Underway::default(), true).await
    }
}

fn hook(dir: &TempDir, script: &str) -> Dns {
    let script = format!("D={}; {script}", dir.path().display());
    Dns::Hook(DnsHook {
        command: ["sh", "-c", &script, "hook"].map(str::to_owned).to_vec(),
        timeout: LONG,
        resolvers: Vec::new(),
    })
}

#[tokio::test]
async fn what_a_crash_left_at_a_server_is_taken_away_there() {
    let case = Case::new().await;
    case.add().await;
    assert!(!case.tidy(Some(case.dns())).await);
    assert_eq!((case.server.count(), case.noted().await), (0, 0));
}

#[tokio::test]
async fn what_a_server_added_and_did_not_say_before_a_stop_is_taken_away() {
    let case = Case::new().await;
    case.feels(Mood::Silent);
    let (dns, records, beside) = (case.dns(), case.records.clone(), case.underway.clone());
    let order = case.underway.spawn(async move {
        let record = record();
        let added = beside.until_stopped(records.add(&dns, &record, &beside));
        assert!(added.await.is_none());
        let cleared = records.clear(Some(&dns), &beside, None);
        beside
            .until_over(cleared)
            .await
            .is_some_and(|left| !left.again)
    });
    let added = timeout(LONG, async {
        while case.server.count() == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    });
    added.await.unwrap();
    case.feels(Mood::Good);
    case.underway.end(LONG).await;
    assert!(order.await.unwrap());
    assert_eq!((case.server.count(), case.noted().await), (0, 0));
}

#[tokio::test]
async fn what_a_server_refuses_to_take_away_is_tried_again() {
    let case = Case::new().await;
    case.add().await;
    case.feels(Mood::Refuses);
    assert!(case.tidy(Some(case.dns())).await);
    assert_eq!((case.server.count(), case.noted().await), (1, 1));
    case.feels(Mood::Good);
    assert!(!case.tidy(Some(case.dns())).await);
    assert_eq!((case.server.count(), case.noted().await), (0, 0));
}

#[tokio::test]
async fn a_record_is_taken_away_by_what_has_written_it_only_and_forgotten_in_the_end() {
    let case = Case::new().await;
    case.add().await;
    let other = primary().await;
    let others = [
        None,
        Some(hook(&case.dir, ": >$D/ran")),
        Some(Dns::Update(other.dns.clone())),
    ];
    for dns in others {
        // Nothing that a further attempt could do.
        assert!(!case.tidy(dns.clone()).await);
        assert_eq!((case.server.count(), case.noted().await), (1, 1), "{dns:?}");
        let left = case.records.clear(dns.as_ref(), &case.underway, None).await;
        let by = left.by_hand[0].by();
        assert!(by.ends_with(&case.server.dns.port.to_string()), "{by}");
    }
    assert!(!case.dir.path().join("ran").exists());
    let age = |noted: &mut Noted| noted.records[0].since = Moment(1);
    case.records.amend(age).await.unwrap();
    assert!(!case.tidy(None).await);
    assert_eq!((case.server.count(), case.noted().await), (1, 0));
}

#[tokio::test]
async fn what_an_earlier_one_noted_is_taken_away_by_what_there_is() {
    let case = Case::new().await;
    case.add().await;
    let forget = |noted: &mut Noted| noted.records[0].by = None;
    case.records.amend(forget).await.unwrap();
    assert!(!case.tidy(Some(case.dns())).await);
    assert_eq!((case.server.count(), case.noted().await), (0, 0));
}

#[tokio::test]
async fn the_records_of_an_order_are_its_own_and_whoever_tidies_does_not_seem_to_order() {
    let case = Case::new().await;
    case.add().await;
    let order = format!("{FOLDER}/order.lock");
    let ordering = case.records.state.try_lock(&order).unwrap().unwrap();
    for dns in [None, Some(case.dns())] {
        assert!(case.tidy(dns).await, "it is looked at again");
        assert_eq!((case.server.count(), case.noted().await), (1, 1));
    }
    drop(ordering);
    let held = case.records.hold(&case.dns()).await.unwrap();
    assert!(case.tidy(Some(case.dns())).await);
    assert_eq!(case.server.count(), 1);
    drop(held);

    let waits = ": >$D/in; until [ -e $D/go ]; do sleep 0.02; done";
    let slow = hook(&case.dir, waits);
    let by = Writer::of(&slow);
    let change = |noted: &mut Noted| noted.records[0].by = Some(by);
    case.records.amend(change).await.unwrap();
    let tidying = case.tidy(Some(slow));
    let look = async {
        while !case.dir.path().join("in").exists() {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(case.records.state.try_lock(&order).unwrap().is_some());
        fs::write(case.dir.path().join("go"), "").unwrap();
    };
    let (again, ()) = tokio::join!(tidying, look);
    assert!(!again);
    assert_eq!(case.noted().await, 0);
}
