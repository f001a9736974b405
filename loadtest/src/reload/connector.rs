//! New clients during the reloads: each connects, says something, hears it, and leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::message::{Message, check};
use crate::session::Dialer;
use crate::url::Url;

/// Between two of the same task.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(15);

/// How new sessions fared.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connects {
    /// Tried.
    pub tried: usize,
    /// Did not come to an echo, by cause.
    pub failed: BTreeMap<String, usize>,
    /// The slowest that did, in milliseconds.
    pub slowest_ms: f64,
}

impl Connects {
    /// All failures.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.failed.values().sum()
    }
}

pub(super) struct Connectors {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Connects>,
}

pub(super) fn start(dialer: &Dialer, url: &Url, count: usize) -> Connectors {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(keep_connecting(
            dialer.clone(),
            url.clone(),
            stopped.clone(),
        ));
    }
    Connectors { stop, tasks }
}

impl Connectors {
    /// What all of them saw. An attempt under way is brought to its end.
    pub(super) async fn stop(self) -> Connects {
        self.stop.send_replace(true);
        let mut all = Connects::default();
        for one in self.tasks.join_all().await {
            all.tried += one.tried;
            all.slowest_ms = all.slowest_ms.max(one.slowest_ms);
            for (cause, count) in one.failed {
                *all.failed.entry(cause).or_default() += count;
            }
        }
        all
    }
}

async fn keep_connecting(dialer: Dialer, url: Url, stopped: watch::Receiver<bool>) -> Connects {
    let mut seen = Connects::default();
    while !*stopped.borrow() {
        let began = Instant::now();
        seen.tried += 1;
        match once(&dialer, &url, seen.tried).await {
            Ok(()) => {
                let took = began.elapsed().as_secs_f64() * 1000.0;
                seen.slowest_ms = seen.slowest_ms.max(took);
            }
            Err(cause) => *seen.failed.entry(cause).or_default() += 1,
        }
        sleep(PAUSE).await;
    }
    seen
}

async fn once(dialer: &Dialer, url: &Url, turn: usize) -> Result<(), String> {
    let mut session = dialer.open(url).await.map_err(|error| error.cause())?;
    // Small ones only: what is looked at here is the way in.
    let number = turn as u64 * 4 + 1;
    let message = Message::new(0, number);
    let echo = async {
        session.ws.send(message.opcode, &message.payload).await?;
        let got = session.ws.next().await?;
        Ok(check(0, number, got.opcode, got.payload).is_ok())
    };
    let echoed: Result<Result<bool, crate::ws::WsError>, _> = timeout(PATIENCE, echo).await;
    match echoed {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return Err("wrong echo".to_owned()),
        Ok(Err(end)) => return Err(format!("closed {} before its echo", end.code())),
        Err(_) => return Err("no echo".to_owned()),
    }
    session.bye().await;
    Ok(())
}
