//! The development certificate: self-signed, for this machine, made on first use.
//!
//! `cert.pem` and `key.pem` in one directory. A lock beside them makes processes that start
//! together agree on one pair; the pair is remade when it is expired, damaged or unreadable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use x509_parser::time::ASN1Time;

use super::facts::EXPIRES_SOON;
use super::files::{self, Access};
use super::{Certificate, TlsError};

const NAMES: [&str; 4] = ["localhost", "*.localhost", "127.0.0.1", "::1"];
/// Clients refuse leaves of 398 days and more.
const LIFETIME: Duration = Duration::from_secs(396 * 24 * 3600);
/// For clocks that run late, e.g. in a virtual machine beside us.
const BACKDATED: Duration = Duration::from_secs(3600);

/// The usable pair in `dir`, made now if there is none.
///
/// # Errors
/// When it has to be made and `dir` cannot be written.
pub(super) fn ensure(
    dir: &Path,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<Certificate, TlsError> {
    if let Ok(certificate) = usable(dir, provider, now) {
        return Ok(certificate);
    }
    let denied = |source| TlsError::DevDir {
        dir: dir.to_owned(),
        source,
    };
    fs::create_dir_all(dir).map_err(denied)?;
    let _lock = lock(dir).map_err(denied)?;
    let reason = match usable(dir, provider, now) {
        Ok(certificate) => return Ok(certificate),
        Err(reason) => reason,
    };
    make(dir, now)?;
    tracing::info!(dir = %dir.display(), because = %because(&reason), "made a development certificate");
    load(dir, provider, now)
}

fn because(reason: &TlsError) -> String {
    match reason {
        TlsError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "there was none yet".to_owned()
        }
        other => other.to_string(),
    }
}

fn load(dir: &Path, provider: &CryptoProvider, now: SystemTime) -> Result<Certificate, TlsError> {
    Certificate::load(&dir.join("cert.pem"), &dir.join("key.pem"), provider, now)
}

/// Loads the pair if it can be served for some time to come.
fn usable(dir: &Path, provider: &CryptoProvider, now: SystemTime) -> Result<Certificate, TlsError> {
    let certificate = load(dir, provider, now)?;
    if certificate.facts().expires_within(EXPIRES_SOON, now) {
        let on = certificate.facts().until();
        return Err(TlsError::Expired {
            path: dir.join("cert.pem"),
            on,
        });
    }
    Ok(certificate)
}

/// Excludes other processes until it is dropped.
fn lock(dir: &Path) -> io::Result<File> {
    let path = dir.join(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match file.lock() {
        // Some network file systems have no locks; the pair is checked after writing anyway.
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(file),
    }
}

fn make(dir: &Path, now: SystemTime) -> Result<(), TlsError> {
    let failed = |source| TlsError::DevMake { source };
    let mut params = CertificateParams::new(NAMES.map(str::to_owned)).map_err(failed)?;
    params.not_before = moment(now - BACKDATED)?.to_datetime();
    params.not_after = moment(now + LIFETIME)?.to_datetime();
    params
        .distinguished_name
        .push(DnType::CommonName, "holdline development certificate");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let denied = |source| TlsError::DevDir {
        dir: dir.to_owned(),
        source,
    };
    let private = key.serialize_pem();
    files::replace(&dir.join("key.pem"), private.as_bytes(), Access::Private).map_err(denied)?;
    let public = certificate.pem();
    files::replace(&dir.join("cert.pem"), public.as_bytes(), Access::Public).map_err(denied)
}

fn moment(time: SystemTime) -> Result<ASN1Time, TlsError> {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
        .ok_or(TlsError::DevMake {
            source: rcgen::Error::Time,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::server::provider;
    use std::sync::Barrier;

    fn read(dir: &Path) -> (Vec<u8>, Vec<u8>) {
        (
            fs::read(dir.join("cert.pem")).unwrap(),
            fs::read(dir.join("key.pem")).unwrap(),
        )
    }

    #[test]
    fn is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs-dev");
        let now = SystemTime::now();
        let made = ensure(&dir, &provider(), now).unwrap();
        assert_eq!(made.facts().names, NAMES);
        assert_eq!(made.facts().warnings, []);
        let lifetime = made
            .facts()
            .not_after
            .duration_since(made.facts().not_before)
            .unwrap();
        assert!(lifetime < Duration::from_secs(398 * 24 * 3600));
        let first = read(&dir);
        ensure(&dir, &provider(), now).unwrap();
        assert_eq!(read(&dir), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(dir.join("key.pem"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn is_remade_when_it_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let now = SystemTime::now();
        ensure(dir, &provider(), now).unwrap();
        let first = read(dir);
        ensure(dir, &provider(), now + LIFETIME - Duration::from_secs(3600)).unwrap();
        let second = read(dir);
        assert_ne!(second, first);
        fs::write(dir.join("cert.pem"), &first.0).unwrap();
        ensure(dir, &provider(), now).unwrap();
        assert_ne!(read(dir), (first.0.clone(), second.1));
        fs::write(dir.join("key.pem"), &first.1[..40]).unwrap();
        ensure(dir, &provider(), now).unwrap();
        fs::remove_file(dir.join("key.pem")).unwrap();
        ensure(dir, &provider(), now).unwrap();
    }

    #[test]
    fn racing_starters_agree() {
        let dir = tempfile::tempdir().unwrap();
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            let racers = [(); 8].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    ensure(dir.path(), &provider(), SystemTime::now()).unwrap()
                })
            });
            let served = racers.map(|racer| racer.join().unwrap().key().cert[0].clone());
            assert!(served.windows(2).all(|pair| pair[0] == pair[1]));
        });
    }

    #[test]
    fn says_which_directory_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = ensure(&file.join("certs"), &provider(), SystemTime::now()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("file/certs") && text.contains("make that directory writable"));
    }
}
