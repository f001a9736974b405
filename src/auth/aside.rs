//! Looks at files that others may change, from places where nobody may be held up: a disk can hang.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// What a look brings is waited for this long. Once for all: while one hangs, there is no other.
const PATIENCE: Duration = Duration::from_millis(500);

/// One look at a time, on a thread of its own.
#[derive(Debug, Default)]
pub(super) struct Aside {
    looking: Arc<AtomicBool>,
}

/// Is there as long as a look takes, whatever becomes of it.
struct Looking(Arc<AtomicBool>);

impl Aside {
    /// Looks, and waits a moment for the end of it; what comes later is taken later. Not while an
    /// earlier look has not come to its end.
    pub(super) fn look(&self, at: &Path, look: impl FnOnce() + Send + 'static) {
        if self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let looking = Looking(Arc::clone(&self.looking));
        let (end, ended) = mpsc::channel::<()>();
        let begun = thread::Builder::new()
            .name("holdline-auth".to_owned())
            .spawn(move || {
                // Dropped in the other order: whoever hears of the end may begin another.
                let _end = end;
                let _looking = looking;
                look();
            });
        if let Err(error) = begun {
            tracing::warn!(path = %at.display(), "there is no thread to look at it: {error}");
        } else if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!(
                path = %at.display(),
                "its file system does not answer; what other processes change there is not seen \
                 until it does"
            );
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
