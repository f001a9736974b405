//! Upgrades while clients come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kit::{Raw, Role, ScriptedGateway, Target, h2, http, ms, within};
use crate::service::Service;

/// Clients that connect, ask, and leave, one after the other, until they are told to stop. Any
/// failure of any of them is a panic of its task.
#[derive(Default)]
struct Crowd {
    tasks: JoinSet<()>,
    over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
}

impl Crowd {
    fn keep<F: Future<Output = ()> + Send>(
        &mut self,
        count: usize,
        visit: impl Fn() -> F + Clone + Send + 'static,
    ) {
        for _ in 0..count {
            let (over, served) = (Arc::clone(&self.over), Arc::clone(&self.served));
            let visit = visit.clone();
            self.tasks.spawn(async move {
                while !over.load(SeqCst) {
                    visit().await;
                    served.fetch_add(1, SeqCst);
                }
            });
        }
    }

    /// Waits for so many more visits.
    async fn serves(&self, more: usize) {
        let wanted = self.served.load(SeqCst) + more;
        within("more visits", async {
            while self.served.load(SeqCst) < wanted {
                tokio::time::sleep(ms(5)).await;
            }
        })
        .await;
    }

    async fn leaves(mut self) -> usize {
        self.over.store(true, SeqCst);
        while let Some(visits) = self.tasks.join_next().await {
            visits.expect("a client that is served");
        }
        self.served.load(SeqCst)
    }
}

async fn visit_by_websocket(target: Target) {
    let (mut raw, hello) = Raw::connected(&target, &Role::backend()).await;
    assert_eq!(hello["ok"], true);
    raw.request("r", "config.set", json!({})).await;
    assert_eq!(raw.answer("r").await["ok"], true);
}

async fn visit_by_http(target: Target) {
    let answer = http::get(&target, "/health", &[("Connection", "close")]).await;
    assert_eq!(answer.status, 200);
}

async fn visit_by_h2(target: Target) {
    let mut answer = h2::Connection::open(&target)
        .await
        .try_get("/health", &[])
        .await;
    if answer.is_err() {
        // A process that is handing over has no time for who asks late; the other one has.
        let mut again = h2::Connection::open(&target).await;
        answer = again.try_get("/health", &[]).await;
    }
    assert_eq!(answer.expect("an answer").status, 200);
}

/// A session that is in use all the time. Ends with the close that it gets, and when.
async fn resident(mut raw: Raw, asked: Arc<AtomicUsize>) -> (u16, Instant) {
    for round in 0_u64.. {
        let id = format!("{round}");
        raw.request(&id, "config.set", json!({"name": "n"})).await;
        loop {
            let frame = raw.next_but_pings().await;
            if let Some(code) = frame.close_code() {
                return (code, Instant::now());
            }
            let message = frame.json();
            if message["id"] != *id {
                continue;
            }
            if message["ok"] != true {
                // Only what the close itself has overtaken, and it says so.
                let execution = &message["error"]["details"]["execution"];
                assert_eq!(execution, "may_have_executed", "{message}");
                return (raw.closed().await.0, Instant::now());
            }
            break;
        }
        asked.fetch_add(1, SeqCst);
        tokio::time::sleep(ms(10)).await;
    }
    unreachable!("it asks until it is closed")
}

async fn residents(target: &Target, count: usize) -> (JoinSet<(u16, Instant)>, Arc<AtomicUsize>) {
    let (mut residents, asked) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..count {
        let (raw, _) = Raw::connected(target, &Role::backend()).await;
        residents.spawn(resident(raw, Arc::clone(&asked)));
    }
    (residents, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_and_open_sessions_go_on_until_their_time_is_over() {
    const RESIDENTS: usize = 30;
    // Long enough for a hundred visits to a slow machine.
    const BUDGET: u64 = 20_000;
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "handover = \"20s\"\ndrain = \"1s\"").await;
    let target = service.target();
    let (mut residents, asked) = residents(&target, RESIDENTS).await;
    let mut crowd = Crowd::default();
    let to = target.clone();
    crowd.keep(6, move || visit_by_websocket(to.clone()));
    let to = target.clone();
    crowd.keep(4, move || visit_by_http(to.clone()));
    let to = target.clone();
    crowd.keep(2, move || visit_by_h2(to.clone()));
    crowd.serves(60).await;

    let old = service.pid();
    let asked_for = Instant::now();
    service.signal(old, Signal::USR2);
    let serves = service.line("the new process serves").await;
    let before = asked.load(SeqCst);
    crowd.serves(100).await;
    assert!(
        asked.load(SeqCst) > before + RESIDENTS,
        "sessions stand still"
    );
    assert!(residents.try_join_next().is_none(), "a session is closed");
    let visits = crowd.leaves().await;
    let status = service.process().await;
    assert_eq!(status["pid"], serves["successor"]);
    assert_ne!(status["pid"], old);
    assert_eq!(status["predecessor"]["pid"], old);

    let mut early = 0;
    while let Some(closed) = residents.join_next().await {
        let (code, at) = closed.expect("a session that is served");
        assert_eq!(code, 1012);
        early += usize::from(at.duration_since(asked_for) < ms(BUDGET));
    }
    let asked = asked.load(SeqCst);
    println!(
        "{visits} visits, 0 refused; {RESIDENTS} sessions, {asked} requests, {early} closed early"
    );
    assert_eq!(early, 0, "closed before their time was over");
    assert_eq!(service.exit().await.code(), Some(0));
    service.line("stopped").await;
    // It serves alone now, and ends as well.
    visit_by_websocket(target.clone()).await;
    service.signal(serves["successor"].as_u64().unwrap(), Signal::TERM);
    service.line("stopped").await;
    assert!(target.dial_tcp().await.is_err(), "it still accepts");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_upgrade_after_the_other_with_sessions_at_each() {
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "").await;
    let target = service.target();
    let mut crowd = Crowd::default();
    let to = target.clone();
    crowd.keep(4, move || visit_by_websocket(to.clone()));
    let to = target.clone();
    crowd.keep(2, move || visit_by_http(to.clone()));
    let mut sessions = Vec::new();
    let mut pid = service.pid();
    for generation in 0..4 {
        sessions.push(Raw::connected(&target, &Role::backend()).await.0);
        crowd.serves(10).await;
        service.signal(pid, Signal::USR2);
        let serves = service.line("the new process serves").await;
        pid = serves["successor"].as_u64().unwrap();
        for raw in &mut sessions {
            let id = format!("{generation}");
            raw.request(&id, "config.set", json!({})).await;
            assert_eq!(raw.answer(&id).await["ok"], true);
        }
    }
    crowd.serves(10).await;
    crowd.leaves().await;
    // Each old process ends with its last session.
    drop(sessions);
    assert_eq!(service.exit().await.code(), Some(0));
    assert_eq!(service.process().await["pid"], pid);
}
