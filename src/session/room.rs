//! A session's places among the kept requests that a gateway may have unanswered.
//!
//! Waits for them and gives them back: as answers come, and after a while in any case. A request
//! that waits for something (a run's end) has long begun by then, which is all that is limited.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::{FlushGate, Places};

/// How long a place is kept for an answer. The gateway begins 64 requests per turn of its event
/// loop, so by then all have begun that can.
const PATIENCE: Duration = Duration::from_millis(500);

type Wait = Pin<Box<dyn Future<Output = Option<Places>> + Send>>;

/// See the module.
#[derive(Default)]
pub(super) struct Room {
    wait: Option<Wait>,
    /// Oldest first, with when they are given back at the latest.
    held: VecDeque<(Instant, Places)>,
}

impl Room {
    /// Asks for so many places.
    pub(super) fn ask(&mut self, gate: &FlushGate, places: usize) {
        self.wait = Some(Box::pin(gate.clone().take(places)));
    }

    /// How many there are at last; says so once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        let Poll::Ready(places) = self.wait.as_mut()?.as_mut().poll(cx) else {
            return None;
        };
        self.wait = None;
        let places = places?;
        let count = places.count();
        self.held.push_back((Instant::now() + PATIENCE, places));
        Some(count)
    }

    /// Gives one back.
    pub(super) fn give_one(&mut self) {
        if let Some((_, places)) = self.held.front_mut() {
            places.give_one();
            if places.count() == 0 {
                self.held.pop_front();
            }
        }
    }

    /// When [`Self::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held.front().map(|(until, _)| *until)
    }

    /// Gives back what was held for long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.deadline().is_some_and(|until| until <= now) {
            self.held.pop_front();
        }
    }

    /// Gives everything back and waits no more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn places(room: &mut Room) -> usize {
        poll_fn(|cx| room.poll(cx).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Requests that are never answered do not shut the others out.
    #[tokio::test(start_paused = true)]
    async fn a_place_comes_back_with_its_answer_or_after_a_while() {
        let gate = FlushGate::default();
        let (mut slow, mut other) = (Room::default(), Room::default());
        slow.ask(&gate, 1000);
        let all = places(&mut slow).await;
        other.ask(&gate, 10);
        slow.give_one();
        assert_eq!(places(&mut other).await, 1);
        other.ask(&gate, 1000);
        let until = slow.deadline().unwrap();
        slow.expire(until - Duration::from_millis(1));
        let early = tokio::time::timeout(Duration::from_millis(1), places(&mut other));
        assert!(early.await.is_err());
        slow.expire(until);
        assert_eq!(places(&mut other).await, all - 1);
        other.clear();
        slow.ask(&gate, 1000);
        assert_eq!(places(&mut slow).await, all);
    }

    /// Ten rounds of others' slow requests are ahead of a quick one.
    #[tokio::test(start_paused = true)]
    async fn slow_requests_of_others_hold_nobody_up_for_long() {
        let (gate, from) = (FlushGate::default(), Instant::now());
        let mut slow = Room::default();
        for _ in 0..10 {
            slow.ask(&gate, 1000);
            places(&mut slow).await;
            tokio::time::sleep_until(slow.deadline().unwrap()).await;
            slow.expire(Instant::now());
        }
        assert!(from.elapsed() <= Duration::from_secs(5));
    }
}
