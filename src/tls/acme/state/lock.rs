//! How instances that share the directory keep out of each other's way.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{StateDir, StateError, private};
use crate::tls::acme::ca::blocking;
use crate::tls::acme::problem::Failure;

/// How long somebody else's moment may last; a process that was stopped holds its locks.
const LOCKED: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The same for what others may hold for seconds.
const LOOK_EVERY_LONG: Duration = Duration::from_millis(100);

/// Excludes others until it is dropped.
#[derive(Debug)]
pub(in crate::tls::acme) struct Locked {
    _file: Option<File>,
}

impl StateDir {
    /// Waits for others; they are done within milliseconds, or nothing is to be waited for.
    #[expect(
        clippy::disallowed_methods,
        reason = "a file's lock can be waited for without a limit only"
    )]
    pub(in crate::tls::acme) fn lock(&self) -> Result<Locked, StateError> {
        let path = self.path("lock");
        let file = self.lock_file(&path)?;
        let mut looks = LOCKED.as_millis() / LOOK_EVERY.as_millis();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Locked { _file: Some(file) }),
                // Some network file systems have no locks. Renaming keeps files whole there, too.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Locked { _file: None });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(StateError::new("cannot lock", &path, error));
                }
                Err(TryLockError::WouldBlock) if looks == 0 => {
                    let error = io::ErrorKind::TimedOut.into();
                    return Err(StateError::new("cannot lock", &path, error));
                }
                Err(TryLockError::WouldBlock) => {
                    looks -= 1;
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    }

    /// `None` if another instance has it. The kernel gives it up with the process.
    pub(in crate::tls::acme) fn try_lock(&self, name: &str) -> Result<Option<Locked>, StateError> {
        let path = self.path(name);
        let file = self.lock_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Locked { _file: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Locked { _file: None }))
            }
            Err(TryLockError::Error(error)) => Err(StateError::new("cannot lock", &path, error)),
        }
    }

    /// Whether an instance has it now; makes nothing.
    pub(in crate::tls::acme) fn is_locked(&self, name: &str) -> bool {
        // What is no file may hang.
        let path = self.path(name);
        let file = fs::metadata(&path)
            .is_ok_and(|it| it.is_file())
            .then(|| File::open(&path));
        let Some(Ok(file)) = file else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Waits for whoever has it, for `limit` at most; whoever looks first gets it.
    pub(in crate::tls::acme) async fn lock_within(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<Locked, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            let (state, own) = (self.clone(), name.to_owned());
            if let Some(locked) = blocking(move || state.try_lock(&own)).await?? {
                return Ok(locked);
            }
            if Instant::now() >= deadline {
                let error = io::ErrorKind::TimedOut.into();
                return Err(StateError::new("cannot lock", &self.path(name), error).into());
            }
            sleep(LOOK_EVERY_LONG).await;
        }
    }

    fn lock_file(&self, path: &Path) -> Result<File, StateError> {
        self.make_parent(path)?;
        let open = || match private().append(true).create_new(true).open(path) {
            Ok(file) => {
                self.hand_over(&file, path)?;
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                private().append(true).open(path)
            }
            Err(error) => Err(error),
        };
        open().map_err(|error| StateError::new("cannot open", path, error))
    }
}
