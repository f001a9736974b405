//! A task that everybody depends on is started again when it panics.
//!
//! Without its prober a gateway would stay as it was last seen for ever, without its pacers nobody
//! would get a turn, and without its keeper a certificate would expire. What they work on is shared,
//! and outlives them.

use std::any::Any;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::protocol::rescue::millis;

/// Between a panic and the next start: doubled from the shortest to the longest. A task that lasted
/// longer than the longest starts afresh.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
}

/// For what sessions wait for.
const SHORT: Pauses = Pauses {
    shortest: Duration::from_millis(100),
    longest: Duration::from_secs(10),
};

/// Runs `work` in a task, again after each panic, until it returns or the handle is dropped.
pub(crate) fn supervise<F>(
    task: &'static str,
    work: impl Fn() -> F + Send + 'static,
) -> AbortOnDropHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    supervise_telling(task, SHORT, |_| {}, work)
}

/// The same, and after each panic `tell` is told how long it is until the next start.
pub(crate) fn supervise_telling<F>(
    task: &'static str,
    pauses: Pauses,
    tell: impl Fn(Duration) + Send + 'static,
    work: impl Fn() -> F + Send + 'static,
) -> AbortOnDropHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let Pauses { shortest, longest } = pauses;
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut pause = shortest;
        loop {
            let started = Instant::now();
            let Err(error) = AbortOnDropHandle::new(tokio::spawn(work())).await else {
                return;
            };
            let Ok(panic) = error.try_into_panic() else {
                // The runtime ends.
                return;
            };
            if started.elapsed() > longest {
                pause = shortest;
            }
            let (words, pause_ms) = (words(&*panic), millis(pause));
            tracing::error!(
                task,
                panic = words,
                pause_ms,
                "a task failed; starting it again"
            );
            tell(pause);
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }))
}

fn words(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (None, Some(words)) => words,
        (None, None) => "without a word",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_starts_again_after_pauses_that_grow_and_are_bounded() {
        let starts = Arc::new(Mutex::new(Vec::new()));
        let (noted, zero) = (Arc::clone(&starts), Instant::now());
        let task = supervise("a test", move || {
            let noted = Arc::clone(&noted);
            async move {
                let mut noted = noted
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                noted.push(zero.elapsed());
                assert!(noted.len() > 10, "not yet");
            }
        });
        task.await.unwrap();
        let starts = starts
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let pauses: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses.len(), 10);
        assert!(
            pauses.is_sorted() && pauses[0] < 2 * SHORT.shortest,
            "{pauses:?}"
        );
        assert!(pauses[9] <= SHORT.longest + SHORT.shortest, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn its_end_ends_the_task() {
        let held = Arc::new(());
        let inner = Arc::clone(&held);
        let task = supervise("a test", move || {
            let inner = Arc::clone(&inner);
            async move {
                let _inner = inner;
                std::future::pending::<()>().await;
            }
        });
        tokio::task::yield_now().await;
        drop(task);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
