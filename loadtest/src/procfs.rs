//! What `/proc` says about other processes: CPU time, memory, children; and our own file limit.
//! Parsing is pure; a process that is gone is an error, never a zero.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// No such process, or not ours to read.
    #[error("process {0}")]
    Read(u32, #[source] std::io::Error),
    /// The kernel wrote something else than expected.
    #[error("process {0}: cannot read its {1}")]
    Format(u32, &'static str),
}

/// The fields of `/proc/PID/stat` used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name, without its parentheses.
    pub name: String,
    /// `R`, `S`, `Z`…
    pub state: char,
    /// Parent.
    pub parent: u32,
    /// User plus system time in clock ticks, own threads only.
    pub cpu_ticks: u64,
}

/// Memory of one or more processes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident with shared pages divided among their users, where readable.
    pub pss: Option<u64>,
}

/// Parses `/proc/PID/stat`; the name may hold spaces and parentheses.
#[must_use]
pub fn parse_stat(text: &str) -> Option<Stat> {
    let (front, rest) = text.rsplit_once(')')?;
    let name = front.split_once('(')?.1.to_owned();
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // After state and ppid come pgrp to cmajflt (nine fields), then utime and stime.
    let user: u64 = fields.nth(9)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Stat {
        name,
        state,
        parent,
        cpu_ticks: user + system,
    })
}

/// The value of a `Name:   123 kB` line, in bytes.
#[must_use]
pub fn parse_kib(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    let value: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(value * 1024)
}

fn read(pid: u32, file: &str) -> Result<String, ProcError> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|e| ProcError::Read(pid, e))
}

fn stat(pid: u32) -> Result<Stat, ProcError> {
    parse_stat(&read(pid, "stat")?).ok_or(ProcError::Format(pid, "stat"))
}

/// Whether a process exists and has not ended.
#[must_use]
pub fn alive(pid: u32) -> bool {
    stat(pid).is_ok_and(|s| s.state != 'Z' && s.state != 'X')
}

/// The processes named, and everything they started; never this one.
#[must_use]
pub fn with_children(pids: &[u32]) -> Vec<u32> {
    let mut known: BTreeSet<u32> = pids.iter().copied().collect();
    let parents = all_parents();
    loop {
        let before = known.len();
        for (pid, parent) in &parents {
            if known.contains(parent) && *pid != std::process::id() {
                known.insert(*pid);
            }
        }
        if known.len() == before {
            return known.into_iter().collect();
        }
    }
}

fn all_parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid).ok()?.parent)))
        .collect()
}

/// CPU time spent by all of them so far.
///
/// # Errors
/// When one of them is gone.
pub fn cpu(pids: &[u32]) -> Result<Duration, ProcError> {
    let ticks = pids
        .iter()
        .map(|pid| Ok(stat(*pid)?.cpu_ticks))
        .sum::<Result<u64, ProcError>>()?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// Memory of all of them together.
///
/// # Errors
/// When one of them is gone.
pub fn memory(pids: &[u32]) -> Result<Memory, ProcError> {
    let mut total = Memory {
        rss: 0,
        pss: Some(0),
    };
    for pid in pids {
        let status = read(*pid, "status")?;
        total.rss += parse_kib(&status, "VmRSS").ok_or(ProcError::Format(*pid, "VmRSS"))?;
        let pss = read(*pid, "smaps_rollup")
            .ok()
            .and_then(|t| parse_kib(&t, "Pss"));
        total.pss = total.pss.zip(pss).map(|(a, b)| a + b);
    }
    Ok(total)
}

/// Raises the limit on open files as far as allowed.
pub fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where even this is refused, the old limit stays, and a check of it says so.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// Raises the limit on open files as far as allowed and checks that `needed` fit.
///
/// # Errors
/// With what to do, when they do not.
pub fn ensure_files(needed: usize) -> Result<(), String> {
    let needed = needed as u64 + 64;
    raise_files();
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let most = limit.current.unwrap_or(u64::MAX);
    Err(format!(
        "this needs {needed} open files and the limit is {most}: ask for fewer sessions, or raise \
         the limit first (as root: prlimit --pid $$ --nofile={needed}). The proxy under test needs \
         about twice as many."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (a (odd) name) S 17 4242 4242 0 -1 4194560 1 2 3 4 \
                        150 50 9 9 20 0 3 0 12345 1000000 200 18446744073709551615";

    #[test]
    fn stat_survives_an_odd_name() {
        let stat = parse_stat(STAT).unwrap();
        assert_eq!(
            (stat.name.as_str(), stat.state, stat.parent),
            ("a (odd) name", 'S', 17)
        );
        assert_eq!(stat.cpu_ticks, 200);
    }

    #[test]
    fn a_cut_stat_is_none() {
        assert_eq!(parse_stat("1 (x) S 0 1 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn sizes_are_found_by_their_exact_name() {
        let text = "VmRSSX:\t9 kB\nVmRSS:\t  1234 kB\nPss_Anon: 7 kB\nPss:  5 kB\n";
        assert_eq!(parse_kib(text, "VmRSS"), Some(1234 * 1024));
        assert_eq!(parse_kib(text, "Pss"), Some(5 * 1024));
        assert_eq!(parse_kib(text, "Swap"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = std::process::id();
        assert!(alive(own));
        assert!(memory(&[own]).unwrap().rss > 0);
        assert!(cpu(&[own]).is_ok());
        assert!(cpu(&[u32::MAX - 1]).is_err());
    }

    #[test]
    fn too_many_sessions_are_refused_with_advice() {
        assert!(ensure_files(1).is_ok());
        let refusal = ensure_files(usize::MAX / 2).unwrap_err();
        assert!(refusal.contains("prlimit"), "{refusal}");
    }
}
