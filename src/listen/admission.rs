//! Who may come in before anything costs: new connections per second and open connections, per
//! client address; and open connections in all.
//!
//! The table is bounded: an address that has been quiet for a second and has nothing open is
//! forgotten, since it would be admitted anyway.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::complaint::Complaint;
use crate::network::network_of;
use crate::observe::Metrics;
use crate::observe::labels::Refusal;
use crate::protocol::rescue::millis;

/// Most addresses kept count of at a time (some 5 MiB).
const MOST_ADDRESSES: usize = 65_536;

/// The limits in force at the moment of an admission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// New connections per second, also the burst; 0: no limit.
    pub(super) rate: u32,
    /// Open connections at a time.
    pub(super) open: usize,
}

/// Keeps count of client addresses.
#[derive(Debug)]
pub(super) struct Admission {
    table: Mutex<Table>,
    total: AtomicUsize,
    most: usize,
    metrics: Arc<Metrics>,
    complaint: Mutex<Complaint>,
    /// Told whenever a connection ends: descriptors are free again.
    ended: Notify,
}

/// An admitted connection; counts as open until dropped.
#[derive(Debug)]
pub(super) struct Open {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

#[derive(Debug)]
struct Table {
    entries: HashMap<IpAddr, Entry>,
    most: usize,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    /// When the bucket will be full again: the "theoretical arrival time" of a leaky bucket
    /// (GCRA), in the past when it is full.
    full_at: Instant,
    open: usize,
}

/// How many connections our limit of open files leaves for clients. The rest is for gateways, the
/// admin listener and files: without any, nobody could be served, and nobody could look why.
pub(super) fn most_open() -> usize {
    share_of(getrlimit(Resource::Nofile).current)
}

/// Three quarters. Plain connections share the gateway's; sessions, which need one each, have a
/// limit of their own.
fn share_of(descriptors: Option<u64>) -> usize {
    let descriptors = descriptors.and_then(|limit| usize::try_from(limit).ok());
    descriptors.map_or(usize::MAX, |limit| (limit - limit / 4).max(1))
}

// === impl Admission ===

impl Admission {
    /// At most `most` connections are open at a time, whoever's.
    pub(super) fn new(metrics: Arc<Metrics>, most: usize) -> Arc<Self> {
        let table = Table {
            entries: HashMap::new(),
            most: MOST_ADDRESSES,
            swept: None,
        };
        Arc::new(Self {
            table: Mutex::new(table),
            total: AtomicUsize::new(0),
            most,
            metrics,
            complaint: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// Lets a client in, or says why not. Refusals are counted.
    pub(super) fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        quota: Quota,
        now: Instant,
    ) -> Result<Open, Refusal> {
        let address = network_of(client);
        let mut open = self.open(now)?;
        let admitted = self.lock().admit(address, quota, now);
        match admitted {
            Ok(()) => {
                open.address = Some(address);
                Ok(open)
            }
            Err(refusal) => Err(self.refused(refusal, now)),
        }
    }

    /// Lets in what is not counted by address: a trusted proxy.
    pub(super) fn admit_trusted(self: &Arc<Self>, now: Instant) -> Result<Open, Refusal> {
        self.open(now)
    }

    /// Waits until some connection ends.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// One more in all, if there is room.
    fn open(self: &Arc<Self>, now: Instant) -> Result<Open, Refusal> {
        let room = |total: usize| (total < self.most).then_some(total + 1);
        if self.total.fetch_update(Relaxed, Relaxed, room).is_err() {
            return Err(self.refused(Refusal::Full, now));
        }
        self.metrics.connections_open.add(1);
        Ok(Open {
            admission: Arc::clone(self),
            address: None,
        })
    }

    fn refused(&self, refusal: Refusal, now: Instant) -> Refusal {
        self.metrics.connections_refused.inc(refusal);
        let mut complaint = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = complaint.note(refusal, now) {
            drop(complaint);
            tracing::warn!(
                refused = told.count(),
                over_ms = told.over.map(millis),
                limits = told.limits(),
                "connections refused: over a limit"
            );
        }
        refusal
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every critical section leaves the table consistent, so a panic elsewhere is no matter.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.admission.lock().leave(address);
        }
        self.admission.total.fetch_sub(1, Relaxed);
        self.admission.metrics.connections_open.add(-1);
        self.admission.ended.notify_waiters();
    }
}

// === impl Table ===

impl Table {
    fn admit(&mut self, address: IpAddr, quota: Quota, now: Instant) -> Result<(), Refusal> {
        if !self.entries.contains_key(&address) && self.entries.len() >= self.most {
            self.sweep(now);
            if self.entries.len() >= self.most {
                return Err(Refusal::Table);
            }
        }
        let entry = self.entries.entry(address).or_insert(Entry {
            full_at: now,
            open: 0,
        });
        if entry.open >= quota.open {
            return Err(Refusal::Address);
        }
        entry.take(quota.rate, now)?;
        entry.open += 1;
        Ok(())
    }

    fn leave(&mut self, address: IpAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.open = entry.open.saturating_sub(1);
        }
    }

    /// Forgets who would be admitted anyway; not more often than buckets take to fill.
    fn sweep(&mut self, now: Instant) {
        if self
            .swept
            .is_some_and(|last| now < last + Duration::from_secs(1))
        {
            return;
        }
        self.swept = Some(now);
        self.entries
            .retain(|_, entry| entry.open > 0 || entry.full_at > now);
    }
}

// === impl Entry ===

impl Entry {
    fn take(&mut self, rate: u32, now: Instant) -> Result<(), Refusal> {
        if rate == 0 {
            return Ok(());
        }
        let second = Duration::from_secs(1);
        let each = second / rate;
        let full_at = self.full_at.max(now) + each;
        if full_at > now + second {
            return Err(Refusal::Rate);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUOTA: Quota = Quota {
        rate: 20,
        open: 1000,
    };

    fn admission() -> Arc<Admission> {
        Admission::new(Arc::new(Metrics::default()), usize::MAX)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let admission = admission();
        let mut now = Instant::now();
        let mut kept = Vec::new();
        for _ in 0..20 {
            kept.push(admission.admit(ip("192.0.2.1"), QUOTA, now).unwrap());
        }
        assert_eq!(
            admission.admit(ip("192.0.2.1"), QUOTA, now).unwrap_err(),
            Refusal::Rate
        );
        kept.push(admission.admit(ip("192.0.2.2"), QUOTA, now).unwrap());
        now += Duration::from_millis(50);
        kept.push(admission.admit(ip("192.0.2.1"), QUOTA, now).unwrap());
        assert_eq!(
            admission.admit(ip("192.0.2.1"), QUOTA, now).unwrap_err(),
            Refusal::Rate
        );
        assert_eq!(admission.metrics.connections_refused.get(Refusal::Rate), 2);
        assert_eq!(admission.metrics.connections_open.get(), 22);
        drop(kept);
        assert_eq!(admission.metrics.connections_open.get(), 0);
    }

    #[test]
    fn open_connections_count_until_dropped() {
        let admission = admission();
        let quota = Quota { rate: 0, open: 2 };
        let now = Instant::now();
        let first = admission.admit(ip("192.0.2.1"), quota, now).unwrap();
        let _second = admission.admit(ip("::ffff:192.0.2.1"), quota, now).unwrap();
        assert_eq!(
            admission.admit(ip("192.0.2.1"), quota, now).unwrap_err(),
            Refusal::Address
        );
        drop(first);
        admission.admit(ip("192.0.2.1"), quota, now).unwrap();
    }

    #[test]
    fn connections_in_all_are_bounded_whoever_they_are_of() {
        let admission = Admission::new(Arc::new(Metrics::default()), 2);
        let now = Instant::now();
        let refused = || admission.metrics.connections_refused.get(Refusal::Full);
        let first = admission.admit(ip("192.0.2.1"), QUOTA, now).unwrap();
        let _proxy = admission.admit_trusted(now).unwrap();
        let third = admission.admit(ip("192.0.2.2"), QUOTA, now);
        assert_eq!(third.unwrap_err(), Refusal::Full);
        assert_eq!(admission.admit_trusted(now).unwrap_err(), Refusal::Full);
        assert_eq!(refused(), 2);
        drop(first);
        // Whoever is refused for another reason takes no room.
        let none = Quota { rate: 0, open: 0 };
        for _ in 0..3 {
            let refused = admission.admit(ip("192.0.2.3"), none, now);
            assert_eq!(refused.unwrap_err(), Refusal::Address);
        }
        let _fourth = admission.admit(ip("192.0.2.2"), QUOTA, now).unwrap();
    }

    #[test]
    fn clients_have_three_quarters_of_the_descriptors() {
        assert_eq!(share_of(Some(1024)), 768);
        assert_eq!(share_of(Some(1)), 1);
        assert_eq!(share_of(None), usize::MAX);
    }

    #[test]
    fn ipv6_counts_by_network() {
        let admission = admission();
        let quota = Quota { rate: 0, open: 1 };
        let now = Instant::now();
        let _first = admission.admit(ip("2001:db8::1"), quota, now).unwrap();
        let second = admission.admit(ip("2001:db8::2"), quota, now);
        assert_eq!(second.unwrap_err(), Refusal::Address);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_quiet() {
        let mut now = Instant::now();
        let mut table = Table {
            entries: HashMap::new(),
            most: 4,
            swept: None,
        };
        for host in 0..4 {
            table
                .admit(IpAddr::from([192, 0, 2, host]), QUOTA, now)
                .unwrap();
        }
        assert_eq!(
            table.admit(ip("198.51.100.1"), QUOTA, now),
            Err(Refusal::Table)
        );
        table.admit(ip("192.0.2.0"), QUOTA, now).unwrap();
        for host in 1..4 {
            table.leave(IpAddr::from([192, 0, 2, host]));
        }
        now += Duration::from_secs(2);
        table.admit(ip("198.51.100.1"), QUOTA, now).unwrap();
        assert_eq!(table.entries.len(), 2);
    }

    proptest! {
        /// Never more than the burst plus the rate, whatever the pattern.
        #[test]
        fn never_above_the_rate(rate in 1u32..100, gaps in prop::collection::vec(0u64..200, 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut entry = Entry { full_at: start, open: 0 };
            let mut admitted = 0u64;
            for gap in gaps {
                now += Duration::from_millis(gap);
                admitted += u64::from(entry.take(rate, now).is_ok());
                let elapsed = (now - start).as_secs_f64();
                prop_assert!(admitted as f64 <= f64::from(rate) * (1.0 + elapsed) + 1e-3);
            }
        }

        /// Who keeps below the rate is never refused.
        #[test]
        fn never_refuses_who_keeps_to_it(rate in 1u32..100, count in 1usize..300) {
            let mut now = Instant::now();
            let mut entry = Entry { full_at: now, open: 0 };
            for _ in 0..count {
                prop_assert!(entry.take(rate, now).is_ok());
                now += Duration::from_secs(1) / rate;
            }
        }
    }
}
