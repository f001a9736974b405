//! A new config for a running proxy: read, checked and built aside, then taken whole, or refused
//! whole with the old one still in force.
//!
//! What is replaced is in [`in_force`], what comes of it in [`outcome`]; when files are looked at by themselves is in [`watch`], and
//! which of them are not taken then in [`doubt`].
//! Nothing here knows how a session, a door or a certificate is changed.

mod doubt;
mod in_force;
mod outcome;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{self, Config, ConfigErrors, Loaded, Origin, Settings, Stamp, Started, Text};
use crate::observe::log::{LogControl, LogPlan};

use doubt::Known;
pub use doubt::{Doubt, Doubted};
use in_force::Prepared;
pub(crate) use in_force::{InForce, Swapped, first_table};
pub use outcome::{Before, ReloadError, Reloaded, TokenLeft};
pub(crate) use outcome::{By, LastReload};
use watch::Watch;

/// For reading a config and all the files that it names.
const LIMIT: Duration = Duration::from_secs(20);
/// For a look at how files are before they are read; without it no more is lost than a change in
/// that moment.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Readings that hang. Each keeps a thread; one that has a new config to read is not held up by them.
const HANGING: usize = 8;
/// A file that is the beginning of what it was may still be being written; so long is nothing.
const SETTLES: Duration = Duration::from_secs(5);
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

/// What the config in force says.
#[derive(Default)]
struct Said {
    settings: Settings,
    text: Text,
    /// How the config file was when that was read.
    stamp: Option<Stamp>,
    /// What the last reload that changed something has done.
    last: Option<(Instant, By, Value)>,
    /// A file that is perhaps not all there yet, and since when it is as it is.
    unsettled: Option<(Stamp, Instant)>,
}

/// How files were before they were read.
struct Seen {
    config: Option<Stamp>,
    files: Vec<(PathBuf, Stamp)>,
}

/// Takes new configs, one after the other.
pub(crate) struct Reloader {
    in_force: Arc<InForce>,
    source: Option<Arc<Source>>,
    /// Locked while another one is taken, or the older file could win.
    said: tokio::sync::Mutex<Said>,
    /// For reading: what hangs keeps its place.
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
    pub(crate) started: Option<Started>,
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
            started: Some(loaded.started),
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
            started: _,
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
                unsettled: None,
            }),
            reading: Arc::new(Semaphore::new(HANGING)),
            last,
            watch: Arc::new(Watch::new(config, files, &stamps)),
        }
    }

    pub(crate) async fn reload(self: &Arc<Self>, by: By) -> Result<Reloaded, ReloadError> {
        let reloaded = self.take(by).await;
        match &reloaded {
            Ok(done) => {
                tracing::info!(changed = done.keys(), ended = done.ended, "reloaded");
                for TokenLeft { name, user } in &done.tokens_left {
                    tracing::warn!(
                        token = name,
                        user,
                        "a token stays valid though its user is gone: take it out of auth.tokens, too"
                    );
                }
            }
            Err(ReloadError::Unsettled) => {
                tracing::info!("not reloaded yet: {}", ReloadError::Unsettled);
                return reloaded;
            }
            Err(error) => tracing::error!("not reloaded: {error}"),
        }
        self.last.note(&reloaded);
        reloaded
    }

    /// What speaks against the file that is there now, if it waits for somebody's word.
    pub(crate) fn doubt(&self) -> Option<Doubted> {
        self.last.doubt()
    }

    async fn take(self: &Arc<Self>, by: By) -> Result<Reloaded, ReloadError> {
        let mut said = self.said.lock().await;
        let deadline = Instant::now() + LIMIT;
        let (seen, loaded) = self.read(deadline).await?;
        let stamp = seen.config;
        let old = self.in_force.config();
        let (before, now) = (known(&said, &old), known_of(&loaded));
        let unasked = by == By::File;
        if unasked && let Some(doubt) = doubt::doubt(&before, &now) {
            let may_settle = doubt == Doubt::Beginning && replaced(said.stamp, stamp);
            match may_settle {
                true => self.settled(&mut said.unsettled, stamp)?,
                false => {
                    let doubted = Doubted::of(doubt, &old, &loaded.config);
                    return Err(ReloadError::Doubtful(doubted));
                }
            }
        }
        said.unsettled = None;
        let Loaded {
            config,
            warnings,
            settings,
            text,
            ..
        } = loaded;
        let tokens_left = TokenLeft::of(&old.auth, &config.auth);
        let prepared = self.prepare(config, deadline).await;
        if matches!(prepared, Err(ReloadError::SlowFiles)) {
            // Not even a look at what does not answer.
            self.watch_again(seen).await;
        }
        let (level, prepared) = prepared?;
        let this = Arc::clone(self);
        let taking = tokio::task::spawn_blocking(move || this.put_in_force(level, prepared));
        let ended = taking.await.map_err(|_| ReloadError::Stopping)?;
        // Done means that their addresses are free.
        let closed = timeout(CLOSE_LIMIT, self.in_force.closed());
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
        let before = before.map(|(at, by, done)| Before {
            ago: now.saturating_duration_since(*at),
            by_itself: *by == By::File,
            done: done.clone(),
        });
        let done = Reloaded {
            changes,
            ended,
            tokens_left,
            before,
        };
        if !done.changes.is_empty() {
            said.last = Some((now, by, done.json()));
        }
        Ok(done)
    }

    /// Runs what a file system may let hang, on a thread that is waited for until `deadline`. What
    /// comes of it later is dropped; `work` is told whether it is still waited for.
    async fn aside<T: Send + 'static>(
        &self,
        deadline: Instant,
        slow: ReloadError,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, ReloadError> {
        let place = Arc::clone(&self.reading).try_acquire_owned();
        let place = place.map_err(|_| ReloadError::Hanging)?;
        let (tell, told) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let done = work(&|| !tell.is_closed());
            // Whoever hears of it may want the place.
            drop(place);
            let _ = tell.send(done);
        });
        match timeout_at(deadline, told).await {
            Ok(done) => done.map_err(|_| ReloadError::Stopping),
            Err(_) => Err(slow),
        }
    }

    /// Reads the files.
    async fn read(self: &Arc<Self>, deadline: Instant) -> Result<(Seen, Loaded), ReloadError> {
        let source = self.source.clone().ok_or(ReloadError::NoSource)?;
        let watch = Arc::clone(&self.watch);
        let look = move |_: &dyn Fn() -> bool| watch.stamps();
        let soon = deadline.min(Instant::now() + LOOK_LIMIT);
        // What hangs there is perhaps not of the new config.
        let files = self.aside(soon, ReloadError::Slow, look).await;
        let files = files.unwrap_or_default();
        let watch = Arc::clone(&self.watch);
        let read = move |wanted: &dyn Fn() -> bool| {
            if let Some(odd) = watch.irregular() {
                return Err(ReloadError::NoFile(odd));
            }
            let seen = Seen {
                config: watch.config(),
                files,
            };
            let loaded = (source.load)();
            let mut stamps = seen.files.clone();
            let files = match &loaded {
                Ok(loaded) => {
                    stamps.extend_from_slice(&loaded.stamps);
                    loaded.files.clone()
                }
                // One of these may be what makes it good.
                Err(errors) => errors.files.clone(),
            };
            if wanted() {
                watch.set(files, &stamps);
            }
            let loaded = loaded.map_err(ReloadError::Config)?;
            Ok((seen, loaded))
        };
        self.aside(deadline, ReloadError::Slow, read).await?
    }

    /// Reads certificates and keys, and binds addresses.
    async fn prepare(
        &self,
        config: Config,
        deadline: Instant,
    ) -> Result<(Option<LogPlan>, Prepared), ReloadError> {
        let in_force = Arc::clone(&self.in_force);
        let work = move |wanted: &dyn Fn() -> bool| {
            let level = LogControl::prepare(&config.log)?;
            let log_changed = in_force.config().log != config.log;
            let prepared = in_force.prepare(config, wanted)?;
            Ok((log_changed.then_some(level), prepared))
        };
        self.aside(deadline, ReloadError::SlowFiles, work).await?
    }

    /// Reads nothing, so that nothing keeps it from its end.
    fn put_in_force(&self, level: Option<LogPlan>, prepared: Prepared) -> usize {
        let ended = self.in_force.take(prepared);
        let log = self.source.as_ref().and_then(|source| source.log.as_ref());
        if let (Some(log), Some(level)) = (log, level) {
            log.apply(level);
        }
        ended
    }

    /// As before a reading.
    async fn watch_again(&self, seen: Seen) {
        let watch = Arc::clone(&self.watch);
        if seen.files.is_empty() {
            // They could not be looked at: what was read names them.
            return;
        }
        let again = move |_: &dyn Fn() -> bool| {
            let files = seen.files.iter().map(|(path, _)| path.clone()).collect();
            watch.set(files, &seen.files);
        };
        let soon = Instant::now() + LOOK_LIMIT;
        let _ = self.aside(soon, ReloadError::Slow, again).await;
    }

    /// Whether a file has been as it is for long enough.
    fn settled(
        &self,
        unsettled: &mut Option<(Stamp, Instant)>,
        stamp: Option<Stamp>,
    ) -> Result<(), ReloadError> {
        let now = Instant::now();
        match (&*unsettled, stamp) {
            (Some((before, since)), Some(stamp)) if *before == stamp => {
                match now.saturating_duration_since(*since) >= SETTLES {
                    true => Ok(()),
                    false => Err(ReloadError::Unsettled),
                }
            }
            (_, stamp) => {
                *unsettled = stamp.map(|stamp| (stamp, now));
                Err(ReloadError::Unsettled)
            }
        }
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

    /// The same, but no longer than it takes until a file that was [`ReloadError::Unsettled`] is
    /// taken.
    pub(crate) async fn files_changed_or_settled(&self) {
        let _ = timeout(SETTLES, self.files_changed()).await;
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
        config,
    }
}

fn known_of(loaded: &Loaded) -> Known<'_> {
    Known {
        text: &loaded.text,
        settings: &loaded.settings,
        config: &loaded.config,
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}
