//! The command that writes and takes away records: run, waited for, and quoted.
//!
//! One at a time, in this process and in all that share the state directory. It has a process group of its own, and ends with all that it has
//! started where it takes too long, or nobody wants its answer any more.

mod environment;
mod group;
mod said;

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::group::Group;
use self::said::{Output, said};
use super::{Do, TxtRecord};
use crate::config::DnsHook;
use crate::tls::acme::state::StateDir;
use crate::tls::acme::underway::Underway;

/// For the rest of the output once the hook has ended: what it has left running may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Held by the process whose hook runs.
const LOCK: &str = "hook.lock";
/// For another process to end its hook, beyond the time that hooks have.
const GRACE: Duration = Duration::from_secs(3);

/// Runs the hook; the error is a sentence with what it said. Whoever drops this has the hook ended
/// in good order, by a task that `underway` waits for.
pub(super) async fn run(
    hook: &DnsHook,
    what: Do,
    record: &TxtRecord,
    state: &StateDir,
    underway: &Underway,
) -> Result<(), String> {
    let unwanted = CancellationToken::new();
    let _unwanted = unwanted.clone().drop_guard();
    let (hook, record, turn) = (hook.clone(), record.clone(), underway.turn().await);
    // Before an upgrade and after it, or on another machine with the same directory: there may be
    // several before us there.
    let locked = state.lock_within(LOCK, hook.timeout * 3 + GRACE).await;
    let locked = locked.map_err(|failure| format!("no hook is run: {}", failure.reason))?;
    let task = underway.spawn(async move {
        let done = run_now(&hook, what, &record, &unwanted).await;
        drop((locked, turn));
        done
    });
    task.await.unwrap_or_else(|_| {
        Err("the hook was lost by a fault of holdline; please report it".to_owned())
    })
}

/// How the hook came to its end.
enum End {
    Itself(io::Result<ExitStatus>),
    Late,
    Unwanted,
}

async fn run_now(
    hook: &DnsHook,
    what: Do,
    record: &TxtRecord,
    unwanted: &CancellationToken,
) -> Result<(), String> {
    let Some((program, arguments)) = hook.command.split_first() else {
        return Err("[acme] dns_hook is empty; name a command".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args([what.word(), &record.name, &record.value])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if environment::is_withheld(&name) {
            command.env_remove(name);
        }
    }
    let mut group = Group::start(&mut command)
        .await
        .map_err(|error| cannot_run(program, &error))?;
    let (out, err) = group.outputs();
    let (mut out, mut err) = (Output::of(out), Output::of(err));
    let end = tokio::select! {
        status = group.ended() => End::Itself(status),
        () = sleep(hook.timeout) => End::Late,
        () = unwanted.cancelled() => End::Unwanted,
    };
    match end {
        End::Itself(_) => {
            let last = async { tokio::join!(out.closed(LAST_WORDS), err.closed(LAST_WORDS)) };
            last.await;
        }
        End::Late | End::Unwanted => group.end(|| out.is_closed() && err.is_closed()).await,
    }
    let called = format!("the hook `{program} {} {}`", what.word(), record.name);
    match end {
        End::Itself(Ok(status)) if status.success() => {
            tracing::debug!(
                program,
                what = what.word(),
                said = said(&out, &err),
                "a hook has run"
            );
            Ok(())
        }
        End::Itself(Ok(status)) => Err(format!("{called} failed ({status}): {}", said(&out, &err))),
        End::Itself(Err(error)) => Err(format!("{called} got lost: {error}")),
        End::Late => Err(format!(
            "{called} was ended with all that it had started: it took longer than {} s, see \
             dns_timeout; its last words: {}",
            hook.timeout.as_secs(),
            said(&out, &err)
        )),
        End::Unwanted => Err(format!(
            "{called} was ended: holdline stops, or has given up the order"
        )),
    }
}

fn cannot_run(program: &str, error: &io::Error) -> String {
    // By its own number: the library has no stable name for it.
    let no_format = error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error());
    let remedy = match error.kind() {
        _ if no_format => "let its first line say what it is for, such as #!/bin/sh",
        io::ErrorKind::PermissionDenied => {
            "make it executable (chmod +x) for the user that holdline runs as"
        }
        io::ErrorKind::NotFound if std::path::Path::new(program).exists() => {
            "it is there, but what its first line names to run it is not"
        }
        io::ErrorKind::NotFound if program.contains(' ') => {
            "write each argument of dns_hook as a text of its own: [\"/etc/holdline/hook\", \"-v\"]"
        }
        io::ErrorKind::NotFound => "check the path in dns_hook",
        _ => "check dns_hook",
    };
    format!("the hook {program} cannot be run ({error}); {remedy}")
}

#[cfg(test)]
mod tests;
