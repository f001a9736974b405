//! Whose the files are, and who may read them: nobody but their owner.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;

use rustix::fs::OFlags;

use super::{MOST_FOLDERS, StateDir, StateError};

/// All but the owner.
const OTHERS: u32 = 0o077;
/// `certificates/NAME/FILE`.
const DEEPEST: usize = 3;

impl StateDir {
    /// Makes the folder of a file.
    pub(super) fn make_parent(&self, path: &Path) -> Result<(), StateError> {
        let parent = path.parent().unwrap_or(&self.root);
        let made = self.make(parent);
        made.map_err(|error| StateError::new("cannot make", parent, error))
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let above = folder.parent().filter(|_| folder.starts_with(&self.root));
        let Some(above) = above else {
            return builder.recursive(true).create(folder);
        };
        self.make(above)?;
        match builder.create(folder) {
            // Another instance was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.hand_over(&open_as_it_is(folder)?, folder),
        }
    }

    /// What root makes belongs to whom the file in that place, or the folder around it, belongs:
    /// `sudo holdline cert account-key` must not lock out the service's own user.
    pub(super) fn hand_over(&self, made: &File, place: &Path) -> io::Result<()> {
        if made.metadata()?.uid() != 0 {
            return Ok(());
        }
        let before = fs::symlink_metadata(place).ok();
        let around = place.parent().and_then(|folder| fs::metadata(folder).ok());
        let heir = before.into_iter().chain(around).find(|it| it.uid() != 0);
        let Some(heir) = heir else { return Ok(()) };
        match fchown(made, Some(heir.uid()), Some(heir.gid())) {
            // A root that may not do that is root in its container only, and so is whoever comes
            // after it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            done => done,
        }
    }

    /// Takes from others what they may do with what is ours: somebody has copied it, or a volume came
    /// so.
    pub(super) fn tighten(&self) {
        if let Ok(metadata) = fs::metadata(&self.root) {
            self.take_from_others(&self.root, &metadata);
            self.tighten_within(&self.root, DEEPEST);
        }
    }

    fn tighten_within(&self, folder: &Path, depth: usize) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.take(MOST_FOLDERS) {
            let path = entry.path();
            // Of a link, not of what it points to.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_symlink() {
                continue;
            }
            self.take_from_others(&path, &metadata);
            if metadata.is_dir() && depth > 1 {
                self.tighten_within(&path, depth - 1);
            }
        }
    }

    fn take_from_others(&self, path: &Path, metadata: &fs::Metadata) {
        let mode = metadata.mode() & 0o7777;
        if mode & OTHERS == 0 {
            return;
        }
        let told = format!("{mode:o}");
        let mended = match metadata.uid() == rustix::process::geteuid().as_raw() {
            true => only_ours(path, metadata),
            false => Err(io::Error::other("it belongs to somebody else")),
        };
        match mended {
            Ok(()) => {
                tracing::warn!(path = %path.display(), mode = told, "others had rights to this; only its owner has now");
            }
            Err(error) => {
                tracing::error!(path = %path.display(), mode = told, "others have rights to this, and it cannot be helped from here: {error}; run `chmod -R go= {}` as its owner", self.root.display());
            }
        }
    }
}

/// Where somebody else puts a link into the place in the meantime, the link's end stays as it is.
fn only_ours(path: &Path, seen: &fs::Metadata) -> io::Result<()> {
    let file = open_as_it_is(path)?;
    let metadata = file.metadata()?;
    if (metadata.dev(), metadata.ino()) != (seen.dev(), seen.ino()) {
        return Err(io::Error::other("it is being replaced"));
    }
    let mode = metadata.mode() & 0o7777 & !OTHERS;
    file.set_permissions(Permissions::from_mode(mode))
}

fn open_as_it_is(path: &Path) -> io::Result<File> {
    // Never waits for a pipe's other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::from_ne_bytes(flags.bits().to_ne_bytes()))
        .open(path)
}

pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_others_could_read_is_ours_alone_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        state.probe().unwrap();
        let file = "certificates/a.example/certificate.pem";
        state.write(file, b"key").unwrap();
        state.write("cas/x.json", b"{}").unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "").unwrap();
        symlink(&elsewhere, state.path("cas/link")).unwrap();
        let set =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for folder in ["", "certificates", "certificates/a.example"] {
            set(&state.path(folder), 0o755);
        }
        set(&state.path(file), 0o640);
        set(&state.path("cas/x.json"), 0o400);
        set(&elsewhere, 0o644);
        state.sweep();
        for folder in ["", "certificates", "certificates/a.example"] {
            assert_eq!(mode(&state.path(folder)), 0o700, "{folder}");
        }
        assert_eq!(mode(&state.path(file)), 0o600);
        assert_eq!(mode(&state.path("cas/x.json")), 0o400, "never looser");
        assert_eq!(mode(&elsewhere), 0o644, "not ours");
        let looked_at = StateDir::to_look_at(dir.path());
        set(&state.path(file), 0o640);
        looked_at.sweep();
        assert_eq!(mode(&state.path(file)), 0o640, "nothing is changed");
    }

    #[test]
    fn what_root_makes_belongs_to_whom_the_directory_belongs() {
        let dir = tempfile::tempdir().unwrap();
        // Only root can give a directory away; for others there is nothing to hand over.
        if chown(dir.path(), Some(12_345), Some(54_321)).is_err() {
            return;
        }
        let state = StateDir::new(dir.path());
        state.probe().unwrap();
        state.write("accounts/x.json", b"{}").unwrap();
        drop(state.try_lock("accounts/x.json.lock").unwrap());
        let owner = |name: &str| {
            let metadata = fs::metadata(state.path(name)).unwrap();
            (metadata.uid(), metadata.gid())
        };
        let names = [
            "",
            "accounts",
            "accounts/x.json",
            "accounts/x.json.lock",
            "lock",
            "README",
        ];
        for name in names {
            assert_eq!(owner(name), (12_345, 54_321), "{name}");
        }
        // The file's own owner comes first.
        chown(state.path("accounts/x.json"), Some(7), Some(8)).unwrap();
        state.write("accounts/x.json", b"{ }").unwrap();
        assert_eq!(owner("accounts/x.json"), (7, 8));
    }
}
