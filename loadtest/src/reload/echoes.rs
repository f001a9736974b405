//! One live session: sends a numbered message at an even pace, and checks that each comes back as
//! it was, once, and in its turn. A session that is lost is opened again, as its client would.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::clients::Phase;
use super::drops::{self, Drops};
use super::message::{ALL_SHAPES, Flaw, Message, check};
use crate::session::{Dialer, Session};
use crate::url::Url;
use crate::ws::{Role, WsError};

/// Before a client that was dropped comes again.
const AGAIN: Duration = Duration::from_secs(1);
/// A session with that many unanswered messages sends no more.
const MOST_WAITING: usize = 64;

/// What all of them share.
pub(super) struct Setting {
    pub(super) dialer: Dialer,
    /// Where they go, and where one in ten goes at first.
    pub(super) urls: (Url, Option<Url>),
    pub(super) every: Duration,
    pub(super) patience: Duration,
    /// How many have had an echo of every shape.
    pub(super) warm: Arc<AtomicUsize>,
}

/// What live sessions saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Echoes {
    /// Messages.
    pub sent: u64,
    /// Those that came back as they were, in their turn.
    pub echoed: u64,
    /// Never came back.
    pub lost: u64,
    /// Came back again.
    pub duplicated: u64,
    /// Came back before an earlier one.
    pub reordered: u64,
    /// Came back as something else.
    pub altered: u64,
    /// Sessions that ended by themselves.
    pub drops: Drops,
    /// Attempts to come back that failed, by cause.
    pub failed_returns: BTreeMap<String, usize>,
}

impl Echoes {
    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.echoed += other.echoed;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.drops.add(other.drops);
        for (cause, count) in other.failed_returns {
            *self.failed_returns.entry(cause).or_default() += count;
        }
    }

    /// Whether every message came back, and nothing else.
    #[must_use]
    pub const fn is_true(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.altered == 0
    }
}

struct Client {
    id: usize,
    setting: Arc<Setting>,
    next: u64,
    waiting: VecDeque<(u64, Instant)>,
    seen: Echoes,
}

enum End {
    /// All is over.
    Over,
    /// Another takes its place.
    Left,
    Dropped(String),
}

/// Runs the client with the place `id` of `all` until the end.
pub(super) async fn run(
    (id, all): (usize, usize),
    mut session: Session,
    setting: Arc<Setting>,
    mut phase: watch::Receiver<Phase>,
    leave: Arc<Notify>,
) -> Echoes {
    let offset = setting.every.mul_f64(id as f64 / all.max(1) as f64);
    let mut client = Client {
        id,
        setting,
        // So that not everybody sends the same shape at the same time.
        next: id as u64,
        waiting: VecDeque::new(),
        seen: Echoes::default(),
    };
    let mut start = Instant::now() + offset;
    loop {
        match client
            .until_ended(&mut session, start, &mut phase, &leave)
            .await
        {
            End::Over => {
                client.finish(&mut session).await;
                session.bye().await;
                return client.seen;
            }
            End::Left => {
                client.finish(&mut session).await;
                session.bye().await;
            }
            End::Dropped(how) => {
                client.seen.drops.note(how);
                client.forget();
                sleep(AGAIN).await;
            }
        }
        match client.again(&mut phase).await {
            Some(opened) => session = opened,
            None => return client.seen,
        }
        start = Instant::now();
    }
}

impl Client {
    async fn until_ended(
        &mut self,
        session: &mut Session,
        start: Instant,
        phase: &mut watch::Receiver<Phase>,
        leave: &Notify,
    ) -> End {
        let mut tick = interval_at(start, self.setting.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if *phase.borrow_and_update() == Phase::Ending {
                return End::Over;
            }
            let step = tokio::select! {
                changed = phase.changed() => match changed {
                    Ok(()) => Ok(()),
                    Err(_) => return End::Over,
                },
                () = leave.notified() => return End::Left,
                _ = tick.tick() => {
                    if self.stalled() {
                        return End::Dropped("no answer".to_owned());
                    }
                    self.say(session).await
                }
                heard = self.hear(session) => heard,
            };
            if let Err(end) = step {
                return End::Dropped(drops::how(&end));
            }
        }
    }

    fn stalled(&self) -> bool {
        let oldest = self.waiting.front();
        oldest.is_some_and(|(_, sent)| sent.elapsed() > self.setting.patience)
    }

    async fn say(&mut self, session: &mut Session) -> Result<(), WsError> {
        if self.waiting.len() >= MOST_WAITING {
            return Ok(());
        }
        let mask = match session.ws.role() {
            Role::Client(mask) => mask,
            Role::Server => [0; 4],
        };
        let frame = Message::new(self.id, self.next).encoded(mask);
        self.waiting.push_back((self.next, Instant::now()));
        self.next += 1;
        self.seen.sent += 1;
        session.ws.queue_raw(&frame);
        session.ws.flush().await
    }

    async fn hear(&mut self, session: &mut Session) -> Result<(), WsError> {
        let message = session.ws.next().await?;
        let next = self.waiting.front().map_or(self.next, |(next, _)| *next);
        let flaw = match check(self.id, next, message.opcode, message.payload) {
            Ok(()) if self.waiting.pop_front().is_some() => None,
            Ok(()) => Some(Flaw::Altered),
            Err((Flaw::Reordered, Some(number))) => {
                let known = self.waiting.iter().position(|(sent, _)| *sent == number);
                let whole = check(self.id, number, message.opcode, message.payload).is_ok();
                Some(match known.and_then(|at| self.waiting.remove(at)) {
                    Some(_) if whole => Flaw::Reordered,
                    Some(_) => Flaw::Altered,
                    None => Flaw::Duplicated,
                })
            }
            Err((flaw, _)) => {
                if flaw == Flaw::Altered {
                    self.waiting.pop_front();
                }
                Some(flaw)
            }
        };
        *match flaw {
            None => &mut self.seen.echoed,
            Some(Flaw::Duplicated) => &mut self.seen.duplicated,
            Some(Flaw::Reordered) => &mut self.seen.reordered,
            Some(Flaw::Altered) => &mut self.seen.altered,
        } += 1;
        if flaw.is_none() && self.seen.echoed == u64::from(ALL_SHAPES) {
            self.setting.warm.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Hears what is still to come.
    async fn finish(&mut self, session: &mut Session) {
        let patience = self.setting.patience;
        let rest = async {
            while !self.waiting.is_empty() {
                self.hear(session).await?;
            }
            Ok::<_, WsError>(())
        };
        match timeout(patience, rest).await {
            Ok(Ok(())) => {}
            Ok(Err(end)) => self.seen.drops.note(drops::how(&end)),
            Err(_) => self.seen.drops.note("no answer".to_owned()),
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.seen.lost += self.waiting.len() as u64;
        self.waiting.clear();
    }

    /// A session again; `None` when all is over before there is one.
    async fn again(&mut self, phase: &mut watch::Receiver<Phase>) -> Option<Session> {
        loop {
            if *phase.borrow_and_update() == Phase::Ending {
                return None;
            }
            match self.setting.dialer.open(&self.setting.urls.0).await {
                Ok(session) => return Some(session),
                Err(error) => {
                    *self.seen.failed_returns.entry(error.cause()).or_default() += 1;
                    sleep(AGAIN).await;
                }
            }
        }
    }
}
