//! Waiting for events: every wait has a deadline, which only a failing test reaches.

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::sync::watch;

/// Longest wait for anything: far above what a loaded machine needs, short enough to read about.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `future` under the deadline and says `what` was awaited when it passes.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// The clock stands still while this lives: no window closes, however slow the machine is. For a
/// test on one thread; what waits for time, deadlines included, waits for [`Self::pass`].
#[must_use]
pub struct Standstill(Option<mpsc::Sender<()>>);

/// From now on.
pub fn stand_still() -> Standstill {
    let (end, ended) = mpsc::channel::<()>();
    tokio::time::pause();
    // A paused clock goes on by itself when nobody is busy. Somebody is.
    tokio::task::spawn_blocking(move || ended.recv().is_ok());
    Standstill(Some(end))
}

impl Standstill {
    /// Lets this much time go by, and everybody do each moment what is to be done in it.
    pub async fn pass(&self, time: Duration) {
        const MOMENT: Duration = Duration::from_millis(10);
        let mut left = time;
        while !left.is_zero() {
            let moment = left.min(MOMENT);
            tokio::time::advance(moment).await;
            left -= moment;
            // Each is a look at the sockets, too; some steps take several.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Runs `future` while time goes by only as fast as everybody here does what is to be done in it:
/// nobody is late because the machine is slow. For a test on one thread that waits for no other.
pub async fn in_step<F: Future>(future: F) -> F::Output {
    let still = stand_still();
    let passing = async {
        loop {
            still.pass(ms(10)).await;
        }
    };
    tokio::select! {
        output = future => output,
        () = passing => unreachable!("time does not end"),
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        tokio::time::resume();
        self.0.take();
    }
}

/// A value that tasks write and tests wait on.
#[derive(Debug)]
pub struct Shared<T> {
    value: Arc<Mutex<T>>,
    version: Arc<watch::Sender<u64>>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            version: Arc::clone(&self.version),
        }
    }
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Shared<T> {
    pub fn new(value: T) -> Self {
        Self {
            value: Arc::new(Mutex::new(value)),
            version: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Looks at the value. Do not hold on to it: the closure runs under a lock.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.value.lock().unwrap())
    }

    /// Changes the value and wakes whoever waits.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.value.lock().unwrap());
        self.version.send_modify(|version| *version += 1);
        result
    }

    /// Waits, without a deadline of its own, until `found` gives something.
    pub async fn until<R>(&self, mut found: impl FnMut(&T) -> Option<R>) -> R {
        let mut version = self.version.subscribe();
        loop {
            version.mark_unchanged();
            if let Some(result) = self.read(&mut found) {
                return result;
            }
            version.changed().await.expect("the sender lives in self");
        }
    }
}

impl<T: Debug> Shared<T> {
    /// Waits until `found` gives something; panics with the value when the deadline passes.
    pub async fn wait_for<R>(&self, what: &str, found: impl FnMut(&T) -> Option<R>) -> R {
        match tokio::time::timeout(DEADLINE, self.until(found)).await {
            Ok(result) => result,
            Err(_) => panic!(
                "not within {DEADLINE:?}: {what}\n{}",
                self.read(|v| abridged(v))
            ),
        }
    }
}

/// A value's debug text, cut to what a person reads.
fn abridged(value: &impl Debug) -> String {
    const LONGEST: usize = 12_000;
    let text = format!("{value:#?}");
    match text.char_indices().nth_back(LONGEST) {
        Some((start, _)) => format!("… {}", &text[start..]),
        None => text,
    }
}

/// Milliseconds.
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
