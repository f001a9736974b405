//! The task that keeps certificates good, and the handle by which the rest of the program talks to
//! it.
//!
//! One task owns everything; it lends it to a thread wherever a disk has to be waited for, so that
//! no session ever waits for one. Orders run beside it and report back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::ca::{Ca, blocking};
use super::desk::{Desk, Done, Start};
use super::dns::tidy;
use super::problem::Failure;
use super::status::{CertificateStatus, numbers};
use super::transport::Transport;
use super::underway::Underway;
use crate::config::Acme;
use crate::tls::Tls;

/// How long whoever has a new config waits for what there is of its certificates.
const TAKE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Keeps the certificates of `[acme]` good. There is one, whether ACME is in use or not.
///
/// Dropping it stops everything; what was being ordered is taken up by the next one.
#[derive(Debug)]
pub struct AcmeKeeper {
    asks: mpsc::Sender<Ask>,
    wanted: watch::Sender<Wanted>,
    view: watch::Receiver<View>,
    retired: Arc<AtomicBool>,
    underway: Underway,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Ask {
    Renew(Option<String>, oneshot::Sender<Result<Vec<String>, String>>),
}

/// The latest that was asked for; whoever asks never waits for what came before.
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// Of `acme`.
    version: u64,
    acme: Option<Acme>,
    begun: bool,
}

/// What can be told at any time.
#[derive(Debug, Default)]
struct View {
    /// Of what was wanted.
    version: u64,
    certificates: Vec<CertificateStatus>,
    awaited: Option<String>,
}

// === impl AcmeKeeper ===

impl AcmeKeeper {
    /// Publishes what there is of the certificates of `acme` before it returns, and goes on in a
    /// task of its own; asks no CA before [`Self::begin`]. `None`: it does nothing until it is told
    /// to.
    pub async fn start(acme: Option<Acme>, tls: &Tls) -> Self {
        let (retired, underway) = (Arc::<AtomicBool>::default(), Underway::default());
        let (store, challenges) = (Arc::clone(tls.store()), Arc::clone(tls.challenges()));
        let desk = Desk::new(store, challenges, Arc::clone(&retired));
        let (asks, asked) = mpsc::channel(8);
        let (wanted, wants) = watch::channel(Wanted::default());
        let (view, seen) = watch::channel(View::default());
        let beside = underway.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Some(desk) = run(desk, asked, wants, &view, &beside).await {
                drop(desk);
                tracing::error!("certificates are no longer looked after; restart holdline");
            }
        }));
        let keeper = Self {
            asks,
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

    /// The same for a thread that may wait; not for the middle of an async task.
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

    /// Replaces what was wanted, taken or not.
    fn want(&self, acme: Option<Acme>) -> u64 {
        let mut version = 0;
        self.wanted.send_modify(|wanted| {
            wanted.version += 1;
            wanted.acme = acme;
            version = wanted.version;
        });
        version
    }

    /// Renews the certificate with this name, or every one, as soon as the limits of the CAs allow.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn renew(&self, name: Option<String>) -> Result<Vec<String>, String> {
        if self.retired.load(Ordering::Relaxed) {
            return Err("another process has taken over: ask that one".to_owned());
        }
        let stopping = || "holdline is stopping".to_owned();
        let (done, taken) = oneshot::channel();
        self.asks
            .send(Ask::Renew(name, done))
            .await
            .map_err(|_| stopping())?;
        taken.await.map_err(|_| stopping())?
    }

    /// What is served, until when, and what happens next; one for each certificate of `[acme]`.
    #[must_use]
    pub fn status(&self) -> Vec<CertificateStatus> {
        self.view.borrow().certificates.clone()
    }

    /// What is awaited while nothing that a client would accept is there at all.
    #[must_use]
    pub fn awaited(&self) -> Option<String> {
        self.view.borrow().awaited.clone()
    }

    /// Appends its numbers in the Prometheus text format.
    pub fn numbers(&self, out: &mut String) {
        numbers(&self.view.borrow().certificates, out);
    }
}

fn slow() {
    tracing::warn!(
        "the certificates of the new config take their time: see the disk of [acme] state_dir"
    );
}

/// Returns only if a thread got lost, or nobody asks any more (`None`).
async fn run(
    mut desk: Desk,
    mut asked: mpsc::Receiver<Ask>,
    mut wants: watch::Receiver<Wanted>,
    view: &watch::Sender<View>,
    underway: &Underway,
) -> Option<Failure> {
    let mut tasks: JoinSet<Option<Done>> = JoinSet::new();
    let mut tidying: Option<AbortOnDropHandle<()>> = None;
    let mut version = 0;
    loop {
        let starts;
        (desk, starts) = match lend(desk, Desk::look).await {
            Ok(back) => back,
            Err(lost) => return Some(lost),
        };
        for start in starts {
            let beside = underway.clone();
            let task = underway.track(async move { perform(start, &beside).await });
            tasks.spawn(task);
        }
        show(&desk, version, view);
        let wake = Duration::from_secs(desk.wake_in());
        tokio::select! {
            changed = wants.changed() => {
                changed.ok()?;
                let wanted = wants.borrow_and_update().clone();
                let new = wanted.version != version;
                version = wanted.version;
                let idle = tidying.as_ref().is_none_or(AbortOnDropHandle::is_finished);
                if let Some(acme) = wanted.acme.clone().filter(|_| wanted.begun && idle) {
                    let beside = underway.clone();
                    let task = async move {
                        beside.until_stopped(tidy(&acme, &beside)).await;
                    };
                    tidying = Some(AbortOnDropHandle::new(underway.spawn(task)));
                }
                let take = move |desk: &mut Desk| {
                    if wanted.begun {
                        desk.begin_ordering();
                    }
                    if new {
                        desk.configure(wanted.acme);
                    }
                };
                (desk, ()) = match lend(desk, take).await {
                    Ok(back) => back,
                    Err(lost) => return Some(lost),
                };
                show(&desk, version, view);
            }
            ask = asked.recv() => match ask? {
                Ask::Renew(name, done) => {
                    let answer;
                    (desk, answer) = match lend(desk, move |desk| desk.renew(name.as_deref())).await {
                        Ok(back) => back,
                        Err(lost) => return Some(lost),
                    };
                    let _ = done.send(answer);
                }
            },
            Some(done) = tasks.join_next() => {
                // Without a word: this process ends.
                if let Ok(Some(done)) = done {
                    (desk, ()) = match lend(desk, |desk| desk.finish(done)).await {
                        Ok(back) => back,
                        Err(lost) => return Some(lost),
                    };
                }
            }
            () = tokio::time::sleep(wake), if desk.is_on() => {}
        }
    }
}

fn show(desk: &Desk, version: u64, view: &watch::Sender<View>) {
    view.send_replace(View {
        version,
        certificates: desk.status(),
        awaited: desk.awaited(),
    });
}

async fn lend<T: Send + 'static>(
    mut desk: Desk,
    work: impl FnOnce(&mut Desk) -> T + Send + 'static,
) -> Result<(Desk, T), Failure> {
    blocking(move || {
        let result = work(&mut desk);
        (desk, result)
    })
    .await
}

/// `None`: this process ends in the middle of it.
async fn perform(start: Start, underway: &Underway) -> Option<Done> {
    match start {
        Start::Order(job, lock) => {
            let (folder, ca) = (job.folder.clone(), job.ca.clone());
            let signing = Arc::clone(&job.signing);
            // Apart, so that even a bug in the middle of it ends in a known next attempt.
            let beside = underway.clone();
            let run = AbortOnDropHandle::new(tokio::spawn(async move { job.run(&beside).await }));
            let result = run.await.unwrap_or_else(|_| {
                Some(Err(Failure::ca(
                    "the order broke off by a fault of holdline; please report it",
                )))
            })?;
            Some(Done::Order {
                folder,
                ca,
                result,
                signed: signing.load(Ordering::Acquire),
                lock,
            })
        }
        Start::Renewal {
            folder,
            ca,
            certificate,
            acme,
        } => {
            let asked = ask_when(&ca, &certificate, &acme);
            let result = underway.until_stopped(asked).await?;
            Some(Done::Renewal {
                folder,
                certificate,
                result,
            })
        }
    }
}

async fn ask_when(
    ca: &str,
    certificate: &str,
    acme: &Acme,
) -> Result<super::history::Renewal, Failure> {
    let root = acme.ca_root.clone();
    let transport = blocking(move || Transport::new(root.as_deref()))
        .await?
        .map_err(Failure::from)?;
    Ca::open(ca, transport).await?.renewal(certificate).await
}
