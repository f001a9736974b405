//! The certificates: on disk, and what is really served.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Finding;
use super::case::Case;
use super::ours;
use super::ports::Port;
use crate::config::{CertificateSource, Started, Tls};
use crate::hint;
use crate::observe::status::AcmeStatus;
use crate::tls::acme::{self, CertificateStatus};
use crate::tls::{Certificate, EXPIRES_SOON, Facts, TlsError};

/// Handshakes with ourselves, of which one address may only make so many a second; of more
/// certificates the rest is only looked at on disk.
const MOST: usize = 8;

/// One certificate of the config.
#[derive(Debug)]
pub(super) struct CertificateFile {
    /// Where it is, or would be.
    pub(super) path: PathBuf,
    pub(super) state: OnDisk,
}

/// How it is there.
#[derive(Debug)]
pub(super) enum OnDisk {
    /// Fit to be served.
    Good(Box<Facts>),
    /// A development certificate that is made at the next start.
    NotMade(&'static str),
    /// Not fit, in words that say what to do; and whether its dates are to come.
    Bad { why: String, not_yet: bool },
}

impl CertificateFile {
    /// Reads files.
    pub(super) fn gather(tls: &Tls, now: SystemTime) -> Vec<Self> {
        let load = |cert: &PathBuf, key: &PathBuf, made: bool| {
            let read = match made {
                true => Certificate::read,
                false => Certificate::read_at_any_time,
            };
            let state = match read(cert, key, now) {
                Ok(facts) => OnDisk::Good(Box::new(facts)),
                Err(TlsError::Read { source, .. })
                    if made && source.kind() == std::io::ErrorKind::NotFound =>
                {
                    OnDisk::NotMade("it is made at the first start")
                }
                Err(error) => OnDisk::Bad {
                    why: error.to_string(),
                    not_yet: matches!(error, TlsError::NotYetValid { .. }),
                },
            };
            // It is made anew whatever is wrong with it.
            let state = match state {
                OnDisk::Bad { not_yet: false, .. } if made => {
                    OnDisk::NotMade("it cannot be used, and is made anew at the next start")
                }
                state => state,
            };
            Self {
                path: cert.clone(),
                state,
            }
        };
        match &tls.certificate {
            CertificateSource::Dev { dir } => {
                vec![load(&dir.join("cert.pem"), &dir.join("key.pem"), true)]
            }
            // Told of apart: the running holdline keeps them.
            CertificateSource::Acme => Vec::new(),
            CertificateSource::Files(pairs) => {
                let pairs = pairs.iter();
                pairs
                    .map(|pair| load(&pair.cert, &pair.key, false))
                    .collect()
            }
        }
    }

    /// The name to ask for.
    fn name(&self) -> Option<&str> {
        match &self.state {
            OnDisk::Good(facts) => facts.names.first().map(String::as_str),
            OnDisk::NotMade(_) | OnDisk::Bad { .. } => None,
        }
    }
}

/// What the holdline that runs shows to whoever asks for a certificate's name.
#[derive(Debug)]
enum Served {
    /// It does not run, or not here.
    NotRunning,
    /// It was not asked.
    NotAsked,
    Facts(Box<Facts>),
    Failed(String),
}

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    if case.config.is_none() {
        return vec![Finding::cannot_tell(
            "",
            "there is no good config that names it",
        )];
    }
    let now = SystemTime::now();
    let mut findings = from_cas(&case).await;
    let other = case.other_config().await;
    for (index, file) in case.certificates().await.iter().enumerate() {
        let served = match index < MOST {
            true => served(&case, file).await,
            false => Served::NotAsked,
        };
        findings.extend(judge(file, &served, other, now));
    }
    findings
}

/// One line for each certificate of `[acme]`, by the state directory.
async fn from_cas(case: &Case) -> Vec<Finding> {
    let acme = case.config.as_ref().and_then(|config| config.acme.clone());
    let Some(acme) = acme else {
        return Vec::new();
    };
    let all = tokio::task::spawn_blocking(move || acme::on_disk(&acme)).await;
    let mut all = all.unwrap_or_default();
    let running = case.running().await.status().map_or(&[][..], |it| &it.acme);
    for one in &mut all {
        by_who_runs(one, running);
    }
    let unwritten = not_on_disk(&all, running);
    all.into_iter().map(from_ca).chain(unwritten).collect()
}

/// What only the process that runs knows to be wrong: that a disk is full, or a fault of its own.
fn not_on_disk(on_disk: &[CertificateStatus], running: &[AcmeStatus]) -> Vec<Finding> {
    let known = |reason: &str| {
        let mut reasons = on_disk.iter().filter_map(|it| it.last_error.as_ref());
        reasons.any(|it| it.reason == reason)
    };
    let finding = |one: &AcmeStatus| {
        let error = one.last_error.as_ref().filter(|it| !known(&it.reason))?;
        let seen = format!("the holdline that runs says: it {}", one.next);
        let reason = error.reason.clone();
        Some(Finding::warning(one.names.join(" "), seen, reason))
    };
    running.iter().filter_map(finding).collect()
}

/// Of what is awaited by all accounts, the one that orders it knows best what comes next.
fn by_who_runs(on_disk: &mut CertificateStatus, running: &[AcmeStatus]) {
    let same = |one: &&AcmeStatus| one.names == on_disk.names && one.state == "awaited";
    if on_disk.state != acme::State::Awaited {
        return;
    }
    let Some(running) = running.iter().find(same) else {
        return;
    };
    on_disk.next.clone_from(&running.next);
    if let Some(error) = &running.last_error {
        on_disk.last_error = Some(acme::LastError {
            at: SystemTime::now().into(),
            ca: error.ca.clone(),
            reason: error.reason.clone(),
        });
    }
}

fn from_ca(status: CertificateStatus) -> Finding {
    let subject = status.names.join(" ");
    let mut seen = match status.until {
        Some(until) => format!("valid until {until}; it {}", status.next),
        None => format!("there is none yet; it {}", status.next),
    };
    if status.state == acme::State::Unknown {
        let why = status.next.trim_start_matches("cannot tell: ");
        return Finding::cannot_tell(subject, why);
    }
    for other in &status.meanwhile {
        seen.push_str(&format!(
            "; until {} another one is served for {}",
            other.until, other.name
        ));
    }
    let reason = status.last_error.map(|error| error.reason);
    match (status.state, reason) {
        (acme::State::Served, None) => Finding::ok(subject, seen),
        (acme::State::Served, Some(reason)) => Finding::warning(subject, seen, reason),
        (acme::State::Awaited | acme::State::Unknown, Some(reason)) => {
            Finding::failure(subject, seen, reason)
        }
        (acme::State::Awaited | acme::State::Unknown, None) => Finding::warning(
            subject,
            seen,
            format!("start holdline, and see `{}`", hint::command("cert list")),
        ),
    }
}

async fn served(case: &Case, file: &CertificateFile) -> Served {
    let mut running: Option<SocketAddr> = None;
    for address in case.https() {
        if matches!(case.port(*address).await, Some(Port::Ours(_))) {
            running = Some(*address);
            break;
        }
    }
    let Some(address) = running else {
        return Served::NotRunning;
    };
    match ours::greet(case, address, file.name()).await {
        Ok((_, shown)) => Served::Facts(Box::new(shown.facts)),
        Err(error) => Served::Failed(error),
    }
}

/// `other`: what the holdline that runs was started with, if that is another config.
fn judge(
    file: &CertificateFile,
    served: &Served,
    other: Option<&Started>,
    now: SystemTime,
) -> Vec<Finding> {
    let subject = file.path.display().to_string();
    let mut findings = vec![on_disk(&subject, &file.state, now)];
    match (served, &file.state) {
        (Served::Facts(served), OnDisk::Good(facts)) if served.sha256 == facts.sha256 => {
            findings.push(Finding::ok(subject, "it is the one that is served"));
        }
        (Served::Facts(served), _) => {
            let seen = format!(
                "holdline serves another one: for {}, until {}, SHA-256 {}",
                served.names.join(", "),
                served.until(),
                served.sha256
            );
            let expired = served.expires_within(Duration::ZERO, now);
            let remedy = match other {
                None => {
                    let reload = hint::command("reload");
                    format!("run `{reload}`, and it serves what is in the file")
                }
                Some(started) => format!(
                    "it was started with another config, and that is what it reads: {}",
                    started.in_words()
                ),
            };
            findings.push(match expired {
                true => Finding::failure(subject, format!("{seen}, which has expired"), remedy),
                false => Finding::warning(subject, seen, remedy),
            });
        }
        (Served::Failed(error), _) => {
            let why = format!("what is served cannot be seen: {error}");
            findings.push(Finding::cannot_tell(subject, why));
        }
        (Served::NotRunning | Served::NotAsked, _) => {}
    }
    findings
}

fn on_disk(subject: &str, state: &OnDisk, now: SystemTime) -> Finding {
    let facts = match state {
        OnDisk::Good(facts) => facts,
        OnDisk::NotMade(why) => return Finding::ok(subject, *why),
        OnDisk::Bad { why, .. } => {
            let remedy = format!(
                "put a good certificate and its key there; see `{}`",
                hint::config_command("check")
            );
            return Finding::failure(subject, why, remedy);
        }
    };
    let names = match facts.names.join(", ") {
        none if none.is_empty() => "no name".to_owned(),
        names => names,
    };
    let seen = format!(
        "for {names}; until {}; SHA-256 {}",
        facts.until(),
        facts.sha256
    );
    if facts.not_before > now || facts.expires_within(Duration::ZERO, now) {
        let (why, remedy) = match facts.not_before > now {
            true => ("clients refuse it yet", "see to the clock of this machine"),
            false => (
                "it has expired",
                "renew it: holdline takes the new file by itself",
            ),
        };
        return Finding::failure(subject, format!("{seen}: {why}"), remedy);
    }
    if facts.expires_within(EXPIRES_SOON, now) {
        let left = facts.not_after.duration_since(now).unwrap_or_default();
        let seen = format!("{seen}: {} days left", left.as_secs() / 86_400);
        return Finding::warning(
            subject,
            seen,
            "renew it: holdline takes the new file by itself",
        );
    }
    let odd = facts.warnings.iter().map(|warning| format!("it {warning}"));
    match odd.collect::<Vec<_>>().join("; ") {
        odd if odd.is_empty() => Finding::ok(subject, seen),
        odd => Finding::warning(subject, format!("{seen}; {odd}"), "issue it again"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use std::time::UNIX_EPOCH;

    const DAY: u64 = 86_400;

    fn at(days: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(days * DAY)
    }

    fn facts(sha256: &str) -> Box<Facts> {
        Box::new(Facts {
            source: "cert.pem".to_owned(),
            names: vec!["a.example".to_owned()],
            issuer: String::new(),
            not_before: at(0),
            not_after: at(100),
            sha256: sha256.to_owned(),
            warnings: Vec::new(),
        })
    }

    fn verdicts(state: OnDisk, served: &Served, now: SystemTime) -> Vec<Verdict> {
        let path = PathBuf::from("cert.pem");
        let findings = judge(&CertificateFile { path, state }, served, None, now);
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_certificate_without_names_is_told_as_such() {
        let mut nameless = facts("A");
        nameless.names.clear();
        let found = on_disk("s", &OnDisk::Good(nameless), at(1));
        assert!(found.seen.starts_with("for no name; until "), "{found:?}");
    }

    #[test]
    fn the_last_two_weeks_are_a_warning() {
        let good = || OnDisk::Good(facts("A"));
        assert_eq!(verdicts(good(), &Served::NotRunning, at(85)), [Verdict::Ok]);
        assert_eq!(
            verdicts(good(), &Served::NotRunning, at(87)),
            [Verdict::Warning]
        );
        let bad = OnDisk::Bad {
            why: "expired".to_owned(),
            not_yet: false,
        };
        assert_eq!(
            verdicts(bad, &Served::NotRunning, at(1)),
            [Verdict::Failure]
        );
        let none = OnDisk::NotMade("soon");
        assert_eq!(verdicts(none, &Served::NotRunning, at(1)), [Verdict::Ok]);
        // What is served as it is.
        let served = Served::Facts(facts("A"));
        assert_eq!(
            verdicts(good(), &served, at(101)),
            [Verdict::Failure, Verdict::Ok]
        );
    }

    #[test]
    fn what_only_the_process_that_runs_knows_is_told() {
        let running = |reason: &str| {
            let text = format!(
                "{{\"names\": [\"a.example\"], \"next\": \"is renewed on T\", \"lastError\": {{\"reason\": \"{reason}\"}}}}"
            );
            serde_json::from_str::<AcmeStatus>(&text).unwrap()
        };
        let on_disk = CertificateStatus {
            names: vec!["a.example".to_owned()],
            state: acme::State::Served,
            from: None,
            until: None,
            issuer: None,
            ca: None,
            meanwhile: Vec::new(),
            next: String::new(),
            next_at: None,
            failures: 0,
            last_error: Some(acme::LastError {
                at: at(1).into(),
                ca: String::new(),
                reason: "known".to_owned(),
            }),
        };
        let well = AcmeStatus::default();
        let running = [running("known"), running("the disk is full"), well];
        let findings = not_on_disk(&[on_disk], &running);
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}");
        };
        assert_eq!(finding.verdict, Verdict::Warning);
        let text = format!("{finding:?}");
        assert!(
            text.contains("is renewed on T") && text.contains("the disk is full"),
            "{text}"
        );
    }

    #[test]
    fn what_is_served_counts_as_well() {
        let served = |sha256| Served::Facts(facts(sha256));
        let good = || OnDisk::Good(facts("A"));
        assert_eq!(
            verdicts(good(), &served("A"), at(1)),
            [Verdict::Ok, Verdict::Ok]
        );
        assert_eq!(
            verdicts(good(), &served("B"), at(1)),
            [Verdict::Ok, Verdict::Warning]
        );
        let failed = Served::Failed("no".to_owned());
        assert_eq!(
            verdicts(good(), &failed, at(1)),
            [Verdict::Ok, Verdict::CannotTell]
        );
        // The renewed one lies there, and the old one is still served.
        let mut new = facts("C");
        new.not_after = at(300);
        let state = OnDisk::Good(new);
        assert_eq!(
            verdicts(state, &served("A"), at(101)),
            [Verdict::Ok, Verdict::Failure]
        );
    }
}
