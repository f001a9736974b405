use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::*;

const LONG: Duration = Duration::from_secs(60);
/// Far less than any hook here would take by itself, and than a hook's grace with what comes after it.
const SOON: Duration = Duration::from_secs(10);

/// A shell script in a folder of its own, which it finds in `$D`.
fn hook(script: &str, limit: Duration) -> (DnsHook, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("D={}; {script}", dir.path().display());
    let command = ["sh", "-c", &script, "hook"].map(str::to_owned).to_vec();
    let hook = DnsHook {
        command,
        timeout: limit,
        resolvers: Vec::new(),
    };
    (hook, dir)
}

fn record() -> TxtRecord {
    TxtRecord::new("*.a.example", "v-1".to_owned())
}

async fn present(hook: &DnsHook) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let (state, underway) = (StateDir::new(dir.path()), Underway::default());
    run(hook, Do::Present, &record(), &state, &underway).await
}

async fn until(mut so: impl FnMut() -> bool) {
    let waited = timeout(SOON, async {
        while !so() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("in time");
}

/// The process whose number is in a file of the hook's.
fn process(dir: &TempDir, name: &str) -> Option<Pid> {
    let text = fs::read_to_string(dir.path().join(name)).ok()?;
    Pid::from_raw(text.strip_suffix('\n')?.parse().ok()?)
}

/// Whether it does, and is not one that only waits to be forgotten by its parent.
fn runs(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn the_hook_is_told_what_to_do() {
    let (hook, dir) = hook("echo \"$@\" >>$D/said", LONG);
    let (state, underway) = (StateDir::new(dir.path()), Underway::default());
    for what in [Do::Present, Do::Cleanup] {
        let done = run(&hook, what, &record(), &state, &underway).await;
        done.unwrap();
    }
    let said = fs::read_to_string(dir.path().join("said")).unwrap();
    let expected = "present _acme-challenge.a.example v-1\ncleanup _acme-challenge.a.example v-1\n";
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_hook_that_fails_is_quoted() {
    let (mean, _dir) = hook("echo 'no \x1b[31mrights' >&2; exit 3", LONG);
    let failed = present(&mean).await.unwrap_err();
    assert!(
        failed.contains("no [31mrights") && failed.contains("status: 3"),
        "{failed}"
    );
    let (loud, _dir) = hook("yes | head -c 1000000; echo because; exit 1", LONG);
    let loud = present(&loud).await.unwrap_err();
    assert!(loud.len() < 3000 && loud.ends_with("y because"), "{loud}");
    let (shot, _dir) = hook("kill -9 $$", LONG);
    let shot = present(&shot).await.unwrap_err();
    assert!(shot.contains("SIGKILL"), "{shot}");
}

#[tokio::test]
async fn what_cannot_be_run_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let told = async |path: &Path| {
        let hook = DnsHook {
            command: vec![path.to_str().unwrap().to_owned()],
            timeout: LONG,
            resolvers: Vec::new(),
        };
        present(&hook).await
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let lost = file("lost", "#!/nowhere/sh\n", 0o755);
    for (path, remedy) in [
        (plain.as_path(), "chmod +x"),
        (&lost, "its first line names"),
        (Path::new("/nowhere/hook"), "check the path"),
        (Path::new("/nowhere/hook --fast"), "a text of its own"),
    ] {
        let error = told(path).await.unwrap_err();
        assert!(
            error.contains("cannot be run") && error.contains(remedy),
            "{error}"
        );
    }
    // A space in a path is nothing special.
    told(&file("a hook", "#!/bin/sh\nexit 0\n", 0o755))
        .await
        .unwrap();
}

#[tokio::test]
async fn one_that_takes_too_long_ends_with_all_that_it_has_started() {
    // The child does not care for a polite request, and holds the outputs.
    let script = "echo stuck at the provider; (trap '' TERM; echo $$ >$D/unused; exec sleep 61) & \
                  echo $! >$D/child; echo $$ >$D/hook; sleep 62";
    let (hook, dir) = hook(script, Duration::from_secs(1));
    let started = Instant::now();
    let error = present(&hook).await.unwrap_err();
    assert!(started.elapsed() < SOON);
    assert!(
        error.contains("longer than 1 s") && error.contains("stuck at the provider"),
        "{error}"
    );
    for name in ["hook", "child"] {
        let process = process(&dir, name).unwrap();
        // A kill is on its way then.
        until(|| !runs(process)).await;
    }
}

#[tokio::test]
async fn one_that_takes_too_long_may_put_things_right() {
    let script = "trap 'echo tidied >$D/tidied; kill $!; exit 1' TERM; sleep 60 & wait";
    let (hook, dir) = hook(script, Duration::from_secs(1));
    present(&hook).await.unwrap_err();
    assert!(dir.path().join("tidied").exists());
}

#[tokio::test]
async fn what_a_hook_leaves_running_is_not_waited_for() {
    let (hook, dir) = hook("sleep 60 & echo $! >$D/child; echo done", LONG);
    let started = Instant::now();
    present(&hook).await.unwrap();
    assert!(started.elapsed() < SOON);
    let child = process(&dir, "child").unwrap();
    assert!(runs(child), "it is the hook's business");
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn one_that_nobody_waits_for_any_more_ends_in_good_order() {
    let script = "trap 'echo tidied >$D/tidied; exit 1' TERM; sleep 60 & echo $! >$D/child; wait";
    let (hook, dir) = hook(script, LONG);
    let (underway, record) = (Underway::default(), record());
    let state = StateDir::new(dir.path());
    tokio::select! {
        done = run(&hook, Do::Present, &record, &state, &underway) => panic!("{done:?}"),
        () = until(|| process(&dir, "child").is_some()) => {}
    }
    underway.end(LONG).await;
    assert!(dir.path().join("tidied").exists());
    let child = process(&dir, "child").unwrap();
    until(|| !runs(child)).await;
}

#[test]
fn none_survives_the_threads_that_looked_after_it() {
    let (hook, dir) = hook("sleep 60 & echo $! >$D/child; wait", LONG);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.spawn(async move { present(&hook).await });
    runtime.block_on(until(|| process(&dir, "child").is_some()));
    let child = process(&dir, "child").unwrap();
    assert!(test_kill_process(child).is_ok() && runs(child));
    runtime.shutdown_timeout(SOON);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(until(|| !runs(child)));
}

#[tokio::test]
async fn hooks_run_one_after_the_other() {
    let script = "mkdir $D/busy || exit 7; sleep 0.1; rmdir $D/busy";
    let (hook, dir) = hook(script, LONG);
    let (record, state) = (record(), StateDir::new(dir.path()));
    // As of two processes on one directory.
    let (ours, theirs) = (Underway::default(), Underway::default());
    let run = |underway| run(&hook, Do::Present, &record, &state, underway);
    let (one, two, three) = tokio::join!(run(&ours), run(&ours), run(&theirs));
    assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
}

#[tokio::test]
async fn the_hook_of_another_process_is_not_waited_for_without_end() {
    let (hook, dir) = hook(": >$D/ran", Duration::from_millis(100));
    let (record, state) = (record(), StateDir::new(dir.path()));
    let theirs = state.try_lock(LOCK).unwrap().unwrap();
    let underway = Underway::default();
    let started = Instant::now();
    let run = || run(&hook, Do::Present, &record, &state, &underway);
    let error = run().await.unwrap_err();
    assert!(started.elapsed() < SOON);
    for words in ["acme/hook.lock", "another process holds it"] {
        assert!(error.contains(words), "{error}");
    }
    assert!(!dir.path().join("ran").exists());
    drop(theirs);
    run().await.unwrap();
}

#[tokio::test]
async fn it_reads_nothing_and_inherits_nothing_that_is_open() {
    let _socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "cat >$D/stdin; for fd in /proc/$$/fd/*; do readlink $fd; done >$D/open; exit 0";
    let (hook, dir) = hook(script, LONG);
    present(&hook).await.unwrap();
    assert_eq!(fs::read(dir.path().join("stdin")).unwrap(), b"");
    let open = fs::read_to_string(dir.path().join("open")).unwrap();
    assert_eq!(open.lines().next(), Some("/dev/null"));
    // Whoever runs this test may have left files open, but no socket.
    assert!(open.lines().all(|to| !to.starts_with("socket:")), "{open}");
}

/// Run by the next one, in an environment of its own.
#[tokio::test]
#[ignore = "run by another one"]
async fn inside_of_a_service() {
    let (hook, dir) = hook("env >$D/env; echo \"no: $DNS_API_TOKEN\"; exit 1", LONG);
    let error = present(&hook).await.unwrap_err();
    println!(
        "{error}\n{}",
        fs::read_to_string(dir.path().join("env")).unwrap()
    );
}

#[test]
fn its_environment_is_ours_but_for_what_is_meant_for_us_alone() {
    let done = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("tls::acme::dns::hook::tests::inside_of_a_service")
        .env("DNS_API_TOKEN", "s3cr3t-s3cr3t")
        .env("LANG", "C.UTF-8")
        .env("NOTIFY_SOCKET", "/nowhere/notify")
        .env("LISTEN_FDS", "3")
        .env("WATCHDOG_USEC", "30000000")
        .env("JOURNAL_STREAM", "8:1")
        .env("HOLDLINE_HANDOVER", "1")
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{said}");
    for kept in ["DNS_API_TOKEN=s3cr3t-s3cr3t", "LANG=C.UTF-8", "PATH="] {
        assert!(
            said.lines().any(|line| line.starts_with(kept)),
            "{kept}: {said}"
        );
    }
    for name in [
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "WATCHDOG_USEC",
        "JOURNAL_STREAM",
        "HOLDLINE_",
    ] {
        assert!(
            !said.lines().any(|line| line.starts_with(name)),
            "{name}: {said}"
        );
    }
    assert!(said.contains("no: [$DNS_API_TOKEN]"), "{said}");
}
