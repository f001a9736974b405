//! A config file that changes under a running holdline, as editors and clusters change it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Ended, Running, ended, folder, holdline};

/// What comes of the next change, in the log.
async fn taken(running: &mut Running) -> String {
    let line = running.line("\"message\":\"reloaded\"").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    line["changed"].as_str().unwrap().to_owned()
}

async fn status(running: &Running) -> Value {
    let admin = running.address("admin");
    let asked: Ended = ended(&running.folder, &["status", "--json", "--admin", &admin]).await;
    assert_eq!(asked.code, Some(0), "{}", asked.err);
    serde_json::from_str(&asked.out).unwrap()
}

#[tokio::test]
async fn an_edited_file_is_taken_without_a_word() {
    let mut running = Running::start("").await;
    let file = running.folder.path().join("holdline.toml");
    fs::write(&file, "[hold]\nmax = \"5m\"\n").unwrap();
    assert_eq!(taken(&mut running).await, "hold.max");
    // As editors do it.
    let swap = running.folder.path().join(".holdline.toml.swp");
    fs::write(&swap, "[hold]\nmax = \"6m\"\n[log]\nlevel = \"debug\"\n").unwrap();
    fs::rename(&swap, &file).unwrap();
    assert_eq!(taken(&mut running).await, "hold.max, log.level");
    drop(TcpStream::connect(running.address("https")).await.unwrap());
    running.line("turned a connection away").await;
}

#[tokio::test]
async fn a_half_written_file_is_refused_and_the_whole_one_is_taken() {
    let mut running = Running::start("").await;
    let file = running.folder.path().join("holdline.toml");
    fs::write(&file, "[hold]\nmax = \"5").unwrap();
    let told = running.line("not reloaded").await;
    assert!(told.contains("holdline.toml:2:9"), "{told}");
    let refused = status(&running).await["lastReload"]["refused"].clone();
    assert!(
        refused.as_str().unwrap().contains("holdline.toml:2:9"),
        "{refused}"
    );
    fs::write(&file, "[hold]\nmax = \"5m\"\n").unwrap();
    assert_eq!(taken(&mut running).await, "hold.max");
    assert!(status(&running).await["lastReload"]["refused"].is_null());
}

/// The folder that the links lead through is swapped as a mounted ConfigMap's is.
#[tokio::test]
async fn a_swapped_config_map_is_taken() {
    let folder = folder("");
    let at = |name: &str| folder.path().join(name);
    fs::remove_file(at("holdline.toml")).unwrap();
    for (version, max) in [("..1", "5m"), ("..2", "6m")] {
        fs::create_dir(at(version)).unwrap();
        let text = format!("[hold]\nmax = \"{max}\"\n");
        fs::write(at(version).join("holdline.toml"), text).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/holdline.toml", at("holdline.toml")).unwrap();
    let mut running = Running::start_at(folder, "127.0.0.1:0").await;
    let at = |name: &str| running.folder.path().join(name);
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert_eq!(taken(&mut running).await, "hold.max");
}

/// A renewed certificate under the same name is served without a word.
#[tokio::test]
async fn a_renewed_certificate_is_taken() {
    let folder =
        folder("[tls]\ncertificate = \"files\"\nfiles = [{ cert = \"c.pem\", key = \"k.pem\" }]\n");
    let renew = |folder: &std::path::Path| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join("k.new"), made.signing_key.serialize_pem()).unwrap();
        fs::write(folder.join("c.new"), made.cert.pem()).unwrap();
        fs::rename(folder.join("k.new"), folder.join("k.pem")).unwrap();
        fs::rename(folder.join("c.new"), folder.join("c.pem")).unwrap();
    };
    renew(folder.path());
    let mut running = Running::start_at(folder, "127.0.0.1:0").await;
    let before = status(&running).await["certificates"][0]["sha256"].clone();
    renew(running.folder.path());
    let changed = taken(&mut running).await;
    assert!(changed.contains("tls.files[c.pem]"), "{changed}");
    let after = status(&running).await["certificates"][0]["sha256"].clone();
    assert_ne!(before, after);
}

/// What only shows when it is tried refuses all of it, too.
#[tokio::test]
async fn what_cannot_be_done_is_refused_whole() {
    let mut running = Running::start("").await;
    let file = running.folder.path().join("holdline.toml");
    let taken_port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken_port = taken_port.local_addr().unwrap();
    let text = format!("[listen]\nhttp = [\"{taken_port}\"]\n[hold]\nmax = \"5m\"\n");
    fs::write(&file, text).unwrap();
    let told = running.line("not reloaded").await;
    assert!(
        told.contains(&format!("port {} is held by", taken_port.port())),
        "{told}"
    );
    // By hand it is the same, with an exit code for scripts.
    let admin = running.address("admin");
    let by_hand = ended(&running.folder, &["reload", "--admin", &admin]).await;
    assert_eq!(by_hand.code, Some(1), "the file is not at fault");
    assert!(by_hand.err.contains("is held by"), "{}", by_hand.err);
    fs::write(&file, "[hold]\nmax = \"5m\"\n").unwrap();
    // The refused one left nothing behind, so this is its first change.
    assert_eq!(taken(&mut running).await, "hold.max");
}

#[tokio::test]
async fn the_answer_says_key_by_key_what_it_means() {
    let running = Running::start("").await;
    let file = running.folder.path().join("holdline.toml");
    let admin = running.address("admin");
    let reload = ["reload", "--json", "--admin", &admin];
    fs::write(
        &file,
        "[hold]\nmax = \"5m\"\n[tls]\nmin_version = \"1.3\"\n[auth]\nmodes = [\"token\"]\ntokens = [{ name = \"a\", user = \"b\", hash = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" }]\n",
    )
    .unwrap();
    let answer = ended(&running.folder, &reload).await;
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let answer: Value = serde_json::from_str(&answer.out).unwrap();
    // The file may have been noticed before the command came.
    let changed = answer["changed"].as_array().unwrap();
    if !changed.is_empty() {
        let of = |key: &str| changed.iter().find(|change| change["key"] == key).unwrap();
        assert_eq!(of("hold.max")["appliesTo"], "everything");
        assert_eq!(of("hold.max")["after"], "\"5m\"");
        assert_eq!(of("tls.min_version")["appliesTo"], "new_connections");
        assert!(!answer.to_string().contains("AAAA"), "{answer}");
    }
    let again = ended(&running.folder, &reload).await;
    let again: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(again["changed"], serde_json::json!([]));
}

const SIGN_IN: &str = "[hold]\nmax = \"5m\"\n[auth]\nmodes = [\"token\"]\ntokens = [{ name = \"a\", user = \"b\", hash = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" }]\n";

/// Half a file is often a good one, in which everybody may come in.
#[tokio::test]
async fn a_file_that_would_open_the_door_waits_for_a_word() {
    let mut running = Running::start(SIGN_IN).await;
    let file = running.folder.path().join("holdline.toml");
    // With what leads there, wherever it is typed.
    let command = format!("run `holdline reload --config {}`", file.display());
    for (torn, words) in [
        ("", "it sets nothing"),
        (
            "[hold]\nmax = \"5m\"\n",
            "token would be gone from [auth] modes",
        ),
        (
            "[hold]\nmax = \"6m\"\n",
            "token would be gone from [auth] modes",
        ),
    ] {
        fs::write(&file, torn).unwrap();
        let told = running.line("not reloaded").await;
        assert!(told.contains(words), "{told}");
        assert!(told.contains(&command), "{told}");
        let refused = status(&running).await["lastReload"]["refused"].clone();
        assert!(refused.as_str().unwrap().contains(words), "{refused}");
    }
    // Somebody's word is enough.
    let admin = running.address("admin");
    let meant = ended(&running.folder, &["reload", "--admin", &admin]).await;
    assert_eq!(meant.code, Some(0), "{}", meant.err);
    assert!(
        meant.out.contains("auth.modes: [\"token\"] -> []"),
        "{}",
        meant.out
    );
}

/// Whoever asks after the file has been taken by itself is told what that came to.
#[tokio::test]
async fn what_was_taken_by_itself_is_told_to_who_asks() {
    let mut running = Running::start("").await;
    let file = running.folder.path().join("holdline.toml");
    fs::write(&file, "[hold]\nmax = \"5m\"\n").unwrap();
    taken(&mut running).await;
    let admin = running.address("admin");
    let asked = ended(&running.folder, &["reload", "--admin", &admin]).await;
    let (first, rest) = asked.out.split_once('\n').unwrap();
    assert_eq!(first, "nothing more has changed");
    assert!(
        rest.starts_with("the changed file was taken by itself "),
        "{rest}"
    );
    assert!(
        rest.contains("  hold.max: \"10m\" -> \"5m\" (applies to everything)\n"),
        "{rest}"
    );
}

/// What cannot be read again does not end reloading.
#[tokio::test]
async fn a_file_that_became_a_pipe_is_refused_and_the_next_file_is_taken() {
    let mut running = Running::start("").await;
    let file = running.folder.path().join("holdline.toml");
    let pipe = running.folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    fs::rename(&pipe, &file).unwrap();
    let told = running.line("not reloaded").await;
    assert!(told.contains("is no regular file"), "{told}");
    fs::write(running.folder.path().join("new"), "[hold]\nmax = \"5m\"\n").unwrap();
    fs::rename(running.folder.path().join("new"), &file).unwrap();
    assert_eq!(taken(&mut running).await, "hold.max");
}

/// A folder or a pipe where a certificate should be is one bad config, not the last one.
#[tokio::test]
async fn a_value_that_names_no_file_is_refused_and_the_next_config_is_taken() {
    let mut running = Running::start("").await;
    let file = running.folder.path().join("holdline.toml");
    let folder = running.folder.path().to_owned();
    fs::write(&file, format!("[tls]\nclient_ca = {folder:?}\n")).unwrap();
    let told = running.line("not reloaded").await;
    assert!(told.contains("tls.client_ca"), "{told}");
    fs::write(&file, "[hold]\nmax = \"5m\"\n").unwrap();
    assert_eq!(taken(&mut running).await, "hold.max");
}

/// Whoever writes the config as soon as holdline is started need not write it twice. What it was
/// started with is in the log's second line; the certificate has yet to be made then.
#[tokio::test]
async fn a_change_while_it_starts_is_taken() {
    let folder = folder("[hold]\nmax = \"4m\"\n");
    let args = ["--config", "holdline.toml", "--listen", "127.0.0.1:0"];
    let args = [&args[..], &["--admin", "off"]].concat();
    let mut child = holdline(&folder, &args).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut running = Running {
        child,
        log,
        started: String::new(),
        folder,
    };
    running.line("\"message\":\"starting\"").await;
    let file = running.folder.path().join("holdline.toml");
    fs::write(&file, "[hold]\nmax = \"5m\"\n").unwrap();
    assert_eq!(taken(&mut running).await, "hold.max");
}

const BOTH: &str = "[hold]\nmax = \"5m\"\n[limits]\nsessions = 7\n";
const FIRST: &str = "[hold]\nmax = \"5m\"\n";

/// Written over: whoever did that has perhaps been killed on the way.
#[tokio::test]
async fn the_beginning_of_a_file_in_its_own_place_waits_for_a_word() {
    let mut running = Running::start(BOTH).await;
    let file = running.folder.path().join("holdline.toml");
    fs::write(&file, FIRST).unwrap();
    let told = running.line("not reloaded").await;
    assert!(told.contains("only the beginning of what it was"), "{told}");
    let refused = status(&running).await["lastReload"]["refused"].clone();
    assert!(refused.is_string(), "{refused}");
}

/// A file that comes whole is taken, even if it is only the beginning of the one before.
#[tokio::test]
async fn the_last_lines_may_be_taken_out_of_a_file_that_is_replaced() {
    let mut running = Running::start(BOTH).await;
    let file = running.folder.path().join("holdline.toml");
    let swap = running.folder.path().join(".holdline.toml.swp");
    fs::write(&swap, FIRST).unwrap();
    fs::rename(&swap, &file).unwrap();
    let told = running.line("not reloaded yet").await;
    assert!(told.contains("if it stays so for 5 s"), "{told}");
    assert!(status(&running).await["lastReload"].is_null());
    assert_eq!(taken(&mut running).await, "limits.sessions");
}

/// Some editors remove a file and write it anew: nothing of it is taken before it is all there.
#[tokio::test]
async fn a_file_that_is_made_anew_is_not_taken_half() {
    let mut running = Running::start(BOTH).await;
    let file = running.folder.path().join("holdline.toml");
    // So that its number is not given to the next one.
    let kept = fs::File::open(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, FIRST).unwrap();
    running.line("not reloaded yet").await;
    fs::write(&file, BOTH.replace('7', "8")).unwrap();
    assert_eq!(taken(&mut running).await, "limits.sessions");
    drop(kept);
    let asked = ["explain", "limits.sessions", "--config", "holdline.toml"];
    let asked = ended(&running.folder, &asked).await;
    assert!(asked.out.contains("sessions = 8"), "{}", asked.out);
    let admin = running.address("admin");
    let again = ended(&running.folder, &["reload", "--admin", &admin]).await;
    assert!(
        again.out.contains("limits.sessions: 7 -> 8"),
        "the default was never in force: {}",
        again.out
    );
}

/// An address goes from the admin listener to a public one, and the other way round.
#[tokio::test]
async fn listeners_change_places_in_one_reload() {
    let (https, admin) = (super::nobody(), super::nobody());
    let config = |https: &str, admin: &str| {
        format!("[listen]\nhttps = [\"{https}\"]\n[admin]\nlisten = \"{admin}\"\n")
    };
    let (one, other) = (https.1.clone(), admin.1.clone());
    drop((https.0, admin.0));
    let folder = folder(&config(&one, &other));
    let mut child = holdline(&folder, &["--config", "holdline.toml"])
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut running = Running {
        child,
        log,
        started: String::new(),
        folder,
    };
    running.line("\"message\":\"running\"").await;
    let file = running.folder.path().join("holdline.toml");
    fs::write(&file, config(&other, &one)).unwrap();
    assert_eq!(taken(&mut running).await, "listen.https, admin.listen");
    let asked = ended(&running.folder, &["status", "--json", "--admin", &one]).await;
    assert_eq!(asked.code, Some(0), "{}", asked.err);
}
