//! `holdline doctor`: looks at everything that has to work, in order, and says what to do.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Args;
use holdline::config::{AdminAddress, Loaded};
use holdline::doctor::{self, Finding, Patient, Verdict};
use holdline::observe::log::colors_wanted;
use serde_json::{Value, json};

use super::admin::{block_on, print};
use super::gateway_config::origin;
use super::words::{Tone, count, printable, toned};
use super::{BAD_CONFIG, Settings};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print everything as one JSON object, when all is seen
    #[arg(long)]
    json: bool,
    /// An address of holdline in browsers, e.g. https://claw.example.com, where a proxy or a port
    /// forward makes it another than its own; may be repeated
    #[arg(long, value_name = "URL", value_parser = origin)]
    origin: Vec<String>,
}

pub(crate) fn run(settings: &Settings, asked: &DoctorArgs) -> ExitCode {
    let (patient, bad) = settings.patient(&asked.origin);
    block_on(examine(patient, bad, asked.json))
}

impl Settings {
    /// What is examined, and whether its config is bad; its problems are findings then.
    fn patient(&self, origins: &[String]) -> (Patient, bool) {
        match self.read() {
            Ok(Loaded {
                config,
                warnings,
                source,
                ..
            }) => {
                let patient = Patient {
                    file: self.config.clone(),
                    origins: origins.to_vec(),
                    admin: Some(AdminAddress(config.admin.listen)),
                    source: source.to_string(),
                    problems: warnings,
                    config: Some(config),
                };
                (patient, false)
            }
            Err(errors) => {
                let source = self.config.as_ref().map(|path| path.display().to_string());
                let patient = Patient {
                    file: self.config.clone(),
                    origins: origins.to_vec(),
                    config: None,
                    source: source.unwrap_or_else(|| "the command line".to_owned()),
                    problems: [errors.errors, errors.warnings].concat(),
                    admin: errors.admin,
                };
                (patient, true)
            }
        }
    }
}

async fn examine(patient: Patient, bad_config: bool, json: bool) -> ExitCode {
    let colors = io::stdout().is_terminal() && colors_wanted();
    let mut printed = Ok(());
    let findings = doctor::examine(patient, |finding| {
        if !json && printed.is_ok() {
            printed = print(&line(finding, colors));
        }
    })
    .await;
    if let Err(gone) = printed {
        return gone;
    }
    let text = match json {
        true => format!("{:#}\n", report(&findings)),
        false => format!("\n{}\n", verdict(&findings)),
    };
    match print(&text) {
        Err(gone) => gone,
        Ok(()) if bad_config => ExitCode::from(BAD_CONFIG),
        Ok(()) if number(&findings, Verdict::Failure) > 0 => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn number(findings: &[Finding], verdict: Verdict) -> u64 {
    let same = findings.iter().filter(|finding| finding.verdict == verdict);
    u64::try_from(same.count()).unwrap_or(u64::MAX)
}

fn report(findings: &[Finding]) -> Value {
    json!({
        "ok": number(findings, Verdict::Failure) == 0,
        "failures": number(findings, Verdict::Failure),
        "warnings": number(findings, Verdict::Warning),
        "findings": findings,
    })
}

fn line(finding: &Finding, colors: bool) -> String {
    let (word, tone) = match finding.verdict {
        Verdict::Ok => ("ok", Tone::Good),
        Verdict::Warning => ("warning", Tone::Odd),
        Verdict::Failure => ("failure", Tone::Bad),
        Verdict::CannotTell => ("cannot tell", Tone::Odd),
    };
    let subject = match finding.subject.is_empty() {
        true => String::new(),
        false => format!(" {}", printable(&finding.subject)),
    };
    let mut text = format!(
        "{}: {}{subject}: {}\n",
        toned(word, tone, colors),
        finding.look,
        printable(&finding.seen)
    );
    if !finding.remedy.is_empty() {
        text.push_str(&format!("  -> {}\n", printable(&finding.remedy)));
    }
    text
}

fn verdict(findings: &[Finding]) -> String {
    let (failures, warnings) = (
        number(findings, Verdict::Failure),
        number(findings, Verdict::Warning),
    );
    match (failures, warnings) {
        (0, 0) => "nothing is wrong".to_owned(),
        _ => format!(
            "{}, {}",
            count(failures, "failure"),
            count(warnings, "warning")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(verdict: Verdict, subject: &str, remedy: &str) -> Finding {
        Finding {
            look: "ports",
            subject: subject.to_owned(),
            verdict,
            seen: "held by nginx".to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    #[test]
    fn a_line_says_how_it_is_what_was_seen_and_what_to_do() {
        let failure = finding(Verdict::Failure, "0.0.0.0:443", "stop it");
        assert_eq!(
            line(&failure, false),
            "failure: ports 0.0.0.0:443: held by nginx\n  -> stop it\n"
        );
        let plain = finding(Verdict::Ok, "", "");
        assert_eq!(
            line(&plain, true),
            "\x1b[32mok\x1b[0m: ports: held by nginx\n"
        );
        assert_eq!(
            verdict(&[failure.clone(), plain.clone()]),
            "1 failure, 0 warnings"
        );
        assert_eq!(verdict(std::slice::from_ref(&plain)), "nothing is wrong");
        let report = report(&[failure, plain]);
        assert_eq!(
            (&report["ok"], &report["failures"]),
            (&json!(false), &json!(1))
        );
        assert_eq!(report["findings"][0]["verdict"], "failure");
    }
}
