//! Whether the config is good, and what sign-ins keep on disk. Problems are one line each; `holdline
//! check` prints them at length.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Finding;
use super::case::Case;
use crate::auth::{self, DeskError};
use crate::config::{Config, Problem, Severity};

/// Below the look's own: what is wrong with the config is told in any case.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let mut findings = judge(&case.source, &case.problems);
    if let Some(config) = &case.config {
        findings.extend(sign_ins(Arc::clone(config)).await);
    }
    findings
}

/// What would keep holdline from starting with it.
async fn sign_ins(config: Arc<Config>) -> Option<Finding> {
    let checked = super::blocking(move || auth::check(&config.auth));
    match timeout(LIMIT, checked).await {
        Ok(checked) => judge_sign_ins(&checked?.err()?),
        Err(_) => Some(Finding::cannot_tell(
            "[auth]",
            "the file system of state_dir does not answer",
        )),
    }
}

fn judge_sign_ins(error: &DeskError) -> Option<Finding> {
    let text = error.to_string();
    match error {
        // The one that holdline runs as may be another user; the look at the disk says so, too.
        DeskError::Directory { error, .. } if is_forbidden(error) => None,
        DeskError::File { error, .. } if is_forbidden(error) => {
            Some(Finding::cannot_tell("[auth]", text))
        }
        _ => {
            let (seen, remedy) = text.rsplit_once("; ").unwrap_or((&text, "try again"));
            Some(Finding::failure("[auth]", seen, remedy))
        }
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn judge(source: &str, problems: &[Problem]) -> Vec<Finding> {
    if problems.is_empty() {
        return vec![Finding::ok(source, "valid")];
    }
    let finding = |problem: &Problem| {
        let subject = problem.place.to_string();
        match problem.severity {
            Severity::Error => Finding::failure(subject, problem.title(), &problem.remedy),
            Severity::Warning => Finding::warning(subject, problem.title(), &problem.remedy),
        }
    };
    problems.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::config;

    #[test]
    fn every_problem_is_a_line() {
        assert_eq!(judge("a.toml", &[])[0].verdict, Verdict::Ok);
        let errors = config::parse("[hold]\nmaxx = 1", "a.toml")
            .unwrap_err()
            .errors;
        let [finding] = &judge("a.toml", &errors)[..] else {
            panic!("{errors:?}")
        };
        assert_eq!(finding.verdict, Verdict::Failure);
        assert_eq!(finding.subject, "a.toml:2:1");
        assert_eq!(finding.seen, "hold.maxx: no such key");
        assert_eq!(finding.remedy, "did you mean \"max\"?");
    }

    /// Root could look into everything.
    #[test]
    fn what_only_another_user_may_see_is_no_failure() {
        let path = std::path::PathBuf::from("state");
        let error = || io::ErrorKind::PermissionDenied.into();
        let file = DeskError::File {
            path: path.clone(),
            error: error(),
        };
        let verdict = judge_sign_ins(&file).map(|finding| finding.verdict);
        assert_eq!(verdict, Some(Verdict::CannotTell));
        let error = error();
        assert_eq!(judge_sign_ins(&DeskError::Directory { path, error }), None);
    }
}
