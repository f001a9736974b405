//! The handle by which the rest of the program talks to the keeper of certificates.
//!
//! The keeper is one task (`task`), started anew when it panics. Whoever asks waits for it for a
//! moment only: it may be waiting for a disk.

mod task;
mod tidy;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::task::{Post, run};
use super::moment::Moment;
use super::status::{CertificateStatus, LastError, numbers};
use super::underway::Underway;
use crate::config::Acme;
use crate::supervise::{Pauses, supervise_telling};
use crate::tls::store::Generation;
use crate::tls::{CertStore, Tls};

/// How long whoever has a new config waits for what there is of its certificates.
const TAKE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long whoever asks for a renewal waits for an answer: less than `holdline cert renew` does.
const ANSWER: Duration = Duration::from_secs(2);
/// How long an upgrade waits until it is known that everything is on disk.
const SECURE: Duration = Duration::from_secs(5);
/// Between a panic and the next start. What is served stays, so nothing is lost by the longest.
const PAUSES: Pauses = Pauses {
    shortest: Duration::from_secs(1),
    longest: Duration::from_secs(300),
};
/// So long a panic is told after the start that followed it.
const TOLD: Duration = Duration::from_secs(60);

/// Keeps the certificates of `[acme]` good. There is one, whether ACME is in use or not.
///
/// Dropping it stops everything; what was being ordered is taken up by the next one.
#[derive(Debug)]
pub struct AcmeKeeper {
    asks: mpsc::Sender<Ask>,
    store: Arc<CertStore>,
    wanted: watch::Sender<Wanted>,
    view: watch::Receiver<View>,
    retired: Arc<AtomicBool>,
    underway: Underway,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Ask {
    Renew(Option<String>, oneshot::Sender<Renewing>),
    Secure(oneshot::Sender<Result<(), String>>),
}

/// What is concerned, with what happens next; or why nothing is.
type Renewing = Result<Vec<CertificateStatus>, String>;

/// The latest that was asked for; whoever asks never waits for what came before.
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// Of `acme`.
    version: Generation,
    acme: Option<Acme>,
    begun: bool,
}

/// What can be told at any time.
#[derive(Debug, Default)]
struct View {
    /// Of what was wanted.
    version: Generation,
    certificates: Vec<CertificateStatus>,
    awaited: Option<String>,
    /// Orders under way.
    orders: usize,
    /// The last one, until it has been told for a while.
    fall: Option<Fall>,
    /// Since this process has started.
    falls: u64,
}

/// The task has panicked.
#[derive(Debug, Clone, Copy)]
struct Fall {
    at: Moment,
    /// When it is or was started anew.
    again: Moment,
    /// The same as time goes by.
    until: Instant,
}

// === impl AcmeKeeper ===

impl AcmeKeeper {
    /// Publishes what there is of the certificates of `acme` before it returns, or what says that
    /// they are awaited if a disk takes longer than two seconds, and goes on in a task of its own;
    /// asks no CA before [`Self::begin`]. `None`: it does nothing until it is told to.
    pub async fn start(acme: Option<Acme>, tls: &Tls) -> Self {
        let (retired, underway) = (Arc::<AtomicBool>::default(), Underway::default());
        let (asks, asked) = mpsc::channel(8);
        let (wanted, wants) = watch::channel(Wanted::default());
        let (view, seen) = watch::channel(View::default());
        let view = Arc::new(view);
        let post = Arc::new(Post {
            store: Arc::clone(tls.store()),
            challenges: Arc::clone(tls.challenges()),
            retired: Arc::clone(&retired),
            underway: underway.clone(),
            asked: Mutex::new(asked),
            wants,
            view: Arc::clone(&view),
        });
        let task = supervise_telling(
            "the keeper of certificates",
            PAUSES,
            move |pause| view.send_modify(|view| view.fell(pause)),
            move || run(Arc::clone(&post)),
        );
        let keeper = Self {
            asks,
            store: Arc::clone(tls.store()),
            wanted,
            view: seen,
            retired,
            underway,
            _task: task,
        };
        keeper.reconfigure(acme).await;
        keeper
    }

    /// From now on CAs may come and look: orders begin. To be called when the listeners are open.
    pub fn begin(&self) {
        self.wanted.send_modify(|wanted| wanted.begun = true);
    }

    /// Keeps these certificates from now on. Those that were wanted before and still are stay as
    /// they are; new ones are served as soon as they are there, and nothing is closed. Returns when
    /// what there is of them is served, or after two seconds if a disk takes longer.
    pub async fn reconfigure(&self, acme: Option<Acme>) {
        let version = self.want(acme);
        let mut view = self.view.clone();
        let taken = view.wait_for(|view| view.version >= version);
        if tokio::time::timeout(TAKE, taken).await.is_err() {
            slow();
        }
    }

    /// Returns when everything that is wanted has been looked for on disk.
    ///
    /// # Errors
    /// Why it has not been, in words; after `limit` at the latest.
    pub async fn looked(&self, limit: Duration) -> Result<(), String> {
        let version = self.wanted.borrow().version;
        let mut view = self.view.clone();
        let looked = view.wait_for(|view| view.version >= version);
        match tokio::time::timeout(limit, looked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(format!(
                "the certificates could not be read from [acme] state_dir within {} s: see its disk",
                limit.as_secs()
            )),
        }
    }

    /// [`Self::reconfigure`] for a thread that may wait; not for the middle of an async task.
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread cannot wait for a watch with a limit"
    )]
    pub fn configure(&self, acme: Option<Acme>) {
        let version = self.want(acme);
        for _ in 0..TAKE.as_millis() / LOOK_EVERY.as_millis() {
            if self.view.borrow().version >= version {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        slow();
    }

    /// Begins no order from now on, whatever it is told: another process looks after the
    /// certificates. What is being ordered is, and what is served stays so.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Begins nothing more, drops the orders that are under way and takes away the records that
    /// they have added, as far as that can be done within `budget`; returns some seconds after it at
    /// the latest, when no hook runs any more. What is left is for the next start.
    pub async fn stop(&self, budget: Duration) {
        self.retire();
        self.underway.end(budget).await;
    }

    /// Resolves when no order is under way.
    pub async fn idle(&self) {
        let mut view = self.view.clone();
        // An error: it has stopped, and its orders with it.
        let _ = view.wait_for(|view| view.orders == 0).await;
    }

    /// Replaces what was wanted, taken or not. What was begun for that is not published any more.
    fn want(&self, acme: Option<Acme>) -> Generation {
        let mut version = Generation::default();
        self.wanted.send_modify(|wanted| {
            wanted.version = self.store.turn();
            wanted.acme = acme;
            version = wanted.version;
        });
        version
    }

    /// Renews the certificate with this name, or every one, as soon as the limits of the CAs allow.
    /// Says of each what happens next; an order that is under way already is the answer, too.
    ///
    /// # Errors
    /// Why not, in words; after two seconds at the latest.
    pub async fn renew(&self, name: Option<String>) -> Renewing {
        if self.retired.load(Ordering::Relaxed) {
            return Err("another process has taken over: ask that one".to_owned());
        }
        let (done, taken) = oneshot::channel();
        let answer = self.ask(Ask::Renew(name, done), taken, ANSWER).await;
        answer.unwrap_or_else(|| {
            Err(format!(
                "it is not known yet: {}, or there are many certificates. See `holdline cert list` for \
                 what becomes of it, and then ask again",
                self.unanswered()
            ))
        })
    }

    /// Whether a process that takes the place of this one finds on disk what is served here; what is
    /// not there is written.
    ///
    /// # Errors
    /// Why not, in words with what to do; after five seconds at the latest.
    pub async fn secure(&self) -> Result<(), String> {
        let (done, taken) = oneshot::channel();
        let answer = self.ask(Ask::Secure(done), taken, SECURE).await;
        match answer {
            Some(answer) => answer,
            // Whoever comes next is perhaps the cure.
            None if self.fallen().is_some() => Ok(()),
            None => Err(self.unanswered()),
        }
    }

    /// `None`: there is no answer within `limit`.
    async fn ask<T>(&self, ask: Ask, taken: oneshot::Receiver<T>, limit: Duration) -> Option<T> {
        let answer = async {
            self.asks.send(ask).await.ok()?;
            taken.await.ok()
        };
        tokio::time::timeout(limit, answer).await.ok()?
    }

    fn unanswered(&self) -> String {
        match self.view.borrow().fall {
            Some(fall) if fall.again > Moment::now() => format!(
                "the keeper of certificates has failed by a fault of holdline, and is started anew \
                 at {}",
                fall.again
            ),
            _ => "the disk of [acme] state_dir does not answer, or holdline is stopping".to_owned(),
        }
    }

    /// What is served, until when, and what happens next; one for each certificate of `[acme]`.
    #[must_use]
    pub fn status(&self) -> Vec<CertificateStatus> {
        self.view.borrow().told()
    }

    /// What is awaited while nothing that a client would accept is there at all.
    #[must_use]
    pub fn awaited(&self) -> Option<String> {
        self.view.borrow().awaited.clone()
    }

    /// That nobody looks after the certificates for a while, or that it was so a moment ago.
    #[must_use]
    pub fn fallen(&self) -> Option<String> {
        self.view.borrow().fall.map(Fall::in_words)
    }

    /// Appends its numbers in the Prometheus text format.
    pub fn numbers(&self, out: &mut String) {
        let view = self.view.borrow();
        numbers(&view.told(), view.falls, out);
    }
}

fn slow() {
    tracing::warn!(
        "the certificates of the new config take their time: see the disk of [acme] state_dir"
    );
}

// === impl View ===

impl View {
    fn fell(&mut self, pause: Duration) {
        let at = Moment::now();
        self.falls += 1;
        // They went down with it.
        self.orders = 0;
        self.fall = Some(Fall {
            at,
            again: at.after(pause.as_secs()),
            until: Instant::now() + pause + TOLD,
        });
    }

    fn told(&self) -> Vec<CertificateStatus> {
        let mut all = self.certificates.clone();
        let Some(fall) = &self.fall else { return all };
        for one in &mut all {
            one.last_error = Some(LastError {
                at: fall.at,
                ca: String::new(),
                reason: fall.in_words(),
            });
            if fall.again > Moment::now() {
                one.next = format!("is looked after again on {}", fall.again);
                one.next_at = Some(fall.again);
            }
        }
        all
    }
}

// === impl Fall ===

impl Fall {
    fn in_words(self) -> String {
        let (at, again) = (self.at, self.again);
        format!(
            "the keeper of certificates has failed by a fault of holdline on {at}; it is started \
             anew on {again}, and what is served stays; please report it with the log"
        )
    }
}

#[cfg(test)]
mod tests;
