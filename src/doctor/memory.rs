//! Memory and swap, and whom the kernel has killed for want of it (Linux: `/proc`, cgroup v2).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Finding;
use super::case::Case;

const MIB: u64 = 1024 * 1024;
/// Less than this available, and a restart of the gateway may not find room.
const LITTLE: u64 = 256 * MIB;
const HARDLY_ANY: u64 = 64 * MIB;

/// What the kernel says.
#[derive(Debug, Default)]
struct Evidence {
    machine: Option<Machine>,
    /// Processes killed for want of memory since it started.
    kills: Option<u64>,
    up_seconds: Option<u64>,
    /// What limits the processes that matter here.
    groups: Vec<Group>,
}

/// In bytes.
#[derive(Debug, Clone, Copy)]
struct Machine {
    total: u64,
    available: u64,
    swap: u64,
    swap_free: u64,
}

/// A cgroup with a limit, or with a kill.
#[derive(Debug)]
struct Group {
    whose: &'static str,
    limit: Option<u64>,
    used: Option<u64>,
    kills: u64,
}

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let mut whose = vec![(
        "holdline",
        case.running().await.status().map(|status| status.pid),
    )];
    for gateway in &case.gateways {
        let holder = gateway.reached().await.holder.as_ref();
        whose.push(("the gateway", holder.map(|holder| holder.pid)));
    }
    let gathered = super::blocking(move || Evidence::gather(Path::new("/"), &whose)).await;
    judge(&gathered.unwrap_or_default())
}

impl Evidence {
    /// Reads files below `root`.
    fn gather(root: &Path, whose: &[(&'static str, Option<u32>)]) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let mut groups = Vec::new();
        let mut seen: Vec<PathBuf> = Vec::new();
        for (whose, pid) in whose {
            let Some(pid) = pid.filter(|pid| *pid != 0) else {
                continue;
            };
            let path = read(&format!("proc/{pid}/cgroup")).and_then(|text| group_path(&text));
            let Some(path) = path.map(|path| root.join("sys/fs/cgroup").join(path)) else {
                continue;
            };
            if !seen.contains(&path) {
                groups.extend(Group::read(whose, &path));
                seen.push(path);
            }
        }
        Self {
            machine: read("proc/meminfo").and_then(|text| Machine::parse(&text)),
            kills: read("proc/vmstat").and_then(|text| value_of(&text, "oom_kill")),
            up_seconds: read("proc/uptime")
                .and_then(|text| text.split('.').next()?.trim().parse().ok()),
            groups,
        }
    }
}

impl Machine {
    fn parse(meminfo: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = meminfo
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Self {
            total: bytes("MemTotal")?,
            available: bytes("MemAvailable")?,
            swap: bytes("SwapTotal").unwrap_or(0),
            swap_free: bytes("SwapFree").unwrap_or(0),
        })
    }
}

impl Group {
    fn read(whose: &'static str, path: &Path) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(path.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse().ok();
        Some(Self {
            whose,
            // "max": none.
            limit: number("memory.max"),
            used: number("memory.current"),
            kills: read("memory.events").and_then(|text| value_of(&text, "oom_kill"))?,
        })
    }
}

/// The group in version 2's line of `/proc/PID/cgroup`, relative to where they are mounted.
fn group_path(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Another namespace's, which is not mounted here.
    (!path.contains("..")).then(|| path.to_owned())
}

/// `key value`, one a line.
fn value_of(text: &str, key: &str) -> Option<u64> {
    let value = |line: &str| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    };
    text.lines().find_map(value)
}

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = vec![match &evidence.machine {
        Some(machine) => judge_machine(machine),
        None => Finding::cannot_tell("", "/proc/meminfo cannot be read"),
    }];
    for group in &evidence.groups {
        if let (Some(limit), Some(used)) = (group.limit, group.used)
            && used > limit / 20 * 19
        {
            let seen = format!(
                "{} uses {} of the {} that it may",
                group.whose,
                size(used),
                size(limit)
            );
            let remedy =
                "raise the limit (systemd: MemoryMax; a container: --memory), or it is killed";
            findings.push(Finding::warning("cgroup", seen, remedy));
        }
        if group.kills > 0 {
            let seen = format!(
                "{} processes in the cgroup of {} were killed for want of memory",
                group.kills, group.whose
            );
            let remedy = "raise its limit (systemd: MemoryMax; a container: --memory); when it was: journalctl -k -g oom-kill";
            findings.push(Finding::warning("cgroup", seen, remedy));
        }
    }
    findings.push(match evidence.kills {
        Some(0) => Finding::ok(
            "kernel",
            "no process was killed for want of memory since the machine started",
        ),
        Some(kills) => {
            let up = evidence
                .up_seconds
                .map(|up| format!(" ({} h ago)", up / 3600));
            let seen = format!(
                "{kills} processes were killed for want of memory since the machine started{}",
                up.unwrap_or_default()
            );
            Finding::warning(
                "kernel",
                seen,
                "see which, and when: journalctl -k -g 'oom-kill|Out of memory'",
            )
        }
        None => Finding::cannot_tell(
            "kernel",
            "/proc/vmstat does not say who was killed for want of memory",
        ),
    });
    findings
}

fn judge_machine(machine: &Machine) -> Finding {
    let swap = match machine.swap {
        0 => "no swap".to_owned(),
        swap => format!("{} of {} swap free", size(machine.swap_free), size(swap)),
    };
    let seen = format!(
        "{} of {} available, {swap}",
        size(machine.available),
        size(machine.total)
    );
    let remedy = "see what uses it: ps -eo rss,comm --sort=-rss | head";
    // What is small has little: a share of it, where that is less.
    if machine.available < HARDLY_ANY.min(machine.total / 20) {
        Finding::failure("", seen, remedy)
    } else if machine.available < LITTLE.min(machine.total / 10) {
        Finding::warning("", seen, remedy)
    } else if machine.swap > 0 && machine.swap_free < machine.swap / 10 {
        Finding::warning("", format!("{seen}: swap is used up"), remedy)
    } else {
        Finding::ok("", seen)
    }
}

/// `512 MiB`, `3.4 GiB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes / MIB {
        mib @ 0..1024 => format!("{mib} MiB"),
        mib => format!("{:.1} GiB", mib as f64 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn machine(total: u64, available: u64, swap: u64, swap_free: u64) -> Evidence {
        Evidence {
            machine: Some(Machine {
                total: total * MIB,
                available: available * MIB,
                swap: swap * MIB,
                swap_free: swap_free * MIB,
            }),
            kills: Some(0),
            ..Evidence::default()
        }
    }

    fn verdicts(evidence: &Evidence) -> Vec<Verdict> {
        judge(evidence)
            .iter()
            .map(|finding| finding.verdict)
            .collect()
    }

    #[test]
    fn little_is_little_for_the_machine() {
        for (evidence, expected) in [
            (machine(8192, 4000, 0, 0), Verdict::Ok),
            (machine(8192, 200, 0, 0), Verdict::Warning),
            (machine(8192, 50, 0, 0), Verdict::Failure),
            (machine(512, 60, 0, 0), Verdict::Ok),
            (machine(512, 40, 0, 0), Verdict::Warning),
            (machine(8192, 4000, 1000, 50), Verdict::Warning),
        ] {
            assert_eq!(verdicts(&evidence)[0], expected, "{evidence:?}");
        }
    }

    #[test]
    fn who_was_killed_is_told() {
        let mut evidence = machine(8192, 4000, 0, 0);
        evidence.kills = Some(3);
        evidence.groups = vec![
            Group {
                whose: "holdline",
                limit: None,
                used: Some(5),
                kills: 0,
            },
            Group {
                whose: "the gateway",
                limit: Some(100 * MIB),
                used: Some(99 * MIB),
                kills: 2,
            },
        ];
        use Verdict::{Ok, Warning};
        assert_eq!(verdicts(&evidence), [Ok, Warning, Warning, Warning]);
        assert_eq!(
            verdicts(&Evidence::default()),
            [Verdict::CannotTell, Verdict::CannotTell]
        );
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/meminfo",
            "MemTotal:  2048 kB\nMemAvailable:\t1024 kB\nSwapTotal: 0 kB\n",
        );
        write("proc/vmstat", "oom_kill_x 9\noom_kill 4\n");
        write("proc/uptime", "7200.55 1.0\n");
        write("proc/7/cgroup", "1:cpu:/x\n0::/user.slice/a.service\n");
        write("proc/8/cgroup", "0::/../outside\n");
        let group = "sys/fs/cgroup/user.slice/a.service";
        write(&format!("{group}/memory.max"), "max\n");
        write(&format!("{group}/memory.current"), "4096\n");
        write(
            &format!("{group}/memory.events"),
            "low 0\noom 1\noom_kill 1\n",
        );
        let whose = [
            ("a", Some(7)),
            ("same", Some(7)),
            ("b", Some(8)),
            ("c", None),
        ];
        let evidence = Evidence::gather(root.path(), &whose);
        assert_eq!(evidence.machine.unwrap().available, MIB);
        assert_eq!((evidence.kills, evidence.up_seconds), (Some(4), Some(7200)));
        let [group] = &evidence.groups[..] else {
            panic!("{evidence:?}")
        };
        assert_eq!(
            (group.limit, group.used, group.kills),
            (None, Some(4096), 1)
        );
    }
}
