//! A new config for a running proxy: what of it can be taken live.
//!
//! Taken whole or not at all. Today that is `[auth]`; whatever else has changed is named, and
//! nothing is taken then.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::config::{Config, Tls};
use crate::http::{Gate, Table};

/// Between two looks at whether everybody who is in may still be.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Reads the config anew; the error is for a person.
pub type Loader = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Why a new config is not taken. The old one is still in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It was not started from anything that could have changed.
    #[error("it runs without a config file: there is nothing to read anew")]
    NoSource,
    /// The new one cannot be used.
    #[error("the new config is refused, the old one is in force: {0}")]
    Refused(String),
    /// These sections have changed, too.
    #[error(
        "only [auth] is taken without a restart, and {} changed as well: nothing was taken; restart \
         to take all of it",
        sections(.0)
    )]
    NotLive(Vec<&'static str>),
}

/// What a reload has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    /// Whether anything is different from before.
    pub changed: bool,
    /// Sessions whose sign-in or token is gone, and which were ended for it.
    pub ended: usize,
}

impl Reloaded {
    /// For the answer to a command.
    #[must_use]
    pub fn json(self) -> Value {
        let auth = match self.changed {
            true => "applied to everything",
            false => "not changed",
        };
        json!({"auth": auth, "sessionsEnded": self.ended})
    }
}

/// Takes new configs, one after the other.
pub(crate) struct Reloader {
    /// The config in force.
    table: Arc<ArcSwap<Table>>,
    gate: Arc<Gate>,
    source: Option<Loader>,
    /// Or the older file could win.
    one: Mutex<()>,
}

impl Reloader {
    pub(crate) fn new(table: Arc<ArcSwap<Table>>, gate: Arc<Gate>, source: Option<Loader>) -> Self {
        Self {
            table,
            gate,
            source,
            one: Mutex::default(),
        }
    }

    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let this = Arc::clone(self);
        let reloaded = tokio::task::spawn_blocking(move || this.take())
            .await
            .unwrap_or_else(|error| Err(ReloadError::Refused(error.to_string())));
        match &reloaded {
            Ok(Reloaded { changed, ended }) => tracing::info!(changed, ended, "reloaded"),
            Err(error) => tracing::error!("not reloaded: {error}"),
        }
        reloaded
    }

    /// Reads files.
    fn take(&self) -> Result<Reloaded, ReloadError> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let load = self.source.as_ref().ok_or(ReloadError::NoSource)?;
        let new = load().map_err(ReloadError::Refused)?;
        let old = self.table.load_full();
        check(old.config(), &new)?;
        let desk = self
            .gate
            .prepare(&old.config().auth, &new.auth)
            .map_err(|error| ReloadError::Refused(error.to_string()))?;
        let changed = **old.config() != new;
        let table = Arc::new(old.with_config(Arc::new(new)));
        self.table.store(Arc::clone(&table));
        let (before, now) = (&old.config().auth, &table.config().auth);
        let ended = self.gate.turn(desk, before, now);
        Ok(Reloaded { changed, ended })
    }

    /// For ever: ends the sessions of whom another process signed out.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let config = Arc::clone(self.table.load().config());
            if config.auth.is_on() {
                self.gate.sweep(&config.auth);
            }
        }
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

/// Whether `new` can be taken in place of `old`.
pub(crate) fn check(old: &Config, new: &Config) -> Result<(), ReloadError> {
    // Follows from [auth], and is a term of TLS.
    let asked = new.tls.client_certificates;
    let tls = Tls {
        client_certificates: asked,
        ..old.tls.clone()
    };
    let mtls = old.tls.client_certificates == asked || new.tls.client_ca.is_none();
    let changed: Vec<&'static str> = [
        ("listen", old.listen == new.listen),
        ("tls", tls == new.tls),
        ("auth] modes: [\"mtls\"", mtls),
        ("acme", old.acme == new.acme),
        ("gateway or route", old.routes == new.routes),
        ("hold", old.hold == new.hold),
        ("http", old.http == new.http),
        ("limits", old.limits == new.limits),
        ("admin", old.admin == new.admin),
        ("log", old.log == new.log),
    ]
    .into_iter()
    .filter(|(_, same)| !same)
    .map(|(section, _)| section)
    .collect();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(ReloadError::NotLive(changed)),
    }
}

fn sections(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("[{name}]"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn whoever_may_come_in_is_taken_live_and_nothing_else() {
        let parse = |text: &str| config::parse(text, "t").unwrap().config;
        let old = parse("");
        assert!(check(&old, &parse("[auth]\nsession_idle = \"1h\"")).is_ok());
        let new = parse("[hold]\nmax = \"1m\"\n[limits]\nsessions = 5");
        let refused = check(&old, &new).unwrap_err().to_string();
        assert!(refused.contains("[hold], [limits] changed"), "{refused}");
    }
}
