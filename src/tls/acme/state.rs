//! The state directory: what must outlive a restart, for every instance that shares it.
//!
//! ```text
//! acme/
//!   README                         what this is
//!   lock                           held for moments, around each change of a shared file
//!   hook.lock                      held while a hook runs
//!   accounts/HOST-PATH.json        account and its key, one a CA
//!   accounts/HOST-PATH.json.new    a key before the CA has made the account
//!   accounts/HOST-PATH.json.next   a key before the CA has it in place of the account's
//!   cas/HOST-PATH.json             how that CA does
//!   certificates/NAME/
//!     certificate.pem              key and chain in one file, so that they always fit together
//!     history.json                 attempts, and when to renew
//!     order.json                   an order under way, with the key that it will be for
//!     order.lock                   held while somebody orders
//!     records.json                 what is at the name servers because of us, or may be
//!     records.lock                 held while these are added and taken away
//!   challenges/KIND/NAME           what a CA may come and ask for
//! ```
//!
//! Files are private (0600) and replaced whole; what is damaged is set aside as `NAME.damaged`, what a
//! newer holdline has written is left to it and ours is `NAME.v1`. What is in the files is the business
//! of others.

mod lock;
mod record;
mod rights;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

pub(super) use lock::Locked;
pub(super) use record::Record;
use rights::private;

use crate::temporary;

/// No file of ours is larger.
const LARGEST: u64 = 1 << 20;
/// No order takes longer.
const LEFT_OVER: Duration = Duration::from_secs(24 * 3600);
/// More than anybody keeps.
const MOST_FOLDERS: usize = 1000;
const README: &str = "\
Certificates that holdline gets by ACME, and what it needs to renew them: the account key of each
CA (accounts/), the certificates with their keys (certificates/NAME/certificate.pem), and what was
tried when, so that no CA's limits are met. All of it is private. Instances of holdline may share
this directory. To have a certificate ordered again, run `holdline cert renew NAME`; or delete
certificates/NAME, and then restart every holdline that uses this directory.
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

// === impl StateError ===

impl StateError {
    fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self { what, path, source }
    }

    /// The same for somebody who only looks.
    pub(super) fn remedy_to_look(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => "run it as the user that holdline runs as",
            _ => "check that directory",
        }
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
        // Of this call alone: where there are no locks, nobody writes into another's.
        let temporary = temporary::beside(&path).map_err(failed)?;
        let written = private()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .and_then(|mut file| {
                self.hand_over(&file, &path)?;
                file.write_all(bytes)?;
                file.sync_all()
            })
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

    /// Deletes what is ours of this name; what a newer holdline has written stays.
    pub(super) fn remove(&self, name: &str) {
        for name in self.all_ours(name) {
            let path = self.path(&name);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(path = %path.display(), %error, "cannot delete a file");
            }
        }
    }

    /// Deletes what processes that ended suddenly have left: answers for CAs, and files that never
    /// got their name. What others may read is taken from them.
    pub(super) fn sweep(&self) {
        if self.untouched {
            return;
        }
        self.tighten();
        self.folders().iter().for_each(|it| temporary::sweep(it));
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

    /// All that files are written to.
    fn folders(&self) -> Vec<PathBuf> {
        let of = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            // Not where a link leads to.
            let folders = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.take(MOST_FOLDERS).map(|it| it.path()).collect()
        };
        let mut all = vec![self.root.clone()];
        for folder in of(&self.root) {
            all.extend(of(&folder));
            all.push(folder);
        }
        all
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
mod tests;
