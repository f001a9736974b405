//! Notices that a file of the config has changed: an editor's rename, a mounted ConfigMap's swapped
//! link, a renewed certificate.
//!
//! The system's notices say when to look; what is seen there decides. Where there are no notices
//! (network file systems, too many watches) a look now and then does it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};

use crate::config::Stamp;

/// Without a notice.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Files that are written one after the other are one change.
const QUIET: Duration = Duration::from_millis(200);
/// Whatever else goes on in their folders.
const LONGEST: Duration = Duration::from_secs(2);
/// Links that lead to links.
const MOST_LINKS: usize = 16;

/// The files of a config.
pub(super) struct Watch {
    /// The config file itself, if there is one.
    config: Option<PathBuf>,
    seen: Mutex<Vec<(PathBuf, Stamp)>>,
    notices: Mutex<Notices>,
    stirred: Arc<Notify>,
    /// What hangs is not asked again.
    looking: Arc<Semaphore>,
}

#[derive(Default)]
struct Notices {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// `known`: how files were before they were read.
    pub(super) fn new(
        config: Option<PathBuf>,
        files: Vec<PathBuf>,
        known: &[(PathBuf, Stamp)],
    ) -> Self {
        let watch = Self {
            config,
            seen: Mutex::default(),
            notices: Mutex::default(),
            stirred: Arc::default(),
            looking: Arc::new(Semaphore::new(1)),
        };
        watch.set(files, known);
        watch
    }

    /// The config file, if it is there and no regular file: reading it could wait for ever. Other
    /// files are looked at where they are named.
    pub(super) fn irregular(&self) -> Option<PathBuf> {
        let config = self.config.as_ref()?;
        let odd = fs::metadata(config).is_ok_and(|at| !at.is_file());
        odd.then(|| config.clone())
    }

    /// How the config file is now, if there is one.
    pub(super) fn config(&self) -> Option<Stamp> {
        self.config.as_deref().map(Stamp::of)
    }

    /// How the files are now: to be taken before they are read.
    pub(super) fn stamps(&self) -> Vec<(PathBuf, Stamp)> {
        let files = self.lock().clone();
        let now = |(path, _): (PathBuf, Stamp)| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        };
        files.into_iter().map(now).collect()
    }

    /// Watches these from now on, as they were when `known` was taken.
    pub(super) fn set(&self, files: Vec<PathBuf>, known: &[(PathBuf, Stamp)]) {
        self.watch_folders(&files);
        let seen = files.into_iter().map(|path| {
            let known = known.iter().find(|(one, _)| *one == path);
            let stamp = known.map_or_else(|| Stamp::of(&path), |(_, stamp)| *stamp);
            (path, stamp)
        });
        *self.lock() = seen.collect();
        // What has happened since then, nobody gives notice of.
        self.stirred.notify_one();
    }

    /// Waits until a file is another than it was seen to be, and quiet again.
    pub(super) async fn changed(self: &Arc<Self>) {
        loop {
            let _ = timeout(LOOK_EVERY, self.stirred.notified()).await;
            let started = Instant::now();
            while started.elapsed() < LONGEST
                && timeout(QUIET, self.stirred.notified()).await.is_ok()
            {}
            if let Some(now) = self.look().await
                && self.differs(now)
            {
                return;
            }
        }
    }

    /// How the files are now. `None`: their file system does not answer in time, or has not done so
    /// since it was asked before.
    async fn look(self: &Arc<Self>) -> Option<Vec<(PathBuf, Stamp)>> {
        let place = Arc::clone(&self.looking).try_acquire_owned().ok()?;
        let this = Arc::clone(self);
        let looking = tokio::task::spawn_blocking(move || {
            let _place = place;
            this.stamps()
        });
        timeout(LOOK_EVERY, looking).await.ok()?.ok()
    }

    /// Whether a file is another than before; it is seen now.
    fn differs(&self, now: Vec<(PathBuf, Stamp)>) -> bool {
        let mut seen = self.lock();
        let same_files = seen
            .iter()
            .map(|(path, _)| path)
            .eq(now.iter().map(|(path, _)| path));
        let changed = same_files && *seen != now;
        if changed {
            *seen = now;
        }
        changed
    }

    fn watch_folders(&self, files: &[PathBuf]) {
        let wanted: BTreeSet<PathBuf> = files.iter().flat_map(|file| folders(file)).collect();
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.is_empty() && notices.watcher.is_none() {
            return;
        }
        if notices.watcher.is_none() {
            let stirred = Arc::clone(&self.stirred);
            let watcher = notify::recommended_watcher(move |_| stirred.notify_one());
            notices.watcher = watcher.map_err(|error| unnoticed(&error)).ok();
        }
        let Notices { watcher, folders } = &mut *notices;
        let Some(watcher) = watcher else { return };
        for gone in folders.difference(&wanted) {
            // It may not be there any more.
            let _ = watcher.unwatch(gone);
        }
        let mut watched: BTreeSet<PathBuf> = folders.intersection(&wanted).cloned().collect();
        for folder in wanted.difference(folders) {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(folder.clone());
                }
                Err(error) => unnoticed(&error),
            }
        }
        *folders = watched;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(PathBuf, Stamp)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unnoticed(error: &notify::Error) {
    let every = LOOK_EVERY.as_secs();
    tracing::debug!(%error, "changes of the config are looked for every {every} s only");
}

/// The folders in which something happens when the file becomes another: its own, and those of the
/// links on the way to it.
fn folders(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut next = std::path::absolute(file).ok();
    for _ in 0..MOST_LINKS {
        let Some(path) = next.take() else { break };
        let parent = |path: &Path| path.parent().map(Path::to_owned);
        folders.extend(parent(&path));
        for part in path.ancestors() {
            if let Ok(target) = link(part) {
                folders.extend(parent(part));
                let rest = path.strip_prefix(part).unwrap_or_else(|_| Path::new(""));
                let target = part.parent().unwrap_or(part).join(target);
                next = Some(match rest.as_os_str().is_empty() {
                    true => target,
                    false => target.join(rest),
                });
            }
        }
    }
    folders
}

fn link(path: &Path) -> io::Result<PathBuf> {
    fs::read_link(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn noticed(watch: &Arc<Watch>) -> bool {
        timeout(LOOK_EVERY / 2, watch.changed()).await.is_ok()
    }

    fn watch(file: &Path) -> Arc<Watch> {
        Arc::new(Watch::new(None, vec![file.to_owned()], &[]))
    }

    #[tokio::test]
    async fn an_edit_and_an_editors_rename_are_noticed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdline.toml");
        fs::write(&file, "a").unwrap();
        let watch = watch(&file);
        fs::write(&file, "ab").unwrap();
        assert!(noticed(&watch).await);
        fs::write(dir.path().join(".holdline.toml.swp"), "abc").unwrap();
        fs::rename(dir.path().join(".holdline.toml.swp"), &file).unwrap();
        assert!(noticed(&watch).await);
        fs::remove_file(&file).unwrap();
        assert!(noticed(&watch).await);
        fs::write(&file, "abcd").unwrap();
        assert!(noticed(&watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_else_happens_beside_it_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdline.toml");
        fs::write(&file, "a").unwrap();
        let watch = watch(&file);
        fs::write(dir.path().join("other"), "x").unwrap();
        assert!(!noticed(&watch).await);
    }

    /// As a mounted ConfigMap is updated: a link to a folder is replaced by another.
    #[tokio::test]
    async fn a_swapped_link_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for version in ["..v1", "..v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("holdline.toml"), version).unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/holdline.toml", at("holdline.toml")).unwrap();
        let watch = watch(&at("holdline.toml"));
        symlink("..v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(noticed(&watch).await);
        assert_eq!(fs::read_to_string(at("holdline.toml")).unwrap(), "..v2");
    }

    #[tokio::test]
    async fn a_linked_folder_of_a_linked_folder_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir_all(at("store").join(version)).unwrap();
            fs::write(at("store").join(version).join("c.toml"), version).unwrap();
        }
        symlink("store/one", at("etc")).unwrap();
        let watch = watch(&at("etc").join("c.toml"));
        symlink("store/two", at("new")).unwrap();
        fs::rename(at("new"), at("etc")).unwrap();
        assert!(noticed(&watch).await);
    }

    /// A change between reading and watching is not lost.
    #[tokio::test]
    async fn a_change_while_it_was_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdline.toml");
        fs::write(&file, "a").unwrap();
        let watch = watch(&file);
        let before = watch.stamps();
        fs::write(&file, "ab").unwrap();
        watch.set(vec![file.clone()], &before);
        assert!(noticed(&watch).await);
        assert!(!watch.differs(watch.stamps()));
    }
}
