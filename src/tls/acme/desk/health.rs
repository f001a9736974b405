//! How each CA does: known to every instance, and never forgotten for want of a disk.

use super::Desk;
use crate::tls::acme::ca::health_file;
use crate::tls::acme::history::Health;
use crate::tls::acme::moment::Moment;
use crate::tls::acme::state::StateDir;

impl Desk {
    /// What another instance has written down since; what of ours could not be written stays.
    pub(super) fn reload_health(&mut self, ca: &str, state: &StateDir) {
        let read = state.load_some::<Health>(&health_file(ca));
        let read = read.unwrap_or_else(|error| {
            tracing::warn!("{error}; {}", error.remedy());
            None
        });
        let ours = self.health.entry(ca.to_owned()).or_default();
        match read {
            Some(read) if ours.unwritten => ours.join(read),
            Some(read) => *ours = read,
            None => {}
        }
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
            self.reload_health(&ca, state);
            self.write_health(&ca, state);
        }
    }

    pub(super) fn write_health(&mut self, ca: &str, state: &StateDir) {
        let Some(health) = self.health.get_mut(ca) else {
            return;
        };
        let written = state.save(&health_file(ca), health);
        if let Err(error) = &written {
            tracing::debug!(%error, "how a CA does is not kept yet");
        }
        health.unwritten = written.is_err();
    }
}
