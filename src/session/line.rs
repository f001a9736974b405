//! A route as its sessions see it: its gateway, the terms on which they are held, and where they
//! go on once a reload has put another line in its place.
//!
//! No session is touched here: each finds its next line by itself ([`super::follow`]).

use std::sync::{Arc, OnceLock, Weak};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::outage::Outage;
use crate::config::{Config, Hold, Limits, ProtocolKind, Route, Upstream};
use crate::gateway::Gateway;
use crate::observe::Metrics;

/// What all sessions share, whatever the config says.
#[derive(Debug, Clone)]
pub(crate) struct House {
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when holdline stops.
    pub(crate) stopping: CancellationToken,
    /// Every session's task.
    pub(crate) tasks: TaskTracker,
}

/// A route under one config.
#[derive(Debug)]
pub(crate) struct Line {
    /// The route's name, for logs.
    pub(crate) route: String,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) upstream: Upstream,
    pub(crate) hold: Hold,
    pub(crate) limits: Limits,
    pub(crate) house: House,
    /// What the log says of an outage; the same for all lines of the route.
    pub(super) outage: Arc<Outage>,
    next: OnceLock<Arc<Self>>,
}

impl Line {
    /// Whether the protocol begins with a message of the gateway.
    pub(crate) fn speaks_first(&self) -> bool {
        self.upstream.protocol == ProtocolKind::Openclaw
    }

    /// The line that is in force in place of this one, if it is another.
    pub(crate) fn newer(&self) -> Option<&Arc<Self>> {
        let mut newest = self.next.get()?;
        while let Some(next) = newest.next.get() {
            newest = next;
        }
        Some(newest)
    }

    /// Waits until the place of this line's gateway is taken by another one; the line that says so.
    pub(crate) async fn moved(&self) -> Arc<Self> {
        let elsewhere = || {
            self.newer()
                .filter(|newer| !Arc::ptr_eq(&newer.gateway, &self.gateway))
        };
        self.gateway.wait_for(|_| elsewhere().is_some()).await;
        match elsewhere() {
            Some(line) => Arc::clone(line),
            None => std::future::pending().await,
        }
    }
}

/// Lines that are not in force any more, each with the one in its place.
#[must_use = "nobody has been sent on yet"]
pub(crate) struct HandOver(Vec<(Arc<Line>, Arc<Line>)>);

impl HandOver {
    /// Sends the sessions on, whenever each looks next. Whoever is not let in any more has to know
    /// it before.
    pub(crate) fn begin(self) {
        for (line, heir) in self.0 {
            // Set once: a line is handed over by one reload only.
            let _ = line.next.set(heir);
        }
    }
}

/// The lines of one config.
#[derive(Debug)]
pub(crate) struct Lines {
    /// In the order of the config's routes.
    current: Vec<Arc<Line>>,
    /// Of earlier configs: routes that are gone, for the sessions that are still there.
    left: Vec<Weak<Line>>,
    /// Every gateway that a session may still be at.
    seen: Vec<Weak<Gateway>>,
    house: House,
}

impl Lines {
    /// For the first config. Begins to watch the gateways: one per address and way to be asked.
    pub(crate) fn new(config: &Config, house: House) -> Self {
        let nobody = Self {
            current: Vec::new(),
            left: Vec::new(),
            seen: Vec::new(),
            house,
        };
        nobody.succeeded_by(config)
    }

    /// In the order of the config's routes.
    pub(crate) fn current(&self) -> &[Arc<Line>] {
        &self.current
    }

    /// Lines for another config, whose gateways are the same ones where their addresses are, and
    /// are told of their new terms. Nobody goes over to them before [`HandOver::begin`].
    pub(crate) fn succeeded_by(&self, config: &Config) -> Self {
        let gateways = self.gateways(config);
        let seen = self.seen.iter().filter_map(Weak::upgrade);
        let mut seen: Vec<_> = seen.chain(gateways.iter().cloned()).collect();
        seen.sort_by_key(Arc::as_ptr);
        seen.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let line = |(route, gateway): (&Route, Arc<Gateway>)| {
            let before = self.current.iter().find(|line| line.route == route.name);
            Arc::new(Line {
                outage: before.map_or_else(Arc::default, |line| Arc::clone(&line.outage)),
                route: route.name.clone(),
                gateway,
                upstream: route.upstream.clone(),
                hold: config.hold.clone(),
                limits: config.limits.clone(),
                house: self.house.clone(),
                next: OnceLock::new(),
            })
        };
        Self {
            current: config.routes.iter().zip(gateways).map(line).collect(),
            left: Vec::new(),
            seen: seen.iter().map(Arc::downgrade).collect(),
            house: self.house.clone(),
        }
    }

    /// Where every session of these lines goes on in `next`: at the route of the same name, unless
    /// its protocol is another; else it stays with its gateway, under the new terms. Nobody goes
    /// before [`HandOver::begin`].
    pub(crate) fn hand_over(&self, next: &mut Self, config: &Config) -> HandOver {
        let left = self.left.iter().filter_map(Weak::upgrade);
        let old: Vec<Arc<Line>> = self.current.iter().cloned().chain(left).collect();
        let heir = |line: Arc<Line>| {
            let heir = next.current.iter().find(|heir| {
                heir.route == line.route && heir.upstream.protocol == line.upstream.protocol
            });
            let heir = heir.cloned().unwrap_or_else(|| {
                let left = Arc::new(line.left_alone(config));
                next.left.push(Arc::downgrade(&left));
                left
            });
            (line, heir)
        };
        HandOver(old.into_iter().map(heir).collect())
    }

    /// Makes every session of these lines look where it belongs.
    pub(crate) fn nudge(&self) {
        for gateway in self.seen.iter().filter_map(Weak::upgrade) {
            gateway.nudge();
        }
    }

    /// One gateway per upstream; routes that name the same one share it.
    fn gateways(&self, config: &Config) -> Vec<Arc<Gateway>> {
        let mut known: Vec<(&Upstream, Arc<Gateway>)> = Vec::new();
        let wanted: Vec<&Upstream> = config.routes.iter().map(|route| &route.upstream).collect();
        let mut gateways = Vec::with_capacity(wanted.len());
        for upstream in &wanted {
            let same = known.iter().find(|(same, _)| same == upstream);
            let gateway = match same {
                Some((_, gateway)) => Arc::clone(gateway),
                None => {
                    let gateway = self.find(upstream, &wanted, &known);
                    let gateway = match gateway {
                        Some(gateway) => {
                            gateway.retune((*upstream).clone(), &config.hold);
                            gateway
                        }
                        None => {
                            let metrics = &self.house.metrics;
                            Gateway::start((*upstream).clone(), &config.hold, metrics)
                        }
                    };
                    known.push((upstream, Arc::clone(&gateway)));
                    gateway
                }
            };
            gateways.push(gateway);
        }
        gateways
    }

    /// The gateway of ours that is `upstream`: the very same, or one at the same address that no
    /// other route wants as it was.
    fn find(
        &self,
        upstream: &Upstream,
        wanted: &[&Upstream],
        taken: &[(&Upstream, Arc<Gateway>)],
    ) -> Option<Arc<Gateway>> {
        let free = |gateway: &Arc<Gateway>| !taken.iter().any(|(_, one)| Arc::ptr_eq(one, gateway));
        let mut ours = self.seen.iter().filter_map(Weak::upgrade).filter(free);
        let same = ours
            .clone()
            .find(|gateway| *gateway.upstream() == *upstream);
        same.or_else(|| {
            ours.find(|gateway| {
                let as_it_was = gateway.upstream();
                gateway.is(upstream) && !wanted.contains(&&*as_it_was)
            })
        })
    }
}

impl Line {
    /// For sessions of a route that is gone.
    fn left_alone(&self, config: &Config) -> Self {
        Self {
            route: self.route.clone(),
            gateway: Arc::clone(&self.gateway),
            upstream: self.upstream.clone(),
            hold: config.hold.clone(),
            limits: config.limits.clone(),
            house: self.house.clone(),
            outage: Arc::clone(&self.outage),
            next: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn house() -> House {
        House {
            metrics: Arc::new(Metrics::default()),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    fn parse(text: &str) -> Config {
        config::parse(text, "t").unwrap().config
    }

    fn reload(lines: &Lines, text: &str) -> Lines {
        let config = parse(text);
        let mut next = lines.succeeded_by(&config);
        lines.hand_over(&mut next, &config).begin();
        lines.nudge();
        next
    }

    #[tokio::test]
    async fn a_gateway_stays_the_same_however_it_is_asked() {
        let first = Lines::new(&parse("[gateway]\nurl = \"http://127.0.0.1:9\""), house());
        let second = reload(
            &first,
            "[gateway]\nurl = \"http://127.0.0.1:9\"\nprobe = \"tcp\"\n[hold]\nresume = \"off\"",
        );
        let (old, new) = (&first.current()[0], &second.current()[0]);
        assert!(Arc::ptr_eq(&old.gateway, &new.gateway));
        assert!(Arc::ptr_eq(&old.outage, &new.outage), "one outage is two");
        assert_eq!(new.gateway.upstream().probe, config::Probe::Tcp);
        assert!(Arc::ptr_eq(old.newer().unwrap(), new));
    }

    #[tokio::test]
    async fn another_address_is_another_gateway_and_says_so_to_who_waits() {
        let first = Lines::new(&parse("[gateway]\nurl = \"http://127.0.0.1:9\""), house());
        let old = Arc::clone(&first.current()[0]);
        let waiting = tokio::spawn(async move { old.moved().await });
        tokio::task::yield_now().await;
        let second = reload(&first, "[gateway]\nurl = \"http://127.0.0.1:19\"");
        let third = reload(&second, "[gateway]\nurl = \"http://127.0.0.1:29\"");
        let line = waiting.await.unwrap();
        assert!(!Arc::ptr_eq(&line.gateway, &first.current()[0].gateway));
        let newest = first.current()[0].newer().unwrap();
        assert!(Arc::ptr_eq(newest, &third.current()[0]));
    }

    /// A route that is gone keeps its sessions, and their terms go on being the config's.
    #[tokio::test]
    async fn sessions_of_a_route_that_is_gone_stay_where_they_are() {
        let both = "[gateway]\nurl = \"http://127.0.0.1:9\"\n[[route]]\npath = \"/x\"\nurl = \"http://127.0.0.1:19\"";
        let one = "[gateway]\nurl = \"http://127.0.0.1:9\"";
        let first = Lines::new(&parse(both), house());
        let route = Arc::clone(&first.current()[0]);
        let second = reload(&first, one);
        let third = reload(&second, &format!("{one}\n[hold]\nmax = \"1m\""));
        let left = Arc::clone(route.newer().unwrap());
        assert!(Arc::ptr_eq(&left.gateway, &route.gateway));
        assert_eq!(left.hold.max.as_secs(), 60);
        let fourth = reload(&third, both);
        assert!(Arc::ptr_eq(route.newer().unwrap(), &fourth.current()[0]));
        // Nobody holds on to what is left of a route once its sessions are gone.
        let gone = reload(&fourth, one);
        let last = Arc::downgrade(&route);
        drop((first, second, third, fourth, left, route));
        assert!(last.upgrade().is_none());
        assert!(reload(&gone, one).left.is_empty());
    }

    /// By its name a session finds where it goes on.
    #[tokio::test]
    async fn a_host_that_is_called_default_is_not_the_default_route() {
        let text = "[gateway]\nurl = \"http://127.0.0.1:9\"\n[[route]]\nhost = \"default\"\nurl = \"http://127.0.0.1:19\"";
        let first = Lines::new(&parse(text), house());
        let second = reload(&first, text);
        for (old, new) in first.current().iter().zip(second.current()) {
            assert!(Arc::ptr_eq(old.newer().unwrap(), new), "{}", old.route);
        }
    }

    #[tokio::test]
    async fn another_protocol_is_for_new_sessions() {
        let text = "[gateway]\nurl = \"http://127.0.0.1:9\"\nprotocol = ";
        let first = Lines::new(&parse(&format!("{text}\"openclaw\"")), house());
        let second = reload(&first, &format!("{text}\"generic\""));
        let (old, new) = (&first.current()[0], &second.current()[0]);
        assert!(!Arc::ptr_eq(&old.gateway, &new.gateway));
        assert!(Arc::ptr_eq(&old.newer().unwrap().gateway, &old.gateway));
    }
}
