//! Whether as many files may be open as the sessions of the config need.

use std::fs;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use super::case::Case;
use crate::config::Limits;

/// What is needed, and what there is.
#[derive(Debug)]
struct Evidence {
    sessions: usize,
    needed: u64,
    /// Of the holdline that runs, else of the shell that this was typed in; `None`: no limit.
    limit: Option<u64>,
    running: bool,
}

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let Some(config) = case.config.as_deref() else {
        return vec![Finding::cannot_tell(
            "",
            "there is no good config that says how many sessions there may be",
        )];
    };
    let pid = case.running().await.status().map(|status| status.pid);
    let running = match pid {
        Some(pid) => super::blocking(move || limit_of(pid)).await.flatten(),
        None => None,
    };
    if pid.is_some() && running.is_none() {
        let why = "the limit of the holdline that runs cannot be read: it is another user's, or in a container";
        return vec![Finding::cannot_tell("", why)];
    }
    let evidence = Evidence {
        sessions: config.limits.sessions,
        needed: config.limits.descriptors(),
        // It raises itself to the hard one.
        limit: running.or_else(|| getrlimit(Resource::Nofile).maximum),
        running: pid.is_some(),
    };
    vec![judge(&evidence)]
}

/// What it may have open now.
fn limit_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    soft_limit(&text)
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn judge(evidence: &Evidence) -> Finding {
    let Evidence {
        sessions, needed, ..
    } = evidence;
    let whose = match evidence.running {
        true => "holdline",
        false => "a holdline started from here",
    };
    let limit = evidence.limit.unwrap_or(u64::MAX);
    if limit >= *needed {
        return Finding::ok(
            "",
            format!(
                "{whose} may open {} files; {sessions} sessions need {needed}",
                worded(limit)
            ),
        );
    }
    let seen =
        format!("{whose} may open {limit} files, but limits.sessions = {sessions} needs {needed}");
    let remedy = format!(
        "set LimitNOFILE={needed} (systemd) or ulimit -n {needed}, or limits.sessions = {}",
        Limits::sessions_within(limit)
    );
    Finding::warning("", seen, remedy)
}

fn worded(limit: u64) -> String {
    match limit {
        u64::MAX => "any number of".to_owned(),
        limit => limit.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_the_sessions_need_is_compared_with_the_limit() {
        let judged = |limit| {
            judge(&Evidence {
                sessions: 8000,
                needed: 16_256,
                limit,
                running: true,
            })
        };
        assert_eq!(judged(None).verdict, Verdict::Ok);
        assert_eq!(judged(Some(16_256)).verdict, Verdict::Ok);
        let few = judged(Some(1024));
        assert_eq!(few.verdict, Verdict::Warning);
        assert!(
            few.remedy.contains("LimitNOFILE=16256") && few.remedy.ends_with("= 384"),
            "{few:?}"
        );
        assert!(judged(Some(0)).remedy.ends_with("= 0"));
    }

    #[test]
    fn reads_the_kernels_table() {
        let table = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024     4096     files\n";
        assert_eq!(soft_limit(table), Some(1024));
        assert_eq!(
            soft_limit("Max open files unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(soft_limit("nonsense"), None);
    }
}
