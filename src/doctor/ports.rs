//! Who is on the ports of the config: nobody, the holdline that runs, or somebody else.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Finding;
use super::case::Case;
use super::ours;
use crate::listen::{BindError, Holder, Listener};

/// Who is there.
#[derive(Debug)]
pub(super) enum Port {
    /// It is chosen when holdline starts.
    OfChance,
    /// Nobody.
    Free,
    /// A holdline.
    Ours(Option<Holder>),
    /// Somebody else.
    Taken(Option<Holder>),
    /// Somebody, perhaps the holdline that runs.
    Unknown,
    /// It cannot be had by this user, or not at all: why, with what to do.
    Closed {
        /// Whether another user might have it.
        for_this_user: bool,
        why: String,
    },
}

impl Port {
    pub(super) async fn gather(case: &Case, address: SocketAddr) -> Self {
        if address.port() == 0 {
            return Self::OfChance;
        }
        let beside: Vec<SocketAddr> = case.ports.iter().map(|(address, _)| *address).collect();
        let tried = super::blocking(move || Listener::try_bind(address, &beside)).await;
        let holder = match tried {
            Some(Ok(())) => return Self::Free,
            Some(Err(BindError::InUse { holder, .. })) => holder,
            Some(Err(error)) => {
                return Self::Closed {
                    for_this_user: matches!(error, BindError::Privileged { .. }),
                    why: error.to_string(),
                };
            }
            None => return Self::Taken(None),
        };
        let status = case.running().await.status();
        let known = status
            .zip(holder.as_ref())
            .filter(|(status, _)| status.pid != 0);
        let ours = match known {
            Some((status, holder)) => status.pid == holder.pid,
            // In another container, of another user, or without an admin listener: it is asked.
            None if case.https().contains(&address) => ours::is_holdline(case, address).await,
            // A redirect looks the same everywhere.
            None if holder.is_none() && status.is_some() => return Self::Unknown,
            None => false,
        };
        let named = |holder: &Holder| status.is_none() && holder.name == "holdline";
        match ours || holder.as_ref().is_some_and(named) {
            true => Self::Ours(holder),
            false => Self::Taken(holder),
        }
    }
}

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (address, _) in &case.ports {
        if let Some(port) = case.port(*address).await {
            findings.push(judge(*address, port));
        }
    }
    match (findings.is_empty(), case.config.is_some()) {
        (true, false) => vec![Finding::cannot_tell(
            "",
            "there is no good config that names them",
        )],
        _ => findings,
    }
}

fn judge(address: SocketAddr, port: &Port) -> Finding {
    let subject = address.to_string();
    match port {
        Port::OfChance => Finding::ok(subject, "a free port is chosen at the start"),
        Port::Free => Finding::ok(subject, "free"),
        Port::Ours(holder) => {
            let by = holder
                .as_ref()
                .map(|holder| format!(" (pid {})", holder.pid));
            let seen = format!("served by the holdline that runs{}", by.unwrap_or_default());
            Finding::ok(subject, seen)
        }
        Port::Taken(holder) => {
            let remedy = match holder {
                Some(holder) => format!(
                    "stop it (what it is: ps -fp {}), or choose another address under [listen]",
                    holder.pid
                ),
                None => format!(
                    "see who it is, as root: ss -ltnp 'sport = :{}'; stop it, or choose another address under [listen]",
                    address.port()
                ),
            };
            let by = holder.as_ref().map_or_else(
                || "another program".to_owned(),
                |holder| format!("another program, {holder}"),
            );
            Finding::failure(subject, format!("in use by {by}"), remedy)
        }
        Port::Unknown => {
            let finding = Finding::cannot_tell(subject, "in use, and not to be seen by whom");
            finding.with_remedy(format!("as root: ss -ltnp 'sport = :{}'", address.port()))
        }
        Port::Closed {
            for_this_user: true,
            why,
        } => {
            let seen = format!("{why} (asked as the user who runs this)");
            Finding::warning(
                subject,
                seen,
                "nothing, if the user that runs holdline has that right",
            )
        }
        Port::Closed { why, .. } => {
            Finding::failure(subject, why, "choose another address under [listen]")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn whoever_holds_it_decides() {
        let address = "0.0.0.0:443".parse().unwrap();
        let holder = |name: &str| {
            Some(Holder {
                name: name.to_owned(),
                pid: 7,
            })
        };
        let judged = |port| judge(address, &port);
        assert_eq!(judged(Port::Free).verdict, Verdict::Ok);
        assert_eq!(judged(Port::OfChance).verdict, Verdict::Ok);
        let ours = judged(Port::Ours(holder("holdline")));
        assert_eq!(ours.seen, "served by the holdline that runs (pid 7)");
        let nginx = judged(Port::Taken(holder("nginx")));
        assert_eq!(
            (nginx.verdict, nginx.seen.as_str()),
            (Verdict::Failure, "in use by another program, nginx (pid 7)")
        );
        assert!(nginx.remedy.contains("ps -fp 7"), "{nginx:?}");
        let unknown = judged(Port::Taken(None));
        assert!(
            unknown.remedy.contains("ss -ltnp 'sport = :443'"),
            "{unknown:?}"
        );
        let closed = |for_this_user| {
            let why = "no".to_owned();
            judged(Port::Closed { for_this_user, why }).verdict
        };
        assert_eq!(
            (closed(true), closed(false)),
            (Verdict::Warning, Verdict::Failure)
        );
    }
}
