//! What runs beside the keeper's task, and how it comes to its end when this process does.
//!
//! An end has two steps: nothing is begun any more and orders are dropped, but what they have added
//! elsewhere may still be taken away; then that is over as well. Whatever is left then is on disk for
//! the next start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;

/// For taking away at the end what was added.
const TIDY: Duration = Duration::from_secs(5);
/// For hooks that have been told to end.
const LAST: Duration = Duration::from_secs(4);

/// One for the whole program; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Underway {
    tasks: TaskTracker,
    /// Orders are dropped.
    stop: CancellationToken,
    /// Nothing is taken away any more.
    over: CancellationToken,
    /// Held while a hook runs.
    hook: Arc<Mutex<()>>,
}

impl Underway {
    /// Runs a task that is waited for at the end.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn(task)
    }

    /// The same for a task that somebody else runs.
    pub(super) fn track<F: Future>(&self, task: F) -> TrackedFuture<F> {
        self.tasks.track_future(task)
    }

    /// `None`: dropped in the middle, because this process ends.
    pub(super) async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(work).await
    }

    /// The same for what may still be done for a moment at the end.
    pub(super) async fn until_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.over.run_until_cancelled(work).await
    }

    /// Waits until no hook of this process runs, and keeps it so: the state directory's lock is between
    /// processes, and has no order. Many a hook reads a zone, changes it and writes it
    /// back: two at a time would lose a record.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.hook).lock_owned().await
    }

    /// Ends everything, within `budget` and a few seconds.
    pub(super) async fn end(&self, budget: Duration) {
        self.tasks.close();
        self.stop.cancel();
        if timeout(TIDY.min(budget), self.tasks.wait()).await.is_ok() {
            return;
        }
        self.over.cancel();
        if timeout(LAST, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "something that was started for an order does not end; it is left alone"
            );
        }
    }
}
