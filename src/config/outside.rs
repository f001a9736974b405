//! What a config takes from outside of its text: environment variables, and files whose content is
//! a value. A file is read once in a run, so that all its mentions mean the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Stamp;
use super::env::{Outside, Refused};

/// No secret that makes sense is larger.
const LARGEST_SECRET: u64 = 64 << 10;

type Content = Result<Zeroizing<String>, Refused>;

/// This process's surroundings.
pub(super) struct Surroundings<'w> {
    env: &'w dyn Fn(&str) -> Option<String>,
    /// Where relative paths start.
    base: &'w Path,
    read: RefCell<BTreeMap<PathBuf, (Stamp, Content)>>,
}

impl<'w> Surroundings<'w> {
    pub(super) fn new(env: &'w dyn Fn(&str) -> Option<String>, base: &'w Path) -> Self {
        let read = RefCell::default();
        Self { env, base, read }
    }

    pub(super) fn path(&self, written: impl AsRef<Path>) -> PathBuf {
        self.base.join(written)
    }

    /// Every file that was asked for so far, also those that could not be read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.read.borrow().keys().cloned().collect()
    }

    /// How these were before they were read.
    pub(super) fn stamps(&self) -> Vec<(PathBuf, Stamp)> {
        let read = self.read.borrow();
        let stamps = read.iter().map(|(path, (stamp, _))| (path.clone(), *stamp));
        stamps.collect()
    }
}

impl Outside for Surroundings<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    fn file(&self, path: &str) -> Result<(PathBuf, Zeroizing<String>), (PathBuf, Refused)> {
        let path = self.path(path);
        let mut read = self.read.borrow_mut();
        let (_, content) = read
            .entry(path.clone())
            .or_insert_with(|| (Stamp::of(&path), content(&path)))
            .clone();
        match content {
            Ok(content) => Ok((path, content)),
            Err(refused) => Err((path, refused)),
        }
    }
}

/// A file's text without the newline at its end, which editors put there.
fn content(path: &Path) -> Content {
    let bytes = read_file(path, LARGEST_SECRET + 1).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Refused::Missing,
        io::ErrorKind::PermissionDenied => Refused::Forbidden,
        io::ErrorKind::InvalidInput => Refused::NoFile,
        _ => Refused::Unreadable(error.to_string()),
    })?;
    let bytes = Zeroizing::new(bytes);
    if bytes.len() as u64 > LARGEST_SECRET {
        return Err(Refused::TooLarge);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Refused::NotText)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text {
        "" => Err(Refused::Empty),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

/// The first `most` bytes of a file. A pipe or device in its place must not block the start: it is
/// refused as [`io::ErrorKind::InvalidInput`].
pub(super) fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        let what = "it is not a file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
