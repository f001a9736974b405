//! Takes away what was left over at name servers: when there is a config, and again until nothing is
//! left that can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::Wanted;
use crate::tls::acme::dns::tidy;
use crate::tls::acme::underway::Underway;

/// Between two attempts; doubles. What is given up after a week bounds their number.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(3600);

/// Until nobody wants anything any more, or another process has taken over.
pub(super) async fn keep_tidy(
    mut wants: watch::Receiver<Wanted>,
    retired: Arc<AtomicBool>,
    underway: Underway,
) {
    let mut pause = SHORTEST;
    let mut tell = true;
    while !retired.load(Ordering::Relaxed) {
        let wanted = wants.borrow_and_update().clone();
        let again = match wanted.acme.filter(|_| wanted.begun) {
            Some(acme) => tidy(&acme, &underway, tell).await,
            None => false,
        };
        tokio::select! {
            changed = wants.changed() => match changed {
                Ok(()) => (pause, tell) = (SHORTEST, true),
                Err(_) => return,
            },
            () = sleep(pause), if again => (pause, tell) = (LONGEST.min(pause * 2), false),
        }
    }
}
