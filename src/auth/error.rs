//! Why the desk cannot open: each with the path and what to do.

use std::io;
use std::path::PathBuf;

use super::forward::TrustError;
use super::keyring::Damage;
use crate::hint;

/// Why sign-ins cannot be served, or a key not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeskError {
    /// The state directory cannot be made or written.
    #[error(
        "{} cannot be written: {error}; make it a directory of the user that holdline runs as, or \
         name another one in [auth] state_dir", path.display()
    )]
    Directory {
        /// `auth.state_dir`.
        path: PathBuf,
        /// What the operating system said. No `source`: those who print causes would say it twice.
        error: io::Error,
    },
    /// Who can write there can put a key of their own in the place of ours.
    #[error(
        "{} can be written by others (mode {mode:03o}); run `chmod go-w` on it, and `{}` \
         unless nobody has, or name another one in [auth] state_dir",
        path.display(), hint::config_command("key rotate")
    )]
    Writable {
        /// `auth.state_dir`.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file in it cannot be read or written.
    #[error(
        "{} cannot be read or written: {error}; it must belong to the user that holdline runs as",
        path.display()
    )]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// Who can read the key can sign in as anybody.
    #[error(
        "{} may be read by others (mode {mode:03o}); run `{}` for a new key, which \
         makes everybody sign in again, or `chmod 600` if nobody has read it",
        path.display(), hint::config_command("key rotate")
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Whose the key is can sign in as anybody.
    #[error(
        "{} belongs to another user (uid {owner}); run `{}` for a new key, which \
         makes everybody sign in again, or `chown` it to the user that holdline runs as if that one \
         has not read it",
        path.display(), hint::config_command("key rotate")
    )]
    Foreign {
        /// The key file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The key file is none.
    #[error(
        "{} is damaged: {damage}; remove it to begin with a new key: everybody has to sign in again",
        path.display()
    )]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// No sign-in service could be asked.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The operating system has no random numbers.
    #[error("the operating system gives no random numbers, so no key can be made")]
    Random,
}
