//! Which refusals get a line of their own in the log: the first few of a network, for each reason,
//! and not more than a few hundred in a minute. Pure: time comes in.
//!
//! Anybody can be refused as often as they like; the disk must not be theirs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(60);
/// Lines of one network for one reason in a window.
const FEW: u32 = 5;
/// Lines in a window.
const MOST: u32 = 200;

/// Counts them.
#[derive(Debug)]
pub(super) struct Refusals {
    began: Instant,
    written: u32,
    /// Never more than lines were written.
    by: HashMap<(IpAddr, &'static str), u32>,
    left_out: u64,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The line of this one.
    pub(super) write: bool,
    /// That so many had none.
    pub(super) left_out: Option<u64>,
}

impl Refusals {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            written: 0,
            by: HashMap::new(),
            left_out: 0,
        }
    }

    /// One more.
    pub(super) fn look(&mut self, network: IpAddr, because: &'static str, now: Instant) -> Verdict {
        let mut left_out = None;
        if now.saturating_duration_since(self.began) >= WINDOW {
            left_out = Some(self.left_out).filter(|count| *count > 0);
            *self = Self::new(now);
        }
        let key = (network, because);
        let already = self.by.get(&key).copied().unwrap_or_default();
        let write = already < FEW && self.written < MOST;
        if write {
            self.written += 1;
            self.by.insert(key, already + 1);
        } else {
            self.left_out += 1;
        }
        Verdict { write, left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn the_first_few_of_everybody_are_written_and_the_rest_are_counted() {
        let now = Instant::now();
        let mut refusals = Refusals::new(now);
        let mut lines = |network: IpAddr, because| {
            let looks = (0..1_000).map(|_| refusals.look(network, because, now).write);
            looks.filter(|write| *write).count() as u32
        };
        assert_eq!(lines(network(1), "a"), FEW);
        assert_eq!(lines(network(1), "b"), FEW, "for another reason");
        assert_eq!(lines(network(2), "a"), FEW);
        let later = refusals.look(network(1), "a", now + WINDOW);
        let left_out = Some(3 * u64::from(1_000 - FEW));
        assert_eq!((later.write, later.left_out), (true, left_out));
        let next = refusals.look(network(1), "a", now + 2 * WINDOW);
        assert_eq!((next.write, next.left_out), (true, None));
    }

    #[test]
    fn however_many_networks_there_are_it_is_bounded() {
        let now = Instant::now();
        let mut refusals = Refusals::new(now);
        let looks = (0..10_000).map(|number| refusals.look(network(number), "a", now).write);
        assert_eq!(looks.filter(|write| *write).count() as u32, MOST);
        assert_eq!(refusals.by.len(), MOST as usize);
    }
}
