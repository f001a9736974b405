//! The service manager's watchdog: it hears from us only as long as every thread that serves is
//! alive.

use std::env;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Notifier, is_us};

/// Asks to be told regularly that we live; `WatchdogSec=` in a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    /// Half of what the manager waits for.
    every: Duration,
}

/// What one worker of the runtime had done at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Worker {
    /// Even while it works.
    parks: u64,
    /// Grows with every batch of work that ends.
    busy: Duration,
}

impl Watchdog {
    /// As the environment says; `None`: nobody waits for us.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let meant = env::var("WATCHDOG_PID").map_or(true, |pid| is_us(&pid));
        let micros = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        Self::new(Duration::from_micros(micros)).filter(|_| meant)
    }

    fn new(limit: Duration) -> Option<Self> {
        let every = limit / 2;
        (!every.is_zero()).then_some(Self { every })
    }

    /// For ever: tells the manager, unless a worker is stuck.
    pub async fn run(self, notifier: Notifier) {
        let mut before = workers();
        notifier.watchdog();
        loop {
            tokio::time::sleep(self.every).await;
            let now = workers();
            let stuck = before
                .iter()
                .zip(&now)
                .filter(|(before, now)| is_stuck(**before, **now))
                .count();
            match stuck {
                0 => notifier.watchdog(),
                stuck => {
                    let every_ms = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
                    tracing::error!(
                        stuck,
                        every_ms,
                        "threads are stuck: the watchdog is not fed"
                    );
                }
            }
            before = now;
        }
    }
}

/// One that sleeps may have nothing to do; one that works ends a batch now and then.
fn is_stuck(before: Worker, now: Worker) -> bool {
    before == now && now.parks.is_multiple_of(2)
}

fn workers() -> Vec<Worker> {
    let metrics = Handle::current().metrics();
    (0..metrics.num_workers())
        .map(|worker| Worker {
            parks: metrics.worker_park_unpark_count(worker),
            busy: metrics.worker_total_busy_duration(worker),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc;

    #[test]
    fn half_of_what_the_manager_waits_for() {
        let every = Duration::from_secs(5);
        assert_eq!(
            Watchdog::new(Duration::from_secs(10)),
            Some(Watchdog { every })
        );
        assert_eq!(Watchdog::new(Duration::ZERO), None);
    }

    #[test]
    fn sleep_is_no_death() {
        let worker = |parks, busy| Worker {
            parks,
            busy: Duration::from_millis(busy),
        };
        assert!(!is_stuck(worker(3, 10), worker(3, 10)));
        assert!(!is_stuck(worker(4, 10), worker(4, 90)));
        assert!(!is_stuck(worker(4, 10), worker(6, 10)));
        assert!(is_stuck(worker(4, 10), worker(4, 10)));
    }

    /// A runtime of two threads, one of which is blocked by a task that never yields.
    #[test]
    fn a_runtime_with_a_stuck_thread_is_not_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(&path);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let every = Duration::from_millis(50);
        runtime.spawn(Watchdog { every }.run(notifier));
        let mut bytes = [0; 64];
        let mut heard = |limit| {
            manager.set_read_timeout(Some(limit)).unwrap();
            manager.recv(&mut bytes).is_ok()
        };
        for _ in 0..5 {
            assert!(heard(Duration::from_secs(20)), "it lives and is not heard");
        }
        let (release, blocked) = mpsc::channel::<()>();
        let (stuck, is_stuck) = mpsc::channel();
        runtime.spawn(async move {
            stuck.send(()).unwrap();
            let _ = blocked.recv();
        });
        is_stuck.recv().unwrap();
        // Those that were sent before it was seen.
        let silent = (0..10).any(|_| !heard(every * 10));
        assert!(silent, "it is stuck and still heard");
        drop(release);
        assert!(heard(Duration::from_secs(20)), "it lives again");
    }
}
