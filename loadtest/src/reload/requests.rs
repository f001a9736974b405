//! One OpenClaw client that asks at an even pace: every request gets one answer, its result or an
//! error that says so, and results come in the order of their requests. It never connects again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::clients::Phase;
use super::drops::{self, Drops};
use crate::protocol::{self, Incoming, Template, Verdict};
use crate::session::{Dialer, Session};
use crate::url::Url;
use crate::ws::WsError;

/// The official client fails a request unanswered for this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request.
const SIZE: usize = 200;

/// What all of a crew share.
pub(super) struct Setting {
    pub(super) dialer: Dialer,
    pub(super) url: Url,
    pub(super) every: Duration,
    pub(super) patience: Duration,
}

/// What OpenClaw clients saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Clients.
    pub sessions: usize,
    /// Requests.
    pub asked: u64,
    /// Answered with their result.
    pub answered: u64,
    /// Answered with an error, by code, reason and what is known of their execution.
    pub refused: BTreeMap<String, u64>,
    /// Never answered.
    pub lost: u64,
    /// Answered again.
    pub duplicated: u64,
    /// Results before the result of an earlier request.
    pub reordered: u64,
    /// Sessions that ended by themselves.
    pub drops: Drops,
}

impl Requests {
    pub(super) fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.asked += other.asked;
        self.answered += other.answered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.drops.add(other.drops);
        for (words, count) in other.refused {
            *self.refused.entry(words).or_default() += count;
        }
    }

    /// Whether every request was answered, once, and in its turn.
    #[must_use]
    pub const fn is_true(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0
    }
}

struct Client {
    setting: Arc<Setting>,
    template: Template,
    next: u64,
    waiting: BTreeMap<u64, Instant>,
    last_result: u64,
    seen: Requests,
    /// The first request from when all was back, and who counts those who had its result.
    comeback: (Option<u64>, Option<Arc<AtomicUsize>>),
}

/// Runs the client with the place `id` of `all` until its session or the run ends.
pub(super) async fn run(
    (id, all): (usize, usize),
    mut session: Session,
    setting: Arc<Setting>,
    mut phase: watch::Receiver<Phase>,
    back: Arc<AtomicUsize>,
) -> Requests {
    let start = Instant::now() + setting.every.mul_f64(id as f64 / all.max(1) as f64);
    let mut client = Client {
        template: session.template(SIZE),
        setting,
        next: 1,
        waiting: BTreeMap::new(),
        last_result: 0,
        seen: Requests {
            sessions: 1,
            ..Requests::default()
        },
        comeback: (None, Some(back)),
    };
    let ended = client.until_ended(&mut session, start, &mut phase).await;
    let ended = match ended {
        Ok(()) => client.finish(&mut session).await,
        Err(how) => Err(how),
    };
    client.seen.lost += client.waiting.len() as u64;
    match ended {
        Ok(()) => session.bye().await,
        Err(how) => client.seen.drops.note(how),
    }
    client.seen
}

impl Client {
    /// How the session ended before the run did.
    async fn until_ended(
        &mut self,
        session: &mut Session,
        start: Instant,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(), String> {
        let mut tick = interval_at(start, self.setting.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match *phase.borrow_and_update() {
                Phase::Reloads => {}
                Phase::Back => {
                    self.comeback.0.get_or_insert(self.next);
                }
                Phase::Ending => return Ok(()),
            }
            let step = tokio::select! {
                changed = phase.changed() => match changed {
                    Ok(()) => Ok(()),
                    Err(_) => return Ok(()),
                },
                _ = tick.tick() => {
                    if self.stalled() {
                        return Err("no answer".to_owned());
                    }
                    self.ask(session).await
                }
                heard = self.hear(session) => heard,
            };
            step.map_err(|end| drops::how(&end))?;
        }
    }

    fn stalled(&self) -> bool {
        let oldest = self.waiting.values().next();
        oldest.is_some_and(|asked| asked.elapsed() > self.setting.patience)
    }

    async fn ask(&mut self, session: &mut Session) -> Result<(), WsError> {
        let id = self.next;
        self.next += 1;
        self.seen.asked += 1;
        self.waiting.insert(id, Instant::now());
        session.ws.queue_raw(self.template.with_id(id));
        session.ws.flush().await
    }

    async fn hear(&mut self, session: &mut Session) -> Result<(), WsError> {
        let message = session.ws.next().await?;
        let Incoming::Answer(id, verdict) = protocol::classify(session.protocol, message.payload)
        else {
            return Ok(());
        };
        if self.waiting.remove(&id).is_none() {
            self.seen.duplicated += 1;
            return Ok(());
        }
        match verdict {
            Verdict::Ok => {
                self.seen.answered += 1;
                self.seen.reordered += u64::from(id < self.last_result);
                self.last_result = self.last_result.max(id);
                if self.comeback.0.is_some_and(|first| id >= first)
                    && let Some(back) = self.comeback.1.take()
                {
                    back.fetch_add(1, Ordering::Relaxed);
                }
            }
            Verdict::Error(refusal) => {
                let words = [&refusal.code, &refusal.reason, &refusal.execution];
                let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
                *self
                    .seen
                    .refused
                    .entry(words.join(" ").trim().to_owned())
                    .or_default() += 1;
            }
        }
        Ok(())
    }

    /// Hears what is still to come.
    async fn finish(&mut self, session: &mut Session) -> Result<(), String> {
        let patience = self.setting.patience;
        let rest = async {
            while !self.waiting.is_empty() {
                self.hear(session).await?;
            }
            Ok::<_, WsError>(())
        };
        match timeout(patience, rest).await {
            Ok(heard) => heard.map_err(|end| drops::how(&end)),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}
