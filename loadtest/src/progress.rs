//! Progress of long work, on standard error and only where a person is watching.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use tokio::time::interval;

/// One line that counts up and is wiped when done.
#[derive(Debug)]
pub struct Progress {
    label: String,
    total: usize,
    done: usize,
    shown: bool,
}

impl Progress {
    /// Starts a line for `total` steps; few steps are not worth one.
    #[must_use]
    pub fn new(label: &str, total: usize) -> Self {
        let shown = total > 1 && stderr().is_terminal();
        Self {
            label: label.to_owned(),
            total,
            done: 0,
            shown,
        }
    }

    /// One step done.
    pub fn step(&mut self) {
        self.done += 1;
        let stride = (self.total / 200).max(1);
        if self.shown && (self.done.is_multiple_of(stride) || self.done == self.total) {
            let _ = write!(
                stderr(),
                "\r\x1b[K{}: {}/{}",
                self.label,
                self.done,
                self.total
            );
        }
    }

    /// Counts the seconds while `work` runs.
    pub async fn during<F: Future>(label: &str, length: Duration, work: F) -> F::Output {
        let progress = Self::new(label, usize::MAX);
        let (mut second, total) = (interval(Duration::from_secs(1)), length.as_secs());
        let mut seconds = 0;
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = second.tick(), if progress.shown => {
                    progress.say(&format!("{seconds} of {total} s"));
                    seconds += 1;
                }
            }
        }
    }

    /// Replaces the text behind the label.
    pub fn say(&self, text: &str) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K{}: {text}", self.label);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
