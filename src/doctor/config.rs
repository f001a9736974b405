//! Whether the config is good. Its problems are one line each; `holdline check` prints them at length.

use std::sync::Arc;

use super::Finding;
use super::case::Case;
use crate::config::{Problem, Severity};

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    judge(&case.source, &case.problems)
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
}
