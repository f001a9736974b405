//! A new config for a running proxy: read, checked and built aside, then taken whole, or refused
//! whole with the old one still in force.
//!
//! What is replaced is in [`in_force`]; when files are looked at by themselves is in [`watch`].
//! Nothing here knows how a session, a door or a certificate is changed.

mod in_force;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::auth::DeskError;
use crate::config::{CertificateSource, Config, ConfigErrors, Loaded, Origin};
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
#[derive(Default)]
pub struct Source {
    /// Reads it anew; without, nothing can be reloaded.
    pub load: Option<Loader>,
    /// The files that the running config was read from.
    pub files: Vec<PathBuf>,
    /// The process's log.
    pub log: Option<LogControl>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("files", &self.files)
            .finish_non_exhaustive()
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
    /// The sections that are different from before.
    pub changed: Vec<&'static str>,
    /// Sessions whose sign-in or token is gone, and which were ended for it.
    pub ended: usize,
}

impl Reloaded {
    /// For the answer to a command.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"changed": self.changed, "sessionsEnded": self.ended})
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
    source: Source,
    /// Or the older file could win.
    one: Mutex<()>,
    last: Arc<LastReload>,
    watch: Arc<Watch>,
}

impl Reloader {
    pub(crate) fn new(in_force: Arc<InForce>, source: Source, last: Arc<LastReload>) -> Self {
        Self {
            in_force,
            watch: Arc::new(Watch::new(source.files.clone())),
            source,
            one: Mutex::default(),
            last,
        }
    }

    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let this = Arc::clone(self);
        let reloaded = tokio::task::spawn_blocking(move || this.take())
            .await
            .unwrap_or(Err(ReloadError::Stopping));
        match &reloaded {
            Ok(Reloaded { changed, ended }) => {
                tracing::info!(?changed, ended, "reloaded");
            }
            Err(error) => tracing::error!("not reloaded: {error}"),
        }
        self.last.note(&reloaded);
        reloaded
    }

    /// Reads files.
    fn take(&self) -> Result<Reloaded, ReloadError> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let load = self.source.load.as_ref().ok_or(ReloadError::NoSource)?;
        let stamps = self.watch.stamps();
        let loaded = load().map_err(ReloadError::Config)?;
        let files = files(&loaded);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let (old, new) = (self.in_force.config(), loaded.config);
        let log = LogControl::prepare(&new.log)?;
        let changed = changed(&old, &new);
        let prepared = self.in_force.prepare(new)?;
        let ended = self.in_force.take(prepared);
        if let (Some(control), true) = (&self.source.log, changed.contains(&"log")) {
            control.apply(log);
        }
        self.watch.set(files, &stamps);
        Ok(Reloaded { changed, ended })
    }

    /// For ever: ends the sessions of whom another process signed out, and reloads when a file
    /// has changed.
    pub(crate) async fn run(self: &Arc<Self>) {
        let sweep = async {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                self.in_force.sweep();
            }
        };
        let files = async {
            if self.source.load.is_none() {
                return std::future::pending().await;
            }
            loop {
                self.watch.changed().await;
                // Its outcome is in the log and in the status.
                let _ = self.reload().await;
            }
        };
        tokio::join!(sweep, files);
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

/// The files that a config was read from.
#[must_use]
pub fn files(loaded: &Loaded) -> Vec<PathBuf> {
    let own = match &loaded.source {
        Origin::File(path) => Some(path.clone()),
        Origin::Embedded | Origin::Text(_) => None,
    };
    let tls = &loaded.config.tls;
    let certificates = match &tls.certificate {
        CertificateSource::Files(files) => files.as_slice(),
        CertificateSource::Dev { .. } => &[],
    };
    let certificates = certificates
        .iter()
        .flat_map(|files| [files.cert.clone(), files.key.clone()]);
    own.into_iter()
        .chain(certificates)
        .chain(tls.client_ca.clone())
        .collect()
}

fn changed(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("listen", old.listen == new.listen),
        ("tls", old.tls == new.tls),
        ("routes", old.routes == new.routes),
        ("hold", old.hold == new.hold),
        ("http", old.http == new.http),
        ("limits", old.limits == new.limits),
        ("auth", old.auth == new.auth),
        ("admin", old.admin == new.admin),
        ("log", old.log == new.log),
    ]
    .into_iter()
    .filter(|(_, same)| !same)
    .map(|(section, _)| section)
    .collect()
}
