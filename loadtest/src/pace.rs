//! Exact send times: one thread that sleeps from slot to slot and wakes one session each time.
//! The runtime's own timer wakes on whole milliseconds and would send everything that falls into
//! one of them as a burst.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::nanosleep;
use rustix::time::Timespec;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// When slots come: slot `n` first at `start + n × every / slots`, then once in every `every`.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// The first slot.
    pub start: Instant,
    /// Time between two turns of the same slot.
    pub every: Duration,
    /// Turns of each slot.
    pub turns: u32,
}

impl Beat {
    /// When slot `slot` of `slots` has its turn number `turn`.
    #[must_use]
    pub fn at(&self, slot: usize, slots: usize, turn: u32) -> Instant {
        self.start + self.every * turn + self.every.mul_f64(slot as f64 / slots.max(1) as f64)
    }
}

/// Wakes many tasks, each at its own exact times. Stops when dropped.
#[derive(Debug)]
pub struct Metronome {
    stop: Arc<AtomicBool>,
}

/// One task's place in the beat. A turn that comes while the task is busy is kept for it.
#[derive(Debug)]
pub struct Slot {
    gate: Arc<Semaphore>,
    beat: Beat,
    place: (usize, usize),
    turn: u32,
}

impl Metronome {
    /// Starts the thread; returns one slot per task.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(beat: Beat, slots: usize) -> io::Result<(Self, Vec<Slot>)> {
        let gates: Vec<_> = (0..slots).map(|_| Arc::new(Semaphore::new(0))).collect();
        let slot = |(n, gate): (usize, &Arc<Semaphore>)| {
            let place = (n, slots);
            Slot {
                gate: Arc::clone(gate),
                beat,
                place,
                turn: 0,
            }
        };
        let handed_out = gates.iter().enumerate().map(slot).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::Builder::new()
            .name("metronome".to_owned())
            .spawn(move || beat_time(beat, &gates, &stopped))?;
        Ok((Self { stop }, handed_out))
    }
}

impl Drop for Metronome {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn beat_time(beat: Beat, gates: &[Arc<Semaphore>], stop: &AtomicBool) {
    for turn in 0..beat.turns {
        for (slot, gate) in gates.iter().enumerate() {
            sleep_until(beat.at(slot, gates.len(), turn));
            if stop.load(Ordering::Relaxed) {
                return;
            }
            gate.add_permits(1);
        }
    }
}

fn sleep_until(at: Instant) {
    loop {
        let wait = at.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return;
        }
        // Interrupted by a signal or not: the loop looks at the clock again.
        let _ = nanosleep(&Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
    }
}

impl Slot {
    /// Waits for the next turn and returns its exact time; `None` after the last.
    pub async fn next(&mut self) -> Option<Instant> {
        if self.turn == self.beat.turns {
            return None;
        }
        self.gate.acquire().await.ok()?.forget();
        let (slot, slots) = self.place;
        let at = self.beat.at(slot, slots, self.turn);
        self.turn += 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_turn_comes_once_and_never_early() {
        let beat = Beat {
            start: Instant::now(),
            every: Duration::from_micros(300),
            turns: 20,
        };
        let (_metronome, slots) = Metronome::start(beat, 3).unwrap();
        for mut slot in slots {
            let mut turns = 0;
            while let Some(at) = slot.next().await {
                assert!(Instant::now() >= at);
                turns += 1;
            }
            assert_eq!(turns, 20);
        }
    }

    #[tokio::test]
    async fn slots_are_spread_over_the_interval() {
        let start = Instant::now();
        let beat = Beat {
            start,
            every: Duration::from_millis(10),
            turns: 2,
        };
        assert_eq!(beat.at(0, 4, 0), start);
        assert_eq!(beat.at(1, 4, 1), start + Duration::from_micros(12_500));
    }
}
