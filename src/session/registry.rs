//! How many sessions there are, in all and per client address (IPv6: per /64), and what they may keep together.
//!
//! Counts only: who a session is and what it does is elsewhere.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::event::Span;
use crate::config::{Hold, Limits};
use crate::network::network_of;
use crate::protocol::rescue::Cause;

/// All sessions of a running proxy.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<Open>,
    kept: AtomicUsize,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    per_network: HashMap<IpAddr, usize>,
}

/// One counted session; stops counting when dropped.
#[derive(Debug)]
pub struct Admitted {
    sessions: Arc<Sessions>,
    ip: IpAddr,
}

impl Sessions {
    /// Counts one more, from the wait before its 101 on.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(self: &Arc<Self>, ip: IpAddr, limits: &Limits) -> Result<Admitted, Cause> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= limits.sessions {
            return Err(Cause::SessionLimit);
        }
        let of_network = open.per_network.entry(network_of(ip)).or_default();
        if *of_network >= limits.sessions_per_ip {
            return Err(Cause::SessionsPerIp);
        }
        *of_network += 1;
        open.total += 1;
        Ok(Admitted {
            sessions: Arc::clone(self),
            ip,
        })
    }

    /// How many are open or waiting.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .total
    }

    /// Reserves room under the limit for all; whether there was any.
    fn reserve(&self, bytes: usize, limit: usize) -> bool {
        self.kept
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| {
                kept.checked_add(bytes).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }

    /// Client bytes kept in all.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Admitted {
    /// The client's address.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// An empty store for what this session's client says while nobody hears it.
    pub(super) fn kept(&self, hold: &Hold) -> Kept {
        Kept {
            sessions: Arc::clone(&self.sessions),
            bytes: Vec::new(),
            reserved: 0,
            limit: hold.buffer,
            limit_of_all: hold.buffer_total,
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self
            .sessions
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        let network = network_of(self.ip);
        if let Some(of_network) = open.per_network.get_mut(&network) {
            *of_network -= 1;
            if *of_network == 0 {
                open.per_network.remove(&network);
            }
        }
    }
}

/// The client's frames for its next connection, within its own limit and that for all.
#[derive(Debug)]
pub(super) struct Kept {
    sessions: Arc<Sessions>,
    bytes: Vec<u8>,
    /// Counted for us among all; at least what is kept.
    reserved: usize,
    limit: usize,
    limit_of_all: usize,
}

impl Kept {
    /// Other limits from now on; what is over them stays.
    pub(super) fn set_limits(&mut self, hold: &Hold) {
        (self.limit, self.limit_of_all) = (hold.buffer, hold.buffer_total);
    }

    /// Reserves room for a whole frame; gives where it would be.
    pub(super) fn reserve(&mut self, frame: u64) -> Option<Span> {
        let frame = usize::try_from(frame).ok()?;
        let end = self.bytes.len().checked_add(frame)?;
        let fits = end <= self.limit && self.grow(end);
        fits.then_some(Span {
            end: end as u64,
            ..self.behind()
        })
    }

    /// The place behind everything, for what has no length yet.
    pub(super) fn behind(&self) -> Span {
        let end = self.bytes.len() as u64;
        Span { start: end, end }
    }

    /// Gives back what is reserved and was not used.
    pub(super) fn release(&mut self) {
        let unused = self.reserved - self.bytes.len();
        self.reserved -= unused;
        self.sessions.kept.fetch_sub(unused, Ordering::Relaxed);
    }

    /// Keeps bytes; whether the limit for all allowed it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let fits = self.grow(self.bytes.len() + bytes.len());
        if fits {
            self.bytes.extend_from_slice(bytes);
        }
        fits
    }

    /// The first bytes.
    pub(super) fn first(&self, bytes: u64) -> &[u8] {
        self.bytes.get(..self.at_most(bytes)).unwrap_or_default()
    }

    /// Forgets the first bytes. The room for a frame that is still coming stays, unless all goes.
    pub(super) fn forget(&mut self, bytes: u64) {
        let bytes = self.at_most(bytes);
        self.bytes.drain(..bytes);
        self.reserved -= bytes;
        self.sessions.kept.fetch_sub(bytes, Ordering::Relaxed);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
            self.release();
        }
    }

    /// Forgets these frames, given in their order, and the room that was reserved for them. Whether
    /// the rest of the last one is still to come.
    pub(super) fn cut(&mut self, frames: &[Span]) -> bool {
        let (mut left, mut from, mut room) = (Vec::new(), 0, 0);
        for frame in frames {
            let start = self.at_most(frame.start);
            left.extend_from_slice(self.bytes.get(from..start).unwrap_or_default());
            from = self.at_most(frame.end);
            room += frame.end - frame.start;
        }
        left.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
        let all = self.bytes.len() as u64;
        self.bytes = left;
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let room = room.min(self.reserved - self.bytes.len());
        self.reserved -= room;
        self.sessions.kept.fetch_sub(room, Ordering::Relaxed);
        frames.last().is_some_and(|last| last.end > all)
    }

    fn at_most(&self, bytes: u64) -> usize {
        usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len())
    }

    /// Everything, in order.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.bytes);
        self.release();
        bytes
    }

    /// Bytes kept.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the session's own limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= self.limit
    }

    fn grow(&mut self, to: usize) -> bool {
        let more = to.saturating_sub(self.reserved);
        let fits = more == 0 || self.sessions.reserve(more, self.limit_of_all);
        if fits {
            self.reserved += more;
        }
        fits
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn sessions_of_one_ipv6_network_count_together() {
        let config = config::parse("[limits]\nsessions_per_ip = 1", "t");
        let limits = config.unwrap().config.limits;
        let sessions = Arc::new(Sessions::default());
        let admit = |ip: &str| sessions.admit(ip.parse().unwrap(), &limits);
        let first = admit("2001:db8::1").unwrap();
        assert_eq!(admit("2001:db8::2").unwrap_err(), Cause::SessionsPerIp);
        let _other = admit("2001:db8:0:1::1").unwrap();
        drop(first);
        let _next = admit("2001:db8::2").unwrap();
    }

    #[test]
    fn kept_bytes_are_counted_until_they_are_gone() {
        let config = config::parse("[hold]\nbuffer = \"10B\"\nbuffer_total = \"12B\"", "t");
        let config = config.unwrap().config;
        let sessions = Arc::new(Sessions::default());
        let ip = [10, 0, 0, 1].into();
        let admitted = sessions.admit(ip, &config.limits).unwrap();
        let (mut one, mut two) = (admitted.kept(&config.hold), admitted.kept(&config.hold));
        assert_eq!(one.reserve(11), None, "over its own limit");
        assert_eq!(one.reserve(8), Some(Span { start: 0, end: 8 }));
        assert!(one.push(b"12345678") && sessions.kept() == 8);
        assert_eq!(two.reserve(5), None, "over the limit for all");
        assert_eq!(two.reserve(4), Some(Span { start: 0, end: 4 }));
        two.release();
        assert_eq!(sessions.kept(), 8);
        // A frame of two bytes is coming, and half of it is here, when the first ones go.
        assert_eq!(one.reserve(2), Some(Span { start: 8, end: 10 }));
        assert!(one.push(b"9"));
        assert_eq!(one.first(6), b"123456");
        one.forget(6);
        assert_eq!((one.first(9), sessions.kept()), (&b"789"[..], 4));
        one.forget(u64::MAX);
        assert_eq!(sessions.kept(), 0);
        // One frame is here, half of another, and neither is wanted; what is between them stays.
        let mut frame = |bytes: &[u8], length| {
            let place = one.reserve(length).unwrap();
            assert!(one.push(bytes));
            place
        };
        let (first, _, last) = (frame(b"123", 3), frame(b"45", 2), frame(b"67", 4));
        assert!(one.cut(&[first, last]), "the rest of the last is to come");
        assert_eq!((one.first(9), sessions.kept()), (&b"45"[..], 2));
        one.forget(2);
        assert!(one.push(b"12345678"));
        assert_eq!(one.take(), b"12345678");
        assert!(two.push(b"abc"));
        drop((one, two));
        assert_eq!(sessions.kept(), 0);
        drop(admitted);
        assert_eq!(sessions.count(), 0);
    }
}
