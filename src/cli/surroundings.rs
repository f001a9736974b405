//! What this process was started with beside its arguments: the place of a running holdline, or
//! sockets of a service manager.

use std::process::ExitCode;

use holdline::handover::{Arrival, Binary};
use holdline::listen::Inherited;
use holdline::systemd::{self, Notifier, Watchdog};
use holdline::{Source, Surroundings};

use super::fail;

/// Sockets, and whose they were if that is a running holdline.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) arrival: Option<Arrival>,
    inherited: Inherited,
}

impl Started {
    /// To be called first: sockets have fixed numbers until something else is opened.
    pub(crate) fn take() -> Result<Self, ExitCode> {
        let passed = systemd::sockets()
            .map_err(|error| fail("the sockets of the service manager cannot be used", &error))?;
        let arrived = Arrival::from_env()
            .map_err(|error| fail("the running holdline cannot be replaced", &error))?;
        let (arrival, inherited) = match arrived {
            Some((arrival, inherited)) => (Some(arrival), inherited),
            None => (None, passed),
        };
        Ok(Self { arrival, inherited })
    }

    /// Tells the running holdline, if there is one, why it is not replaced.
    pub(crate) fn refuse(&self, reason: &str) {
        if let Some(arrival) = &self.arrival {
            arrival.refuse(reason);
        }
    }

    /// All that the proxy is to know. The log is there by now.
    pub(crate) fn surround(self, source: Source) -> Surroundings {
        let binary = Binary::running();
        if let Err(error) = &binary {
            tracing::warn!(%error, "there can be no upgrade: the running program is not known");
        }
        Surroundings {
            source: Some(source),
            inherited: self.inherited,
            arrival: self.arrival,
            binary: binary.ok(),
            notifier: Notifier::from_env(),
            watchdog: Watchdog::from_env(),
        }
    }
}
