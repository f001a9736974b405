//! The gentle return: at most so many turns a second, evenly spread, the longest waiting first.
//!
//! A gateway that comes back is not stampeded by those who waited for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::supervise::supervise;

/// Gives out turns. Cloning shares the queue.
#[derive(Debug, Clone)]
pub struct Pacer {
    shared: Arc<Shared>,
}

/// A place in the queue; resolves when it is this one's turn. Dropping it gives the place up.
pub type Turn = oneshot::Receiver<()>;

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug)]
struct Queue {
    waiting: BinaryHeap<Waiting>,
    next_slot: Instant,
    gap: Duration,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    key: Reverse<(Instant, u64)>,
    turn: oneshot::Sender<()>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Pacer {
    /// `per_second` turns a second; at least one.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let queue = Queue {
            waiting: BinaryHeap::new(),
            next_slot: Instant::now(),
            gap: gap(per_second),
            arrivals: 0,
        };
        Self {
            shared: Arc::new(Shared {
                queue: Mutex::new(queue),
                arrived: Notify::new(),
            }),
        }
    }

    /// As many turns a second from the next one on.
    pub(super) fn set_rate(&self, per_second: u32) {
        let mut queue = self
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let gap = gap(per_second);
        // The turn that is waited for was set by the old pace.
        queue.next_slot = queue.next_slot.min(Instant::now() + gap);
        queue.gap = gap;
        drop(queue);
        self.shared.arrived.notify_one();
    }

    /// Joins the queue; `since` is when the wait began, the oldest comes first.
    #[must_use]
    pub fn turn(&self, since: Instant) -> Turn {
        let (turn, wait) = oneshot::channel();
        let mut queue = self
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        queue.arrivals += 1;
        let key = Reverse((since, queue.arrivals));
        queue.waiting.push(Waiting { key, turn });
        drop(queue);
        self.shared.arrived.notify_one();
        wait
    }

    /// Gives the turns out in a task of its own.
    pub(super) fn spawn(&self, name: &'static str) -> AbortOnDropHandle<()> {
        let pacer = self.clone();
        supervise(name, move || pacer.clone().run())
    }

    /// Gives the turns out until dropped.
    async fn run(self) {
        loop {
            let step = {
                let mut queue = self
                    .shared
                    .queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                queue.step(Instant::now())
            };
            match step {
                Step::Given => {}
                Step::Wait(until) => {
                    // Whoever arrives meanwhile may be older, and the pace may be another.
                    let _ = tokio::time::timeout_at(until, self.shared.arrived.notified()).await;
                }
                Step::Empty => self.shared.arrived.notified().await,
            }
        }
    }
}

fn gap(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

enum Step {
    Given,
    Wait(Instant),
    Empty,
}

impl Queue {
    fn step(&mut self, now: Instant) -> Step {
        if self.waiting.is_empty() {
            return Step::Empty;
        }
        if now < self.next_slot {
            return Step::Wait(self.next_slot);
        }
        // Whoever has gone away meanwhile uses no slot.
        if self
            .waiting
            .pop()
            .is_some_and(|next| next.turn.send(()).is_ok())
        {
            self.next_slot = now + self.gap;
        }
        Step::Given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_evenly_and_the_oldest_first() {
        let pacer = Pacer::new(10);
        let start = Instant::now();
        // The newest asks first.
        let waits: Vec<_> = (0..5u64)
            .map(|i| pacer.turn(start + Duration::from_millis(5 - i)))
            .collect();
        let _running = pacer.spawn("a test");
        let mut times = Vec::new();
        for wait in waits {
            times.push(tokio::spawn(async move {
                wait.await.unwrap();
                Instant::now()
            }));
        }
        let mut order = Vec::new();
        for time in times {
            order.push(time.await.unwrap().duration_since(start).as_millis());
        }
        assert_eq!(order, [400, 300, 200, 100, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_went_away_takes_no_slot() {
        let pacer = Pacer::new(1);
        let start = Instant::now();
        for _ in 0..100 {
            drop(pacer.turn(start));
        }
        let last = pacer.turn(start);
        let _running = pacer.spawn("a test");
        last.await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(10));
    }
}
