//! What a gateway says of itself over plain HTTP: `/health` and `/startupz`.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{each, is_openclaw};
use crate::config::Probe;
use crate::doctor::Finding;
use crate::doctor::ask::{AskError, Question, get};
use crate::doctor::case::{ANSWER, Case, Gateway};

/// Nobody's address (RFC 5737), for a gateway that wants to hear on whose behalf it is asked.
pub(super) const NOBODY: &str = "192.0.2.1";

/// What it said.
#[derive(Debug)]
pub(in crate::doctor) struct Health {
    asked: Asked,
    /// Whether it only answers to whoever says for whom it asks.
    pub(super) as_proxy: bool,
    /// What it holds for the time.
    pub(in crate::doctor) date: Option<DateSeen>,
}

/// A clock of somebody else's, and ours before and after it was read.
#[derive(Debug, Clone, Copy)]
pub(in crate::doctor) struct DateSeen {
    pub(in crate::doctor) theirs: SystemTime,
    pub(in crate::doctor) before: SystemTime,
    pub(in crate::doctor) after: SystemTime,
}

#[derive(Debug)]
enum Asked {
    /// Nobody is there.
    NotReached,
    /// An open port is all that is expected of it.
    PortOnly,
    /// The path of `[gateway] probe`.
    Path(String, Result<Reply, AskError>),
    Openclaw {
        health: Result<Reply, AskError>,
        startupz: Result<Reply, AskError>,
    },
}

#[derive(Debug)]
struct Reply {
    status: StatusCode,
    /// `status` of its JSON.
    word: Option<String>,
    version: Option<String>,
}

impl Health {
    pub(in crate::doctor) async fn gather(gateway: &Gateway) -> Self {
        let mut health = Self {
            asked: Asked::NotReached,
            as_proxy: false,
            date: None,
        };
        let Ok(address) = gateway.reached().await.result else {
            return health;
        };
        let to = To {
            address,
            host: gateway.upstream.authority(),
        };
        health.asked = match (&gateway.upstream.probe, is_openclaw(gateway)) {
            (_, true) => {
                let (live, started) =
                    tokio::join!(to.get("/health"), to.get_as_wanted("/startupz"));
                health.date = live.as_ref().ok().and_then(|(_, date)| *date);
                let started = started.map(|(answer, as_proxy)| {
                    health.as_proxy = as_proxy;
                    reply(&answer)
                });
                Asked::Openclaw {
                    health: live.map(|(answer, _)| reply(&answer)),
                    startupz: started,
                }
            }
            (Probe::Path(path), false) => {
                let answered = to.get(path).await;
                health.date = answered.as_ref().ok().and_then(|(_, date)| *date);
                Asked::Path(path.clone(), answered.map(|(answer, _)| reply(&answer)))
            }
            (Probe::Auto | Probe::Tcp, false) => Asked::PortOnly,
        };
        health
    }

    /// Whether it answers at all.
    pub(in crate::doctor) fn answers(&self) -> bool {
        match &self.asked {
            Asked::NotReached => false,
            Asked::PortOnly => true,
            Asked::Path(_, answered) => answered.is_ok(),
            Asked::Openclaw { health, startupz } => health.is_ok() || startupz.is_ok(),
        }
    }

    /// Whether a connection would be let through now.
    pub(in crate::doctor) fn is_ready(&self) -> bool {
        match &self.asked {
            Asked::NotReached => false,
            Asked::PortOnly => true,
            Asked::Path(_, answered) => answered
                .as_ref()
                .is_ok_and(|reply| reply.status.is_success()),
            Asked::Openclaw { health, startupz } => {
                let live = health.as_ref().is_ok_and(|reply| reply.status.is_success());
                let word = startupz
                    .as_ref()
                    .ok()
                    .and_then(|reply| reply.word.as_deref());
                live && !matches!(word, Some("starting" | "draining"))
            }
        }
    }
}

struct To {
    address: std::net::SocketAddr,
    host: String,
}

impl To {
    async fn get(&self, path: &str) -> Result<(Response<Bytes>, Option<DateSeen>), AskError> {
        self.ask(&Question::new(&self.host, path)).await
    }

    /// As ourselves, or else on behalf of nobody; and which it was.
    async fn get_as_wanted(&self, path: &str) -> Result<(Response<Bytes>, bool), AskError> {
        let question = Question::new(&self.host, path);
        let (answer, _) = self.ask(&question).await?;
        let word = b"proxy_attribution_required";
        if answer.status() != StatusCode::FORBIDDEN
            || memchr::memmem::find(answer.body(), word).is_none()
        {
            return Ok((answer, false));
        }
        let (answer, _) = self.ask(&question.with("x-forwarded-for", NOBODY)).await?;
        Ok((answer, true))
    }

    async fn ask(
        &self,
        question: &Question,
    ) -> Result<(Response<Bytes>, Option<DateSeen>), AskError> {
        let connect = tokio::time::timeout(ANSWER, TcpStream::connect(self.address)).await;
        let stream = connect
            .map_err(|_| AskError::TooSlow(ANSWER))?
            .map_err(|error| AskError::Broken(error.to_string()))?;
        let before = SystemTime::now();
        let answer = get(stream, question, ANSWER).await?;
        let after = SystemTime::now();
        let date = answer
            .headers()
            .get(header::DATE)
            .and_then(|date| date.to_str().ok());
        let theirs = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let date = theirs.map(|theirs| DateSeen {
            theirs,
            before,
            after,
        });
        Ok((answer, date))
    }
}

fn reply(answer: &Response<Bytes>) -> Reply {
    let said = serde_json::from_slice::<Value>(answer.body()).unwrap_or_default();
    let text = |key: &str| {
        let text = said.get(key)?.as_str()?;
        let short = text.chars().filter(|c| !c.is_control()).take(40);
        Some(short.collect::<String>())
    };
    Reply {
        status: answer.status(),
        word: text("status"),
        version: text("version"),
    }
}

pub(in crate::doctor) async fn look(case: Arc<Case>) -> Vec<Finding> {
    each(&case, |case, index| async move {
        let Some(gateway) = case.gateways.get(index) else {
            return Vec::new();
        };
        let pid = gateway
            .reached()
            .await
            .holder
            .as_ref()
            .map(|holder| holder.pid);
        judge(&gateway.name, pid, gateway.health().await)
    })
    .await
}

fn judge(name: &str, pid: Option<u32>, health: &Health) -> Vec<Finding> {
    let path_of = |path: &str, answered: &Result<Reply, AskError>| match answered {
        Ok(reply) if reply.status.is_success() => {
            Finding::ok(name, format!("{path} answers {}", reply.status))
        }
        Ok(reply) => {
            let remedy = "see the log of what is there, and that the url and the probe are right";
            Finding::failure(name, format!("{path} answers {}", reply.status), remedy)
        }
        Err(error) => hung(name, path, pid, error),
    };
    match &health.asked {
        Asked::NotReached => vec![Finding::cannot_tell(name, "it cannot be reached")],
        Asked::PortOnly => vec![Finding::ok(name, "an open port is all that is asked of it")],
        Asked::Path(path, answered) => vec![path_of(path, answered)],
        Asked::Openclaw { health, startupz } => {
            let live = path_of("/health", health);
            // The same again.
            if health.is_err() && startupz.is_err() {
                return vec![live];
            }
            vec![live, started(name, startupz)]
        }
    }
}

fn hung(name: &str, path: &str, pid: Option<u32>, error: &AskError) -> Finding {
    match error {
        AskError::TooSlow(_) => {
            let seen = format!("it accepts connections, but {path} gets {error}: it hangs");
            let end = pid.map(|pid| format!(" (its process: kill {pid})"));
            let remedy = format!(
                "restart it: openclaw gateway restart{}",
                end.unwrap_or_default()
            );
            Finding::failure(name, seen, remedy)
        }
        AskError::Broken(_) => {
            let remedy = "see that it is a gateway, and its log: openclaw logs";
            Finding::failure(name, format!("{path}: {error}"), remedy)
        }
    }
}

fn started(name: &str, startupz: &Result<Reply, AskError>) -> Finding {
    let reply = match startupz {
        Ok(reply) => reply,
        Err(error) => return Finding::cannot_tell(name, format!("/startupz: {error}")),
    };
    let version = reply
        .version
        .as_ref()
        .map(|version| format!(" (version {version})"));
    let version = version.unwrap_or_default();
    match reply.word.as_deref() {
        Some("started") => Finding::ok(name, format!("/startupz says started{version}")),
        Some("starting") => {
            let remedy = "wait: clients are held meanwhile, and starts of minutes exist";
            Finding::warning(
                name,
                format!("/startupz says that it is starting{version}"),
                remedy,
            )
        }
        Some("draining") => {
            let remedy = "wait for its return: clients are held until then";
            Finding::warning(
                name,
                format!("/startupz says that it is going away{version}"),
                remedy,
            )
        }
        _ => Finding::ok(
            name,
            format!(
                "it has no /startupz (it answers {}): /health and a challenge are asked",
                reply.status
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn said(status: u16, word: Option<&str>) -> Result<Reply, AskError> {
        Ok(Reply {
            status: StatusCode::from_u16(status).unwrap(),
            word: word.map(str::to_owned),
            version: None,
        })
    }

    fn openclaw(health: Result<Reply, AskError>, startupz: Result<Reply, AskError>) -> Health {
        Health {
            asked: Asked::Openclaw { health, startupz },
            as_proxy: false,
            date: None,
        }
    }

    fn verdicts(health: &Health) -> (Vec<Verdict>, bool) {
        let findings = judge("gw", Some(7), health);
        let verdicts = findings.iter().map(|finding| finding.verdict).collect();
        (verdicts, health.is_ready())
    }

    #[test]
    fn its_own_word_decides() {
        use Verdict::{Failure, Ok, Warning};
        let live = || said(200, Some("live"));
        for (startupz, expected) in [
            (said(200, Some("started")), (vec![Ok, Ok], true)),
            (said(503, Some("starting")), (vec![Ok, Warning], false)),
            (said(503, Some("draining")), (vec![Ok, Warning], false)),
            (said(404, None), (vec![Ok, Ok], true)),
        ] {
            assert_eq!(verdicts(&openclaw(live(), startupz)), expected);
        }
        let ill = openclaw(said(500, None), said(404, None));
        assert_eq!(verdicts(&ill), (vec![Failure, Ok], false));
    }

    #[test]
    fn a_gateway_that_hangs_is_told_once_with_its_process() {
        let slow = || Err(AskError::TooSlow(ANSWER));
        let findings = judge("gw", Some(7), &openclaw(slow(), slow()));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].seen.ends_with("it hangs"), "{findings:?}");
        assert!(findings[0].remedy.ends_with("kill 7)"), "{findings:?}");
    }

    #[test]
    fn what_is_no_gateway_is_asked_what_it_can_answer() {
        let health = |asked| Health {
            asked,
            as_proxy: false,
            date: None,
        };
        assert_eq!(
            verdicts(&health(Asked::PortOnly)),
            (vec![Verdict::Ok], true)
        );
        let path = Asked::Path("/up".to_owned(), said(503, None));
        assert_eq!(verdicts(&health(path)), (vec![Verdict::Failure], false));
        assert_eq!(
            verdicts(&health(Asked::NotReached)),
            (vec![Verdict::CannotTell], false)
        );
    }
}
