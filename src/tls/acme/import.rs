//! Certificates that another server has left behind: read, never written.
//!
//! certbot keeps `live/NAME/{fullchain,privkey}.pem`, Caddy `certificates/CA/NAME/NAME.{crt,key}`.
//! A switch to holdline then orders nothing before it is due.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::judge::judge;

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
}

/// The one for these names that is good for longest, as key and chain in one text, and its path.
pub(super) fn find(
    places: &[PathBuf],
    names: &[String],
    now: SystemTime,
) -> Option<(Zeroizing<Vec<u8>>, PathBuf)> {
    let pairs = places.iter().flat_map(|place| {
        let mut pairs = certbot(place);
        pairs.extend(caddy(place));
        pairs
    });
    let mut best: Option<(SystemTime, Zeroizing<Vec<u8>>, PathBuf)> = None;
    for pair in pairs.take(MOST) {
        let Some(pem) = read(&pair) else { continue };
        let Ok(certificate) = judge(&pem, &pair.cert, names, now) else {
            continue;
        };
        let until = certificate.facts().not_after;
        if best.as_ref().is_none_or(|(longest, ..)| until > *longest) {
            best = Some((until, pem, pair.cert));
        }
    }
    best.map(|(_, pem, path)| (pem, path))
}

fn read(pair: &Pair) -> Option<Zeroizing<Vec<u8>>> {
    let some = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        (metadata.is_file() && metadata.len() <= LARGEST).then(|| fs::read(path).ok())?
    };
    let key = match fs::File::open(&pair.key) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            tracing::info!(path = %pair.key.display(), "a certificate of another server cannot be taken over: its key may not be read");
            return None;
        }
        _ => Zeroizing::new(some(&pair.key)?),
    };
    let chain = some(&pair.cert)?;
    let mut pem = Zeroizing::new(Vec::with_capacity(key.len() + chain.len() + 1));
    pem.extend_from_slice(&key);
    pem.push(b'\n');
    pem.extend_from_slice(&chain);
    Some(pem)
}

fn certbot(place: &Path) -> Vec<Pair> {
    folders(&place.join("live"))
        .map(|folder| Pair {
            cert: folder.join("fullchain.pem"),
            key: folder.join("privkey.pem"),
        })
        .collect()
}

fn caddy(place: &Path) -> Vec<Pair> {
    folders(&place.join("certificates"))
        .filter(|ca| !ca.ends_with(CADDYS_OWN))
        .flat_map(|ca| folders(&ca).collect::<Vec<_>>())
        .filter_map(|folder| {
            let name = folder.file_name()?.to_str()?.to_owned();
            Some(Pair {
                cert: folder.join(format!("{name}.crt")),
                key: folder.join(format!("{name}.key")),
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
        let find = |names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
            find(
                &[bot.clone(), caddy.clone(), "/nowhere".into()],
                &names,
                SystemTime::now(),
            )
            .map(|(_, path)| path)
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
}
