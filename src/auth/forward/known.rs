//! Who was let in a moment ago, and which questions are being asked right now.
//!
//! Bounded both ways: old answers make room for new ones, and a question in flight is forgotten
//! with the last one who waits for it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::question::Key;
use super::{Admitted, Failure};

/// Answers kept. A thousand browsers that each load a page of a few parts.
pub(super) const MOST: usize = 4096;
/// Bytes of headers beyond which an answer is not kept but asked for again.
const LARGEST: usize = 8 * 1024;

#[derive(Default)]
pub(super) struct Known(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    admitted: HashMap<Key, Kept>,
    /// What is in `admitted`, oldest first, and perhaps what was.
    order: VecDeque<(Key, Instant)>,
    in_flight: HashMap<Key, Flight>,
}

#[derive(Default)]
struct Flight {
    answer: Arc<OnceCell<Shared>>,
    seats: usize,
}

struct Kept {
    admitted: Admitted,
    until: Instant,
}

/// What came of a question, as far as it is for everybody who asked it.
pub(super) enum Shared {
    Yes(Admitted),
    /// What the service said is for one client alone: its cookies, its way to sign in.
    No,
    Failed(Failure),
}

/// What is known of a question.
pub(super) enum Looked {
    /// Its answer.
    Admitted(Admitted),
    /// That it has to be asked, or is being asked.
    Ask(Seat),
}

/// A place at one question, shared with everybody who asks the same.
pub(super) struct Seat {
    known: Arc<Known>,
    key: Key,
    answer: Arc<OnceCell<Shared>>,
}

// === impl Known ===

impl Known {
    pub(super) fn look(self: &Arc<Self>, key: Key) -> Looked {
        let mut inner = self.lock();
        if let Some(kept) = inner.admitted.get(&key)
            && Instant::now() < kept.until
        {
            return Looked::Admitted(kept.admitted.clone());
        }
        Looked::Ask(self.seat(&mut inner, key))
    }

    /// A place at the question, whatever was answered before.
    pub(super) fn ask(self: &Arc<Self>, key: Key) -> Seat {
        self.seat(&mut self.lock(), key)
    }

    /// An answer that no longer holds.
    pub(super) fn forget(&self, key: Key) {
        self.lock().admitted.remove(&key);
    }

    fn seat(self: &Arc<Self>, inner: &mut Inner, key: Key) -> Seat {
        let flight = inner.in_flight.entry(key).or_default();
        flight.seats += 1;
        let answer = Arc::clone(&flight.answer);
        Seat {
            known: Arc::clone(self),
            key,
            answer,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let inner = self.lock();
        assert!(inner.order.len() >= inner.admitted.len());
        (inner.order.len(), inner.in_flight.len())
    }
}

// === impl Seat ===

impl Seat {
    pub(super) fn answer(&self) -> &OnceCell<Shared> {
        &self.answer
    }

    pub(super) fn keep(&self, admitted: &Admitted, span: Duration) {
        let until = Instant::now() + span;
        let headers = admitted.headers.iter().map(|(_, value)| value);
        let size: usize = headers
            .chain(&admitted.cookies)
            .map(|value| value.len())
            .sum();
        if span.is_zero() || size > LARGEST {
            return;
        }
        self.known.lock().insert(self.key, admitted.clone(), until);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.known.lock();
        if let Entry::Occupied(mut flight) = inner.in_flight.entry(self.key) {
            flight.get_mut().seats -= 1;
            if flight.get().seats == 0 {
                flight.remove();
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    fn insert(&mut self, key: Key, admitted: Admitted, until: Instant) {
        let now = Instant::now();
        while let Some((oldest, its_until)) = self.order.front().copied()
            && (its_until <= now || self.order.len() >= MOST)
        {
            self.order.pop_front();
            // Unless it was kept anew since.
            if self
                .admitted
                .get(&oldest)
                .is_some_and(|kept| kept.until == its_until)
            {
                self.admitted.remove(&oldest);
            }
        }
        self.admitted.insert(key, Kept { admitted, until });
        self.order.push_back((key, until));
    }
}
