//! Two processes write one log during an upgrade: a reader sees which line is whose.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStderr;

use crate::kit::{Raw, Role, ScriptedGateway, ms, within};
use crate::service::{Folder, Service};

#[tokio::test]
async fn a_json_line_says_of_which_process_it_is() {
    let gateway = ScriptedGateway::start().await;
    let mut service = Service::start(&gateway, "").await;
    let (_session, _) = Raw::connected(&service.target(), &Role::backend()).await;
    let (code, _, err) = service.upgrade().await;
    assert_eq!(code, Some(0), "{err}");
    let new = service.process().await["pid"].clone();
    let said = service.line("the new process serves").await;
    assert_eq!(
        (&said["pid"], &said["successor"]),
        (&service.pid().into(), &new)
    );
    assert_eq!(service.line("running").await["pid"], new);
}

#[tokio::test]
async fn a_line_for_people_says_so_as_long_as_there_are_two() {
    let gateway = ScriptedGateway::start().await;
    let folder = Folder::new(&gateway, "drain = \"100ms\"\n[log]\nformat = \"pretty\"");
    let mut command = folder.command();
    let mut old = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = Log {
        lines: BufReader::new(old.stderr.take().unwrap()).lines(),
        unread: Vec::new(),
    };
    let old_pid = i32::try_from(old.id().unwrap()).unwrap();
    let _group = Group(Pid::from_raw(old_pid).unwrap());
    for message in ["starting version", "running"] {
        let alone = line(&mut log, message).await;
        assert!(!alone.contains('['), "{alone}");
    }
    signal(old_pid, Signal::USR2);
    let new = line(&mut log, "starting version").await;
    let new_pid = new.split(['[', ']']).nth(1).unwrap().parse().unwrap();
    assert_ne!(new_pid, old_pid, "{new}");
    for (message, pid) in [("running", new_pid), ("the new process serves", old_pid)] {
        let said = line(&mut log, message).await;
        assert!(said.contains(&format!("Z [{pid}]  INFO ")), "{said}");
    }
    // Without sessions it ends by itself.
    within("the end of the old process", old.wait())
        .await
        .unwrap();
    within("a line that stands alone", async {
        loop {
            signal(new_pid, Signal::HUP);
            if !line(&mut log, "reloaded").await.contains('[') {
                break;
            }
            tokio::time::sleep(ms(50)).await;
        }
    })
    .await;
    signal(new_pid, Signal::TERM);
    line(&mut log, "stopped").await;
}

/// Whoever is left of it when the test ends.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Which of two processes is first to speak is nobody's business.
struct Log {
    lines: Lines<BufReader<ChildStderr>>,
    unread: Vec<String>,
}

/// The first line with these words that was not asked for yet, of whichever process.
async fn line(log: &mut Log, words: &str) -> String {
    let wanted = |line: &String| line.contains(&format!(" {words}"));
    if let Some(at) = log.unread.iter().position(wanted) {
        return log.unread.remove(at);
    }
    within(words, async {
        loop {
            let line = log.lines.next_line().await.unwrap().expect("more lines");
            if wanted(&line) {
                return line;
            }
            log.unread.push(line);
        }
    })
    .await
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}
