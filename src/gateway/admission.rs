//! How many handshakes may be unfinished at a gateway at a time, in all and per client address
//! (IPv6: per /64).
//!
//! The gateway refuses the 33rd unauthenticated socket of one address, and every unfinished
//! handshake costs it work just when it has least to spare. Waiting is first come, first served,
//! but an address at its own limit does not hold up the others.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::network::network_of;

/// Hands out permits. Cloning shares the limits.
#[derive(Debug, Clone)]
pub struct HandshakeGate {
    shared: Arc<Mutex<Gate>>,
}

#[derive(Debug)]
struct Gate {
    total_limit: usize,
    per_ip_limit: usize,
    total: usize,
    per_ip: HashMap<IpAddr, usize>,
    waiting: VecDeque<(IpAddr, oneshot::Sender<HandshakePermit>)>,
}

/// One unfinished handshake; given back when dropped.
#[derive(Debug)]
pub struct HandshakePermit {
    gate: HandshakeGate,
    ip: IpAddr,
    counts_in_total: bool,
    live: bool,
}

impl HandshakeGate {
    /// With both limits at least one.
    #[must_use]
    pub fn new(total: usize, per_ip: usize) -> Self {
        let gate = Gate {
            total_limit: total.max(1),
            per_ip_limit: per_ip.max(1),
            total: 0,
            per_ip: HashMap::new(),
            waiting: VecDeque::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(gate)),
        }
    }

    /// Other limits from now on; permits that are out stay.
    pub(super) fn set_limits(&self, total: usize, per_ip: usize) {
        let mut gate = self.lock();
        gate.total_limit = total.max(1);
        gate.per_ip_limit = per_ip.max(1);
        drop(gate);
        self.hand_out();
    }

    /// Waits for a place. Cancel-safe: a dropped wait leaves the queue.
    pub async fn acquire(&self, ip: IpAddr) -> HandshakePermit {
        let ip = network_of(ip);
        loop {
            let wait = {
                let mut gate = self.lock();
                if gate.waiting.is_empty() && gate.try_take(ip) {
                    return self.permit(ip);
                }
                let (give, wait) = oneshot::channel();
                gate.waiting.push_back((ip, give));
                wait
            };
            self.hand_out();
            if let Ok(permit) = wait.await {
                return permit;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(&self, ip: IpAddr) -> HandshakePermit {
        HandshakePermit {
            gate: self.clone(),
            ip,
            counts_in_total: true,
            live: true,
        }
    }

    /// Gives every free place to the first that may have it.
    fn hand_out(&self) {
        // A permit sent to someone who just left comes back here and must not find the lock held.
        let mut unclaimed = Vec::new();
        let mut gate = self.lock();
        let mut passed = 0;
        while let Some(&(ip, _)) = gate.waiting.get(passed) {
            let gone = gate
                .waiting
                .get(passed)
                .is_none_or(|(_, give)| give.is_closed());
            if !gone && gate.total >= gate.total_limit {
                break;
            }
            if !gone && !gate.try_take(ip) {
                passed += 1;
                continue;
            }
            if let (Some((ip, give)), false) = (gate.waiting.remove(passed), gone)
                && let Err(permit) = give.send(self.permit(ip))
            {
                unclaimed.push(permit);
            }
        }
        drop(gate);
        drop(unclaimed);
    }
}

impl Gate {
    fn try_take(&mut self, ip: IpAddr) -> bool {
        let of_ip = self.per_ip.get(&ip).copied().unwrap_or(0);
        if self.total >= self.total_limit || of_ip >= self.per_ip_limit {
            return false;
        }
        self.total += 1;
        self.per_ip.insert(ip, of_ip + 1);
        true
    }

    fn give_back_ip(&mut self, ip: IpAddr) {
        if let Some(count) = self.per_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&ip);
            }
        }
    }
}

impl HandshakePermit {
    /// Stops counting in the total, though still for its address: for a client that is silent
    /// after the challenge, so that a few such cannot keep everybody else out.
    pub fn release_total(&mut self) {
        if self.counts_in_total {
            self.counts_in_total = false;
            self.gate.lock().total -= 1;
            self.gate.hand_out();
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        if !self.live {
            return;
        }
        self.live = false;
        {
            let mut gate = self.gate.lock();
            gate.give_back_ip(self.ip);
            if self.counts_in_total {
                gate.total -= 1;
            }
        }
        self.gate.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    async fn soon(gate: &HandshakeGate, who: u8) -> Option<HandshakePermit> {
        tokio::time::timeout(Duration::from_millis(1), gate.acquire(ip(who)))
            .await
            .ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_at_its_limit_waits_and_others_pass() {
        let gate = HandshakeGate::new(3, 2);
        let first = soon(&gate, 1).await.unwrap();
        let _second = soon(&gate, 1).await.unwrap();
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.acquire(ip(1)).await }
        });
        tokio::task::yield_now().await;
        let _other = soon(&gate, 2).await.unwrap();
        assert!(soon(&gate, 3).await.is_none(), "the total is used up");
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_ipv6_network_count_together() {
        let gate = HandshakeGate::new(3, 1);
        let of = |ip: &str| gate.acquire(ip.parse().unwrap());
        let first = of("2001:db8::1").await;
        let second = tokio::time::timeout(Duration::from_millis(1), of("2001:db8::2"));
        assert!(second.await.is_err());
        let _other = of("2001:db8:0:1::1").await;
        drop(first);
        let _second = of("2001:db8::2").await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_frees_the_total_but_not_the_address() {
        let gate = HandshakeGate::new(1, 1);
        let mut silent = soon(&gate, 1).await.unwrap();
        assert!(soon(&gate, 2).await.is_none());
        silent.release_total();
        silent.release_total();
        let other = soon(&gate, 2).await.unwrap();
        assert!(soon(&gate, 1).await.is_none());
        drop(other);
        assert!(soon(&gate, 1).await.is_none());
        drop(silent);
        assert!(soon(&gate, 1).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_behind_by_those_who_leave() {
        let gate = HandshakeGate::new(2, 2);
        let held: Vec<_> = [soon(&gate, 1).await, soon(&gate, 1).await].into();
        for _ in 0..50 {
            assert!(soon(&gate, 1).await.is_none());
        }
        drop(held);
        let state = gate.lock();
        assert_eq!((state.total, state.per_ip.len()), (0, 0));
        assert!(state.waiting.is_empty());
    }
}
