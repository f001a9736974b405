//! The state directory: private files that other processes may read and replace at any moment.
//!
//! Files are replaced whole or not at all, writers exclude each other by a lock, and what root
//! makes here belongs to whom the directory belongs. A directory that others can write is not used:
//! they could put files of their own in the place of ours. What is in the files is not known here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use zeroize::Zeroizing;

use super::error::DeskError;
use crate::temporary;

/// No file of ours is larger.
const LARGEST: u64 = 16 << 20;

/// The directory of `auth.state_dir`.
#[derive(Debug, Clone)]
pub(super) struct StateDir {
    path: PathBuf,
}

/// Who can do what with a file that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) mode: u32,
    pub(super) owner: u32,
    /// Its owner is us, root, or whose the directory is.
    pub(super) trusted: bool,
}

/// Excludes other writers until it is dropped.
#[derive(Debug)]
pub(super) struct Locked {
    _file: File,
}

impl StateDir {
    /// Makes the directory if there is none, and finds out whether it can be written, and by us
    /// alone.
    pub(super) fn open(path: &Path) -> Result<Self, DeskError> {
        let failed = |error| DeskError::Directory {
            path: path.to_owned(),
            error,
        };
        let mode = Self::make(path).map_err(failed)?;
        if mode & 0o022 != 0 {
            let path = path.to_owned();
            return Err(DeskError::Writable { path, mode });
        }
        let dir = Self {
            path: path.to_owned(),
        };
        dir.probe().map_err(failed)?;
        Ok(dir)
    }

    /// Whether [`Self::open`] would do, as far as can be seen without making anything. `None`: the
    /// directory is not there yet, and can be made.
    pub(super) fn look(path: &Path) -> Result<Option<Self>, DeskError> {
        let failed = |error| DeskError::Directory {
            path: path.to_owned(),
            error,
        };
        let (there, mode) = nearest(path).map_err(failed)?;
        access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| failed(error.into()))?;
        if there != path {
            return Ok(None);
        }
        if mode & 0o022 != 0 {
            let path = path.to_owned();
            return Err(DeskError::Writable { path, mode });
        }
        Ok(Some(Self {
            path: path.to_owned(),
        }))
    }

    /// Its mode, whether it was there or not.
    fn make(path: &Path) -> io::Result<u32> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(fs::metadata(path)?.mode() & 0o7777)
    }

    fn probe(&self) -> io::Result<()> {
        let _lock = self.lock()?;
        let probe = self.path("auth.probe");
        self.create(&probe)?.write_all(b"\n")?;
        match fs::remove_file(probe) {
            // Where there are no locks, another process may have tried the same.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Waits for other writers; they are done within milliseconds.
    pub(super) fn lock(&self) -> io::Result<Locked> {
        let path = self.path("auth.lock");
        let file = match self.options().append(true).create_new(true).open(&path) {
            Ok(file) => {
                self.hand_over(&file)?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.options().append(true).open(&path)?
            }
            Err(error) => return Err(error),
        };
        match file.lock() {
            // Some network file systems have no locks. Renaming keeps files whole there, too.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
            _ => Ok(Locked { _file: file }),
        }
    }

    /// The whole file and who can get at it; `None` if there is no such file.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<(Zeroizing<Vec<u8>>, Rights)>> {
        let mut file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if metadata.len() > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // In one piece from the start: growing would leave copies behind.
        let size = usize::try_from(metadata.len()).unwrap_or_default() + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(size));
        (&mut file).take(LARGEST).read_to_end(&mut bytes)?;
        let (owner, dir) = (metadata.uid(), fs::metadata(&self.path)?.uid());
        let rights = Rights {
            mode: metadata.mode() & 0o777,
            owner,
            trusted: is_trusted(owner, rustix::process::geteuid().as_raw(), dir),
        };
        Ok(Some((bytes, rights)))
    }

    /// The last part of a file that grows at its end, cut anywhere where it is larger than any.
    pub(super) fn read_end(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LARGEST)))?;
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Replaces a file: readers see the old content or the new one.
    pub(super) fn replace(&self, name: &str, bytes: &[u8], _lock: &Locked) -> io::Result<()> {
        let path = self.path(name);
        temporary::sweep_of(&path);
        // Of this call alone: there may be no locks.
        let temporary = temporary::beside(&path)?;
        let written = self
            .create(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(&self.path)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Adds a line, on a line of its own even after a torn one.
    pub(super) fn append(&self, name: &str, line: &str, _lock: &Locked) -> io::Result<()> {
        let path = self.path(name);
        let mut file = match self.options().read(true).append(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(&path)?,
            opened => opened?,
        };
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let torn = last != [b'\n'];
        let start = if torn { "\n" } else { "" };
        file.write_all(format!("{start}{line}\n").as_bytes())?;
        file.sync_data()
    }

    /// What tells one version of a file from the next: its inode and its length.
    pub(super) fn version(&self, name: &str) -> Option<(u64, u64)> {
        let metadata = fs::metadata(self.path(name)).ok()?;
        Some((metadata.ino(), metadata.len()))
    }

    /// A file that was not there, or a left-over of a crash: never written into, it may be a link.
    fn create(&self, path: &Path) -> io::Result<File> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.options().write(true).create_new(true).open(path)?;
        self.hand_over(&file)?;
        Ok(file)
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.mode(0o600);
        options
    }

    /// `sudo holdline key rotate` must not lock out the service's own user.
    fn hand_over(&self, file: &File) -> io::Result<()> {
        let (dir, made) = (fs::metadata(&self.path)?, file.metadata()?);
        if made.uid() == 0 && dir.uid() != 0 {
            fchown(file, Some(dir.uid()), Some(dir.gid()))?;
        }
        Ok(())
    }
}

/// The directory, or the first one above it that is there; and its mode.
fn nearest(path: &Path) -> io::Result<(&Path, u32)> {
    for above in path.ancestors() {
        let above = match above.as_os_str().is_empty() {
            true => Path::new("."),
            false => above,
        };
        match fs::metadata(above) {
            Ok(metadata) if metadata.is_dir() => return Ok((above, metadata.mode() & 0o7777)),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Whether an owner can do no more with a file than those who have power over it anyway.
fn is_trusted(owner: u32, ours: u32, dir: u32) -> bool {
    [ours, 0, dir].contains(&owner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&folder.path().join("a/b")).unwrap();
        let lock = dir.lock().unwrap();
        let left_over = File::create(dir.path("x.tmp")).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        left_over.set_modified(long_ago).unwrap();
        assert!(dir.read("x").unwrap().is_none());
        dir.replace("x", b"one", &lock).unwrap();
        dir.replace("x", b"two", &lock).unwrap();
        let (bytes, access) = dir.read("x").unwrap().unwrap();
        assert_eq!((bytes.as_slice(), access.mode), (&b"two"[..], 0o600));
        assert!(access.trusted);
        let mut names: Vec<_> = fs::read_dir(folder.path().join("a/b"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["auth.lock", "x"]);
        let mode = fs::metadata(folder.path().join("a/b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn looking_makes_nothing_and_sees_what_opening_would() {
        let folder = tempfile::tempdir().unwrap();
        let (there, file) = (folder.path(), folder.path().join("file"));
        fs::write(&file, "").unwrap();
        assert!(StateDir::look(there).unwrap().is_some());
        assert!(StateDir::look(&there.join("a/b")).unwrap().is_none());
        for bad in [file.clone(), file.join("a")] {
            for error in [
                StateDir::look(&bad).unwrap_err(),
                StateDir::open(&bad).unwrap_err(),
            ] {
                assert!(matches!(error, DeskError::Directory { .. }), "{error}");
            }
        }
        // Root may write anywhere.
        if !rustix::process::geteuid().is_root() {
            fs::set_permissions(there, fs::Permissions::from_mode(0o500)).unwrap();
            for refused in [there.to_owned(), there.join("a")] {
                assert!(StateDir::look(&refused).is_err());
            }
        }
        fs::set_permissions(there, fs::Permissions::from_mode(0o770)).unwrap();
        let error = StateDir::look(there).unwrap_err();
        assert!(matches!(error, DeskError::Writable { .. }), "{error}");
        assert_eq!(fs::read_dir(there).unwrap().count(), 1);
    }

    #[test]
    fn a_line_is_added_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let lock = dir.lock().unwrap();
        dir.append("log", "one", &lock).unwrap();
        fs::write(dir.path("log"), "one\ntor").unwrap();
        dir.append("log", "two", &lock).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path("log")).unwrap(),
            "one\ntor\ntwo\n"
        );
    }

    #[test]
    fn a_file_of_anybody_else_is_not_trusted() {
        const OURS: u32 = 1000;
        const THEIRS: u32 = 1001;
        assert!(is_trusted(OURS, OURS, OURS) && is_trusted(OURS, OURS, 0));
        assert!(is_trusted(0, OURS, OURS));
        assert!(is_trusted(OURS, 0, OURS), "root looks after our directory");
        for (ours, dir) in [(OURS, OURS), (OURS, 0), (0, OURS), (0, 0)] {
            assert!(!is_trusted(THEIRS, ours, dir), "{ours} {dir}");
        }
    }
}
