//! What was tried and what came of it, on disk: written by whoever holds the order's lock, or joined
//! with what another instance has written since.
//!
//! Waits for disks: only to be called where that holds nobody up.

use super::{Cause, Kept};
use crate::tls::acme::history::History;
use crate::tls::acme::moment::Moment;
use crate::tls::acme::state::{StateDir, StateError};

impl Kept {
    /// Writes down what we know. Only for whoever holds the order's lock: it is the newest then.
    pub(in crate::tls::acme) fn save_history(
        &mut self,
        state: &StateDir,
    ) -> Result<(), StateError> {
        let save = || {
            let _lock = state.lock()?;
            state.save(&self.history_file(), &self.history)
        };
        let saved = save();
        self.unwritten = saved.is_err();
        if saved.is_ok() {
            self.troubles.over(Cause::Unwritten);
        }
        self.forget_order(state);
        saved
    }

    /// Tries to write what could not be written of the history before.
    pub(in crate::tls::acme) fn write_down(&mut self, state: &StateDir, now: Moment) {
        if self.unwritten {
            let written = self.amend_history(state, now, |_| {});
            self.see(Cause::Unwritten, written.as_ref().err());
        }
    }

    /// Changes what is on disk, where another instance may have written since we looked.
    pub(in crate::tls::acme) fn amend_history(
        &mut self,
        state: &StateDir,
        now: Moment,
        change: impl FnOnce(&mut History),
    ) -> Result<(), StateError> {
        let lock = state.lock();
        let read = self.reload_history(state, now);
        change(&mut self.history);
        let _lock = lock?;
        read?;
        state.save(&self.history_file(), &self.history)?;
        self.unwritten = false;
        self.troubles.over(Cause::Unwritten);
        self.forget_order(state);
        Ok(())
    }

    /// What another instance has written down since; what of ours could not be written stays.
    pub(in crate::tls::acme) fn reload_history(
        &mut self,
        state: &StateDir,
        now: Moment,
    ) -> Result<(), StateError> {
        let read = state.load_some(&self.history_file());
        self.unread = read.is_err();
        self.see(Cause::History, read.as_ref().err());
        match read? {
            Some(history) if self.unwritten => self.history.join(history),
            Some(history) => self.history = history,
            None => {}
        }
        self.history.settle(now);
        Ok(())
    }

    /// Reads the history if it is not known yet. One that cannot be read is told, and without it
    /// nothing is ordered.
    pub(in crate::tls::acme) fn remember(&mut self, state: &StateDir, now: Moment) {
        if self.unread {
            // Told as a trouble.
            let _ = self.reload_history(state, now);
        }
    }

    pub(in crate::tls::acme) fn history_file(&self) -> String {
        format!("{}/history.json", self.folder)
    }
}
