//! Which program to start as the next one: this one's file, as it was called, with the same
//! arguments. Found out at the start: later the file has perhaps been replaced.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A program and how it was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    pub(super) path: PathBuf,
    pub(super) name: OsString,
    pub(super) arguments: Vec<OsString>,
}

impl Binary {
    /// This process's. Call it at the start.
    ///
    /// # Errors
    /// When the system does not say which file runs.
    pub fn running() -> io::Result<Self> {
        let file = env::current_exe()?;
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_else(|| file.clone().into());
        Ok(Self {
            path: as_called(&name, env::var_os("PATH").as_deref(), &file).unwrap_or(file),
            name,
            arguments: arguments.collect(),
        })
    }
}

/// The path that it was called by, where that leads to the file that runs. It may be a link, which
/// leads elsewhere once a new version is there.
fn as_called(name: &OsStr, path: Option<&OsStr>, file: &Path) -> Option<PathBuf> {
    let named = Path::new(name);
    let candidates: Vec<PathBuf> = match named.components().count() {
        1 if named.is_relative() => env::split_paths(path?)
            .map(|folder| folder.join(named))
            .collect(),
        _ => vec![named.to_owned()],
    };
    let ours = identity(file)?;
    candidates
        .into_iter()
        .find(|candidate| identity(candidate) == Some(ours))
        .and_then(|found| std::path::absolute(found).ok())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_is_kept_and_a_namesake_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        fs::create_dir(at("other")).unwrap();
        fs::write(at("holdline-1"), "1").unwrap();
        fs::write(at("other/holdline"), "another").unwrap();
        symlink(at("holdline-1"), at("bin/holdline")).unwrap();
        let (file, link) = (at("holdline-1"), at("bin/holdline"));
        let called = |name: &Path, path: &OsStr| as_called(name.as_ref(), Some(path), &file);
        let path = env::join_paths([at("other"), at("bin")]).unwrap();
        let named = Path::new("holdline");
        assert_eq!(called(&link, &path), Some(link.clone()));
        assert_eq!(called(named, &path), Some(link));
        // Renamed, or a name that a shell made up.
        assert_eq!(called(Path::new("-holdline"), &path), None);
        assert_eq!(called(&at("other/holdline"), &path), None);
    }

    #[test]
    fn this_one_is_found() {
        let running = Binary::running().unwrap();
        assert!(running.path.is_absolute());
        assert_eq!(
            identity(&running.path),
            identity(&env::current_exe().unwrap())
        );
    }
}
