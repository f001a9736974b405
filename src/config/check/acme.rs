//! `[acme]`: which names, from which CAs, and how it is shown that they are ours.
//!
//! Whether the rest of the config can do what it needs is asked here as well: a certificate that
//! cannot be had should be known before the old one has expired.

mod files;
mod rules;
mod update;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use zeroize::Zeroizing;

use crate::config::addresses::{file_path, host_pattern};
use crate::config::checker::{Item, nearest};
use crate::config::model::{Challenge, Directory, ExternalAccount, HostPattern};
use crate::config::outside::read_file;
use crate::config::section::{Bounds, Section};
use crate::config::units::Wrong;

/// CAs by name. Those whose names begin alike are one company's.
const KNOWN: [(&str, &str); 7] = [
    (
        LETSENCRYPT,
        "https://acme-v02.api.letsencrypt.org/directory",
    ),
    (
        "letsencrypt-staging",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
    ),
    ("zerossl", "https://acme.zerossl.com/v2/DV90"),
    ("google", "https://dv.acme-v02.api.pki.goog/directory"),
    (
        "google-staging",
        "https://dv.acme-v02.test-api.pki.goog/directory",
    ),
    ("ssl.com", "https://acme.ssl.com/sslcom-dv-ecc"),
    ("actalis", "https://acme-api.actalis.com/acme/directory"),
];
const LETSENCRYPT: &str = "letsencrypt";
/// These ask for a customer's account.
const EAB_WANTED: [&str; 5] = ["zerossl", "google", "google-staging", "ssl.com", "actalis"];
/// Of Let's Encrypt, for IP addresses.
const SHORTLIVED: &str = "shortlived";
/// Where other servers keep certificates, and in the container's image.
const ELSEWHERE: [&str; 4] = [
    "/etc/letsencrypt",
    "/var/lib/caddy/.local/share/caddy",
    "/root/.local/share/caddy",
    "/data/caddy",
];
/// Names of one certificate; what Let's Encrypt takes.
const MOST_NAMES: usize = 100;
/// No HMAC key of a CA has that many bytes.
const LARGEST_KEY: u64 = 64 << 10;
/// Certificates; each is looked at every minute.
const MOST_CERTIFICATES: usize = 1000;

const DNS_TIMEOUT: Bounds<Duration> = Bounds {
    min: Duration::from_secs(1),
    max: Duration::from_secs(3600),
    why: "CAs keep an order for hours, not longer",
};

/// The section with its places.
pub(super) struct Draft {
    header: Item<()>,
    domains: Item<Vec<Item<Vec<String>>>>,
    challenges: Item<Vec<Item<Challenge>>>,
    directories: Vec<Item<Directory>>,
    profile: Item<String>,
    dns_hook: Item<Vec<Item<String>>>,
    dns_update: update::Draft,
    /// Each with the CA that it names.
    eab: Vec<(Item<Directory>, ExternalAccount)>,
    state_dir: Item<()>,
    rest: Rest,
}

/// What no other rule looks at.
struct Rest {
    contact: Vec<String>,
    dns_timeout: Duration,
    dns_resolvers: Vec<SocketAddr>,
    ca_root: Option<PathBuf>,
    state_dir: PathBuf,
    import: Vec<PathBuf>,
}

pub(super) fn read(section: &mut Section<'_, '_>, auth_state_dir: &Path) -> Draft {
    let domains = section.list("domains", Vec::new(), certificate);
    let contact = section.list("contact", Vec::new(), mail);
    let directories = section.list("directories", vec![known(LETSENCRYPT)], directory);
    if directories.is_sound() && directories.value.is_empty() {
        let wrong = Wrong::new("no CA is named", "write directories = [\"letsencrypt\"]");
        section.checker().error(&directories, wrong);
    }
    let both = vec![Challenge::TlsAlpn01, Challenge::Http01];
    let challenges = section.list("challenges", both, challenge);
    let dns_hook = section.list("dns_hook", Vec::new(), |text| Ok(text.to_owned()));
    let dns_timeout = section.duration("dns_timeout", Duration::from_secs(120), DNS_TIMEOUT);
    let dns_resolvers = section.list("dns_resolvers", Vec::new(), resolver);
    let dns_update = section.section("dns_update", update::read);
    let profile = section.text("profile", String::new(), |text| Ok(text.to_owned()));
    let form = "eab = [{ kid = \"...\", key_file = \"eab.key\" }]";
    let eab = section.each("eab", form, read_eab);
    let ca_root = section.text("ca_root", PathBuf::new(), file_path);
    let ca_root =
        (!ca_root.value.as_os_str().is_empty()).then(|| super::tls::read_ca(section, &ca_root).0);
    let state_dir = section.text("state_dir", PathBuf::new(), super::auth::directory);
    let state_dir_place = state_dir.with(());
    let state_dir = match state_dir.is_set() {
        true => section.checker().path(&state_dir.value),
        // Whoever moves one of them means both.
        false => auth_state_dir.to_owned(),
    };
    section.inherited("state_dir", "auth.state_dir");
    let elsewhere = ELSEWHERE.map(PathBuf::from).to_vec();
    let import = section.list("import", elsewhere, file_path);
    if import.is_set() {
        for item in &import.value {
            check_import(section, item);
        }
    }
    let import = import
        .value
        .iter()
        .map(|path| section.checker().path(&path.value))
        .collect();
    Draft {
        header: section.header(),
        domains,
        challenges,
        directories: directories.value,
        profile,
        dns_hook,
        dns_update,
        eab,
        state_dir: state_dir_place,
        rest: Rest {
            contact: contact.value.into_iter().map(|item| item.value).collect(),
            dns_timeout: dns_timeout.value,
            dns_resolvers: values(dns_resolvers.value),
            ca_root,
            state_dir,
            import,
        },
    }
}

// === values ===

/// The names of one certificate, separated by spaces.
fn certificate(text: &str) -> Result<Vec<String>, Wrong> {
    if text.contains(',') {
        let texts: Vec<&str> = text.split([',', ' ']).filter(|it| !it.is_empty()).collect();
        let (one, several) = (texts.join(" "), texts.join("\", \""));
        return Err(Wrong::new(
            "a comma within a text",
            format!(
                "write \"{one}\" for one certificate with all of them, or \"{several}\" for one each"
            ),
        ));
    }
    let names: Vec<String> = text
        .split([' ', '\t', '\n'])
        .filter(|name| !name.is_empty())
        .map(name)
        .collect::<Result<_, _>>()?;
    match names.len() {
        0 => Err(Wrong::new(
            "no name",
            "write a name such as \"a.example.net\"",
        )),
        1..=MOST_NAMES => Ok(names),
        _ => Err(Wrong::new(
            format!("more than {MOST_NAMES} names, which CAs do not take"),
            "spread them over several certificates, each a text of its own",
        )),
    }
}

fn name(text: &str) -> Result<String, Wrong> {
    let host = match host_pattern(text)? {
        HostPattern::Exact(host) => host,
        HostPattern::Under(host) => format!("*.{host}"),
    };
    let bare = host.strip_prefix("*.").unwrap_or(&host);
    if host.parse::<IpAddr>().is_ok() {
        return Ok(host);
    }
    if !bare.contains('.') || bare.ends_with(".localhost") || bare.ends_with(".local") {
        return Err(Wrong::new(
            "no public CA issues for a name that means something here only",
            "write a public name such as \"a.example.net\", or use certificate = \"dev\"",
        ));
    }
    if bare.contains('_') {
        let remedy = "write a name of letters, digits, dots and dashes";
        return Err(Wrong::new("CAs do not take names with _", remedy));
    }
    Ok(host)
}

fn mail(text: &str) -> Result<String, Wrong> {
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    let good = text
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
    match good && !text.contains([' ', ',', '?']) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            "not an e-mail address",
            "write for example \"nick@example.com\"",
        )),
    }
}

fn known(name: &str) -> Directory {
    let url = KNOWN.iter().find(|(known, _)| *known == name);
    Directory {
        name: name.to_owned(),
        url: url.map_or("", |(_, url)| url).to_owned(),
    }
}

fn directory(text: &str) -> Result<Directory, Wrong> {
    if KNOWN.iter().any(|(name, _)| *name == text) {
        return Ok(known(text));
    }
    let uri = text.parse::<Uri>().ok();
    let is_url = uri.is_some_and(|uri| {
        uri.scheme_str() == Some("https")
            && uri.host().is_some()
            && !uri.authority().is_some_and(|it| it.as_str().contains('@'))
    });
    if is_url {
        return Ok(Directory {
            name: text.to_owned(),
            url: text.to_owned(),
        });
    }
    let names = KNOWN.map(|(name, _)| name);
    let remedy = match nearest(text, &names) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!(
            "write one of {}, or the https:// URL of an ACME directory",
            names.map(|name| format!("\"{name}\"")).join(", ")
        ),
    };
    Err(Wrong::new("neither a known CA nor an https:// URL", remedy))
}

fn challenge(text: &str) -> Result<Challenge, Wrong> {
    match text {
        "http-01" => Ok(Challenge::Http01),
        "tls-alpn-01" => Ok(Challenge::TlsAlpn01),
        "dns-01" => Ok(Challenge::Dns01),
        _ => Err(Wrong::new(
            "no kind of challenge",
            "write any of \"tls-alpn-01\", \"http-01\", \"dns-01\"",
        )),
    }
}

fn resolver(text: &str) -> Result<SocketAddr, Wrong> {
    let with_port = text.parse::<SocketAddr>().ok();
    with_port
        .or_else(|| {
            text.parse::<IpAddr>()
                .ok()
                .map(|ip| SocketAddr::new(ip, 53))
        })
        .ok_or_else(|| {
            Wrong::new(
                "not the address of a name server",
                "write for example \"192.0.2.53\" or \"[2001:db8::53]:53\"",
            )
        })
}

fn read_eab(section: &mut Section<'_, '_>) -> (Item<Directory>, ExternalAccount) {
    let nothing = || Directory {
        name: String::new(),
        url: String::new(),
    };
    let of = section.text("directory", nothing(), directory);
    let kid = section.text("kid", String::new(), |text| Ok(text.to_owned()));
    let key_file = section.text("key_file", PathBuf::new(), file_path);
    let header = section.header();
    for (key, missing) in [
        ("kid", kid.value.is_empty()),
        ("key_file", key_file.value.as_os_str().is_empty()),
    ] {
        if missing {
            let remedy = "write { kid = \"...\", key_file = \"eab.key\" } as the CA gave them";
            let wrong = Wrong::new(format!("{key} is missing"), remedy);
            section.checker().error(&header, wrong);
        }
    }
    let path = section.checker().path(&key_file.value);
    if key_file.is_set() && !path.is_file() {
        let wrong = Wrong::new(
            format!("there is no file {}", path.display()),
            "write the CA's key into a file that only holdline can read, and name it here",
        );
        section.checker().error(&key_file, wrong);
    } else if key_file.is_set()
        // Who may not read it is told so when it is needed: another user may.
        && let Ok(text) = read_file(&path, LARGEST_KEY).map(Zeroizing::new)
        && ExternalAccount::key(&text).is_none()
    {
        let wrong = Wrong::new(
            format!("{} does not hold a key in base64url", path.display()),
            "write the HMAC key into it as the CA shows it, and nothing else",
        );
        section.checker().error(&key_file, wrong);
    }
    let account = ExternalAccount {
        directory: of.is_set().then(|| of.value.url.clone()),
        kid: kid.value,
        key_file: path,
    };
    (of, account)
}

/// Without what was to be taken over a certificate is ordered: no reason not to start, but no surprise.
fn check_import(section: &mut Section<'_, '_>, item: &Item<PathBuf>) {
    let place = section.checker().path(&item.value);
    // Looked into wherever they are.
    let usual = ELSEWHERE.iter().any(|it| Path::new(it) == place);
    let private = place.starts_with("/root");
    let unreadable = |path: PathBuf| {
        let error = std::fs::read_dir(&path).err()?;
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied && !(usual && private);
        let absent = path == place && !usual;
        (denied || absent).then(|| format!("cannot read {}: {error}", path.display()))
    };
    let places = [
        place.clone(),
        place.join("live"),
        place.join("certificates"),
    ];
    if let Some(wrong) = places.into_iter().find_map(unreadable) {
        let remedy = "let the user that holdline runs as read it; otherwise its certificates are \
                      ordered anew";
        section.checker().warn(item, Wrong::new(wrong, remedy));
    }
}

fn values<T>(items: Vec<Item<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}
