//! `holdline cert`: what is served, until when, and what happens next.
//!
//! A running holdline is asked on its admin listener. Without one the files of the config tell what
//! they know.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use holdline::config::{CertificateSource, Config, ConfigErrors};
use holdline::hint;
use holdline::observe::status::CertificateStatus as Served;
use holdline::observe::{AdminClient, AdminError};
use holdline::tls::acme::{self, CertificateStatus};
use holdline::tls::{Certificate, Facts, Tls, TlsError, Warning};
use serde_json::{Value, json};

use super::admin::{block_on, print};
use super::words::printable;
use super::{Settings, fail, refuse, say};

/// Of a certificate that cannot be looked for.
const UNKNOWN: &str = "unknown";
/// The folder of the development certificate, where the config does not say whether it is served.
const DEV: &str = "certs-dev";
/// For files that are some kilobytes.
const DISK: Duration = Duration::from_secs(5);

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
    /// Change the keys of the accounts at the CAs in [acme]: reads files, and so needs --config
    AccountKey,
}

impl CertCommand {
    pub(crate) fn run(self, settings: &Settings) -> ExitCode {
        let with_config = |work: fn(&Config) -> ExitCode| match settings.load() {
            Ok(loaded) => work(&loaded.config),
            Err(refused) => refused,
        };
        match self {
            Self::List { json } => match settings.read() {
                Ok(loaded) => block_on(list(&loaded.config, json)),
                Err(errors) => list_despite(settings, &errors, json),
            },
            Self::Renew { name } => renew(settings, name.as_deref()),
            Self::Dev => with_config(dev),
            Self::AccountKey => with_config(account_key),
        }
    }
}

/// Of a running holdline only: what lies on disk a config with errors does not tell.
fn list_despite(settings: &Settings, errors: &ConfigErrors, as_json: bool) -> ExitCode {
    let address = match settings.despite(errors) {
        Ok(address) => address,
        Err(refused) => return refused,
    };
    block_on(async {
        match running(address, None).await {
            Ok(all) => tell(all, as_json, ""),
            Err(_) => refuse(errors),
        }
    })
}

async fn list(config: &Config, as_json: bool) -> ExitCode {
    let mut note = String::new();
    let all = match running(config.admin.listen, Some(config)).await {
        Ok(told) => Some(told),
        Err(why) => {
            if config.acme.is_some() {
                note = why;
            }
            let config = config.clone();
            let looked = tokio::task::spawn_blocking(move || of_config(&config));
            let looked = tokio::time::timeout(DISK, looked).await;
            looked.ok().and_then(Result::ok)
        }
    };
    let Some(all) = all else {
        say(&format!(
            "error: the disk with the certificates does not answer within {} s; see [acme] \
             state_dir and [tls], and what the system says of that disk\n",
            DISK.as_secs()
        ));
        return ExitCode::FAILURE;
    };
    tell(all, as_json, &note)
}

fn tell(all: Vec<Value>, as_json: bool, note: &str) -> ExitCode {
    let unknown = all.iter().any(|one| state(one) == Some(UNKNOWN));
    let text = match as_json {
        true => format!("{:#}\n", Value::Array(all)),
        false => all.iter().map(in_words).collect::<String>() + note,
    };
    match print(&text) {
        Ok(()) if unknown => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(gone) => gone,
    }
}

/// What lies on disk.
fn of_config(config: &Config) -> Vec<Value> {
    match (&config.tls.certificate, &config.acme) {
        (CertificateSource::Acme, Some(acme)) => acme::on_disk(acme).iter().map(status).collect(),
        (CertificateSource::Files(pairs), _) => {
            let pairs = pairs.iter().map(|pair| (&pair.cert, &pair.key));
            pairs
                .map(|(cert, key)| of_files(cert, key, false))
                .collect()
        }
        (CertificateSource::Dev { dir }, _) => {
            vec![of_files(&dir.join("cert.pem"), &dir.join("key.pem"), true)]
        }
        (CertificateSource::Acme, None) => Vec::new(),
    }
}

/// What a running holdline tells, or a line about why there is none that does. `config`: of the
/// file, if it has no errors.
async fn running(
    address: Option<SocketAddr>,
    config: Option<&Config>,
) -> Result<Vec<Value>, String> {
    let Some(address) = address else {
        return Err(String::new());
    };
    let (said, status) = match AdminClient::new(address).status().await {
        Ok(told) => told,
        Err(AdminError::Nobody { .. }) => {
            return Err(format!(
                "holdline is not running (nothing answers on {address}): this is what lies on disk\n"
            ));
        }
        Err(error) => return Err(format!("this is what lies on disk: {error}\n")),
    };
    Ok(match said.get("acme").and_then(Value::as_array) {
        Some(all) if !all.is_empty() => all.clone(),
        _ => {
            let dev = match config.map(|config| &config.tls.certificate) {
                Some(CertificateSource::Dev { dir }) => dir.file_name(),
                Some(CertificateSource::Files(_) | CertificateSource::Acme) => None,
                None => Some(OsStr::new(DEV)),
            };
            let served = status.certificates.iter();
            served.map(|one| of_served(one, dev)).collect()
        }
    })
}

fn state(one: &Value) -> Option<&str> {
    one.get("state").and_then(Value::as_str)
}

/// `dev`: the name of the folder with the development certificate, if that is what is served.
fn of_served(one: &Served, dev: Option<&OsStr>) -> Value {
    let folder = Path::new(&one.source).parent().and_then(Path::file_name);
    let made = dev.is_some() && folder == dev;
    json!({
        "names": one.names,
        "state": "served",
        "until": one.until,
        "issuer": one.issuer,
        "next": renewed_by(&one.source, made),
    })
}

fn renewed_by(source: &str, made: bool) -> String {
    match made {
        true => "is made anew at the first start or reload in its last 14 days".to_owned(),
        false => format!("has to be renewed by whoever wrote {source}"),
    }
}

fn status(status: &CertificateStatus) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

/// `made`: by holdline itself, whenever there is none that can be used.
fn of_files(cert: &Path, key: &Path, made: bool) -> Value {
    let read = match made {
        true => Certificate::read,
        false => Certificate::read_at_any_time,
    };
    match read(cert, key, SystemTime::now()) {
        Ok(facts) => of_facts(&facts, made),
        Err(TlsError::Read { source, .. }) if made && source.kind() == ErrorKind::NotFound => {
            json!({
                "names": [cert.display().to_string()],
                "state": "awaited",
                "next": "is made at the first start",
            })
        }
        Err(error) => json!({
            "names": [cert.display().to_string()],
            "state": "awaited",
            "next": match &error {
                // The clock is wrong, or it was copied from elsewhere: it is left alone.
                TlsError::NotYetValid { .. } => "has to be mended by hand",
                _ if made => "is made anew at the next start",
                _ => "has to be mended by hand",
            },
            "lastError": {"reason": error.to_string()},
        }),
    }
}

fn of_facts(facts: &Facts, made: bool) -> Value {
    let untimely = |warning: &&Warning| {
        matches!(
            warning,
            Warning::Expired { .. } | Warning::NotYetValid { .. }
        )
    };
    let untimely = facts.warnings.iter().find(untimely);
    json!({
        "names": facts.names,
        "state": "served",
        "until": facts.until(),
        "issuer": facts.issuer,
        "next": renewed_by(&facts.source, made),
        "lastError": untimely.map(|warning| json!({"reason": format!("it {warning}")})),
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
        until if until.is_empty() && state(one) == Some(UNKNOWN) => {}
        until if until.is_empty() => lines.push_str("  there is none yet\n"),
        until => {
            let ca = match text("ca") {
                ca if ca.is_empty() => ca,
                ca => format!(" ({ca})"),
            };
            lines.push_str(&format!(
                "  valid until {until}, by {}{ca}\n",
                text("issuer")
            ));
        }
    }
    let others = one.get("meanwhile").and_then(Value::as_array);
    for other in others.into_iter().flatten() {
        let part = |key: &str| other.get(key).and_then(Value::as_str).unwrap_or_default();
        lines.push_str(&format!(
            "  until {} another one is served for {}, by {}\n",
            part("until"),
            part("name"),
            part("issuer")
        ));
    }
    lines.push_str(&format!("  {}\n", text("next")));
    let error = one.get("lastError");
    let part = |key: &str| error.and_then(|it| it.get(key)).and_then(Value::as_str);
    if let Some(reason) = part("reason") {
        let at = part("at").map(|at| format!(" on {at}")).unwrap_or_default();
        let ca = part("ca").map(|ca| format!(" at {ca}")).unwrap_or_default();
        lines.push_str(&format!("  failed{at}{ca}: {}\n", printable(reason)));
    }
    lines
}

fn renew(settings: &Settings, name: Option<&str>) -> ExitCode {
    let client = match settings.running() {
        Ok(client) => client,
        Err(refused) => return refused,
    };
    let name = name.map(str::to_ascii_lowercase);
    block_on(async {
        match client.renew_certificates(name.as_deref()).await {
            Ok(said) => {
                let told = said.as_array().into_iter().flatten();
                let told: String = told.filter(|one| one.is_object()).map(in_words).collect();
                show(&format!(
                    "{told}asked for; `{}` shows what comes of it\n",
                    hint::command("cert list")
                ))
            }
            Err(error) => fail("cert renew", &error),
        }
    })
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
    show(&format!(
        "{0}\n  for {names}, until {until}\n  to trust it, and nothing that it might sign:\n    \
         curl:              curl --cacert {0}\n    \
         Chromium on Linux: certutil -d sql:$HOME/.pki/nssdb -A -n holdline -t P,, -i {0}\n    \
         Firefox:           open the page once and accept it\n",
        cert.display()
    ))
}

fn account_key(config: &Config) -> ExitCode {
    let Some(acme) = &config.acme else {
        say(
            "error: certificates do not come from a CA by this config; name the one that holdline \
             runs with by --config FILE, or see [tls] certificate\n",
        );
        return ExitCode::FAILURE;
    };
    block_on(async {
        let mut code = ExitCode::SUCCESS;
        for (ca, changed) in acme::change_account_keys(acme).await {
            match changed {
                Ok(true) => say(&format!("{ca}: the account has a new key\n")),
                Ok(false) => {
                    say(&format!("error: {ca}: there is no account yet\n"));
                    code = ExitCode::FAILURE;
                }
                Err(reason) => {
                    say(&format!("error: {ca}: {reason}\n"));
                    code = ExitCode::FAILURE;
                }
            }
        }
        code
    })
}

fn show(text: &str) -> ExitCode {
    print(text).map_or_else(|gone| gone, |()| ExitCode::SUCCESS)
}
