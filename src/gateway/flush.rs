//! How many requests that were kept during an outage may be at the gateway without an answer, over
//! all sessions.
//!
//! The gateway queues 256 requests that have not begun, over all its connections, and refuses the
//! next ones; half of that leaves room for those who ask without having waited.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Unanswered flushed requests at a gateway.
const PLACES: usize = 128;

/// Gives out the places, first come, first served. Cloning shares them.
#[derive(Debug, Clone)]
pub struct FlushGate(Arc<Semaphore>);

/// Some places; given back when dropped.
#[derive(Debug)]
pub struct Places(OwnedSemaphorePermit);

impl Default for FlushGate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

impl FlushGate {
    /// Waits for at least one place and takes up to `wanted`; `None` is never seen, the gate does
    /// not close. Cancel-safe.
    pub async fn take(self, wanted: usize) -> Option<Places> {
        let mut places = Arc::clone(&self.0).acquire_owned().await.ok()?;
        while places.num_permits() < wanted {
            match Arc::clone(&self.0).try_acquire_owned() {
                Ok(more) => places.merge(more),
                Err(_) => break,
            }
        }
        Some(Places(places))
    }
}

impl Places {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.num_permits()
    }

    /// Gives one back.
    pub fn give_one(&mut self) {
        drop(self.0.split(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_wants_more_than_there_is_gets_what_there_is_and_the_next_one_waits() {
        let gate = FlushGate::default();
        let first = gate.clone().take(PLACES - 10).await.unwrap();
        let mut second = gate.clone().take(32).await.unwrap();
        assert_eq!((first.count(), second.count()), (PLACES - 10, 10));
        let third = tokio::spawn(gate.clone().take(32));
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        second.give_one();
        assert_eq!(third.await.unwrap().unwrap().count(), 1);
        drop((first, second));
        assert_eq!(gate.take(1000).await.unwrap().count(), PLACES);
    }
}
