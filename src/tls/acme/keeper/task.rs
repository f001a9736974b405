//! The task that keeps certificates good.
//!
//! It owns everything, and lends it to a thread wherever a disk has to be waited for, so that no
//! session ever waits for one. Orders run beside it and report back. When it panics it is started
//! anew from what is on disk and what is served: an order that went down with it counts as failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::tidy::keep_tidy;
use super::{Ask, View, Wanted};
use crate::config::Acme;
use crate::tls::CertStore;
use crate::tls::acme::ca::{Ca, blocking};
use crate::tls::acme::challenge::Challenges;
use crate::tls::acme::desk::{Desk, Done, Start};
use crate::tls::acme::history::Renewal;
use crate::tls::acme::problem::Failure;
use crate::tls::acme::state::StateDir;
use crate::tls::acme::transport::Transport;
use crate::tls::acme::underway::Underway;
use crate::tls::store::Generation;

/// What outlives a panic.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) store: Arc<CertStore>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) retired: Arc<AtomicBool>,
    pub(super) underway: Underway,
    pub(super) asked: Mutex<mpsc::Receiver<Ask>>,
    pub(super) wants: watch::Receiver<Wanted>,
    pub(super) view: Arc<watch::Sender<View>>,
}

/// Until nobody asks any more.
pub(super) async fn run(post: Arc<Post>) {
    let mut asked = post.asked.lock().await;
    let mut wants = post.wants.clone();
    // What was wanted before a panic is wanted anew.
    wants.mark_changed();
    let mut desk = Desk::new(
        Arc::clone(&post.store),
        Arc::clone(&post.challenges),
        Arc::clone(&post.retired),
    );
    let underway = &post.underway;
    let mut tasks: JoinSet<Option<Done>> = JoinSet::new();
    let (beside, wanted) = (underway.clone(), post.wants.clone());
    let retired = Arc::clone(&post.retired);
    let _tidying = AbortOnDropHandle::new(underway.spawn(async move {
        let tidying = keep_tidy(wanted, retired, beside.clone());
        beside.until_stopped(tidying).await;
    }));
    let mut version = Generation::default();
    loop {
        match wants.has_changed() {
            Ok(true) => {
                let wanted = wants.borrow_and_update().clone();
                let new = wanted.version != version;
                version = wanted.version;
                let take = move |desk: &mut Desk| {
                    if wanted.begun {
                        desk.begin_ordering();
                    }
                    if new {
                        desk.publish_as(wanted.version);
                        desk.adopt(wanted.acme);
                    }
                };
                (desk, ()) = lend(desk, take).await;
            }
            Ok(false) => {}
            Err(_) => return,
        }
        // Told and served as it is read: the disk may be slow, or hang.
        let mut more = true;
        while more && matches!(wants.has_changed(), Ok(false)) {
            show(&desk, None, &post.view);
            (desk, more) = lend(desk, Desk::read_next).await;
        }
        if more {
            continue;
        }
        show(&desk, Some(version), &post.view);
        let starts;
        (desk, starts) = lend(desk, Desk::look).await;
        for start in starts {
            let beside = underway.clone();
            let task = underway.track(async move { perform(start, &beside).await });
            tasks.spawn(task);
        }
        show(&desk, Some(version), &post.view);
        let wake = Duration::from_secs(desk.wake_in());
        tokio::select! {
            changed = wants.changed() => match changed {
                Ok(()) => wants.mark_changed(),
                Err(_) => return,
            },
            ask = asked.recv() => match ask {
                Some(Ask::Renew(name, done)) => {
                    let answer;
                    (desk, answer) = lend(desk, move |desk| desk.renew(name.as_deref())).await;
                    // Nobody may be waiting any more.
                    let _ = done.send(answer);
                }
                Some(Ask::Secure(done)) => {
                    let answer;
                    (desk, answer) = lend(desk, Desk::secure).await;
                    let _ = done.send(answer);
                }
                None => return,
            },
            Some(done) = tasks.join_next() => {
                // Without a word: this process ends.
                if let Ok(Some(done)) = done {
                    (desk, ()) = lend(desk, |desk| desk.finish(done)).await;
                    show(&desk, Some(version), &post.view);
                }
            }
            () = tokio::time::sleep(wake), if desk.is_on() => {}
        }
    }
}

/// `version`: the config of which everything has been looked at.
fn show(desk: &Desk, version: Option<Generation>, view: &watch::Sender<View>) {
    let (certificates, awaited, orders) = (desk.status(), desk.awaited(), desk.orders());
    view.send_modify(|view| {
        view.version = version.unwrap_or(view.version);
        view.certificates = certificates;
        view.awaited = awaited;
        view.orders = orders;
        view.fall = view.fall.filter(|fall| Instant::now() < fall.until);
    });
}

/// Runs what waits for a disk where that holds nobody up. A panic there is one here.
async fn lend<T: Send + 'static>(
    mut desk: Desk,
    work: impl FnOnce(&mut Desk) -> T + Send + 'static,
) -> (Desk, T) {
    let lent = tokio::task::spawn_blocking(move || {
        let result = work(&mut desk);
        (desk, result)
    });
    match lent.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(back) => back,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and this task with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// `None`: this process ends in the middle of it.
async fn perform(start: Start, underway: &Underway) -> Option<Done> {
    let beside = underway.clone();
    match start {
        Start::Order(job, lock) => {
            let (folder, ca) = (job.folder.clone(), job.ca.clone());
            let (state, names) = (job.state.clone(), job.names.clone());
            let (signing, moved) = (Arc::clone(&job.signing), job.moved.clone());
            let result = apart(async move { job.run(&beside).await }).await?;
            Some(Done::Order {
                folder,
                state,
                names,
                moved,
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
            explained,
            acme,
        } => {
            let (url, id) = (ca, certificate.clone());
            let asked = async move {
                let asked = ask_when(&url, &id, explained.as_deref(), &acme);
                beside.until_stopped(asked).await
            };
            let result = apart(asked).await?;
            Some(Done::Renewal {
                folder,
                certificate,
                result,
            })
        }
    }
}

/// In a task of its own, so that even a bug in the middle of it ends in a known next attempt. It
/// says nothing of the CA.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Option<Result<T, Failure>>> + Send + 'static,
) -> Option<Result<T, Failure>> {
    let run = AbortOnDropHandle::new(tokio::spawn(work));
    run.await.unwrap_or_else(|_| {
        Some(Err(Failure::names(
            "it broke off by a fault of holdline; please report it with the log",
        )))
    })
}

async fn ask_when(
    ca: &str,
    certificate: &str,
    explained: Option<&str>,
    acme: &Acme,
) -> Result<Renewal, Failure> {
    let root = acme.ca_root.clone();
    let transport = blocking(move || Transport::new(root.as_deref()))
        .await?
        .map_err(Failure::from)?;
    let ca = Ca::open(ca, transport).await?;
    let renewal = ca.renewal(certificate, explained).await?;
    let state = StateDir::new(&acme.state_dir);
    if let Err(failure) = ca.look_after_account(acme, &state).await {
        tracing::debug!(reason = failure.reason, "the account is looked after later");
    }
    Ok(renewal)
}
