//! The clock: against the gateway's, against our certificates, and whether anybody sets it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Finding;
use super::case::Case;
use super::certificates::OnDisk;
use super::gateway::health::DateSeen;

/// Clocks of two machines that are set differ by less; the gateway's word for it has whole seconds.
const APART: Duration = Duration::from_secs(5);
/// systemd-timesyncd makes it when it has set the clock.
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";

/// What else tells the time.
#[derive(Debug, Default)]
struct Evidence {
    gateways: Vec<(String, Option<DateSeen>)>,
    /// Files with certificates whose time is to come.
    not_yet: Vec<String>,
    /// Whether it is known that somebody sets the clock.
    synchronised: bool,
}

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let synchronised = super::blocking(|| Path::new(TIMESYNC).exists())
        .await
        .unwrap_or(false);
    let mut evidence = Evidence {
        synchronised,
        ..Evidence::default()
    };
    for file in case.certificates().await {
        if matches!(file.state, OnDisk::Bad { not_yet: true, .. }) {
            evidence.not_yet.push(file.path.display().to_string());
        }
    }
    for gateway in &case.gateways {
        let date = gateway.health().await.date;
        evidence.gateways.push((gateway.name.clone(), date));
    }
    judge(&evidence)
}

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let set = "see whether it is set: timedatectl; set it: timedatectl set-ntp true";
    let mut findings: Vec<Finding> = evidence
        .not_yet
        .iter()
        .map(|file| {
            let seen = format!("the certificate in {file} is only valid later: either is wrong");
            Finding::failure("", seen, set)
        })
        .collect();
    for (name, date) in &evidence.gateways {
        findings.extend(date.as_ref().map(|date| judge_date(name, date, set)));
    }
    findings.push(match evidence.synchronised {
        true => Finding::ok("", "it is synchronised (systemd-timesyncd)"),
        false => Finding::cannot_tell(
            "",
            "whether it is synchronised: systemd-timesyncd does not say so",
        )
        .with_remedy("timedatectl, or chronyc tracking"),
    });
    findings
}

fn judge_date(name: &str, date: &DateSeen, set: &str) -> Finding {
    let apart = apart(date);
    match apart > APART {
        true => {
            let seen = format!("the gateway's differs by {} s", apart.as_secs());
            Finding::warning(name, seen, format!("on both machines: {set}"))
        }
        false => Finding::ok(name, "the gateway's is the same"),
    }
}

/// How far their clock was outside of the time in which it was read.
fn apart(date: &DateSeen) -> Duration {
    let late = date.before.duration_since(date.theirs).unwrap_or_default();
    let early = date.theirs.duration_since(date.after).unwrap_or_default();
    late.max(early)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::Verdict;
    use super::*;

    fn seen(theirs: u64) -> DateSeen {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        DateSeen {
            theirs: at(theirs),
            before: at(1000),
            after: at(1003),
        }
    }

    #[test]
    fn a_slow_answer_is_no_other_time() {
        for (theirs, expected) in [(1000, 0), (1003, 0), (1002, 0), (990, 10), (1013, 10)] {
            assert_eq!(
                apart(&seen(theirs)),
                Duration::from_secs(expected),
                "{theirs}"
            );
        }
    }

    #[test]
    fn what_differs_is_told() {
        use Verdict::{CannotTell, Failure, Ok, Warning};
        let mut evidence = Evidence {
            gateways: vec![("a".to_owned(), Some(seen(1001))), ("b".to_owned(), None)],
            not_yet: Vec::new(),
            synchronised: true,
        };
        let verdicts = |evidence: &Evidence| {
            let findings = judge(evidence);
            findings
                .iter()
                .map(|finding| finding.verdict)
                .collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&evidence), [Ok, Ok]);
        evidence.gateways[1].1 = Some(seen(2000));
        evidence.not_yet.push("c.pem".to_owned());
        evidence.synchronised = false;
        assert_eq!(verdicts(&evidence), [Failure, Ok, Warning, CannotTell]);
    }
}
