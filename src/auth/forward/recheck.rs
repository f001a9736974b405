//! Somebody whom the service let in, and who stays: it is asked again, from time to time.
//!
//! A no ends it, and so does another name. No answer is no verdict: the service may be restarting,
//! and nobody is thrown out for that until the stated time without a yes is over. Nothing runs here
//! on its own: it lives as long as somebody waits for [`Recheck::lost`].

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep_until};

use super::question::{Asked, Question};
use super::{Answer, ForwardAuth};
use crate::auth::Identity;
use crate::config;
use crate::observe::labels::GrantEnd;

/// The question that somebody was let in by.
pub struct Recheck {
    service: Arc<ForwardAuth>,
    /// As it was then; a reload may have said otherwise since.
    config: Arc<config::ForwardAuth>,
    asked: Asked,
    identity: Identity,
    confirmed: Mutex<Instant>,
    /// By this part of the interval, up to an eighth, it is asked sooner: those who came together
    /// are not asked about together for ever.
    sooner: f64,
}

impl Recheck {
    /// To be asked of `service` again. `None`: it could not even be asked the first time.
    #[must_use]
    pub fn new(
        service: &Arc<ForwardAuth>,
        config: &config::ForwardAuth,
        question: &Question<'_>,
        identity: &Identity,
    ) -> Option<Self> {
        Some(Self {
            service: Arc::clone(service),
            config: Arc::new(config.clone()),
            asked: Asked::new(config, question).ok()?,
            identity: identity.clone(),
            confirmed: Mutex::new(Instant::now()),
            sooner: f64::from(RandomState::new().build_hasher().finish() as u8) / 2048.0,
        })
    }

    /// Asks again and again; resolves when the service's yes no longer holds.
    ///
    /// May be dropped and called anew at any time: what was confirmed stays so.
    pub async fn lost(&self) -> GrantEnd {
        let mut in_force = self.service.in_force();
        // Since it was confirmed; `None`: nothing has been asked since.
        let mut unanswered: Option<Instant> = None;
        loop {
            let now = in_force.borrow_and_update().clone();
            let config = now.unwrap_or_else(|| Arc::clone(&self.config));
            let (confirmed, over) = (self.confirmed(), self.confirmed() + config.without_answer);
            let due = config.recheck.map(|every| {
                let sooner = every.mul_f64(self.sooner);
                match unanswered {
                    Some(tried) => (tried + every - sooner).min(over),
                    None => confirmed + every - sooner,
                }
            });
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                // The sender is in `self`.
                _ = in_force.changed() => continue,
            }
            let tried = Instant::now();
            // One whole try at least, however long ago the last one was.
            let limit = over.max(tried + config.timeout);
            let answer = tokio::select! {
                answer = self.service.ask_again(&config, &self.asked) => Some(answer),
                () = self.silent(limit, config.without_answer) => None,
            };
            match answer {
                Some(Answer::Yes(admitted)) if admitted.identity == self.identity => {
                    self.confirm();
                    unanswered = None;
                }
                Some(Answer::Yes(_)) => return GrantEnd::Withdrawn,
                Some(Answer::No(response)) if is_verdict(response.status()) => {
                    return GrantEnd::Withdrawn;
                }
                Some(Answer::No(_) | Answer::Failed(_)) if Instant::now() < over => {
                    unanswered = Some(tried);
                }
                Some(Answer::No(_) | Answer::Failed(_)) | None => return GrantEnd::Unconfirmed,
            }
        }
    }

    /// Resolves after `limit`, when the service has not answered anybody for this long. While it
    /// does, it will be this one's turn, however many others are asked about before.
    async fn silent(&self, limit: Instant, without_answer: Duration) {
        let mut end = limit;
        loop {
            sleep_until(end).await;
            let answered = *self.service.answered();
            match answered.map(|answered| answered + without_answer) {
                Some(later) if later > Instant::now() => end = later,
                _ => return,
            }
        }
    }

    fn confirmed(&self) -> Instant {
        *self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn confirm(&self) {
        *self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl fmt::Debug for Recheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recheck").finish_non_exhaustive()
    }
}

/// A service in trouble, one that is asked too often, or one that is not in its place says nothing
/// about the person.
fn is_verdict(status: StatusCode) -> bool {
    let elsewhere = [
        StatusCode::NOT_FOUND,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    !status.is_server_error() && !elsewhere.contains(&status)
}
