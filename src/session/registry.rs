//! How many sessions there are, in all and per client address, and what they may keep together.
//!
//! Counts only: who a session is and what it does is elsewhere.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Limits;
use crate::protocol::rescue::Cause;

/// All sessions of a running proxy.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<Open>,
    kept: AtomicUsize,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    per_ip: HashMap<IpAddr, usize>,
}

/// One counted session; stops counting when dropped.
#[derive(Debug)]
pub struct Admitted {
    sessions: Arc<Sessions>,
    ip: IpAddr,
}

impl Sessions {
    /// Counts one more, from the wait before its 101 on.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(self: &Arc<Self>, ip: IpAddr, limits: &Limits) -> Result<Admitted, Cause> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= limits.sessions {
            return Err(Cause::SessionLimit);
        }
        let of_ip = open.per_ip.entry(ip).or_default();
        if *of_ip >= limits.sessions_per_ip {
            return Err(Cause::SessionsPerIp);
        }
        *of_ip += 1;
        open.total += 1;
        Ok(Admitted {
            sessions: Arc::clone(self),
            ip,
        })
    }

    /// How many are open or waiting.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .total
    }

    /// Reserves room for kept client bytes under the limit for all; whether there was any.
    pub(super) fn keep(&self, bytes: usize, limit: usize) -> bool {
        self.kept
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| {
                kept.checked_add(bytes).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }

    /// Gives room back.
    pub(super) fn unkeep(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Client bytes kept in all.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Admitted {
    /// The client's address.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The proxy's sessions.
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self
            .sessions
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(of_ip) = open.per_ip.get_mut(&self.ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                open.per_ip.remove(&self.ip);
            }
        }
    }
}
