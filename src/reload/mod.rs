//! A new config for a running proxy: read, checked and built aside, then taken whole, or refused
//! whole with the old one still in force.
//!
//! What is replaced is in [`in_force`]; when files are looked at by themselves is in [`watch`].
//! Nothing here knows how a session, a door or a certificate is changed.

mod in_force;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::auth::DeskError;
use crate::config::{self, Change, ConfigErrors, Loaded, Problem, Settings};
use crate::listen::BindError;
use crate::observe::log::{LogControl, LogError};
use crate::protocol::rescue::millis;
use crate::tls::TlsError;

pub(crate) use in_force::{InForce, Swapped, first_table};
use watch::Watch;

/// Between two looks at whether everybody who is in may still be.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Reads the config anew.
pub type Loader = Box<dyn Fn() -> Result<Loaded, ConfigErrors> + Send + Sync>;

/// Where a running proxy's config comes from, and what of it is the process's.
pub struct Source {
    /// Reads it anew.
    pub load: Loader,
    /// The process's log.
    pub log: Option<LogControl>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Why a new config is not taken. The old one is still in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It was not started from anything that could have changed.
    #[error("it runs without a config file: there is nothing to read anew")]
    NoSource,
    /// The new one has errors.
    #[error("the new config is refused, the old one is in force:\n{0}")]
    Config(ConfigErrors),
    /// A certificate or a TLS setting.
    #[error("the new config is refused, the old one is in force: {0}")]
    Tls(#[from] TlsError),
    /// The key of the sign-ins.
    #[error("the new config is refused, the old one is in force: {0}")]
    Auth(#[from] DeskError),
    /// An address.
    #[error("the new config is refused, the old one is in force: {0}")]
    Bind(#[from] BindError),
    /// The log's level.
    #[error("the new config is refused, the old one is in force: {0}")]
    Log(#[from] LogError),
    /// The proxy ends.
    #[error("the config is not read any more: holdline is stopping")]
    Stopping,
}

/// What a reload has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// What is different from before, and to what it applies.
    pub changes: Vec<Change>,
    /// Sessions whose sign-in or token is gone, and which were ended for it.
    pub ended: usize,
}

impl Reloaded {
    /// For the answer to a command.
    #[must_use]
    pub fn json(&self) -> Value {
        let changes: Vec<Value> = self.changes.iter().map(Change::json).collect();
        json!({"changed": changes, "sessionsEnded": self.ended})
    }

    fn keys(&self) -> String {
        let keys: Vec<&str> = self
            .changes
            .iter()
            .map(|change| change.key.as_str())
            .collect();
        match keys.is_empty() {
            true => "nothing".to_owned(),
            false => keys.join(", "),
        }
    }
}

impl ReloadError {
    /// For the answer to a command.
    #[must_use]
    pub fn json(&self) -> Value {
        let problems: Vec<Value> = match self {
            Self::Config(errors) => errors.errors.iter().map(Problem::json).collect(),
            _ => Vec::new(),
        };
        json!({"error": self.to_string(), "problems": problems})
    }
}

/// How the last reload went, for the status.
#[derive(Debug, Default)]
pub(crate) struct LastReload(Mutex<Option<Outcome>>);

#[derive(Debug)]
struct Outcome {
    at: Instant,
    /// What was wrong, if it was refused.
    error: Option<String>,
}

impl LastReload {
    fn note(&self, reloaded: &Result<Reloaded, ReloadError>) {
        let outcome = Outcome {
            at: Instant::now(),
            error: reloaded.as_ref().err().map(ToString::to_string),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// When, and what was wrong with it if it was refused; `null` before the first.
    pub(crate) fn json(&self, now: Instant) -> Value {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map_or(Value::Null, |last| {
            let ago = now.saturating_duration_since(last.at);
            json!({"agoMs": millis(ago), "refused": last.error})
        })
    }
}

/// Takes new configs, one after the other.
pub(crate) struct Reloader {
    in_force: Arc<InForce>,
    source: Option<Source>,
    /// What the config in force says, key by key. Locked while another one is taken, or the older
    /// file could win.
    settings: Mutex<Settings>,
    last: Arc<LastReload>,
    watch: Arc<Watch>,
}

impl Reloader {
    /// `files`: those that the config in force was made of.
    pub(crate) fn new(
        in_force: Arc<InForce>,
        source: Option<Source>,
        settings: Settings,
        files: Vec<PathBuf>,
        last: Arc<LastReload>,
    ) -> Self {
        Self {
            in_force,
            source,
            settings: Mutex::new(settings),
            last,
            watch: Arc::new(Watch::new(files)),
        }
    }

    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let this = Arc::clone(self);
        let reloaded = tokio::task::spawn_blocking(move || this.take())
            .await
            .unwrap_or(Err(ReloadError::Stopping));
        match &reloaded {
            Ok(done) => {
                tracing::info!(changed = done.keys(), ended = done.ended, "reloaded");
            }
            Err(error) => tracing::error!("not reloaded: {error}"),
        }
        self.last.note(&reloaded);
        reloaded
    }

    /// Reads files.
    fn take(&self) -> Result<Reloaded, ReloadError> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let source = self.source.as_ref().ok_or(ReloadError::NoSource)?;
        let stamps = self.watch.stamps();
        let loaded = (source.load)().map_err(|errors| {
            // One of these may be what makes it good.
            self.watch.set(errors.files.clone(), &stamps);
            ReloadError::Config(errors)
        })?;
        self.watch.set(loaded.files, &stamps);
        let level = LogControl::prepare(&loaded.config.log)?;
        let log_changed = self.in_force.config().log != loaded.config.log;
        let prepared = self.in_force.prepare(loaded.config)?;
        let ended = self.in_force.take(prepared);
        if let (Some(log), true) = (&source.log, log_changed) {
            log.apply(level);
        }
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let changes = config::changes(&settings, &loaded.settings);
        *settings = loaded.settings;
        Ok(Reloaded { changes, ended })
    }

    /// For ever: ends the sessions of whom another process signed out.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.in_force.sweep();
        }
    }

    /// Waits until a file of the config is another than when it was read.
    pub(crate) async fn files_changed(&self) {
        match self.source {
            Some(_) => self.watch.changed().await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}
