//! The first look at what is on disk: one certificate after the other, each served as it is read, so
//! that a slow disk keeps back no more than what is on it.

use super::Desk;
use crate::tls::acme::import::Left;
use crate::tls::acme::kept::Busy;
use crate::tls::acme::moment::Moment;
use crate::tls::acme::state::StateDir;

/// How far the first look has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Begun,
    /// Those that are [`Busy::Reading`] are left.
    Certificates,
    Done,
}

impl Desk {
    /// Reads the next thing and serves it. Whether there may be more.
    pub(in crate::tls::acme) fn read_next(&mut self) -> bool {
        let (Some(acme), Some(state)) = (self.acme.clone(), self.state()) else {
            return false;
        };
        let now = Moment::now();
        match self.reading {
            Reading::Done => return false,
            Reading::Begun => {
                state.sweep();
                for ca in &acme.directories {
                    // What cannot be read is said.
                    let _ = self.reload_health(&ca.url, &state);
                }
                self.reading = Reading::Certificates;
            }
            Reading::Certificates => {
                let mut unread = self.kept.iter_mut().filter(|it| it.busy == Busy::Reading);
                if let Some(kept) = unread.next() {
                    kept.read(&state, &acme, &self.left);
                    if kept.is_served(now) {
                        self.publish(now);
                    }
                    return true;
                }
                self.reading = Reading::Done;
                self.left = Left::default();
                self.find_outgoing(&state, now);
                for kept in &mut self.kept {
                    let missing = !kept.is_served(now);
                    // Once, and not at each reload.
                    if std::mem::replace(&mut kept.missed, missing) || !missing {
                        continue;
                    }
                    tracing::warn!(names = ?kept.names, "no certificate yet; it is awaited from the CA");
                }
                self.publish(now);
                if std::mem::take(&mut self.mended) {
                    self.try_again(&state, now);
                }
            }
        }
        self.reading != Reading::Done
    }

    /// What was in the way is perhaps mended: our own patience is not the measure then, as where
    /// somebody asks for a renewal.
    fn try_again(&mut self, state: &StateDir, now: Moment) {
        for index in 0..self.kept.len() {
            if self.kept.get(index).is_some_and(|kept| kept.failures() > 0) {
                // It is tried at its time, then.
                let _ = self.ask_for(index, state, now);
            }
        }
    }
}
