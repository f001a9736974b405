//! Whether a holdline runs here: what its admin listener says.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Finding;
use super::case::Case;
use crate::config::AdminAddress;
use crate::hint;
use crate::listen::{Holder, holder_of};
use crate::observe::{AdminClient, AdminError, Status};

/// What answered.
#[derive(Debug)]
pub(super) enum Running {
    /// A holdline.
    Yes(Box<Status>),
    /// Nobody.
    No(SocketAddr),
    /// Somebody else, or nobody who speaks; and who it is.
    Other(String, Option<Holder>),
    /// There is nobody to ask.
    AdminOff,
    /// Where it would be is not known.
    Unknown,
}

impl Running {
    pub(super) async fn gather(admin: Option<AdminAddress>) -> Self {
        let Some(AdminAddress(admin)) = admin else {
            return Self::Unknown;
        };
        let Some(address) = admin.filter(|address| address.port() != 0) else {
            return Self::AdminOff;
        };
        match AdminClient::new(address).status().await {
            Ok((_, status)) => Self::Yes(Box::new(status)),
            Err(AdminError::Nobody { .. }) => Self::No(address),
            Err(error) => {
                let holder = super::blocking(move || holder_of(address.port())).await;
                Self::Other(error.to_string(), holder.flatten())
            }
        }
    }

    /// The one that runs.
    pub(super) fn status(&self) -> Option<&Status> {
        match self {
            Self::Yes(status) => Some(status),
            Self::No(_) | Self::Other(..) | Self::AdminOff | Self::Unknown => None,
        }
    }
}

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    judge(case.running().await, env!("CARGO_PKG_VERSION"))
}

fn judge(running: &Running, version: &str) -> Vec<Finding> {
    let status = match running {
        Running::Yes(status) => status,
        Running::No(address) => {
            let seen = format!("holdline is not running: nothing answers on {address}");
            return vec![Finding::warning(
                "",
                seen,
                format!("start it: {}", hint::same_command("run")),
            )];
        }
        Running::Other(what, holder) => {
            let holder = holder
                .as_ref()
                .map(|holder| format!("; the port is held by {holder}"));
            let seen = format!("{what}{}", holder.unwrap_or_default());
            let remedy = "stop what is there, or set another [admin] listen: holdline cannot start without it";
            return vec![Finding::failure("", seen, remedy)];
        }
        Running::AdminOff => {
            let why = "[admin] listen is off, or a port of chance: there is nobody to ask";
            return vec![Finding::cannot_tell("", why)];
        }
        Running::Unknown => {
            let seen = "where the admin listener is cannot be seen in this config";
            let remedy = "mend the config, or say where it is with --admin ADDR";
            return vec![Finding::cannot_tell("", seen).with_remedy(remedy)];
        }
    };
    let mut findings = Vec::new();
    let minutes = status.uptime_ms / 60_000;
    let config = status.config.as_ref();
    let config = config.map(|started| format!(", config {}", started.in_words()));
    let seen = format!(
        "version {}, pid {}, up {minutes} min{}",
        status.version,
        status.pid,
        config.unwrap_or_default()
    );
    findings.push(match (status.draining, status.version == version) {
        (true, _) => Finding::warning(
            "",
            format!("{seen}: it is draining"),
            "start it again when it has ended",
        ),
        (false, true) => Finding::ok("", seen),
        (false, false) => {
            let remedy = format!(
                "this is version {version}: `{}` runs it, and no session notices",
                hint::command("upgrade")
            );
            Finding::warning("", seen, remedy)
        }
    });
    for gateway in status
        .gateways
        .iter()
        .filter(|gateway| gateway.state != "ready")
    {
        let hint = gateway.hint.as_deref().unwrap_or("it is not ready");
        let seen = format!(
            "it says that the gateway {} is {}: {hint}",
            gateway.gateway, gateway.state
        );
        findings.push(Finding::warning(
            &gateway.route,
            seen,
            "see the looks at the gateway",
        ));
    }
    for gateway in &status.gateways {
        if let Some(crash) = gateway.crash_loop {
            let seen = format!(
                "crash loop: the gateway {} has had {} outages within {} s",
                gateway.gateway,
                crash.outages,
                crash.since_ms / 1000
            );
            let remedy = "see why in the gateway's log: openclaw logs";
            findings.push(Finding::failure(&gateway.route, seen, remedy));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::observe::status::{CrashLoopStatus, GatewayStatus};

    fn verdicts(running: &Running) -> Vec<Verdict> {
        let findings = judge(running, "1.0.0");
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn what_answers_decides() {
        let address = "127.0.0.1:9180".parse().unwrap();
        assert_eq!(verdicts(&Running::No(address)), [Verdict::Warning]);
        assert_eq!(verdicts(&Running::AdminOff), [Verdict::CannotTell]);
        assert_eq!(verdicts(&Running::Unknown), [Verdict::CannotTell]);
        let holder = Holder {
            name: "nginx".to_owned(),
            pid: 7,
        };
        let other = Running::Other("no admin listener".to_owned(), Some(holder));
        let findings = judge(&other, "1.0.0");
        assert_eq!(findings[0].verdict, Verdict::Failure);
        assert!(
            findings[0].seen.ends_with("held by nginx (pid 7)"),
            "{findings:?}"
        );
    }

    #[test]
    fn what_it_says_of_itself_is_judged() {
        let mut status = Status {
            version: "1.0.0".to_owned(),
            gateways: vec![GatewayStatus {
                state: "ready".to_owned(),
                ..GatewayStatus::default()
            }],
            ..Status::default()
        };
        let yes = |status: &Status| verdicts(&Running::Yes(Box::new(status.clone())));
        assert_eq!(yes(&status), [Verdict::Ok]);
        status.version = "0.9.0".to_owned();
        assert_eq!(yes(&status), [Verdict::Warning]);
        status.gateways[0].state = "down".to_owned();
        status.gateways[0].crash_loop = Some(CrashLoopStatus::default());
        assert_eq!(
            yes(&status),
            [Verdict::Warning, Verdict::Warning, Verdict::Failure]
        );
    }
}
