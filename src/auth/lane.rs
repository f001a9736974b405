//! How many passwords are checked at a time, and who is next.
//!
//! A check costs memory and a core, so that only a few run, and a bounded number wait. Who comes
//! from where few try, and has failed less often, goes first, and takes the place of another when
//! all are taken: a stranger's first try is not behind a thousand second ones, nor behind a thousand
//! first ones of somebody with a thousand addresses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A lane of its own for those who must not wait behind others.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    state: Arc<Mutex<State>>,
}

/// One running check; the next may begin when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    lane: Lane,
}

/// How soon it is somebody's turn: low goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// How many try from the wider network, beyond a few.
    pub(super) crowd: u32,
    /// How often this one has failed before.
    pub(super) failures: u32,
}

/// Too many are waiting already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug)]
struct State {
    free: usize,
    most_waiting: usize,
    /// How many have come so far.
    come: u64,
    waiting: Vec<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    /// The second: who came first among equals.
    rank: (Rank, u64),
    call: oneshot::Sender<Slot>,
}

impl Lane {
    pub(super) fn new(at_a_time: usize, most_waiting: usize) -> Self {
        let state = State {
            free: at_a_time,
            most_waiting,
            come: 0,
            waiting: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Waits for a slot.
    pub(super) async fn enter(&self, rank: Rank) -> Result<Slot, Full> {
        let called = {
            let mut state = self.lock();
            if let Some(left) = state.free.checked_sub(1) {
                state.free = left;
                return Ok(Slot { lane: self.clone() });
            }
            state.queue(rank)?
        };
        // An error: somebody of a lower rank came, and took this place.
        called.await.map_err(|_| Full)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn queue(&mut self, rank: Rank) -> Result<oneshot::Receiver<Slot>, Full> {
        self.come += 1;
        let rank = (rank, self.come);
        self.waiting.retain(|waiter| !waiter.call.is_closed());
        if self.waiting.len() >= self.most_waiting {
            let last = self.waiting.iter().map(|waiter| waiter.rank).max();
            match last.filter(|last| *last > rank) {
                Some(last) => self.waiting.retain(|waiter| waiter.rank != last),
                None => return Err(Full),
            }
        }
        let (call, called) = oneshot::channel();
        self.waiting.push(Waiter { rank, call });
        Ok(called)
    }

    fn next(&mut self) -> Option<Waiter> {
        let waiters = self.waiting.iter().enumerate();
        let (index, _) = waiters.min_by_key(|(_, waiter)| waiter.rank)?;
        Some(self.waiting.swap_remove(index))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let next = {
            let mut state = self.lane.lock();
            let next = state.next();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some(waiter) = next {
            // One who left meanwhile drops it again, which calls the next.
            let _ = waiter.call.send(Self {
                lane: self.lane.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn failed(failures: u32) -> Rank {
        Rank { crowd: 0, failures }
    }

    #[tokio::test]
    async fn so_many_at_a_time_and_the_rest_in_order() {
        let lane = Lane::new(2, 10);
        let (one, two) = (
            lane.enter(failed(0)).await.unwrap(),
            lane.enter(failed(9)).await.unwrap(),
        );
        let mut third = Box::pin(lane.enter(failed(1)));
        let mut fourth = Box::pin(lane.enter(failed(1)));
        let mut first_try = Box::pin(lane.enter(failed(0)));
        for waiting in [&mut third, &mut fourth, &mut first_try] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(one);
        assert!((&mut third).now_or_never().is_none());
        let first = first_try.now_or_never().unwrap().unwrap();
        drop(two);
        assert!((&mut fourth).now_or_never().is_none());
        let _third = third.now_or_never().unwrap().unwrap();
        drop(first);
        fourth.now_or_never().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_refuses_unless_somebody_has_failed_more_often() {
        let lane = Lane::new(1, 2);
        let slot = lane.enter(failed(0)).await.unwrap();
        let mut often = Box::pin(lane.enter(failed(5)));
        let mut once = Box::pin(lane.enter(failed(1)));
        assert!((&mut often).now_or_never().is_none() && (&mut once).now_or_never().is_none());
        assert_eq!(lane.enter(failed(5)).await.err(), Some(Full));
        let mut never = Box::pin(lane.enter(failed(0)));
        assert!((&mut never).now_or_never().is_none());
        assert_eq!(often.await.err(), Some(Full));
        drop(slot);
        assert!(never.now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_leaves_holds_nobody_up() {
        let lane = Lane::new(1, 2);
        let slot = lane.enter(failed(0)).await.unwrap();
        let mut gone = Box::pin(lane.enter(failed(0)));
        let mut called = Box::pin(lane.enter(failed(0)));
        let mut last = Box::pin(lane.enter(failed(0)));
        assert!((&mut gone).now_or_never().is_none() && (&mut called).now_or_never().is_none());
        drop(gone);
        assert!((&mut last).now_or_never().is_none(), "there is room again");
        drop(slot);
        drop(called);
        drop(last.now_or_never().unwrap().unwrap());
        assert!(lane.enter(failed(0)).now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_crowd_waits_for_those_from_elsewhere_even_if_they_have_failed() {
        let lane = Lane::new(1, 2);
        let slot = lane.enter(failed(0)).await.unwrap();
        let crowd = |crowd| Rank { crowd, failures: 0 };
        let mut one = Box::pin(lane.enter(crowd(1)));
        let mut two = Box::pin(lane.enter(crowd(2)));
        assert!((&mut one).now_or_never().is_none() && (&mut two).now_or_never().is_none());
        assert_eq!(lane.enter(crowd(3)).await.err(), Some(Full));
        let mut elsewhere = Box::pin(lane.enter(failed(3)));
        assert!((&mut elsewhere).now_or_never().is_none());
        assert_eq!(two.await.err(), Some(Full));
        drop(slot);
        drop(elsewhere.now_or_never().unwrap().unwrap());
        assert!(one.now_or_never().unwrap().is_ok());
    }
}
