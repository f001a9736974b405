//! What a person would look at, in the order in which they would: each look says what it saw, how
//! that is, and what to do.
//!
//! A look is one file: it gathers evidence into a struct, and a pure `judge` makes findings of it.
//! All it needs besides is a row in `LOOKS`. Looks run at the same time, each within a limit,
//! and what more than one of them needs is gathered once, in `Case`. Nothing is changed anywhere;
//! secrets are never in a finding.

mod ask;
mod case;
mod certificates;
mod clock;
mod config;
mod disk;
mod files;
mod finding;
mod gateway;
mod in_force;
mod memory;
mod ours;
mod ports;
mod running;
mod settings;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

pub use finding::{Finding, Verdict};

use crate::config::{AdminAddress, Config, Problem};
use case::Case;

/// What is examined.
#[derive(Debug, Clone)]
pub struct Patient {
    /// The config; `None`: it is bad, and only looks that need none are taken.
    pub config: Option<Config>,
    /// What the config is called.
    pub source: String,
    /// Its file, if it is of one.
    pub file: Option<PathBuf>,
    /// Addresses in browsers beyond those that it says.
    pub origins: Vec<String>,
    /// What is wrong with it, or odd.
    pub problems: Vec<Problem>,
    /// Where a running holdline would answer; `None`: the config is so bad that it does not say.
    pub admin: Option<AdminAddress>,
}

type Looked = Pin<Box<dyn Future<Output = Vec<Finding>> + Send>>;

/// One look.
struct Look {
    name: &'static str,
    limit: Duration,
    look: fn(Arc<Case>) -> Looked,
}

/// For looks at this machine's own files.
const SHORT: Duration = Duration::from_secs(5);
/// For looks over the network, and at other processes: the whole is over within this and a moment.
const LONG: Duration = Duration::from_secs(13);

/// In the order in which they are told.
const LOOKS: [Look; 14] = [
    row("config", SHORT, |case| Box::pin(config::look(case))),
    row("running", LONG, |case| Box::pin(running::look(case))),
    row("config in force", LONG, |case| {
        Box::pin(in_force::look(case))
    }),
    row("ports", LONG, |case| Box::pin(ports::look(case))),
    row("certificate", LONG, |case| {
        Box::pin(certificates::look(case))
    }),
    row("gateway", LONG, |case| {
        Box::pin(gateway::process::look(case))
    }),
    row("gateway answers", LONG, |case| {
        Box::pin(gateway::health::look(case))
    }),
    row("gateway WebSocket", LONG, |case| {
        Box::pin(gateway::challenge::look(case))
    }),
    row("gateway settings", LONG, |case| {
        Box::pin(settings::look(case))
    }),
    row("through holdline", LONG, |case| Box::pin(ours::look(case))),
    row("memory", SHORT, |case| Box::pin(memory::look(case))),
    row("disk", SHORT, |case| Box::pin(disk::look(case))),
    row("open files", SHORT, |case| Box::pin(files::look(case))),
    row("clock", LONG, |case| Box::pin(clock::look(case))),
];

const fn row(name: &'static str, limit: Duration, look: fn(Arc<Case>) -> Looked) -> Look {
    Look { name, limit, look }
}

/// Takes every look; `tell` gets the findings in order, as soon as theirs and all before are done.
///
/// Ends within 15 seconds, whatever hangs. Needs a tokio runtime.
pub async fn examine(patient: Patient, mut tell: impl FnMut(&Finding)) -> Vec<Finding> {
    let case = Arc::new(Case::new(patient));
    let looking: Vec<_> = LOOKS
        .iter()
        .map(|Look { limit, look, .. }| {
            let looked = tokio::time::timeout(*limit, look(Arc::clone(&case)));
            AbortOnDropHandle::new(tokio::spawn(looked))
        })
        .collect();
    let mut all = Vec::new();
    for (Look { name, limit, .. }, looked) in LOOKS.iter().zip(looking) {
        let findings = match looked.await {
            Ok(Ok(findings)) => findings,
            Ok(Err(_)) => {
                let why = format!("it was not seen within {} s", limit.as_secs());
                vec![Finding::cannot_tell("", why)]
            }
            Err(error) => vec![Finding::cannot_tell(
                "",
                format!("the look failed: {error}"),
            )],
        };
        for finding in findings {
            let finding = Finding {
                look: name,
                ..finding
            };
            tell(&finding);
            all.push(finding);
        }
    }
    all
}

/// Runs what reads files. `None`: it failed, or is no longer waited for.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(read).await.ok()
}
