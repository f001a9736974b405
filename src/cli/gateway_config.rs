//! `holdline gateway-config`: what to set on the gateway for this config, and whether it is.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use holdline::gateway_settings::{self, Finding, Options, SCOPES, Verdict, Wanted};
use holdline::observe::log::colors_wanted;
use serde_json::{Value, json};

use super::{Settings, fail, say};

#[derive(Debug, Args)]
pub(crate) struct GatewayConfig {
    /// Only print the settings, without a look at the gateway
    #[arg(long)]
    print: bool,
    /// Print everything as one JSON object, a list of gateways in it
    #[arg(long)]
    json: bool,
    /// What users may do of whom --user does not say it, comma-separated; without it what the gateway
    /// grants them, or everything where that cannot be seen
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', value_parser = scope)]
    scopes: Vec<String>,
    /// A user who is not in the config (certificates, forward-auth), or with =SCOPE,SCOPE what a user
    /// may do; may be repeated
    #[arg(long, value_name = "NAME[=SCOPES]", value_parser = user)]
    user: Vec<(String, Vec<String>)>,
    /// An address of holdline in browsers, e.g. https://claw.example.com; may be repeated
    #[arg(long, value_name = "URL", value_parser = origin)]
    origin: Vec<String>,
}

pub(crate) fn run(settings: &Settings, asked: &GatewayConfig) -> ExitCode {
    let loaded = match settings.load() {
        Ok(loaded) => loaded,
        Err(refused) => return refused,
    };
    let options = Options {
        scopes: asked.scopes.clone(),
        users: asked.user.clone(),
        origins: asked.origin.clone(),
        names: gateway_settings::names(&loaded.config),
    };
    let wanted = match Wanted::of_every(&loaded.config, &options) {
        Ok(wanted) => wanted,
        Err(error) => return fail("nothing to set", &error),
    };
    let gateways: Vec<Gateway> = match asked.print {
        true => wanted.into_iter().map(|wanted| (wanted, None)).collect(),
        false => match look(wanted) {
            Ok(gateways) => gateways,
            Err(error) => return fail("no threads to run on", &error),
        },
    };
    let text = match asked.json {
        true => format!("{:#}\n", report(&gateways)),
        false => {
            let common = common_notes(&gateways);
            let blocks = gateways.iter().map(|gateway| in_words(gateway, &common));
            let mut text = blocks.collect::<Vec<_>>().join("\n\n");
            for note in common {
                text.push_str(&format!("\nnote, for each of them: {note}\n"));
            }
            text
        }
    };
    let printed = io::stdout().write_all(text.as_bytes()).is_ok();
    match printed && all_good(&gateways) != Some(false) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What a gateway should have, and what was seen of it if it was looked at.
type Gateway = (Wanted, Option<Vec<Finding>>);

/// For all questions to one gateway.
const LIMIT: Duration = Duration::from_secs(60);

fn look(wanted: Vec<Wanted>) -> io::Result<Vec<Gateway>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut gateways = Vec::with_capacity(wanted.len());
    for mut wanted in wanted {
        if io::stderr().is_terminal() {
            say(&format!("looking at {} ...\n", wanted.gateway()));
        }
        let looked = runtime.block_on(gateway_settings::check(&wanted, LIMIT));
        wanted.keep(&looked);
        gateways.push((wanted, Some(looked.findings)));
    }
    Ok(gateways)
}

/// Whether every gateway is good; `None` when none was looked at.
fn all_good(gateways: &[Gateway]) -> Option<bool> {
    let looked_at = gateways
        .iter()
        .filter_map(|(_, findings)| findings.as_deref());
    let good: Vec<bool> = looked_at.map(is_good).collect();
    (!good.is_empty()).then(|| good.iter().all(|good| *good))
}

/// What cannot be seen is no failure, but nothing seen at all is.
fn is_good(findings: &[Finding]) -> bool {
    let any = |verdict| findings.iter().any(|finding| finding.verdict == verdict);
    any(Verdict::Ok) && !any(Verdict::Wrong)
}

fn report(gateways: &[Gateway]) -> Value {
    let each = gateways.iter().map(|(wanted, findings)| {
        json!({
            "routes": wanted.routes,
            "gateway": wanted.gateway(),
            "settings": wanted.to_json(),
            "commands": wanted.commands(),
            "notes": wanted.notes(),
            "checks": findings,
            "ok": findings.as_deref().map(is_good),
        })
    });
    json!({"gateways": each.collect::<Vec<_>>(), "ok": all_good(gateways)})
}

/// What is to be said of every gateway, if there are several.
fn common_notes(gateways: &[Gateway]) -> Vec<String> {
    let [(first, _), others @ ..] = gateways else {
        return Vec::new();
    };
    let everywhere = |note: &String| others.iter().all(|(other, _)| other.notes().contains(note));
    match others.is_empty() {
        true => Vec::new(),
        false => first.notes().into_iter().filter(everywhere).collect(),
    }
}

fn in_words((wanted, findings): &Gateway, common: &[String]) -> String {
    let mut text = format!(
        "For openclaw.json of the gateway at {} ({}):\n\n{:#}\n\nThe same as commands:\n\n",
        wanted.gateway(),
        wanted.routes.join(", "),
        wanted.to_json()
    );
    for command in wanted.commands() {
        text.push_str(&format!("{command}\n"));
    }
    for note in wanted.notes().iter().filter(|note| !common.contains(note)) {
        text.push_str(&format!("\nnote: {note}\n"));
    }
    let Some(findings) = findings else {
        return text;
    };
    text.push_str("\nThe gateway as it is:\n\n");
    let colors = io::stdout().is_terminal() && colors_wanted();
    for finding in findings {
        let (word, color) = match finding.verdict {
            Verdict::Ok => ("ok", "32"),
            Verdict::Wrong => ("wrong", "31"),
            Verdict::CannotTell => ("cannot tell", "33"),
        };
        let word = match colors {
            true => format!("\x1b[{color}m{word}\x1b[0m"),
            false => word.to_owned(),
        };
        text.push_str(&format!("{word}: {}: {}\n", finding.setting, finding.seen));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("  -> {}\n", finding.remedy));
        }
    }
    text
}

fn scope(text: &str) -> Result<String, String> {
    // Those that only few clients ask for.
    const RARE: [&str; 2] = ["operator.talk.secrets", "operator.talk"];
    let mut known = SCOPES.iter().chain(&RARE);
    match known.any(|scope| *scope == text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "no scope of the gateway; write any of {}",
            SCOPES.join(", ")
        )),
    }
}

/// A name may have a `=` of its own where its scopes are said.
fn user(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, scopes) = match text.rsplit_once('=') {
        Some((name, scopes)) => (
            name,
            scopes.split(',').map(scope).collect::<Result<_, _>>()?,
        ),
        None => (text, Vec::new()),
    };
    match name.is_empty() {
        true => Err("nobody is named; write NAME, or NAME=operator.read".to_owned()),
        false => Ok((name.to_owned(), scopes)),
    }
}

/// As a browser writes it.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let uri = rest.parse::<http::uri::Authority>();
    match uri {
        Ok(authority) if !authority.as_str().contains('@') => Ok(format!(
            "https://{}",
            authority.as_str().to_ascii_lowercase()
        )),
        _ => Err("not an origin; write for example https://claw.example.com".to_owned()),
    }
}
