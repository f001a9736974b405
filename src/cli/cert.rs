//! `holdline cert`: what is served, until when, and what happens next.
//!
//! A running holdline is asked on its admin listener. Without one the state directory tells what it
//! knows.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use holdline::config::{CertificateSource, Config};
use holdline::tls::acme::{self, CertificateStatus};
use holdline::tls::{Certificate, Facts, Tls};
use serde_json::{Value, json};

use super::{Settings, fail, say};

/// A running holdline answers at once; an order is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// No status is longer.
const ANSWER: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// What is served, until when, and what happens next
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Have a running holdline renew now, within the limits of the CA
    Renew {
        /// Only the certificate with this name
        name: Option<String>,
    },
    /// Make the development certificate, and say how to trust it
    Dev,
    /// Change the keys of the accounts at the CAs in [acme]
    AccountKey,
}

/// Why a running holdline cannot be asked.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("there is no admin listener; set [admin] listen, or --admin")]
    Off,
    #[error("nobody answers on {0}; is holdline running, with this config?")]
    Nobody(SocketAddr, #[source] io::Error),
    #[error("{0} does not answer as holdline does")]
    Stranger(SocketAddr),
    #[error("{0}")]
    Refused(String),
}

impl CertCommand {
    pub(crate) fn run(self, settings: &Settings) -> ExitCode {
        let config = match settings.load() {
            Ok(loaded) => loaded.config,
            Err(refused) => return refused,
        };
        match self {
            Self::List { json } => list(&config, json),
            Self::Renew { name } => renew(&config, name.as_deref()),
            Self::Dev => dev(&config),
            Self::AccountKey => account_key(&config),
        }
    }
}

fn list(config: &Config, as_json: bool) -> ExitCode {
    let all = match (&config.tls.certificate, &config.acme) {
        (CertificateSource::Acme, Some(acme)) => match running(config) {
            Some(told) => told,
            None => acme::on_disk(acme).iter().map(status).collect(),
        },
        (CertificateSource::Files(pairs), _) => {
            let pairs = pairs.iter().map(|pair| (&pair.cert, &pair.key));
            pairs.map(|(cert, key)| of_files(cert, key)).collect()
        }
        (CertificateSource::Dev { dir }, _) => {
            vec![of_files(&dir.join("cert.pem"), &dir.join("key.pem"))]
        }
        (CertificateSource::Acme, None) => Vec::new(),
    };
    let text = match as_json {
        true => format!("{:#}\n", Value::Array(all)),
        false => all.iter().map(in_words).collect(),
    };
    print(&text)
}

/// What a running holdline tells, if there is one that uses ACME.
fn running(config: &Config) -> Option<Vec<Value>> {
    let answer = ask(config, "GET", "/status").ok()?;
    let status: Value = serde_json::from_str(&answer).ok()?;
    let all = status.get("certificates")?.as_array()?;
    (!all.is_empty()).then(|| all.clone())
}

fn status(status: &CertificateStatus) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

fn of_files(cert: &std::path::Path, key: &std::path::Path) -> Value {
    match Certificate::facts_of(cert, key) {
        Ok(facts) => of_facts(&facts),
        Err(error) => json!({
            "names": [cert.display().to_string()],
            "state": "awaited",
            "next": "has to be mended by hand",
            "lastError": {"reason": error.to_string()},
        }),
    }
}

fn of_facts(facts: &Facts) -> Value {
    json!({
        "names": facts.names,
        "state": "served",
        "until": facts.until(),
        "issuer": facts.issuer,
        "next": format!("has to be renewed by whoever wrote {}", facts.source),
    })
}

fn in_words(one: &Value) -> String {
    let text = |key: &str| {
        one.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let names: Vec<&str> = one
        .get("names")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut lines = format!("{}\n", names.join(" "));
    match text("until") {
        until if until.is_empty() => lines.push_str("  there is none yet\n"),
        until => lines.push_str(&format!("  valid until {until}, by {}\n", text("issuer"))),
    }
    lines.push_str(&format!("  {}\n", text("next")));
    let error = one.get("lastError");
    let part = |key: &str| error.and_then(|it| it.get(key)).and_then(Value::as_str);
    if let Some(reason) = part("reason") {
        let at = part("at").map(|at| format!(" on {at}")).unwrap_or_default();
        let ca = part("ca").map(|ca| format!(" at {ca}")).unwrap_or_default();
        lines.push_str(&format!("  failed{at}{ca}: {reason}\n"));
    }
    lines
}

fn renew(config: &Config, name: Option<&str>) -> ExitCode {
    let path = match name {
        Some(name) => format!("/cert/renew?name={}", name.to_ascii_lowercase()),
        None => "/cert/renew".to_owned(),
    };
    match ask(config, "POST", &path) {
        Ok(_) => print("asked for; `holdline cert list` shows what comes of it\n"),
        Err(error) => fail("nothing is renewed", &error),
    }
}

fn dev(config: &Config) -> ExitCode {
    let CertificateSource::Dev { dir } = &config.tls.certificate else {
        say("error: [tls] serves another certificate; write certificate = \"dev\"\n");
        return ExitCode::FAILURE;
    };
    let tls = match Tls::new(&config.tls) {
        Ok(tls) => tls,
        Err(error) => return fail("no development certificate", &error),
    };
    let cert = dir.join("cert.pem");
    let facts = tls.certificates().into_iter().next();
    let (names, until) = facts.map_or_else(Default::default, |facts| {
        (facts.names.join(", "), facts.until())
    });
    print(&format!(
        "{}\n  for {names}, until {until}\n  to trust it: curl --cacert {0}, or import it into the browser as an authority\n",
        cert.display()
    ))
}

fn account_key(config: &Config) -> ExitCode {
    let Some(acme) = &config.acme else {
        say("error: certificates do not come from a CA here; see [tls] certificate\n");
        return ExitCode::FAILURE;
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail("no threads to run on", &error),
    };
    let mut code = ExitCode::SUCCESS;
    for (ca, changed) in runtime.block_on(acme::change_account_keys(acme)) {
        match changed {
            Ok(true) => say(&format!("{ca}: the account has a new key\n")),
            Ok(false) => say(&format!("{ca}: there is no account yet\n")),
            Err(reason) => {
                say(&format!("error: {ca}: {reason}\n"));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

// === asking a running one ===

/// One request to the admin listener; the body of a good answer.
fn ask(config: &Config, method: &str, target: &str) -> Result<String, NoAnswer> {
    let address = config.admin.listen.ok_or(NoAnswer::Off)?;
    let answer =
        exchange(address, method, target).map_err(|error| NoAnswer::Nobody(address, error))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(NoAnswer::Stranger(address))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(body.to_owned());
    }
    let said: Value = serde_json::from_str(body).unwrap_or_default();
    let said = said
        .get("error")
        .and_then(Value::as_str)
        .unwrap_or_else(|| body.trim());
    Err(NoAnswer::Refused(said.to_owned()))
}

/// As HTTP/1.0, so that the answer ends with the connection and comes in one piece.
fn exchange(address: SocketAddr, method: &str, target: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let request = format!("{method} {target} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.take(ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
