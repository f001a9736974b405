//! The state directory: what must outlive a restart, for every instance that shares it.
//!
//! ```text
//! acme/
//!   README                         what this is
//!   lock                           held for moments, around each change of a shared file
//!   accounts/HOST-PATH.json        account and its key, one a CA
//!   cas/HOST-PATH.json             how that CA does
//!   certificates/NAME/
//!     certificate.pem              key and chain in one file, so that they always fit together
//!     history.json                 attempts, and when to renew
//!     order.json                   an order under way, with the key that it will be for
//!     order.lock                   held while somebody orders
//!     records.json                 what is at the name servers because of us, or may be
//!   challenges/KIND/NAME           what a CA may come and ask for
//! ```
//!
//! Files are private (0600) and replaced whole; what is damaged is set aside under another name and
//! never in the way. What is in the files is the business of others.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// No file of ours is larger.
const LARGEST: u64 = 1 << 20;
/// No order takes longer.
const LEFT_OVER: Duration = Duration::from_secs(24 * 3600);
/// More than anybody keeps.
const MOST_FOLDERS: usize = 1000;
/// How long somebody else's moment may last; a process that was stopped holds its locks.
const LOCKED: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const README: &str = "\
Certificates that holdline gets by ACME, and what it needs to renew them: the account key of each
CA (accounts/), the certificates with their keys (certificates/NAME/certificate.pem), and what was
tried when, so that no CA's limits are met. All of it is private. Instances of holdline may share
this directory. Delete certificates/NAME to have that certificate ordered again.
";

/// Why something is not kept, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub struct StateError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// `acme/` in the directory of `[acme] state_dir`.
#[derive(Debug, Clone)]
pub(super) struct StateDir {
    root: PathBuf,
    /// Only looked at: what is damaged stays where it is.
    untouched: bool,
}

/// Excludes others until it is dropped.
#[derive(Debug)]
pub(super) struct Locked {
    _file: Option<File>,
}

// === impl StateError ===

impl StateError {
    fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self { what, path, source }
    }

    /// What a person has to do, as a clause.
    pub(super) fn remedy(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
            io::ErrorKind::ReadOnlyFilesystem => {
                "mount it writable, or name another directory in [acme] state_dir"
            }
            io::ErrorKind::PermissionDenied => {
                "give the user that holdline runs as the right to write there, or name another \
                 directory in [acme] state_dir"
            }
            io::ErrorKind::TimedOut => "another process holds it: let that one go on, or end it",
            _ => "check that directory, or name another one in [acme] state_dir",
        }
    }
}

// === impl StateDir ===

impl StateDir {
    /// Names the directory; touches nothing.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            root: state_dir.join("acme"),
            untouched: false,
        }
    }

    /// The same for somebody who may not change it.
    pub(super) fn to_look_at(state_dir: &Path) -> Self {
        Self {
            untouched: true,
            ..Self::new(state_dir)
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes it, and finds out whether everything that an order needs can be written.
    pub(super) fn probe(&self) -> Result<(), StateError> {
        self.write("README", README.as_bytes())?;
        let _lock = self.lock()?;
        let probe = self.path("probe");
        // As much as a certificate and its history need.
        self.write("probe", &[b'.'; 64 * 1024])?;
        match fs::remove_file(&probe) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::new("cannot delete", &probe, error))
            }
            _ => Ok(()),
        }
    }

    // === locks ===

    /// Waits for others; they are done within milliseconds, or nothing is to be waited for.
    #[expect(
        clippy::disallowed_methods,
        reason = "a file's lock can be waited for without a limit only"
    )]
    pub(super) fn lock(&self) -> Result<Locked, StateError> {
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
    pub(super) fn try_lock(&self, name: &str) -> Result<Option<Locked>, StateError> {
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

    fn lock_file(&self, path: &Path) -> Result<File, StateError> {
        self.make_parent(path)?;
        private()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| StateError::new("cannot open", path, error))
    }

    // === files ===

    /// The whole file; `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.path(name);
        let failed = |error| StateError::new("cannot read", &path, error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let length = file.metadata().map_err(failed)?.len();
        if length > LARGEST {
            return Err(failed(io::Error::other("it is too large to be ours")));
        }
        // In one piece from the start: growing would leave copies of a key behind.
        let room = usize::try_from(length).unwrap_or_default() + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// What tells one version of a file from the next.
    pub(super) fn version(&self, name: &str) -> Option<(u64, u64, i64)> {
        let metadata = fs::metadata(self.path(name)).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime_nsec()))
    }

    /// Replaces a file: readers see the old content or the new one, after a crash as well.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path(name);
        self.make_parent(&path)?;
        let failed = |error| StateError::new("cannot write", &path, error);
        // Of this process alone: where there are no locks, nobody writes into another's.
        let mut temporary = path.clone().into_os_string();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(temporary);
        // A left-over may have another mode or be a link: never written into.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let written = private()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| match path.parent() {
                Some(parent) => File::open(parent)?.sync_all(),
                None => Ok(()),
            });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(failed)
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.path(name);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), %error, "cannot delete a file");
        }
    }

    /// Deletes what processes that ended suddenly have left: answers for CAs.
    pub(super) fn sweep(&self) {
        for folder in ["challenges/http-01", "challenges/tls-alpn-01"] {
            let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
            for entry in entries.flatten() {
                let old = entry
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_OVER));
                if old {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// The certificates of all folders, wanted ones or not; a bounded number.
    pub(super) fn certificates(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("certificates"))
            .into_iter()
            .flatten();
        entries
            .flatten()
            .take(MOST_FOLDERS)
            .filter_map(|entry| {
                let folder = entry.file_name().into_string().ok()?;
                Some(format!("certificates/{folder}/certificate.pem"))
            })
            .collect()
    }

    /// Renames a file that cannot be used, so that a person can look at it.
    pub(super) fn set_aside(&self, name: &str, why: &str) {
        if self.untouched {
            return;
        }
        let path = self.path(name);
        let aside = self.path(&format!("{name}.damaged"));
        match fs::rename(&path, &aside) {
            Ok(()) => {
                tracing::warn!(path = %path.display(), aside = %aside.display(), why, "a damaged file was set aside");
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), why, %error, "a damaged file is in the way, and cannot be set aside");
            }
        }
    }

    /// What a file says, or its default: for what is not worth not starting for.
    pub(super) fn load<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        self.load_some(name)
            .unwrap_or_else(|error| {
                tracing::warn!("{error}; {}", error.remedy());
                None
            })
            .unwrap_or_default()
    }

    /// `None` if there is none, or a damaged one, which is set aside. One that cannot be read may
    /// well be good: whoever took it for absent would overwrite it.
    pub(super) fn load_some<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                // A parser's words may hold a part of the text, and so of a key.
                let why = format!("line {}: not as it was written", error.line());
                self.set_aside(name, &why);
                Ok(None)
            }
        }
    }

    pub(super) fn save(&self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let mut text = Zeroizing::new(Vec::with_capacity(16 * 1024));
        serde_json::to_writer_pretty(&mut *text, value).map_err(|error| {
            StateError::new("cannot write", &self.path(name), io::Error::other(error))
        })?;
        text.push(b'\n');
        self.write(name, &text)
    }

    fn make_parent(&self, path: &Path) -> Result<(), StateError> {
        let parent = path.parent().unwrap_or(&self.root);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| StateError::new("cannot make", parent, error))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// A harmless and readable file name for a DNS name, an address, a token or a URL.
pub(super) fn file_name(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'*' => '_',
            byte if byte.is_ascii_alphanumeric() || b".-_".contains(&byte) => char::from(byte),
            _ => '-',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tls::acme::history::Health;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        state.probe().unwrap();
        state
            .write("certificates/a/certificate.pem", b"one")
            .unwrap();
        state
            .write("certificates/a/certificate.pem", b"two")
            .unwrap();
        let folder = state.path("certificates/a");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(
            (mode(&folder), mode(&folder.join("certificate.pem"))),
            (0o700, 0o600)
        );
        assert_eq!(mode(dir.path().join("acme").as_path()), 0o700);
        let read = state
            .read("certificates/a/certificate.pem")
            .unwrap()
            .unwrap();
        assert_eq!(*read, b"two");
        assert!(!state.path("probe").exists());
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        state.write("cas/x.json", b"{\"failures\": 3").unwrap();
        assert_eq!(state.load::<Health>("cas/x.json"), Health::default());
        assert!(state.path("cas/x.json.damaged").exists());
        assert!(!state.path("cas/x.json").exists());
    }

    #[test]
    fn old_answers_are_swept_and_new_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        state.write("challenges/http-01/old", b"x").unwrap();
        state.write("challenges/http-01/new", b"x").unwrap();
        let long_ago = std::time::SystemTime::now() - 2 * LEFT_OVER;
        let old = File::options()
            .write(true)
            .open(state.path("challenges/http-01/old"))
            .unwrap();
        old.set_modified(long_ago).unwrap();
        state.sweep();
        assert!(state.path("challenges/http-01/new").exists());
        assert!(!state.path("challenges/http-01/old").exists());
    }

    #[test]
    fn only_one_holds_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let one = state.try_lock("order.lock").unwrap();
        assert!(one.is_some() && state.try_lock("order.lock").unwrap().is_none());
        drop(one);
        assert!(state.try_lock("order.lock").unwrap().is_some());
    }

    #[test]
    fn a_lock_that_is_never_given_up_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let held = state.lock().unwrap();
        let error = state.lock().unwrap_err();
        assert!(error.to_string().contains("acme/lock"), "{error}");
        assert!(error.remedy().contains("another process"), "{error:?}");
        drop(held);
        state.lock().unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let load = |name: &str| state.load_some::<Health>(name);
        assert_eq!(load("cas/x.json").unwrap(), None);
        fs::create_dir_all(state.path("cas/x.json")).unwrap();
        load("cas/x.json").unwrap_err();
        fs::remove_dir(state.path("cas/x.json")).unwrap();
        state.save("cas/x.json", &Health::default()).unwrap();
        assert_eq!(load("cas/x.json").unwrap(), Some(Health::default()));
    }

    #[test]
    fn what_cannot_be_written_is_named_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("acme"), "a file").unwrap();
        let error = StateDir::new(dir.path()).probe().unwrap_err();
        assert!(error.to_string().contains("/acme"), "{error}");
        assert!(error.remedy().contains("state_dir"));
        // No room there for anything.
        let full = StateDir {
            root: PathBuf::from("/dev/full"),
            untouched: false,
        };
        assert!(full.probe().is_err());
    }

    #[test]
    fn names_of_files_are_harmless() {
        assert_eq!(file_name("*.a.example"), "_.a.example");
        assert_eq!(file_name("../a/b:c"), "..-a-b-c");
    }
}
