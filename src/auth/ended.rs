//! Sign-ins that were ended before their time: a log on disk, and the same in memory.
//!
//! Cookies are stateless, so that ending one has to be remembered for as long as it could be valid.
//! A line is one sign-in, of fixed length: a torn one is none. Other processes append to the same
//! file; their lines are read within seconds.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::aside::Aside;
use super::credential::{from_hex, to_hex};
use super::error::DeskError;
use super::keys::seconds;
use super::state::{Locked, StateDir};

const FILE: &str = "auth.ended";

/// No sign-in lasts longer, whatever the config says: its bound, and what browsers keep.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);
/// Sign-ins remembered at a time. Each was a right password once, so that nobody fills it by
/// guessing; beyond it, what would expire first goes first.
const MOST: usize = 100_000;
/// How often the file is looked at for what others ended.
const LOOK: Duration = Duration::from_secs(2);
/// Lines that say nothing any more are taken out when there are more of them than of others and
/// this.
const SPARE: usize = 1_000;

/// Remembers ended sign-ins.
pub(super) struct Ended {
    /// Never locked while a file is looked at.
    known: Arc<Mutex<Known>>,
    /// Where they are kept; `None`: in this process only.
    file: Option<StateDir>,
    aside: Aside,
}

struct Known {
    /// Until when, in seconds since 1970.
    until: HashMap<[u8; 16], u64>,
    version: Option<(u64, u64)>,
    looked: Instant,
}

impl Ended {
    /// Those in the directory. The file is made shorter where that is worth it.
    pub(super) fn open(dir: &StateDir, now: SystemTime) -> Result<Self, DeskError> {
        let failed = |error| DeskError::File {
            path: dir.path(FILE),
            error,
        };
        let lock = dir.lock().map_err(failed)?;
        let bytes = dir.read_end(FILE).map_err(failed)?.unwrap_or_default();
        let mut until = HashMap::new();
        learn(&mut until, &String::from_utf8_lossy(&bytes), seconds(now));
        if is_long(dir, until.len())
            && let Err(error) = dir.replace(FILE, write(&until).as_bytes(), &lock)
        {
            told_long(dir, &error);
        }
        let known = Known {
            until,
            version: dir.version(FILE),
            looked: Instant::now(),
        };
        Ok(Self {
            known: Arc::new(Mutex::new(known)),
            file: Some(dir.clone()),
            aside: Aside::default(),
        })
    }

    /// Remembered by this process alone.
    pub(super) fn ephemeral() -> Self {
        let known = Known {
            until: HashMap::new(),
            version: None,
            looked: Instant::now(),
        };
        Self {
            known: Arc::new(Mutex::new(known)),
            file: None,
            aside: Aside::default(),
        }
    }

    /// Whether this one was ended.
    pub(super) fn contains(&self, id: [u8; 16], now: SystemTime) -> bool {
        self.look(now);
        self.lock().until.contains_key(&id)
    }

    /// Ends one for good. Where the disk fails it holds until this process ends, and the log says
    /// so.
    pub(super) fn end(&self, id: [u8; 16], now: SystemTime) {
        let now = seconds(now);
        let until = now.saturating_add(LONGEST.as_secs());
        let fresh = {
            let mut known = self.lock();
            let fresh = known.until.insert(id, until).is_none();
            bound(&mut known.until, now);
            fresh
        };
        let Some(dir) = self.file.as_ref().filter(|_| fresh) else {
            return;
        };
        let written = dir.lock().and_then(|lock| {
            dir.append(FILE, &line(id, until), &lock)?;
            self.shorten(dir, now, &lock);
            Ok(())
        });
        if let Err(error) = written {
            tracing::error!(
                path = %dir.path(FILE).display(),
                "a sign-out could not be written and will be forgotten by a restart: {error}"
            );
        }
    }

    /// Takes out of the file what says nothing any more, where that is worth it.
    fn shorten(&self, dir: &StateDir, now: u64, lock: &Locked) {
        let lines = self.lock().until.len();
        if !is_long(dir, lines) {
            return;
        }
        let bytes = match dir.read_end(FILE) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return told_long(dir, &error),
        };
        let until = {
            let mut known = self.lock();
            learn(&mut known.until, &String::from_utf8_lossy(&bytes), now);
            known.until.retain(|_, until| *until > now);
            known.until.clone()
        };
        if !is_long(dir, until.len()) {
            return;
        }
        match dir.replace(FILE, write(&until).as_bytes(), lock) {
            // Others write under the lock only: it is what is known.
            Ok(()) => {
                let version = dir.version(FILE);
                self.lock().version = version;
            }
            Err(error) => told_long(dir, &error),
        }
    }

    /// Learns what other processes have ended.
    fn look(&self, now: SystemTime) {
        let Some(dir) = &self.file else { return };
        let before = {
            let mut known = self.lock();
            if known.looked.elapsed() < LOOK {
                return;
            }
            known.looked = Instant::now();
            known.version
        };
        let (dir, known) = (dir.clone(), Arc::clone(&self.known));
        let path = dir.path(FILE);
        self.aside.look(&path, move || {
            let version = dir.version(FILE);
            if version == before {
                return;
            }
            let read = dir.read_end(FILE);
            let mut known = lock(&known);
            match read {
                Ok(Some(bytes)) => {
                    known.version = version;
                    let now = seconds(now);
                    learn(&mut known.until, &String::from_utf8_lossy(&bytes), now);
                }
                // What is known stays known.
                Ok(None) => known.version = version,
                Err(error) => tracing::warn!("the ended sign-ins cannot be read: {error}"),
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the file could be read, if there is one. However long it is: it is made shorter.
///
/// # Errors
/// As [`Ended::open`].
pub(super) fn check(dir: &StateDir) -> Result<(), DeskError> {
    let read = dir.read_end(FILE).map(drop);
    read.map_err(|error| DeskError::File {
        path: dir.path(FILE),
        error,
    })
}

/// Whether the file is worth being made shorter, to so many lines.
fn is_long(dir: &StateDir, lines: usize) -> bool {
    let length = dir.version(FILE).map_or(0, |(_, length)| length);
    length > LINE * (2 * lines + SPARE) as u64
}

fn told_long(dir: &StateDir, error: &io::Error) {
    tracing::warn!(
        path = %dir.path(FILE).display(),
        "the list of ended sign-ins could not be made shorter: {error}"
    );
}

// === lines ===

/// Bytes of one with its end.
const LINE: u64 = 32 + 1 + 16 + 1;

/// Fixed length, so that a part of one is none.
fn line(id: [u8; 16], until: u64) -> String {
    format!("{} {until:016x}", to_hex(&id))
}

fn parse(line: &str) -> Option<([u8; 16], u64)> {
    let (id, until) = line.split_once(' ')?;
    let until: [u8; 8] = from_hex(until)?.try_into().ok()?;
    Some((from_hex(id)?.try_into().ok()?, u64::from_be_bytes(until)))
}

/// In the order in which they were ended, so that the end of the file has the newest.
fn write(until: &HashMap<[u8; 16], u64>) -> String {
    let mut lines: Vec<_> = until.iter().collect();
    lines.sort_unstable_by_key(|(_, until)| **until);
    lines.iter().fold(String::new(), |mut text, (id, until)| {
        let _ = writeln!(text, "{}", line(**id, **until));
        text
    })
}

fn learn(known: &mut HashMap<[u8; 16], u64>, text: &str, now: u64) {
    let sound = text.lines().filter_map(parse);
    known.extend(sound.filter(|(_, until)| *until > now));
    bound(known, now);
}

/// Forgets what has expired, and what will first if there is too much.
fn bound(known: &mut HashMap<[u8; 16], u64>, now: u64) {
    if known.len() <= MOST {
        return;
    }
    known.retain(|_, until| *until > now);
    let excess = known.len().saturating_sub(MOST);
    if excess == 0 {
        return;
    }
    let mut times: Vec<u64> = known.values().copied().collect();
    times.sort_unstable();
    let Some(last) = times.get(excess - 1).copied() else {
        return;
    };
    // Of those that expire together with the last one to go, only as many as needed.
    let mut equals = excess - times.partition_point(|until| *until < last);
    known.retain(|_, until| {
        let equal = *until == last && equals > 0;
        equals -= usize::from(equal);
        *until >= last && !equal
    });
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn day(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs((20_000 + days) * 86_400)
    }

    #[test]
    fn an_ended_sign_in_stays_ended_after_a_restart_until_it_would_have_expired() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let ended = Ended::open(&dir, day(0)).unwrap();
        ended.end([1; 16], day(0));
        ended.end([1; 16], day(0));
        assert!(ended.contains([1; 16], day(0)) && !ended.contains([2; 16], day(0)));
        let again = Ended::open(&dir, day(399)).unwrap();
        assert!(again.contains([1; 16], day(399)));
        let text = fs::read_to_string(dir.path(FILE)).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let late = Ended::open(&dir, day(401)).unwrap();
        assert!(!late.contains([1; 16], day(401)));
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        Ended::open(&dir, day(0)).unwrap().end([1; 16], day(0));
        let whole = fs::read_to_string(dir.path(FILE)).unwrap();
        for cut in 1..whole.len() - 1 {
            fs::write(
                dir.path(FILE),
                format!("{whole}{}", &whole[..cut].replace("01", "02")),
            )
            .unwrap();
            let ended = Ended::open(&dir, day(0)).unwrap();
            ended.end([3; 16], day(0));
            let again = Ended::open(&dir, day(0)).unwrap();
            assert!(
                again.contains([1; 16], day(0)) && again.contains([3; 16], day(0)),
                "{cut}"
            );
            assert!(!again.contains([2; 16], day(0)), "{cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_process_ended_is_learnt_soon() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let (one, two) = (
            Ended::open(&dir, day(0)).unwrap(),
            Ended::open(&dir, day(0)).unwrap(),
        );
        one.end([1; 16], day(0));
        tokio::time::advance(LOOK).await;
        assert!(two.contains([1; 16], day(0)));
    }

    #[test]
    fn where_the_disk_fails_it_holds_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let ended = Ended::open(&dir, day(0)).unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        ended.end([1; 16], day(0));
        assert!(ended.contains([1; 16], day(0)));
    }

    #[test]
    fn lines_that_say_nothing_any_more_are_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let expired = format!("{}\n", line([9; 16], 1)).repeat(SPARE + 10);
        let live = line([1; 16], u64::MAX);
        fs::write(dir.path(FILE), format!("{expired}{live}\n")).unwrap();
        Ended::open(&dir, day(0)).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path(FILE)).unwrap(),
            format!("{live}\n")
        );
    }

    #[test]
    fn the_file_is_made_shorter_while_it_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let ended = Ended::open(&dir, day(0)).unwrap();
        // Another process, whose lines are not known here yet, and many that say nothing.
        let expired = format!("{}\n", line([9; 16], 1)).repeat(3 * SPARE);
        let live = line([1; 16], u64::MAX);
        fs::write(dir.path(FILE), format!("{expired}{live}\n")).unwrap();
        ended.end([2; 16], day(0));
        let text = fs::read_to_string(dir.path(FILE)).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        for process in [ended, Ended::open(&dir, day(0)).unwrap()] {
            assert!(process.contains([1; 16], day(0)) && process.contains([2; 16], day(0)));
        }
    }

    #[test]
    fn however_long_the_file_is_holdline_starts_and_it_is_short_then() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let until = seconds(day(10));
        let lines = (0..340_000_u128).map(|number| line(number.to_be_bytes(), until) + "\n");
        fs::write(dir.path(FILE), lines.collect::<String>()).unwrap();
        check(&dir).unwrap();
        let ended = Ended::open(&dir, day(0)).unwrap();
        let length = fs::metadata(dir.path(FILE)).unwrap().len();
        assert_eq!(length, MOST as u64 * LINE);
        let sign_out = 1_u128 << 100;
        ended.end(sign_out.to_be_bytes(), day(0));
        let again = Ended::open(&dir, day(0)).unwrap();
        assert!(again.contains(sign_out.to_be_bytes(), day(0)));
    }

    #[test]
    fn memory_is_bounded_and_what_expires_first_goes_first() {
        let mut known = HashMap::new();
        for number in 0..MOST as u128 + 500 {
            let until = if number < 400 { 20 } else { 30 };
            known.insert(number.to_be_bytes(), until);
        }
        bound(&mut known, 10);
        assert_eq!(known.len(), MOST);
        assert!((0..400_u128).all(|number| !known.contains_key(&number.to_be_bytes())));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[0-9a-f \n]{0,200}|\\PC{0,50}") {
            learn(&mut HashMap::new(), &text, 0);
        }
    }
}
