//! Room where holdline keeps something.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::Finding;
use super::case::Case;
use super::memory::size;
use crate::config::{CertificateSource, Config};

const MIB: u64 = 1024 * 1024;
/// What is kept is some kilobytes; this is for what else shares the disk.
const LITTLE: u64 = 100 * MIB;
const HARDLY_ANY: u64 = 5 * MIB;

/// One directory.
#[derive(Debug)]
struct Evidence {
    dir: PathBuf,
    what: &'static str,
    state: Result<Room, String>,
}

#[derive(Debug, Clone, Copy)]
struct Room {
    /// Or else the nearest directory above it was looked at.
    exists: bool,
    free: u64,
    /// Files that may still be made; `None`: the file system knows no such limit.
    files: Option<u64>,
    read_only: bool,
    /// By the user who runs this.
    writable: bool,
}

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let Some(config) = case.config.clone() else {
        return vec![Finding::cannot_tell(
            "",
            "there is no good config that names a directory",
        )];
    };
    let gather = move || {
        kept(&config)
            .into_iter()
            .map(Evidence::gather)
            .collect::<Vec<_>>()
    };
    let Some(gathered) = super::blocking(gather).await else {
        return vec![Finding::cannot_tell("", "the file systems do not answer")];
    };
    match gathered.is_empty() {
        true => vec![Finding::ok(
            "",
            "nothing is written to disk with this config",
        )],
        false => gathered.iter().map(judge).collect(),
    }
}

/// Where something is kept, and what.
fn kept(config: &Config) -> Vec<(PathBuf, &'static str)> {
    let mut kept = Vec::new();
    if config.auth.is_on() {
        kept.push((config.auth.state_dir.clone(), "what sign-ins need"));
    }
    if let CertificateSource::Dev { dir } = &config.tls.certificate {
        kept.push((dir.clone(), "the development certificate"));
    }
    let acme = config.acme.as_ref();
    if let (CertificateSource::Acme, Some(acme)) = (&config.tls.certificate, acme) {
        kept.push((acme.state_dir.clone(), "certificates from the CA"));
    }
    kept
}

impl Evidence {
    fn gather((dir, what): (PathBuf, &'static str)) -> Self {
        let state = room(&dir).map_err(|error| error.to_string());
        Self { dir, what, state }
    }
}

fn room(dir: &Path) -> std::io::Result<Room> {
    let here = Path::new(".");
    let above = dir.ancestors().find(|above| above.exists());
    let above = above
        .filter(|above| !above.as_os_str().is_empty())
        .unwrap_or(here);
    let stat = statvfs(above)?;
    Ok(Room {
        exists: above == dir,
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        files: (stat.f_files > 0).then_some(stat.f_favail),
        read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        writable: access(above, Access::WRITE_OK).is_ok(),
    })
}

fn judge(evidence: &Evidence) -> Finding {
    let subject = evidence.dir.display().to_string();
    let what = evidence.what;
    let room = match &evidence.state {
        Ok(room) => room,
        Err(error) => return Finding::cannot_tell(subject, error),
    };
    let seen = format!("{} free for {what}", size(room.free));
    let full = format!("make room: du -xh {subject} | sort -h | tail; df -i {subject}");
    if room.read_only {
        let seen = format!("the file system is read-only, and {what} is kept there");
        return Finding::failure(subject, seen, "name a directory that can be written");
    }
    if room.free < HARDLY_ANY {
        return Finding::failure(subject, seen, full);
    }
    if room.files == Some(0) {
        return Finding::failure(
            subject,
            format!("{seen}, but not one file can be made"),
            full,
        );
    }
    if room.free < LITTLE {
        return Finding::warning(subject, seen, full);
    }
    match (room.exists, room.writable) {
        (_, true) => Finding::ok(subject, seen),
        (exists, false) => {
            let what = if exists {
                "it"
            } else {
                "it is not there, and the directory above it"
            };
            let why = format!("{seen}; {what} cannot be written by the user who runs this");
            Finding::cannot_tell(subject, why)
                .with_remedy("see that the user that runs holdline can")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn verdict(change: impl FnOnce(&mut Room)) -> Verdict {
        let mut room = Room {
            exists: true,
            free: 1000 * MIB,
            files: Some(1000),
            read_only: false,
            writable: true,
        };
        change(&mut room);
        let evidence = Evidence {
            dir: PathBuf::from("/state"),
            what: "the key",
            state: Ok(room),
        };
        judge(&evidence).verdict
    }

    #[test]
    fn a_full_disk_is_told_before_it_hurts() {
        assert_eq!(verdict(|_| {}), Verdict::Ok);
        assert_eq!(verdict(|room| room.files = None), Verdict::Ok);
        assert_eq!(verdict(|room| room.free = 50 * MIB), Verdict::Warning);
        assert_eq!(verdict(|room| room.free = MIB), Verdict::Failure);
        assert_eq!(verdict(|room| room.files = Some(0)), Verdict::Failure);
        assert_eq!(verdict(|room| room.read_only = true), Verdict::Failure);
        assert_eq!(verdict(|room| room.writable = false), Verdict::CannotTell);
    }

    #[test]
    fn a_directory_that_is_still_to_be_made_is_looked_at_from_above() {
        let above = tempfile::tempdir().unwrap();
        let looked = room(&above.path().join("a/b")).unwrap();
        assert!(!looked.exists && looked.free > 0);
        assert!(room(above.path()).unwrap().exists);
        assert!(!room(Path::new("no-such-directory")).unwrap().exists);
    }
}
