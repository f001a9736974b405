//! The heart: one WebSocket session, held and put back when its gateway goes away.
//!
//! `open` waits before the 101. After it `machine`, `live`, `away`, `patience`, `comeback` and
//! `flush` decide (pure), `journal` remembers, `policy` says what is allowed; `pump` (with
//! `wire` and `pulse`), `judge`, `perform` and `room` are the only I/O; `report` and `outage` say what there was. `line` is a route
//! as its sessions see it, and `follow` takes a session to the one that a reload puts in its place.
//! JSON is read and written in [`crate::protocol`], never here.

mod away;
mod client_io;
mod comeback;
mod event;
mod flush;
mod follow;
mod journal;
mod judge;
mod leg;
mod line;
mod live;
mod machine;
mod open;
mod outage;
mod patience;
mod perform;
mod policy;
mod pulse;
mod pump;
mod registry;
mod report;
mod room;
mod ticket;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;

use crate::auth::Grant;

pub(crate) use line::{House, Line, Lines};
pub(crate) use open::{Opened, open};
pub use registry::{Admitted, Sessions};
pub(crate) use ticket::Ticket;

/// A session whose 101 is being sent.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Its place among all sessions.
    pub(crate) admitted: Admitted,
    /// The request, to be said again.
    pub(crate) ticket: Ticket,
    /// Its right to be here.
    pub(crate) grant: Arc<Grant>,
    /// The gateway's side; `None`: we speak for it.
    pub(crate) upstream: Option<Box<open::Upstream>>,
}

/// Runs a session in a task of its own, from the client's side of the upgrade on.
pub(crate) fn start(line: Arc<Line>, opening: Opening, client: OnUpgrade) {
    /// For the 101 to be written to a client that takes its time.
    const UPGRADE_LIMIT: Duration = Duration::from_secs(30);
    let tasks = line.house.tasks.clone();
    tasks.spawn(async move {
        match tokio::time::timeout(UPGRADE_LIMIT, client).await {
            Ok(Ok(upgraded)) => Box::pin(pump::run(line, opening, upgraded)).await,
            Ok(Err(error)) => tracing::debug!(%error, "the client left during its upgrade"),
            Err(_) => tracing::debug!("the client did not take its 101"),
        }
    });
}
