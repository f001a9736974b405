//! Config files and the certificate files they name, on a real disk.

use std::fs;

use super::*;

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";

pub(super) fn folder(config: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path(), &rcgen::CertificateParams::default());
    let file = dir.path().join("holdline.toml");
    fs::write(&file, config).unwrap();
    (dir, file)
}

pub(super) fn write_pair(dir: &Path, params: &rcgen::CertificateParams) {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn a_pair_that_could_not_be_served_is_refused_with_its_place() {
    let (dir, file) = folder(&format!(
        "{FILES}[{{ cert = \"cert.pem\", key = \"key.pem\" }}]"
    ));
    let refused = || load(Some(&file), &Overrides::default()).unwrap_err();
    let mut old = rcgen::CertificateParams::default();
    old.not_before = rcgen::date_time_ymd(2001, 1, 1);
    old.not_after = rcgen::date_time_ymd(2002, 1, 1);
    write_pair(dir.path(), &old);
    // Whoever starts with it has clients that say why, and not nothing at all.
    let loaded = load(Some(&file), &Overrides::default()).unwrap();
    let [warning] = loaded.warnings.as_slice() else {
        panic!("{:?}", loaded.warnings)
    };
    let text = warning.to_string();
    assert!(
        text.contains("3:19")
            && text.contains("expired on 2002-01-01")
            && text.contains("renew it"),
        "{text}"
    );
    write_pair(dir.path(), &rcgen::CertificateParams::default());
    let other = rcgen::KeyPair::generate().unwrap();
    fs::write(dir.path().join("key.pem"), other.serialize_pem()).unwrap();
    let text = refused().to_string();
    assert!(
        text.contains("does not belong to the first certificate"),
        "{text}"
    );
}

/// Files that cannot be served: where it is said, and that it says what to do.
#[test]
fn every_way_in_which_a_pair_can_be_wrong_has_its_place_and_its_remedy() {
    use std::os::unix::fs::PermissionsExt;

    let text = format!("{FILES}[{{ cert = \"cert.pem\", key = \"key.pem\" }}]\n");
    type Break = fn(&Path);
    let ways: [(&str, Break, &str, [&str; 2]); 9] = [
        (
            "no certificate",
            |dir| fs::remove_file(dir.join("cert.pem")).unwrap(),
            "3:19",
            ["cert.pem", "a file that exists"],
        ),
        (
            "no key",
            |dir| fs::remove_file(dir.join("key.pem")).unwrap(),
            "3:37",
            ["key.pem", "a file that exists"],
        ),
        (
            "an empty certificate",
            |dir| fs::write(dir.join("cert.pem"), "").unwrap(),
            "3:19",
            ["no PEM certificate", "-----BEGIN"],
        ),
        (
            "an empty key",
            |dir| fs::write(dir.join("key.pem"), "").unwrap(),
            "3:37",
            ["no PEM private key", "-----BEGIN"],
        ),
        (
            "a folder for a key",
            |dir| {
                fs::remove_file(dir.join("key.pem")).unwrap();
                fs::create_dir(dir.join("key.pem")).unwrap();
            },
            "3:37",
            ["not a file", "readable PEM file"],
        ),
        (
            "an encrypted key",
            |dir| {
                fs::write(
                    dir.join("key.pem"),
                    KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"),
                )
                .unwrap()
            },
            "3:37",
            ["encrypted with a password", "openssl pkey"],
        ),
        (
            "an encrypted key in the old form",
            |dir| {
                let head = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: \
                            AES-256-CBC,00\n\nAA==\n-----END RSA PRIVATE KEY-----\n";
                fs::write(dir.join("key.pem"), head).unwrap()
            },
            "3:37",
            ["encrypted with a password", "openssl pkey"],
        ),
        (
            "another's key",
            |dir| {
                let other = rcgen::KeyPair::generate().unwrap();
                fs::write(dir.join("key.pem"), other.serialize_pem()).unwrap();
            },
            "3:19",
            ["does not belong to the first certificate", "key"],
        ),
        (
            "half a key",
            |dir| {
                let whole = fs::read_to_string(dir.join("key.pem")).unwrap();
                let (half, _) = whole.split_at(whole.len() / 2);
                fs::write(dir.join("key.pem"), half).unwrap();
            },
            "3:37",
            ["key.pem", "key"],
        ),
    ];
    for (name, break_it, place, words) in ways {
        let (dir, file) = folder(&text);
        break_it(dir.path());
        let errors = load(Some(&file), &Overrides::default()).unwrap_err();
        let [error] = errors.errors.as_slice() else {
            panic!("{name}: one error expected: {errors}")
        };
        let said = error.to_string();
        assert!(
            said.contains(&format!("holdline.toml:{place}: ")),
            "{name}: {said}"
        );
        for word in words {
            assert!(said.contains(word), "{name}: no {word:?} in: {said}");
        }
    }
    let (dir, file) = folder(&text);
    let key = dir.path().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
    // Whoever runs as root may read everything.
    if fs::read(&key).is_err() {
        let error = load(Some(&file), &Overrides::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("may not be read by the user that holdline runs as"),
            "{error}"
        );
        assert!(
            error.contains("give that user the right to read the file"),
            "{error}"
        );
    }
}

fn load_text(config: &str) -> Result<Loaded, ConfigErrors> {
    let (_dir, file) = folder(config);
    load(Some(&file), &Overrides::default())
}

fn message(config: &str) -> String {
    load_text(config).unwrap_err().to_string()
}

const FILES: &str = "[tls]\ncertificate = \"files\"\nfiles = ";

#[test]
fn relative_paths_start_at_the_config_files_folder() {
    let text =
        format!("{FILES}[{{ cert = \"cert.pem\", key = \"key.pem\" }}]\nclient_ca = \"cert.pem\"");
    let (dir, file) = folder(&text);
    let loaded = load(Some(&file), &Overrides::default()).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    assert_eq!(loaded.config.tls.client_ca.as_ref(), Some(&cert));
    assert_eq!(
        loaded.config.tls.certificate,
        CertificateSource::Files(vec![CertificateFiles { cert, key }])
    );
    assert_eq!(loaded.source, Origin::File(file));
}

#[test]
fn the_development_certificate_is_kept_beside_the_config_file() {
    let (dir, file) = folder("");
    let loaded = load(Some(&file), &Overrides::default()).unwrap();
    let dir = dir.path().join("certs-dev");
    assert_eq!(
        loaded.config.tls.certificate,
        CertificateSource::Dev { dir }
    );
}

#[test]
fn a_missing_certificate_file_is_named_with_its_whole_path() {
    let text = message(&format!(
        "{FILES}[{{ cert = \"no.pem\", key = \"key.pem\" }}]"
    ));
    assert!(text.contains("holdline.toml:3:19\n"), "{text}");
    assert!(
        text.contains("tls.files[0].cert = \"no.pem\": there is no file /"),
        "{text}"
    );
    assert!(
        text.contains("starts at the config file's folder"),
        "{text}"
    );
}

#[test]
fn a_folder_is_no_certificate_file() {
    let text = message("[tls]\nclient_ca = \".\"");
    assert!(text.contains("cannot be read: it is not a file"), "{text}");
}

#[test]
fn swapped_files_are_recognised() {
    let text = message(&format!(
        "{FILES}[{{ cert = \"key.pem\", key = \"cert.pem\" }}]"
    ));
    assert!(
        text.contains("tls.files[0].cert = \"key.pem\": no PEM certificate"),
        "{text}"
    );
    assert!(
        text.contains("tls.files[0].key = \"cert.pem\": no PEM private key"),
        "{text}"
    );
    assert_eq!(
        text.matches("cert and key seem to be swapped").count(),
        2,
        "{text}"
    );
}

#[test]
fn an_encrypted_key_says_how_to_decrypt_it() {
    let (dir, file) = folder(&format!(
        "{FILES}[{{ cert = \"cert.pem\", key = \"key.pem\" }}]"
    ));
    fs::write(
        dir.path().join("key.pem"),
        KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"),
    )
    .unwrap();
    let text = load(Some(&file), &Overrides::default())
        .unwrap_err()
        .to_string();
    assert!(text.contains("openssl pkey"), "{text}");
}

#[test]
fn a_config_that_is_not_there_or_not_text_says_so() {
    let missing = load(Some(Path::new("/nowhere/h.toml")), &Overrides::default()).unwrap_err();
    assert_eq!(missing.errors[0].place.to_string(), "/nowhere/h.toml");
    assert!(missing.to_string().contains("there is no such file"));
    let (_dir, file) = folder("");
    fs::write(&file, b"[hold]\nmax = \"\xff\"").unwrap();
    let binary = load(Some(&file), &Overrides::default()).unwrap_err();
    assert!(
        binary.to_string().contains("holdline.toml:2:8\n"),
        "{binary}"
    );
    assert!(
        binary.to_string().contains("save the file as UTF-8"),
        "{binary}"
    );
}

#[test]
fn something_endless_is_not_read_to_its_end() {
    let errors = load(Some(Path::new("/dev/zero")), &Overrides::default()).unwrap_err();
    assert!(errors.to_string().contains("larger than 1 MiB"), "{errors}");
}
