//! How each CA does: known to every instance, and never forgotten for want of a disk.

use super::Desk;
use crate::tls::acme::StateError;
use crate::tls::acme::ca::health_file;
use crate::tls::acme::history::Health;
use crate::tls::acme::moment::Moment;
use crate::tls::acme::state::StateDir;

impl Desk {
    /// What another instance has written down since; what of ours could not be written stays.
    pub(super) fn reload_health(&mut self, ca: &str, state: &StateDir) -> Result<(), StateError> {
        let read = state.load_some::<Health>(&health_file(ca));
        let read = read.inspect_err(|error| tracing::warn!("{error}; {}", error.remedy()))?;
        let ours = self.health.entry(ca.to_owned()).or_default();
        match read {
            Some(read) if ours.unwritten => ours.join(read),
            Some(read) => *ours = read,
            None => {}
        }
        Ok(())
    }

    /// What of it could not be written before is tried again.
    pub(super) fn look_at_health(&mut self, state: &StateDir, now: Moment) {
        let mut unwritten = Vec::new();
        for (ca, health) in &mut self.health {
            health.settle(now);
            if health.unwritten {
                unwritten.push(ca.clone());
            }
        }
        for ca in unwritten {
            self.amend_health(&ca, state, |_| {});
        }
    }

    /// Changes what is on disk, where another instance may have written since we looked.
    pub(super) fn amend_health(
        &mut self,
        ca: &str,
        state: &StateDir,
        change: impl FnOnce(&mut Health),
    ) {
        let lock = state.lock();
        let read = self.reload_health(ca, state);
        let health = self.health.entry(ca.to_owned()).or_default();
        change(health);
        let written = lock.and_then(|_lock| {
            read?;
            state.save(&health_file(ca), health)
        });
        if let Err(error) = &written {
            tracing::debug!(%error, "how a CA does is not kept yet");
        }
        health.unwritten = written.is_err();
    }
}
