//! A new config for a running proxy: read, checked and built aside, then taken whole, or refused
//! whole with the old one still in force.
//!
//! What is replaced is in [`in_force`]; when files are looked at by themselves is in [`watch`], and
//! which of them are not taken then in [`doubt`].
//! Nothing here knows how a session, a door or a certificate is changed.

mod doubt;
mod in_force;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::auth::DeskError;
use crate::config::{
    self, Change, Config, ConfigErrors, Loaded, Origin, Problem, Settings, Stamp, Text,
};
use crate::listen::BindError;
use crate::observe::log::{LogControl, LogError};
use crate::protocol::rescue::millis;
use crate::tls::TlsError;

pub use doubt::Doubt;
use doubt::Known;
pub(crate) use in_force::{InForce, Swapped, first_table};
use watch::Watch;

/// For reading a config with all its files.
const READ_LIMIT: Duration = Duration::from_secs(20);
/// For listeners that are taken away: each only has to let in whoever has connected already.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
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
    /// A file that changed could be half-written, or opens the door.
    #[error(
        "the changed file is not taken by itself, the old config is in force: {0}; if that is meant, \
         run `holdline reload`"
    )]
    Doubtful(Doubt),
    /// What was read at the start cannot be read again.
    #[error(
        "the new config is refused, the old one is in force: {} is no regular file, so it cannot be \
         read again; put a file in its place",
        .0.display()
    )]
    NoFile(PathBuf),
    /// The file system does not answer.
    #[error(
        "the config could not be read within {} s, the old one is in force; see to the file system \
         that it is on, and try again",
        READ_LIMIT.as_secs()
    )]
    Slow,
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
    /// Where nothing is different: what the last reload has done, and how long ago. A file that
    /// changed has often been taken before somebody asks for it.
    pub before: Option<(Duration, Value)>,
}

/// Who wants a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// An operator.
    Command,
    /// Nobody: a file has changed.
    File,
}

impl Reloaded {
    /// For the answer to a command.
    #[must_use]
    pub fn json(&self) -> Value {
        let changes: Vec<Value> = self.changes.iter().map(Change::json).collect();
        let mut said = json!({"changed": changes, "sessionsEnded": self.ended});
        if let (Some((ago, done)), Some(said)) = (&self.before, said.as_object_mut()) {
            said.insert(
                "before".to_owned(),
                json!({"agoMs": millis(*ago), "done": done}),
            );
        }
        said
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

/// What the config in force says.
#[derive(Default)]
struct Said {
    settings: Settings,
    text: Text,
    /// How the config file was when that was read.
    stamp: Option<Stamp>,
    /// What the last reload that changed something has done.
    last: Option<(Instant, Value)>,
}

/// Takes new configs, one after the other.
pub(crate) struct Reloader {
    in_force: Arc<InForce>,
    source: Option<Arc<Source>>,
    /// Locked while another one is taken, or the older file could win.
    said: tokio::sync::Mutex<Said>,
    /// For reading: what hangs there is waited for once.
    reading: Arc<Semaphore>,
    last: Arc<LastReload>,
    watch: Arc<Watch>,
}

/// What a running proxy was started with, beside its config.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) settings: Settings,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) stamps: Vec<(PathBuf, Stamp)>,
    pub(crate) text: Text,
    /// The config file, if it comes from one.
    pub(crate) config: Option<PathBuf>,
}

impl Written {
    /// Of what was loaded, and the config itself.
    pub(crate) fn of(loaded: Loaded) -> (Self, Config) {
        let written = Self {
            settings: loaded.settings,
            files: loaded.files,
            stamps: loaded.stamps,
            text: loaded.text,
            config: match loaded.source {
                Origin::File(path) => Some(path),
                Origin::Embedded | Origin::Text(_) => None,
            },
        };
        (written, loaded.config)
    }
}

impl Reloader {
    pub(crate) fn new(
        in_force: Arc<InForce>,
        source: Option<Source>,
        written: Written,
        last: Arc<LastReload>,
    ) -> Self {
        let Written {
            settings,
            files,
            stamps,
            text,
            config,
        } = written;
        let stamp = stamps
            .iter()
            .find(|(path, _)| Some(path) == config.as_ref());
        let stamp = stamp.map(|(_, stamp)| *stamp);
        Self {
            in_force,
            source: source.map(Arc::new),
            said: tokio::sync::Mutex::new(Said {
                settings,
                text,
                stamp,
                last: None,
            }),
            reading: Arc::new(Semaphore::new(1)),
            last,
            watch: Arc::new(Watch::new(config, files, &stamps)),
        }
    }

    pub(crate) async fn reload(self: &Arc<Self>, by: By) -> Result<Reloaded, ReloadError> {
        let reloaded = self.take(by).await;
        match &reloaded {
            Ok(done) => {
                tracing::info!(changed = done.keys(), ended = done.ended, "reloaded");
            }
            Err(error) => tracing::error!("not reloaded: {error}"),
        }
        self.last.note(&reloaded);
        reloaded
    }

    async fn take(self: &Arc<Self>, by: By) -> Result<Reloaded, ReloadError> {
        let mut said = self.said.lock().await;
        let (stamp, loaded) = self.read().await?;
        let old = self.in_force.config();
        if by == By::File
            && let Some(doubt) = doubt::doubt(
                &known(&said, &old),
                &known_of(&loaded),
                replaced(said.stamp, stamp),
            )
        {
            return Err(ReloadError::Doubtful(doubt));
        }
        let Loaded {
            config,
            warnings,
            settings,
            text,
            ..
        } = loaded;
        let this = Arc::clone(self);
        let taking = tokio::task::spawn_blocking(move || this.put_in_force(config));
        let ended = taking.await.unwrap_or(Err(ReloadError::Stopping))?;
        // Done means that their addresses are free.
        let closed = tokio::time::timeout(CLOSE_LIMIT, self.in_force.closed());
        if closed.await.is_err() {
            tracing::warn!("a listener that the config does not name any more is still open");
        }
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let changes = config::changes(&said.settings, &settings);
        (said.settings, said.text, said.stamp) = (settings, text, stamp);
        let now = Instant::now();
        let before = said.last.as_ref().filter(|_| changes.is_empty());
        let before = before.map(|(at, done)| (now.saturating_duration_since(*at), done.clone()));
        let done = Reloaded {
            changes,
            ended,
            before,
        };
        if !done.changes.is_empty() {
            said.last = Some((now, done.json()));
        }
        Ok(done)
    }

    /// Reads the files, within a limit; a file system that hangs keeps one thread, and no more.
    async fn read(self: &Arc<Self>) -> Result<(Option<Stamp>, Loaded), ReloadError> {
        let source = self.source.clone().ok_or(ReloadError::NoSource)?;
        let place = Arc::clone(&self.reading).try_acquire_owned();
        let place = place.map_err(|_| ReloadError::Slow)?;
        let this = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let _place = place;
            if let Some(odd) = this.watch.irregular() {
                return Err(ReloadError::NoFile(odd));
            }
            let (stamp, mut stamps) = (this.watch.config(), this.watch.stamps());
            let loaded = (source.load)();
            let files = match &loaded {
                Ok(loaded) => {
                    stamps.extend_from_slice(&loaded.stamps);
                    loaded.files.clone()
                }
                // One of these may be what makes it good.
                Err(errors) => errors.files.clone(),
            };
            this.watch.set(files, &stamps);
            let loaded = loaded.map_err(ReloadError::Config)?;
            Ok((stamp, loaded))
        });
        match tokio::time::timeout(READ_LIMIT, reading).await {
            Ok(read) => read.unwrap_or(Err(ReloadError::Stopping)),
            Err(_) => Err(ReloadError::Slow),
        }
    }

    /// Reads certificates and keys.
    fn put_in_force(&self, config: Config) -> Result<usize, ReloadError> {
        let level = LogControl::prepare(&config.log)?;
        let log_changed = self.in_force.config().log != config.log;
        let prepared = self.in_force.prepare(config)?;
        let ended = self.in_force.take(prepared);
        let log = self.source.as_ref().and_then(|source| source.log.as_ref());
        if let (Some(log), true) = (log, log_changed) {
            log.apply(level);
        }
        Ok(ended)
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

/// Whether the config file is another file than before, and not the same one written over.
fn replaced(before: Option<Stamp>, now: Option<Stamp>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => !now.is_in_place_of(&before),
        _ => false,
    }
}

fn known<'k>(said: &'k Said, config: &'k Config) -> Known<'k> {
    Known {
        text: &said.text,
        settings: &said.settings,
        auth: &config.auth,
    }
}

fn known_of(loaded: &Loaded) -> Known<'_> {
    Known {
        text: &loaded.text,
        settings: &loaded.settings,
        auth: &loaded.config.auth,
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}
