//! Whether the holdline that runs does what the file says: a file that was refused is not in force,
//! and what answers may be another holdline.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Finding;
use super::case::Case;
use super::ports::Port;
use crate::config::Started;
use crate::hint;
use crate::observe::Status;

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let Some(status) = case.running().await.status() else {
        return Vec::new();
    };
    let mut free = Vec::new();
    for address in case.https() {
        // One that is held by anybody says nothing against it: it may be in a container.
        if !matches!(case.port(*address).await, Some(Port::Free)) {
            free.clear();
            break;
        }
        free.push(*address);
    }
    judge(status, case.other_config().await, &free, &case.source)
}

/// `other`: what the holdline that runs was started with, if not with this. `free`: every TLS address
/// of the config, if nobody at all is on any of them.
fn judge(
    status: &Status,
    other: Option<&Started>,
    free: &[SocketAddr],
    source: &str,
) -> Vec<Finding> {
    let another = "use the config and the flags that it was started with, or give this one another [admin] listen";
    if let Some(started) = other {
        // What it has refused is that one's.
        let seen = format!(
            "the holdline that answers there was started with another one: {}",
            started.in_words()
        );
        return vec![Finding::warning(source, seen, another)];
    }
    let mut findings = Vec::new();
    if let Some((ago, refused)) = status.refused() {
        let seen = format!(
            "what was read {} s ago was refused, and an older config is in force: {}",
            ago / 1000,
            refused.why
        );
        let remedy = match refused.in_file {
            true => format!(
                "mend what `{}` says; a mended file is taken by itself",
                hint::config_command("check")
            ),
            false => format!(
                "mend that, or if the file is meant as it is: {}",
                hint::command("reload")
            ),
        };
        findings.push(Finding::warning(source, seen, remedy));
    }
    // A config that was refused may have other addresses.
    if findings.is_empty() && !free.is_empty() && !status.draining {
        let addresses: Vec<_> = free.iter().map(SocketAddr::to_string).collect();
        let seen = format!(
            "the holdline that answers there does not serve this config: nobody is on {}",
            addresses.join(", ")
        );
        findings.push(Finding::warning(source, seen, another));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::observe::status::LastReload;

    #[test]
    fn a_config_that_is_not_in_force_is_a_warning() {
        let mut status = Status::default();
        assert_eq!(judge(&status, None, &[], "h.toml"), []);
        status.last_reload = Some(LastReload::default());
        assert_eq!(judge(&status, None, &[], "h.toml"), []);
        let refused =
            "the changed file is not taken by itself, the old config is in force: it sets nothing";
        status.last_reload = Some(LastReload {
            ago_ms: 12_000,
            refused: Some(refused.to_owned()),
        });
        let address = "127.0.0.1:443".parse().unwrap();
        let findings = judge(&status, None, &[address], "h.toml");
        let [finding] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.seen.contains("12 s ago"), "{finding:?}");
        assert!(finding.seen.ends_with(": it sets nothing"), "{finding:?}");
        assert!(finding.remedy.contains("holdline reload"), "{finding:?}");
    }

    #[test]
    fn a_holdline_with_another_config_is_named_by_it() {
        let status = Status {
            last_reload: Some(LastReload {
                ago_ms: 1,
                refused: Some("its own affair".to_owned()),
            }),
            ..Status::default()
        };
        let started = Started {
            source: "/etc/holdline.toml".to_owned(),
            ..Started::default()
        };
        let findings = judge(&status, Some(&started), &[], "h.toml");
        let [finding] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert!(finding.seen.ends_with("another one: /etc/holdline.toml"));
    }

    #[test]
    fn a_holdline_on_other_ports_is_another_one() {
        let mut status = Status::default();
        let address = "127.0.0.1:443".parse().unwrap();
        let findings = judge(&status, None, &[address], "h.toml");
        assert!(
            findings[0]
                .seen
                .ends_with("does not serve this config: nobody is on 127.0.0.1:443"),
            "{findings:?}"
        );
        status.draining = true;
        assert_eq!(judge(&status, None, &[address], "h.toml"), []);
    }
}
