//! The keyring of this process, and the file it shares with others.
//!
//! A rotated file is seen when something names a key that is not known here, and before signing.
//! Both look at the file rarely, however often they are asked: the names come from strangers.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::aside::Aside;
use super::error::DeskError;
use super::keyring::{Damage, Key, KeyId, Keyring};
use super::state::StateDir;

const FILE: &str = "auth.key";

/// A key that is not known may be in the file since.
const LOOK_FOR_UNKNOWN: Duration = Duration::from_secs(3);
/// To sign with the newest.
const LOOK_FOR_NEWER: Duration = Duration::from_secs(60);

/// The keys in use.
pub(super) struct Keys {
    ring: Arc<ArcSwap<Keyring>>,
    /// Where they are kept; `None`: in this process only.
    file: Option<StateDir>,
    looked: Mutex<Instant>,
    aside: Aside,
}

impl Keys {
    /// Those in the directory; a new one is put there if there is none.
    pub(super) fn open(dir: &StateDir, now: SystemTime) -> Result<Self, DeskError> {
        let ring = match read(dir)? {
            Some(ring) => ring,
            None => create(dir, now)?,
        };
        Ok(Self {
            ring: Arc::new(ArcSwap::from_pointee(ring)),
            file: Some(dir.clone()),
            looked: Mutex::new(Instant::now()),
            aside: Aside::default(),
        })
    }

    /// A key for this process alone.
    pub(super) fn ephemeral(now: SystemTime) -> Result<Self, DeskError> {
        let ring = Keyring::make(seconds(now)).ok_or(DeskError::Random)?;
        Ok(Self {
            ring: Arc::new(ArcSwap::from_pointee(ring)),
            file: None,
            looked: Mutex::new(Instant::now()),
            aside: Aside::default(),
        })
    }

    /// The key to sign with.
    pub(super) fn current(&self) -> Arc<Key> {
        self.look(LOOK_FOR_NEWER);
        Arc::clone(self.ring.load().first())
    }

    /// The key of a signature, if it is accepted; replaced ones are, for `keep`.
    pub(super) fn find(&self, id: KeyId, now: SystemTime, keep: Duration) -> Option<Arc<Key>> {
        let find = || {
            self.ring
                .load()
                .find(id, seconds(now), keep)
                .map(Arc::clone)
        };
        find().or_else(|| {
            self.look(LOOK_FOR_UNKNOWN);
            find()
        })
    }

    /// Reads the file again unless that was done a moment ago.
    fn look(&self, rarely: Duration) {
        let Some(dir) = &self.file else { return };
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.elapsed() < rarely {
                return;
            }
            *looked = Instant::now();
        }
        let (dir, known) = (dir.clone(), Arc::clone(&self.ring));
        let path = dir.path(FILE);
        self.aside.look(&path, move || match read(&dir) {
            Ok(Some(ring)) => known.store(Arc::new(ring)),
            // The keys in memory are good, so everybody stays signed in.
            Ok(None) => tracing::warn!(
                path = %dir.path(FILE).display(),
                "the key of the sign-ins is gone: after a restart everybody has to sign in again"
            ),
            Err(error) => tracing::warn!("the key of the sign-ins cannot be read again: {error}"),
        });
    }
}

/// Whether the file could be used, if there is one.
///
/// # Errors
/// As [`Keys::open`].
pub(super) fn check(dir: &StateDir) -> Result<(), DeskError> {
    read(dir).map(drop)
}

/// Puts a new key in front, or makes the first one; the file.
///
/// # Errors
/// When the directory or the file cannot be used.
pub(super) fn rotate(
    dir: &StateDir,
    now: SystemTime,
    keep: Duration,
) -> Result<std::path::PathBuf, DeskError> {
    let path = dir.path(FILE);
    let failed = |error| DeskError::File {
        path: dir.path(FILE),
        error,
    };
    let lock = dir.lock().map_err(failed)?;
    let ring = match read(dir) {
        Ok(Some(ring)) => ring.rotated(seconds(now), keep),
        Ok(None) => Keyring::make(seconds(now)),
        // Whoever could read it can sign with it: nothing of it is kept.
        Err(DeskError::Exposed { .. } | DeskError::Foreign { .. }) => Keyring::make(seconds(now)),
        Err(error) => return Err(error),
    };
    let ring = ring.ok_or(DeskError::Random)?;
    dir.replace(FILE, ring.to_text().as_bytes(), &lock)
        .map_err(failed)?;
    Ok(path)
}

fn create(dir: &StateDir, now: SystemTime) -> Result<Keyring, DeskError> {
    let failed = |error| DeskError::File {
        path: dir.path(FILE),
        error,
    };
    let lock = dir.lock().map_err(failed)?;
    // Another process may have been first.
    if let Some(ring) = read(dir)? {
        return Ok(ring);
    }
    let ring = Keyring::make(seconds(now)).ok_or(DeskError::Random)?;
    dir.replace(FILE, ring.to_text().as_bytes(), &lock)
        .map_err(failed)?;
    tracing::info!(path = %dir.path(FILE).display(), "made a key for the sign-ins");
    // Without locks another process may have written after us; the file decides.
    Ok(read(dir)?.unwrap_or(ring))
}

fn read(dir: &StateDir) -> Result<Option<Keyring>, DeskError> {
    let path = || dir.path(FILE);
    let read = dir.read(FILE).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => DeskError::Damaged {
            path: path(),
            damage: Damage::Size,
        },
        _ => DeskError::File {
            path: path(),
            error,
        },
    })?;
    let Some((bytes, access)) = read else {
        return Ok(None);
    };
    if !access.trusted {
        let owner = access.owner;
        return Err(DeskError::Foreign {
            path: path(),
            owner,
        });
    }
    let mode = access.mode;
    if mode & 0o077 != 0 {
        return Err(DeskError::Exposed { path: path(), mode });
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Keyring::parse(text)
        .map(Some)
        .map_err(|damage| DeskError::Damaged {
            path: path(),
            damage,
        })
}

/// Seconds since 1970; a clock before that is as good as one at it.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
