//! Files that are written beside the one whose place they take: their names, and what becomes of those
//! that a crash has left.
//!
//! A name is nobody else's. Processes in two containers have the same number, and not every file
//! system has the locks that would keep them apart.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand;

/// Nobody writes one file for so long.
const LEFT_OVER: Duration = Duration::from_secs(3600);
/// What is looked through for left-overs in one folder.
const MOST: usize = 10_000;
const DIGITS: usize = 16;

/// `NAME.0123456789abcdef.tmp`, for what is to be `NAME`.
///
/// # Errors
/// There is no randomness.
pub(crate) fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut own = [0; DIGITS / 2];
    rand::fill(&mut own).map_err(|_| io::Error::other("no randomness"))?;
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{:016x}.tmp", u64::from_be_bytes(own)));
    Ok(name.into())
}

/// Deletes what has been left in a folder for an hour, whatever it was to be.
pub(crate) fn sweep(folder: &Path) {
    sweep_those(folder, |name| of(name).is_some());
}

/// The same of what was to be this file only: for folders that are not ours alone.
pub(crate) fn sweep_of(path: &Path) {
    if let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) {
        sweep_those(folder, |one| {
            of(one) == Some(name) || one.strip_suffix(".tmp") == Some(name)
        });
    }
}

fn sweep_those(folder: &Path, ours: impl Fn(&str) -> bool) {
    let entries = fs::read_dir(folder).into_iter().flatten();
    for entry in entries.flatten().take(MOST) {
        let old = || {
            // Of a link, not of what it points to.
            let at = entry.metadata().and_then(|metadata| metadata.modified());
            at.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_OVER))
        };
        if entry.file_name().to_str().is_some_and(&ours) && old() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What a file was to be. Earlier ones had the number of their process in the middle.
fn of(name: &str) -> Option<&str> {
    let (name, own) = name.strip_suffix(".tmp")?.rsplit_once('.')?;
    let random = own.len() == DIGITS && own.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = own.len() < DIGITS && own.parse::<u32>().is_ok();
    (!name.is_empty() && (random || number)).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn no_two_have_the_same_name_and_each_says_what_it_was_to_be() {
        let names: HashSet<_> = (0..1000)
            .map(|_| beside(Path::new("a/key.pem")).unwrap())
            .collect();
        assert_eq!(names.len(), 1000);
        for name in names {
            let name = name.file_name().unwrap().to_str().unwrap();
            assert_eq!(of(name), Some("key.pem"));
        }
    }

    #[test]
    fn only_what_is_ours_and_old_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let own = beside(Path::new("key.pem")).unwrap();
        let (ours, others) = (
            [own.to_str().unwrap(), "key.pem.1.tmp"],
            ["key.pem", "x.tmp", "key.pem.part.tmp", ".1.tmp", "1.tmp"],
        );
        let long_ago = SystemTime::now() - 2 * LEFT_OVER;
        let write = |name: &str, at| {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(at).unwrap();
        };
        let there = |name: &str| dir.path().join(name).exists();
        ours.iter()
            .chain(&others)
            .for_each(|name| write(name, long_ago));
        let young = beside(Path::new("key.pem")).unwrap();
        write(young.to_str().unwrap(), SystemTime::now());
        sweep_of(&dir.path().join("other.pem"));
        assert!(ours.iter().all(|name| there(name)));
        sweep(dir.path());
        assert!(!ours.iter().any(|name| there(name)));
        assert!(others.iter().all(|name| there(name)));
        assert!(there(young.to_str().unwrap()));
        sweep_of(&dir.path().join("x"));
        assert!(!there("x.tmp") && there("key.pem"));
    }
}
