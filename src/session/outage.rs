//! What an outage comes to for the open sessions of a route, in two lines of the log: how many are
//! held, as soon as it is noticed, and what became of them, when none is left. Decides nothing.
//!
//! An outage that is over before anybody is told of it leaves no line, and a session that is lost
//! again is counted again.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::protocol::rescue::millis;

/// The sessions of a route that wait for their gateway.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Tally>);

/// What became of a held session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on where it was.
    Back,
    /// Its client was told to come round again.
    SentRound,
    /// It was ended: held for too long, not let in any more, or we stop.
    GivenUp,
    /// Its client left by itself.
    Left,
}

#[derive(Debug, Default)]
struct Tally {
    /// When the first was lost; `None`: none is held.
    since: Option<Instant>,
    /// The first line is written.
    noticed: bool,
    held: usize,
    all: usize,
    back: usize,
    sent_round: usize,
    given_up: usize,
    left: usize,
}

impl Outage {
    /// A session has lost its gateway.
    pub(super) fn held(&self, now: Instant) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tally.since.get_or_insert(now);
        tally.held += 1;
        tally.all += 1;
    }

    /// One of those that are held is told that its gateway is away.
    pub(super) fn noticed(&self, route: &str) {
        let held = {
            let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if tally.since.is_none() || std::mem::replace(&mut tally.noticed, true) {
                return;
            }
            tally.held
        };
        tracing::info!(route, sessions = held, "sessions held");
    }

    /// One of them is held no longer.
    pub(super) fn over(&self, fate: Fate, route: &str, now: Instant) {
        let tally = {
            let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            tally.count(fate);
            if tally.held > 0 {
                return;
            }
            std::mem::take(&mut *tally)
        };
        if let (Some(since), true) = (tally.since, tally.noticed) {
            tracing::info!(
                route,
                sessions = tally.all,
                back = tally.back,
                sent_round = tally.sent_round,
                given_up = tally.given_up,
                left = tally.left,
                after_ms = millis(now.saturating_duration_since(since)),
                "no session held any more"
            );
        }
    }
}

impl Tally {
    fn count(&mut self, fate: Fate) {
        self.held = self.held.saturating_sub(1);
        *match fate {
            Fate::Back => &mut self.back,
            Fate::SentRound => &mut self.sent_round,
            Fate::GivenUp => &mut self.given_up,
            Fate::Left => &mut self.left,
        } += 1;
    }
}
