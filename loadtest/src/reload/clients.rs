//! All clients of one run: opened, told what is going on, and asked at the end what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Plan;
use super::echoes::{self, Echoes};
use super::requests::{self, Requests};

/// What clients have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Say something now and then.
    Reloads,
    /// The reloads are over, and every gateway is there.
    Back,
    /// Hear what is still to come, say goodbye, and report.
    Ending,
}

/// One proxy's clients.
#[derive(Debug)]
pub(super) struct Crowd {
    phase: watch::Sender<Phase>,
    echoes: JoinSet<Echoes>,
    leave: Vec<Arc<Notify>>,
    warm: Arc<AtomicUsize>,
    crews: Vec<Crew>,
}

#[derive(Debug)]
struct Crew {
    tasks: JoinSet<Requests>,
    size: usize,
    /// How many had an answer to something that they asked when all was back.
    back: Arc<AtomicUsize>,
}

/// What they saw.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) echoes: Echoes,
    pub(super) crews: Vec<Requests>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self {
            phase: watch::channel(Phase::Reloads).0,
            echoes: JoinSet::new(),
            leave: Vec::new(),
            warm: Arc::default(),
            crews: Vec::new(),
        }
    }
}

impl Crowd {
    pub(super) async fn open_echoes(
        &mut self,
        setting: echoes::Setting,
        plan: &Plan,
    ) -> Result<()> {
        let (dialer, (url, also)) = (&setting.dialer, &setting.urls);
        let there = also.as_ref().map_or(0, |_| plan.sessions / 10);
        let mut sessions = dialer
            .open_many(url, plan.sessions - there, plan.opening)
            .await?;
        if let Some(also) = also {
            let more = dialer.open_many(also, there, plan.opening).await;
            sessions.extend(more.with_context(|| also.to_string())?);
        }
        self.warm = Arc::clone(&setting.warm);
        let setting = Arc::new(setting);
        for (id, session) in sessions.into_iter().enumerate() {
            let leave = Arc::new(Notify::new());
            self.leave.push(Arc::clone(&leave));
            let (setting, phase) = (Arc::clone(&setting), self.phase.subscribe());
            let place = (id, plan.sessions);
            self.echoes
                .spawn(echoes::run(place, session, setting, phase, leave));
        }
        Ok(())
    }

    /// Opens OpenClaw clients; the number of their crew.
    pub(super) async fn open_crew(
        &mut self,
        setting: requests::Setting,
        size: usize,
        plan: &Plan,
    ) -> Result<usize> {
        let opened = setting
            .dialer
            .open_many(&setting.url, size, plan.opening)
            .await;
        let sessions = opened.with_context(|| setting.url.to_string())?;
        let (setting, back) = (Arc::new(setting), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for (id, session) in sessions.into_iter().enumerate() {
            let (setting, back) = (Arc::clone(&setting), Arc::clone(&back));
            let phase = self.phase.subscribe();
            tasks.spawn(requests::run((id, size), session, setting, phase, back));
        }
        self.crews.push(Crew { tasks, size, back });
        Ok(self.crews.len() - 1)
    }

    pub(super) fn tell(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Whether every live session has had an echo of every shape.
    pub(super) fn is_warm(&self) -> bool {
        self.warm.load(Ordering::Relaxed) >= self.leave.len()
    }

    /// With this reload some leave and come again: others each time.
    pub(super) fn churn(&self, turn: u32, plan: &Plan) {
        let first = (turn as usize - 1) * plan.churn;
        for leaves in self.leave.iter().cycle().skip(first).take(plan.churn) {
            leaves.notify_one();
        }
    }

    pub(super) fn back(&self, crew: usize) -> usize {
        let crew = self.crews.get(crew);
        crew.map_or(0, |crew| crew.back.load(Ordering::Relaxed))
    }

    pub(super) fn crew_size(&self, crew: usize) -> usize {
        self.crews.get(crew).map_or(0, |crew| crew.size)
    }

    /// After [`Phase::Ending`]: what all of them saw; times count from `began`.
    pub(super) async fn gather(self, began: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        for one in self.echoes.join_all().await {
            outcome.echoes.add(one);
        }
        outcome.echoes.drops.since(began);
        for crew in self.crews {
            let mut all = Requests::default();
            for one in crew.tasks.join_all().await {
                all.add(one);
            }
            all.drops.since(began);
            outcome.crews.push(all);
        }
        outcome
    }
}
