//! Everything that a config comes to in a running proxy, replaced whole while it runs.
//!
//! First all that can fail is made ready aside; then it is taken in steps that cannot. Whoever is
//! connected stays so: sessions find their next line by themselves, connections outlive their door.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::ReloadError;
use crate::auth::Desk;
use crate::config::Config;
use crate::http::forward::Forwarder;
use crate::http::upgrade::Switchboard;
use crate::http::{Gate, Table};
use crate::listen::{BindError, Changes, Doors, Edge, Inherited, Listener, Share};
use crate::observe::AdminDoor;
use crate::session::{House, Lines, Sessions};
use crate::tls;
use crate::tls::acme::AcmeKeeper;

/// What is in force.
#[derive(Debug)]
pub(crate) struct InForce {
    swapped: Swapped,
    doors: Doors,
    admin: AdminDoor,
    /// Whoever judges by more than one part of [`Swapped`] sees all of the same config.
    turning: Mutex<()>,
}

/// What is looked up anew for every connection, request or decision.
#[derive(Debug)]
pub(crate) struct Swapped {
    pub(crate) table: Arc<ArcSwap<Table>>,
    pub(crate) lines: Arc<ArcSwap<Lines>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) keeper: Arc<AcmeKeeper>,
    pub(crate) edge: Edge,
}

/// Another config, made ready.
pub(super) struct Prepared {
    config: Arc<Config>,
    tls: tls::Prepared,
    desk: Option<Desk>,
    /// Not for a process that has handed its listeners over.
    bound: Option<Bound>,
}

/// Listeners that serve nobody yet.
#[derive(Debug)]
pub(crate) struct Bound {
    doors: Changes,
    admin: Option<Listener>,
}

/// The table of the first config, and the lines that it leads to.
pub(crate) fn first_table(
    config: &Arc<Config>,
    house: House,
    sessions: &Arc<Sessions>,
) -> (Arc<ArcSwap<Table>>, Arc<ArcSwap<Lines>>) {
    let lines = Arc::new(Lines::new(config, house));
    let forwarders = lines
        .current()
        .iter()
        .map(|line| Forwarder::new(Arc::clone(&line.gateway)));
    let upgrades = Switchboard::new(Arc::clone(&lines), Arc::clone(sessions));
    let table = Table::new(Arc::clone(config), forwarders.collect(), Box::new(upgrades));
    (
        Arc::new(ArcSwap::from_pointee(table)),
        Arc::new(ArcSwap::new(lines)),
    )
}

impl InForce {
    /// With every door closed.
    pub(crate) fn new(swapped: Swapped, doors: Doors, admin: AdminDoor) -> Self {
        Self {
            swapped,
            doors,
            admin,
            turning: Mutex::default(),
        }
    }

    /// Binds every address of the config, or takes what was inherited for it.
    ///
    /// # Errors
    /// The first address that cannot be had; nothing is bound then.
    pub(crate) fn bind(&self, inherited: &mut Inherited) -> Result<Bound, BindError> {
        let config = self.config();
        Ok(Bound {
            doors: self.doors.prepare(&config.listen, &[], inherited)?,
            admin: self.admin.prepare(config.admin.listen, &[], inherited)?,
        })
    }

    /// Serves there.
    pub(crate) fn open(&self, bound: Bound) {
        self.doors.apply(bound.doors);
        self.admin.apply(self.config().admin.listen, bound.admin);
    }

    /// Every listening socket again, for the process that takes our place.
    ///
    /// # Errors
    /// When there is no descriptor left for one.
    pub(crate) fn shares(&self) -> io::Result<Vec<Share>> {
        let mut shares = self.doors.shares()?;
        shares.extend(self.admin.share()?);
        Ok(shares)
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(self.swapped.table.load().config())
    }

    pub(crate) fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Where the admin listener is.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.admin.address()
    }

    /// Reads and binds what `config` names; nothing changes yet. Nothing is bound when nobody waits
    /// for it any more.
    pub(super) fn prepare(
        &self,
        config: Config,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Prepared, ReloadError> {
        let old = self.config();
        let tls = self.swapped.edge.tls.prepare(&config.tls)?;
        let desk = self.swapped.gate.prepare(&old.auth, &config.auth)?;
        // Last, for whoever connects from here on is not to be let down.
        let bound = match self.swapped.edge.leave.is_cancelled() || !wanted() {
            true => None,
            false => {
                let none = &mut Inherited::default();
                // An address may go from one to the other.
                let mut leaving = self.doors.leaving(&config.listen);
                leaving.extend(self.admin.leaving(config.admin.listen));
                let admin = self.admin.prepare(config.admin.listen, &leaving, none)?;
                let doors = self.doors.prepare(&config.listen, &leaving, none)?;
                Some(Bound { doors, admin })
            }
        };
        Ok(Prepared {
            config: Arc::new(config),
            tls,
            desk,
            bound,
        })
    }

    /// Takes it. How many sessions ended because whoever they are may not be here any more.
    pub(super) fn take(&self, prepared: Prepared) -> usize {
        let Prepared {
            config,
            tls,
            desk,
            bound,
        } = prepared;
        let Swapped {
            table: current_table,
            lines: current_lines,
            sessions,
            gate,
            keeper,
            edge,
        } = &self.swapped;
        let (old_table, old_lines) = (current_table.load_full(), current_lines.load_full());
        let mut lines = old_lines.succeeded_by(&config);
        let forwarders = lines.current().iter().map(|line| {
            let same = old_lines.current().iter().zip(old_table.forwarders());
            let mut same = same.filter(|(old, _)| Arc::ptr_eq(&old.gateway, &line.gateway));
            same.next().map_or_else(
                || Forwarder::new(Arc::clone(&line.gateway)),
                |(_, forwarder)| forwarder.clone(),
            )
        });
        let forwarders: Vec<Forwarder> = forwarders.collect();
        let hand_over = old_lines.hand_over(&mut lines, &config);
        let lines = Arc::new(lines);
        let upgrades = Switchboard::new(Arc::clone(&lines), Arc::clone(sessions));
        let table = Table::new(Arc::clone(&config), forwarders, Box::new(upgrades));
        // It must not publish what is not wanted any more after the others have been. Its
        // answer is not waited for while turning: a sweep may wait for that on the keeper's thread.
        if config.acme.is_none() {
            keeper.configure(None);
        }
        let turning = self.turning();
        current_table.store(Arc::new(table));
        current_lines.store(lines);
        edge.config.store(Arc::clone(&config));
        edge.tls.apply(tls);
        let before = &old_table.config().auth;
        let ended = gate.turn(desk, before, &config.auth);
        // No session goes to another gateway for somebody who has just been put out.
        hand_over.begin();
        drop(turning);
        if let Some(acme) = &config.acme {
            keeper.configure(Some(acme.clone()));
        }
        if let Some(bound) = bound {
            self.doors.apply(bound.doors);
            self.admin.apply(config.admin.listen, bound.admin);
        }
        // Every open session, and whoever waits for a gateway that is not the one any more.
        old_lines.nudge();
        ended
    }

    /// Waits until nobody can connect any more where a listener was taken away.
    pub(super) async fn closed(&self) {
        tokio::join!(self.doors.closed(), self.admin.closed());
    }

    /// Ends the sessions of whom another process signed out.
    pub(super) fn sweep(&self) {
        let _turning = self.turning();
        let config = self.config();
        if config.auth.is_on() {
            self.swapped.gate.sweep(&config.auth);
        }
    }

    fn turning(&self) -> MutexGuard<'_, ()> {
        self.turning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
