//! Certificates that another server has left behind: read, never written.
//!
//! certbot keeps `live/NAME/{fullchain,privkey}.pem`, Caddy `certificates/CA/NAME/NAME.{crt,key}`.
//! A switch to holdline then orders nothing before it is due. Both say which CA it came from: certbot
//! in `renewal/NAME.conf`, Caddy by the folder. If that is one of ours, it is asked when to renew.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::judge::judge_kept;
use crate::config::Acme;
use crate::tls::Facts;

/// More folders are not looked into.
const MOST: usize = 2000;
const LARGEST: u64 = 1 << 20;
/// Caddy's own CA, which no client knows.
const CADDYS_OWN: &str = "local";

/// A pair that was found.
#[derive(Debug)]
struct Pair {
    cert: PathBuf,
    key: PathBuf,
    /// Where it says from which CA it came.
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// certbot's settings for it.
    Settings(PathBuf),
    /// Caddy's folder for the CA.
    Folder(String),
}

/// What another server left.
pub(super) struct Found {
    /// Key and chain in one text.
    pub(super) pem: Zeroizing<Vec<u8>>,
    pub(super) path: PathBuf,
    /// The directory URL of the CA that it came from, if that is one of ours.
    pub(super) ca: Option<String>,
}

/// Everything that other servers have left: looked at once, by the names in it. Keys are read when
/// the names fit.
#[derive(Debug, Default)]
pub(super) struct Left(OnceCell<Vec<(Pair, Vec<String>)>>);

impl Left {
    /// The one for these names that is good for longest.
    pub(super) fn find(&self, acme: &Acme, names: &[String], now: SystemTime) -> Option<Found> {
        let mut best: Option<(SystemTime, Zeroizing<Vec<u8>>, &Pair)> = None;
        for (pair, its) in self.0.get_or_init(|| look(acme)) {
            if !names.iter().all(|name| its.contains(name)) {
                continue;
            }
            let Some(pem) = read(pair) else { continue };
            let Ok(certificate) = judge_kept(&pem, &pair.cert, names, now) else {
                continue;
            };
            let until = certificate.facts().not_after;
            if best.as_ref().is_none_or(|(longest, ..)| until > *longest) {
                best = Some((until, pem, pair));
            }
        }
        let (_, pem, pair) = best?;
        let ours = acme.directories.iter().find(|ca| pair.origin.is(&ca.url));
        Some(Found {
            pem,
            path: pair.cert.clone(),
            ca: ours.map(|ca| ca.url.clone()),
        })
    }
}

/// Every pair with the names in its certificate.
fn look(acme: &Acme) -> Vec<(Pair, Vec<String>)> {
    let pairs = acme.import.iter().flat_map(|place| {
        let mut pairs = certbot(place);
        pairs.extend(caddy(place));
        pairs
    });
    let named = |pair: Pair| {
        let leaf = CertificateDer::from_pem_slice(&small(&pair.cert)?).ok()?;
        let facts = Facts::of(&leaf, &pair.cert).ok()?;
        Some((pair, facts.names))
    };
    pairs.take(MOST).filter_map(named).collect()
}

/// Places where there may be certificates that we are not allowed to look for, in words.
pub(super) fn unreadable(acme: &Acme) -> Vec<String> {
    let places = acme.import.iter();
    places
        // Of root's own home nobody else knows whether there is anything.
        .filter(|place| !place.starts_with("/root"))
        .flat_map(|place| ["live", "certificates"].map(|folder| place.join(folder)))
        .filter_map(|folder| match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Some(format!("cannot read {}: {error}", folder.display()))
            }
            _ => None,
        })
        .collect()
}

impl Origin {
    fn is(&self, url: &str) -> bool {
        match self {
            Self::Settings(path) => server(path).is_some_and(|server| server == url),
            Self::Folder(folder) => *folder == caddys_folder(url),
        }
    }
}

/// `server = URL` of certbot's settings.
fn server(settings: &Path) -> Option<String> {
    let text = String::from_utf8(small(settings)?).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "server").then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    })
}

/// By what Caddy calls a CA: host and path of its directory URL, as one harmless name.
fn caddys_folder(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let name = rest.to_ascii_lowercase().replace([':', '/'], "-");
    name.trim_end_matches('-').to_owned()
}

/// The whole file, if it may be one of these.
fn small(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= LARGEST).then(|| fs::read(path).ok())?
}

fn read(pair: &Pair) -> Option<Zeroizing<Vec<u8>>> {
    let key = match fs::File::open(&pair.key) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            tracing::info!(path = %pair.key.display(), "a certificate of another server cannot be taken over: its key may not be read");
            return None;
        }
        _ => Zeroizing::new(small(&pair.key)?),
    };
    let chain = small(&pair.cert)?;
    let mut pem = Zeroizing::new(Vec::with_capacity(key.len() + chain.len() + 1));
    pem.extend_from_slice(&key);
    pem.push(b'\n');
    pem.extend_from_slice(&chain);
    Some(pem)
}

fn certbot(place: &Path) -> Vec<Pair> {
    folders(&place.join("live"))
        .filter_map(|folder| {
            let name = folder.file_name()?.to_str()?;
            let settings = place.join(format!("renewal/{name}.conf"));
            Some(Pair {
                cert: folder.join("fullchain.pem"),
                key: folder.join("privkey.pem"),
                origin: Origin::Settings(settings),
            })
        })
        .collect()
}

fn caddy(place: &Path) -> Vec<Pair> {
    folders(&place.join("certificates"))
        .filter(|ca| !ca.ends_with(CADDYS_OWN))
        .flat_map(|ca| folders(&ca).collect::<Vec<_>>())
        .filter_map(|folder| {
            let name = folder.file_name()?.to_str()?.to_owned();
            let ca = folder.parent()?.file_name()?.to_str()?.to_owned();
            Some(Pair {
                cert: folder.join(format!("{name}.crt")),
                key: folder.join(format!("{name}.key")),
                origin: Origin::Folder(ca),
            })
        })
        .collect()
}

fn folders(place: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .take(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn write(folder: &Path, cert: &str, key: &str, names: &[&str]) {
        fs::create_dir_all(folder).unwrap();
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let pair = KeyPair::generate().unwrap();
        let made = CertificateParams::new(names)
            .unwrap()
            .self_signed(&pair)
            .unwrap();
        fs::write(folder.join(cert), made.pem()).unwrap();
        fs::write(folder.join(key), pair.serialize_pem()).unwrap();
    }

    fn acme(import: &[&Path]) -> Acme {
        let text = format!(
            "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example\"]\nimport = {import:?}\n\
             directories = [\"letsencrypt\", \"https://acme.zerossl.com/v2/DV90\", \"https://CA.example:14000/acme/dir/\"]"
        );
        crate::config::parse(&text, "t")
            .unwrap()
            .config
            .acme
            .unwrap()
    }

    #[test]
    fn what_others_left_says_which_of_our_cas_it_came_from() {
        let dir = tempfile::tempdir().unwrap();
        let (bot, caddy) = (dir.path().join("letsencrypt"), dir.path().join("caddy"));
        let acme = acme(&[&bot, &caddy]);
        let origin = |name: &str| {
            let found = Left::default().find(&acme, &[name.to_owned()], SystemTime::now());
            found.unwrap().ca
        };
        fs::create_dir_all(bot.join("renewal")).unwrap();
        for (name, server) in [
            (
                "a.example",
                "https://acme-v02.api.letsencrypt.org/directory",
            ),
            ("b.example", "https://elsewhere.example/directory"),
        ] {
            let live = bot.join("live").join(name);
            write(&live, "fullchain.pem", "privkey.pem", &[name]);
            let conf = format!("version = 2.1\n[renewalparams]\nserver = {server}\n");
            fs::write(bot.join(format!("renewal/{name}.conf")), conf).unwrap();
        }
        write(
            &bot.join("live/c.example"),
            "fullchain.pem",
            "privkey.pem",
            &["c.example"],
        );
        for (name, ca) in [
            ("d.example", "acme.zerossl.com-v2-dv90"),
            ("e.example", "ca.example-14000-acme-dir"),
            (
                "f.example",
                "acme-staging-v02.api.letsencrypt.org-directory",
            ),
        ] {
            let folder = caddy.join("certificates").join(ca).join(name);
            write(
                &folder,
                &format!("{name}.crt"),
                &format!("{name}.key"),
                &[name],
            );
        }
        let url = |at: usize| Some(acme.directories[at].url.clone());
        let seen = ["a", "b", "c", "d", "e", "f"].map(|name| origin(&format!("{name}.example")));
        assert_eq!(seen, [url(0), None, None, url(1), url(2), None]);
    }

    #[test]
    fn what_others_left_is_found_by_all_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let (bot, caddy) = (dir.path().join("letsencrypt"), dir.path().join("caddy"));
        write(
            &bot.join("live/a.example"),
            "fullchain.pem",
            "privkey.pem",
            &["a.example", "b.example"],
        );
        let ca = caddy.join("certificates/acme-v02.api.letsencrypt.org-directory");
        write(
            &ca.join("c.example"),
            "c.example.crt",
            "c.example.key",
            &["c.example"],
        );
        let own = caddy.join("certificates/local/d.example");
        write(&own, "d.example.crt", "d.example.key", &["d.example"]);
        write(
            &bot.join("live/broken"),
            "fullchain.pem",
            "x.pem",
            &["e.example"],
        );
        let acme = acme(&[&bot, &caddy, Path::new("/nowhere")]);
        let find = |names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
            Left::default()
                .find(&acme, &names, SystemTime::now())
                .map(|found| found.path)
        };
        assert!(
            find(&["b.example", "a.example"])
                .unwrap()
                .ends_with("live/a.example/fullchain.pem")
        );
        assert!(
            find(&["c.example"])
                .unwrap()
                .ends_with("c.example/c.example.crt")
        );
        for absent in [
            &["a.example", "c.example"][..],
            &["d.example"],
            &["e.example"],
        ] {
            assert!(find(absent).is_none(), "{absent:?}");
        }
    }

    #[test]
    fn what_others_left_is_looked_at_once_for_all_names() {
        let dir = tempfile::tempdir().unwrap();
        let acme = acme(&[dir.path()]);
        let live = |name: &str| dir.path().join("live").join(name);
        let (left, now) = (Left::default(), SystemTime::now());
        let finds = |left: &Left, name: &str| left.find(&acme, &[name.to_owned()], now).is_some();
        for name in ["a.example", "b.example"] {
            write(&live(name), "fullchain.pem", "privkey.pem", &[name]);
        }
        assert!(finds(&left, "a.example") && finds(&left, "b.example"));
        let later = "c.example";
        write(&live(later), "fullchain.pem", "privkey.pem", &[later]);
        assert!(!finds(&left, later) && finds(&Left::default(), later));
    }
}
