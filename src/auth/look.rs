//! A look at the state directory by those who may not wait for a disk: on a thread of its own, one at
//! a time, and waited for only for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A disk that answers takes a fraction of it.
const MOMENT: Duration = Duration::from_millis(100);

/// For the looks at one file.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// One that hangs is not followed by another.
    under_way: Arc<AtomicBool>,
}

/// One is under way until this is dropped.
struct UnderWay(Arc<AtomicBool>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Looks {
    /// Returns when `look` is done, or after a moment: then it may be done later.
    pub(super) fn take(&self, look: impl FnOnce() + Send + 'static) {
        if self.under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        let under_way = UnderWay(Arc::clone(&self.under_way));
        let (done, is_done) = mpsc::channel::<()>();
        let work = move || {
            look();
            drop(under_way);
            drop(done);
        };
        let thread = thread::Builder::new().name("look".to_owned());
        if thread.spawn(work).is_ok() {
            // It says nothing, and hangs up.
            let _ = is_done.recv_timeout(MOMENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_not_waited_for_nor_followed_by_another() {
        let looks = Looks::default();
        let (release, released) = mpsc::channel::<()>();
        looks.take(move || {
            let _ = released.recv();
        });
        looks.take(|| panic!("another one"));
        drop(release);
        let (seen, is_seen) = mpsc::channel();
        while is_seen.try_recv().is_err() {
            let seen = seen.clone();
            looks.take(move || {
                let _ = seen.send(());
            });
        }
    }
}
