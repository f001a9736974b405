//! All certificates together: what is on disk, what is served, and what is to be started.
//!
//! Owned by the keeper's task, which lends it to a thread that may wait for disks. Decides by `plan`,
//! starts nothing itself.

mod begin;
mod finish;
mod health;
mod read;
mod serve;

pub(super) use self::serve::{meanwhile, on_disk_for};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::read::Reading;
use super::challenge::Challenges;
use super::history::{Health, Renewal};
use super::import::Left;
use super::kept::{Busy, Kept, covers, is_valid, same_names};
use super::moment::Moment;
use super::order::Job;
use super::plan::{Next, Why};
use super::problem::Failure;
use super::stand_in;
use super::state::{Locked, StateDir, StateError};
use super::status::CertificateStatus;
use crate::config::Acme;
use crate::tls::store::Generation;
use crate::tls::{CertStore, Certificate};

/// Orders at a time; a CA has its limits, and a hook may not bear more.
const ORDERS: usize = 4;
/// Questions when to renew at a time.
const QUESTIONS: usize = 8;
/// How long another instance is left to its order before it is looked after again.
const ELSEWHERE: u64 = 5;
/// Clocks are set and machines sleep: whatever is planned is looked at again this often.
const LOOK_EVERY: u64 = 60;
/// A disk or a lock that holds one certificate up holds up the others: they are left to the next
/// look then.
const LOOK_FOR: Duration = Duration::from_secs(2);

/// What is to be started.
pub(super) enum Start {
    Order(Box<Job>, Locked),
    /// Ask this CA when it wants this certificate renewed.
    Renewal {
        folder: String,
        ca: String,
        certificate: String,
        /// Where it has said why, so far.
        explained: Option<String>,
        acme: Arc<Acme>,
    },
}

/// What has come of it.
pub(super) enum Done {
    Order {
        folder: String,
        /// Where it was begun.
        state: StateDir,
        names: Vec<String>,
        /// Cancelled: the state directory is another one now.
        moved: CancellationToken,
        ca: String,
        result: Result<Zeroizing<Vec<u8>>, Failure>,
        /// The CA was asked to sign.
        signed: bool,
        lock: Locked,
    },
    Renewal {
        folder: String,
        certificate: String,
        result: Result<Renewal, Failure>,
    },
}

/// The certificates of one config.
pub(super) struct Desk {
    store: Arc<CertStore>,
    challenges: Arc<Challenges>,
    acme: Option<Arc<Acme>>,
    kept: Vec<Kept>,
    health: HashMap<String, Health>,
    /// Served before ACME was turned on: until there is something better.
    before: Vec<Certificate>,
    /// Of other groups of names than those that are kept: served for what they cover until the
    /// certificate for that is there.
    outgoing: Vec<Certificate>,
    /// Whether CAs may be asked already.
    begun: bool,
    /// By the folder of what they stand for, with the names that are covered by nothing else.
    stand_ins: HashMap<String, (Vec<String>, Certificate)>,
    /// What could be served when it was published last, by the time.
    shown: Vec<bool>,
    /// Of the config: what is published for another one comes too late.
    generation: Generation,
    reading: Reading,
    /// What has failed so far was tried in another way than would be now.
    mended: bool,
    /// By other servers; as long as something is read.
    left: Left,
    /// Another process orders.
    retired: Arc<AtomicBool>,
    /// The state directory of now, or of before ACME was turned off.
    place: Option<PathBuf>,
    /// Ends the orders of this state directory.
    moved: CancellationToken,
    /// Orders that have not come to their end.
    under_way: usize,
    /// Those of another state directory, which have been told to end.
    leaving: usize,
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(
        store: Arc<CertStore>,
        challenges: Arc<Challenges>,
        retired: Arc<AtomicBool>,
    ) -> Self {
        Self {
            store,
            challenges,
            acme: None,
            kept: Vec::new(),
            health: HashMap::new(),
            before: Vec::new(),
            outgoing: Vec::new(),
            begun: false,
            stand_ins: HashMap::new(),
            shown: Vec::new(),
            generation: Generation::default(),
            reading: Reading::Done,
            mended: false,
            left: Left::default(),
            retired,
            place: None,
            moved: CancellationToken::new(),
            under_way: 0,
            leaving: 0,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.acme.is_some()
    }

    /// From now on CAs may be asked: they can reach us.
    pub(super) fn begin_ordering(&mut self) {
        self.begun = true;
    }

    fn state(&self) -> Option<StateDir> {
        self.acme
            .as_ref()
            .map(|acme| StateDir::new(&acme.state_dir))
    }

    /// What is published from now on counts as of this config.
    pub(super) fn publish_as(&mut self, generation: Generation) {
        self.generation = generation;
    }

    /// Keeps these certificates from now on, and serves what there is of them in memory. Waits for
    /// no disk: what is there is read by [`Self::read_next`].
    pub(super) fn adopt(&mut self, acme: Option<Acme>) {
        let Some(acme) = acme else {
            self.challenges.share(None);
            self.acme = None;
            self.kept.clear();
            self.before.clear();
            self.outgoing.clear();
            self.stand_ins.clear();
            self.reading = Reading::Done;
            return;
        };
        if self.acme.is_none() {
            self.take_over(&acme);
        }
        let before = self.place.replace(acme.state_dir.clone());
        let moved = before.is_some_and(|before| before != acme.state_dir);
        if moved {
            self.leave();
        }
        self.mended |= self.acme.as_ref().is_some_and(|old| differs(old, &acme));
        self.challenges.share(Some(&acme));
        let mut old = std::mem::take(&mut self.kept);
        for names in &acme.certificates {
            let known = old
                .iter()
                .position(|kept| same_names(&kept.names, names) && !moved);
            self.kept.push(match known {
                Some(index) => old.swap_remove(index),
                None => Kept::new(names),
            });
        }
        self.outgoing
            .extend(old.into_iter().filter_map(|kept| kept.certificate));
        self.acme = Some(Arc::new(acme));
        self.reading = Reading::Begun;
        self.left = Left::default();
        self.publish(Moment::now());
    }

    /// The state directory is another one: orders that are under way are ended, and what has come of
    /// them is written where they began. Until then there are no others.
    fn leave(&mut self) {
        self.leaving = self.under_way;
        std::mem::take(&mut self.moved).cancel();
    }

    /// What is served when ACME is turned on, or was when a keeper before this one panicked.
    fn take_over(&mut self, acme: &Acme) {
        let is_real = |one: &Certificate| one.facts().source != stand_in::SOURCE;
        let (ours, before) = self
            .store
            .all()
            .into_iter()
            .filter(is_real)
            .partition(|one| acme.certificates.iter().flatten().any(|it| covers(one, it)));
        (self.outgoing, self.before) = (ours, before);
    }

    /// Renews this one, or all, as soon as the CAs allow. What is concerned, and of each what comes of
    /// it.
    ///
    /// # Errors
    /// Why not, if that is so of all.
    pub(super) fn renew(&mut self, name: Option<&str>) -> Result<Vec<CertificateStatus>, String> {
        let Some(state) = self.state() else {
            return Err(
                "certificates do not come from a CA here; see [tls] certificate".to_owned(),
            );
        };
        let now = Moment::now();
        let concerned =
            |kept: &Kept| name.is_none_or(|name| kept.names.iter().any(|it| it == name));
        let (mut told, mut refused) = (Vec::new(), Vec::new());
        for index in 0..self.kept.len() {
            if !self.kept.get(index).is_some_and(concerned) {
                continue;
            }
            let asked = self.ask_for(index, &state, now);
            let Some(kept) = self.kept.get(index) else {
                continue;
            };
            let mut one = self.told(kept, now);
            if let Err(reason) = asked {
                refused.push(format!("{}: {reason}", kept.names.join(" ")));
                one.next = format!("is not renewed now: {reason}");
            }
            told.push(one);
        }
        if !told.is_empty() && refused.len() == told.len() {
            return Err(refused.join("\n"));
        }
        match (name, told.is_empty()) {
            (Some(name), true) => Err(format!(
                "{name} is in no certificate; there are {}",
                self.kept
                    .iter()
                    .flat_map(|it| it.names.clone())
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
            _ => Ok(told),
        }
    }

    /// Whether a process that takes the place of this one finds everything that is served. Why not,
    /// in words.
    pub(super) fn secure(&mut self) -> Result<(), String> {
        let Some(state) = self.state() else {
            return Ok(());
        };
        self.kept.iter_mut().try_for_each(|it| it.secure(&state))?;
        let now = Moment::now();
        let awaited = self.kept.iter().filter(|kept| !kept.is_served(now));
        let awaited: Vec<&String> = awaited.flat_map(|kept| &kept.names).collect();
        let there = on_disk_for(&awaited, &state, now);
        for one in self.outgoing.iter().filter(|one| is_valid(one, now)) {
            let of = awaited.iter().find(|name| covers(one, name));
            if let Some(name) = of
                && !there.iter().any(|it| it.key().cert == one.key().cert)
            {
                return Err(format!(
                    "{name} is served with {} until the CA has issued one: see `holdline cert list`",
                    one.facts().source
                ));
            }
        }
        Ok(())
    }

    /// Notes that one is to be renewed. Not where a limit of ours is in the way: nobody wants it still
    /// when there is room again. Nor where it cannot be written down: nobody would know of it then.
    fn ask_for(&mut self, index: usize, state: &StateDir, now: Moment) -> Result<(), String> {
        let in_words = |error: StateError| format!("{error}; {}", error.remedy());
        let note = |desk: &mut Self, asked: Option<Moment>| {
            let Some(kept) = desk.kept.get_mut(index) else {
                return Ok(());
            };
            let before = kept.history.asked;
            let noted = kept.amend_history(state, now, |history| history.asked = asked);
            if noted.is_err() {
                kept.history.asked = asked.and(before);
            }
            noted.map_err(in_words)
        };
        note(self, Some(now))?;
        let Some(kept) = self.kept.get(index) else {
            return Ok(());
        };
        match self.next(kept, now) {
            _ if matches!(kept.busy, Busy::Ordering(_) | Busy::Elsewhere) => Ok(()),
            Next::Wait(at, Why::Limit(limit)) => {
                note(self, None)?;
                Err(format!("the limit is {limit}; next on {at}"))
            }
            Next::Wait(..) | Next::Order(_) => Ok(()),
        }
    }

    // === what is to be done ===

    /// Looks at everything; returns what is to be started.
    pub(super) fn look(&mut self) -> Vec<Start> {
        let (Some(acme), Some(state)) = (self.acme.clone(), self.state()) else {
            return Vec::new();
        };
        let now = Moment::now();
        let started = Instant::now();
        let mut changed = false;
        for kept in &mut self.kept {
            kept.save(&state);
            kept.remember(&state, now);
            kept.watch_others(&state, now);
            if started.elapsed() < LOOK_FOR {
                kept.write_down(&state, now);
            }
            if kept.refresh(&state) {
                // One that cannot be read is met again before the next order.
                let _ = kept.reload_history(&state, now);
                changed = true;
            }
            if kept.history.settle(now) && started.elapsed() < LOOK_FOR {
                let _ = kept.amend_history(&state, now, |_| {});
            }
        }
        self.look_at_health(&state, now);
        if changed || self.is_outdated(now) {
            self.publish(now);
        }
        let mut starts = Vec::new();
        if !self.begun || self.leaving > 0 || self.retired.load(Ordering::Relaxed) {
            return starts;
        }
        // Those that nobody wants any more are in nobody's way.
        let ordering = |kept: &&Kept| matches!(kept.busy, Busy::Ordering(_));
        let mut running = self.kept.iter().filter(ordering).count();
        for index in 0..self.kept.len() {
            if let Some(start) = self.ask_when(index, &acme, now) {
                starts.push(start);
            }
            if running >= ORDERS || started.elapsed() >= LOOK_FOR {
                continue;
            }
            if let Some(start) = self.begin(index, &acme, &state, now) {
                running += 1;
                starts.push(start);
            }
        }
        starts
    }

    /// How many are under way, whether they are still wanted or not.
    pub(super) fn orders(&self) -> usize {
        self.under_way
    }

    /// The longest time until the next look.
    pub(super) fn wake_in(&self) -> u64 {
        let now = Moment::now();
        let soonest = self
            .kept
            .iter()
            .map(|kept| match (&kept.busy, self.next(kept, now)) {
                (Busy::Ordering(_), _) => LOOK_EVERY,
                (Busy::Elsewhere | Busy::Reading, _) => ELSEWHERE,
                // Somebody may have made room on the disk.
                (Busy::No, _) if kept.is_unsaved() => ELSEWHERE,
                // It could not be begun: for lack of room, or of a disk.
                (Busy::No, Next::Order(_)) => ELSEWHERE,
                (Busy::No, Next::Wait(until, _)) => until.since(now).max(1),
            });
        let ends = self
            .before
            .iter()
            .chain(&self.outgoing)
            .chain(
                self.kept
                    .iter()
                    .filter_map(|kept| kept.certificate.as_ref()),
            )
            .map(|one| Moment::from(one.facts().not_after))
            .filter(|end| *end > now)
            .map(|end| end.since(now));
        soonest
            .chain(ends)
            .min()
            .map_or(LOOK_EVERY, |soonest| soonest.min(LOOK_EVERY))
    }

    fn next(&self, kept: &Kept, now: Moment) -> Next {
        let healthy = Health::default();
        let directories = self.acme.iter().flat_map(|acme| &acme.directories);
        let cas: Vec<(&str, &Health)> = directories
            .map(|ca| {
                (
                    ca.url.as_str(),
                    self.health.get(&ca.url).unwrap_or(&healthy),
                )
            })
            .collect();
        kept.next(&cas, now)
    }
}

/// Whether certificates are to be had in another way.
fn differs(old: &Acme, new: &Acme) -> bool {
    let ways = |acme: &Acme| {
        let Acme {
            contact,
            directories,
            challenges,
            dns,
            profile,
            eab,
            ca_root,
            ..
        } = acme.clone();
        (contact, directories, challenges, dns, profile, eab, ca_root)
    };
    ways(old) != ways(new)
}

#[cfg(test)]
mod tests;
