//! Progress of long work, on standard error and only where a person is watching.

use std::io::{IsTerminal, Write, stderr};

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
