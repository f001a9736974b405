//! The command that writes and takes away records: run, waited for, and quoted.

use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::TxtRecord;
use crate::config::DnsHook;

/// Of what the hook says, kept for the one who has to mend it.
const OUTPUT: u64 = 4096;

/// What the hook is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tls::acme) enum Do {
    Present,
    Cleanup,
}

/// Runs the hook; the error is a sentence with what it said.
pub(in crate::tls::acme) async fn run(
    hook: &DnsHook,
    what: Do,
    record: &TxtRecord,
) -> Result<(), String> {
    let what = match what {
        Do::Present => "present",
        Do::Cleanup => "cleanup",
    };
    let Some((program, arguments)) = hook.command.split_first() else {
        return Err("[acme] dns_hook is empty; name a command".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .args([what, &record.name, &record.value])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            format!("the hook {program} cannot be run: {error}; check dns_hook, and that the file is executable")
        })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let whole = async { tokio::join!(child.wait(), output(out), output(err)) };
    let Ok((status, out, err)) = timeout(hook.timeout, whole).await else {
        return Err(format!(
            "the hook `{program} {what} {}` was ended: it took longer than {} s; see dns_timeout",
            record.name,
            hook.timeout.as_secs()
        ));
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(
            "the hook `{program} {what} {}` failed ({status}): {}",
            record.name,
            said(&out, &err)
        )),
        Err(error) => Err(format!("the hook {program} got lost: {error}")),
    }
}

/// All of it is read, or the hook would wait for us; the beginning is kept.
async fn output(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        let _ = (&mut from).take(OUTPUT).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    kept
}

fn said(out: &[u8], err: &[u8]) -> String {
    let all = [err, b" ", out].concat();
    let text = String::from_utf8_lossy(&all);
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match line.split_whitespace().collect::<Vec<_>>().join(" ") {
        said if said.is_empty() => "it said nothing; let it write to standard error why".to_owned(),
        said => said,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hook(script: &str) -> DnsHook {
        DnsHook {
            command: ["sh", "-c", script, "hook"].map(str::to_owned).to_vec(),
            timeout: Duration::from_millis(1500),
            resolvers: Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_hook_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("said");
        let record = TxtRecord::new("*.a.example", "v-1".to_owned());
        let hook = hook(&format!("echo \"$@\" >> {}", file.display()));
        run(&hook, Do::Present, &record).await.unwrap();
        run(&hook, Do::Cleanup, &record).await.unwrap();
        let said = std::fs::read_to_string(&file).unwrap();
        let expected =
            "present _acme-challenge.a.example v-1\ncleanup _acme-challenge.a.example v-1\n";
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn a_hook_that_fails_is_quoted_and_one_that_hangs_is_ended() {
        let record = TxtRecord::new("a.example", "v".to_owned());
        let mean = hook("echo no rights >&2; exit 3");
        let failed = run(&mean, Do::Present, &record).await.unwrap_err();
        assert!(
            failed.contains("no rights") && failed.contains("3"),
            "{failed}"
        );
        let loud = hook("yes | head -c 1000000; exit 1");
        let loud = run(&loud, Do::Present, &record).await.unwrap_err();
        assert!(loud.len() < 6000);
        let hung = run(&hook("exec sleep 60"), Do::Present, &record)
            .await
            .unwrap_err();
        assert!(hung.contains("longer than 1 s"), "{hung}");
        let absent = DnsHook {
            command: vec!["/nowhere/hook".to_owned()],
            ..hook("")
        };
        let absent = run(&absent, Do::Present, &record).await.unwrap_err();
        assert!(absent.contains("cannot be run"), "{absent}");
    }
}
