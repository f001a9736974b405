//! `[tls]`: which certificate, and whether its files can be served.
//!
//! Whether chain, key and dates fit together is asked of the `tls` room.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::addresses::file_path;
use crate::config::checker::Item;
use crate::config::model::{
    CertificateFiles, CertificateSource, ClientCertificates, Tls, TlsVersion,
};
use crate::config::outside::read_file;
use crate::config::section::Section;
use crate::config::units::Wrong;
use crate::tls::{Authorities, Certificate, TlsError, read_client_ca};

/// Where the development certificate is kept, beside the config file.
const DEV_DIR: &str = "certs-dev";

/// No PEM file that makes sense is larger.
pub(super) const LARGEST_PEM: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Dev,
    Files,
    Acme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pem {
    Certificate,
    Key,
}

pub(super) fn read(section: &mut Section<'_, '_>) -> (Tls, Authorities) {
    let words = [
        ("dev", Source::Dev),
        ("files", Source::Files),
        ("acme", Source::Acme),
    ];
    let source = section.choice("certificate", Source::Dev, words);
    let form = "files = [{ cert = \"cert.pem\", key = \"key.pem\" }]";
    let count = section.each("files", form, read_pair);
    let files: Vec<CertificateFiles> = count.iter().flatten().cloned().collect();
    let versions = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
    let min_version = section.choice("min_version", TlsVersion::V1_2, versions);
    let client_ca = section.text("client_ca", PathBuf::new(), file_path);
    let client_ca = (!client_ca.value.as_os_str().is_empty()).then(|| read_ca(section, &client_ca));
    let (client_ca, authorities) = client_ca.unzip();
    check_source(section, &source, count.is_empty());
    let certificate = match source.value {
        Source::Files => CertificateSource::Files(files),
        Source::Acme => CertificateSource::Acme,
        Source::Dev => CertificateSource::Dev {
            dir: section.checker().path(DEV_DIR),
        },
    };
    let tls = Tls {
        certificate,
        min_version: min_version.value,
        client_ca,
        // [auth] decides.
        client_certificates: ClientCertificates::Required,
    };
    (tls, authorities.unwrap_or_default())
}

fn check_source(section: &mut Section<'_, '_>, source: &Item<Source>, no_files: bool) {
    if !source.is_sound() {
        return;
    }
    let wrong = match source.value {
        Source::Acme if !no_files => Wrong::new(
            "files are named, but certificates by ACME would be served",
            "write certificate = \"files\", or remove files",
        ),
        Source::Files if no_files => Wrong::new(
            "no files are named",
            "add files = [{ cert = \"cert.pem\", key = \"key.pem\" }], or write \"dev\"",
        ),
        Source::Dev if !no_files => Wrong::new(
            "files are named, but the development certificate would be served",
            "write certificate = \"files\", or remove files",
        ),
        Source::Dev | Source::Files | Source::Acme => return,
    };
    let place = if source.is_set() {
        source.clone()
    } else {
        section.header().with(source.value)
    };
    section.checker().error(&place, wrong);
}

fn read_pair(section: &mut Section<'_, '_>) -> Option<CertificateFiles> {
    let cert = read_path(section, "cert");
    let key = read_path(section, "key");
    let (of_cert, of_key) = (cert?, key?);
    let cert = check_pem(section, &of_cert, Pem::Certificate);
    let key = check_pem(section, &of_key, Pem::Key);
    let files = CertificateFiles {
        cert: cert.path,
        key: key.path,
    };
    if cert.readable && key.readable {
        match Certificate::check(&files.cert, &files.key) {
            Ok(Ok(())) => {}
            // Better than nothing at all, which is what there would be after a reboot.
            Ok(Err(untimely)) => section.checker().warn(&of_cert, unusable(&untimely)),
            Err(error) if is_of(&error, &files.key) => {
                section.checker().error(&of_key, unusable(&error));
            }
            Err(error) => section.checker().error(&of_cert, unusable(&error)),
        }
    }
    Some(files)
}

/// Whether it is this file alone that is wrong.
fn is_of(error: &TlsError, file: &Path) -> bool {
    match error {
        TlsError::Read { path, .. }
        | TlsError::Pem { path, .. }
        | TlsError::NoKey { path }
        | TlsError::Key { path, .. } => path == file,
        _ => false,
    }
}

pub(super) fn read_ca(
    section: &mut Section<'_, '_>,
    place: &Item<PathBuf>,
) -> (PathBuf, Authorities) {
    let ca = check_pem(section, place, Pem::Certificate);
    let mut authorities = Authorities::default();
    if ca.readable {
        match read_client_ca(&ca.path) {
            Ok(found) => authorities = found,
            Err(error) => section.checker().error(place, unusable(&error)),
        }
    }
    (ca.path, authorities)
}

/// The error's own words; what follows its last semicolon is the remedy.
fn unusable(error: &TlsError) -> Wrong {
    let text = error.to_string();
    let (what, remedy) = text
        .rsplit_once("; ")
        .unwrap_or((&text, "name another file"));
    Wrong::new(what, remedy)
}

/// A file that was looked into.
struct Checked {
    path: PathBuf,
    readable: bool,
}

fn read_path(section: &mut Section<'_, '_>, key: &'static str) -> Option<Item<PathBuf>> {
    let path = section.text(key, PathBuf::new(), |text| match text {
        "" => Err(Wrong::new(
            "no file is named",
            format!("write {key} = \"{key}.pem\""),
        )),
        text => file_path(text),
    });
    if path.is_sound() && !path.is_set() {
        let wrong = Wrong::new(
            format!("{key} is missing"),
            format!("add {key} = \"{key}.pem\""),
        );
        let header = section.header();
        section.checker().error(&header, wrong);
    }
    path.is_set().then_some(path)
}

/// Reports a file that cannot be used; returns its path from where we run.
fn check_pem(section: &mut Section<'_, '_>, item: &Item<PathBuf>, kind: Pem) -> Checked {
    let path = section.checker().path(&item.value);
    let content = read_file(&path, LARGEST_PEM);
    let known = content.as_ref().ok().map(Vec::as_slice);
    section.checker().looked_into(item, &path, known);
    let wrong = match &content {
        Ok(content) => wrong_content(&String::from_utf8_lossy(content), kind),
        Err(error) => Some(unreadable(&path, error)),
    };
    let readable = wrong.is_none();
    if let Some(wrong) = wrong {
        section.checker().error(item, wrong);
    }
    Checked { path, readable }
}

fn unreadable(path: &Path, error: &io::Error) -> Wrong {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Wrong::new(
            format!("there is no file {path}"),
            "write the path of a file that exists; a relative one starts at the config file's folder",
        ),
        io::ErrorKind::PermissionDenied => Wrong::new(
            format!("{path} may not be read by the user that holdline runs as"),
            "give that user the right to read the file and to enter its folders",
        ),
        _ => Wrong::new(
            format!("{path} cannot be read: {error}"),
            "write the path of a readable PEM file",
        ),
    }
}

fn wrong_content(text: &str, kind: Pem) -> Option<Wrong> {
    let has_certificate = text.contains("-----BEGIN CERTIFICATE-----");
    let has_key = text.contains("PRIVATE KEY-----");
    let (what, other) = match kind {
        Pem::Certificate if !has_certificate => ("no PEM certificate in this file", has_key),
        // As PKCS #8 has it, and as OpenSSL wrote it before that.
        Pem::Key
            if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
                || text.contains("Proc-Type: 4,ENCRYPTED") =>
        {
            let remedy =
                "decrypt it: openssl pkey -in KEY -out KEY.plain, readable by holdline only";
            return Some(Wrong::new("the key is encrypted with a password", remedy));
        }
        Pem::Key if !has_key => ("no PEM private key in this file", has_certificate),
        Pem::Certificate | Pem::Key => return None,
    };
    let remedy = match (other, kind) {
        (true, Pem::Certificate) => "it holds a private key: cert and key seem to be swapped",
        (true, Pem::Key) => "it holds a certificate: cert and key seem to be swapped",
        (false, _) => "write the path of a PEM file, with its -----BEGIN line",
    };
    Some(Wrong::new(what, remedy))
}
