//! How a plain request waits for its gateway: as long as it may, in bounded number, and not past
//! our own end.
//!
//! Knows no HTTP: it waits, and says why it stopped waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gateway::{Gateway, View};
use crate::protocol::rescue::Cause;

/// Plain requests that may wait at a time. Each costs a connection or stream and a task of some
/// 10 KiB; a browser's page load is one, so this is a thousand people looking at the waiting page
/// in the same second. More is not a crowd but a flood.
const MAX_WAITING: usize = 1024;

/// Shortest pause before the same thing is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Longest one: the state's changes end it early.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What all waits share.
#[derive(Debug, Clone)]
pub(super) struct Waits {
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Waits {
    /// `stop`: holdline has been told to stop.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            stop,
        }
    }

    #[cfg(test)]
    pub(super) fn with_places(places: usize, stop: CancellationToken) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            stop,
        }
    }
}

/// One request's patience with one gateway. It begins to run out when the first wait begins.
pub(super) struct Hold<'a> {
    gateway: Arc<Gateway>,
    waits: &'a Waits,
    patience: Duration,
    since: Option<Instant>,
    pause: Duration,
    place: Option<OwnedSemaphorePermit>,
}

/// Marks a response whose request had to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited;

impl<'a> Hold<'a> {
    /// Says on a response whether its request had to wait.
    pub(super) fn mark(&self, extensions: &mut http::Extensions) {
        if self.since.is_some() {
            extensions.insert(Waited);
        }
    }

    pub(super) fn new(gateway: Arc<Gateway>, waits: &'a Waits, patience: Duration) -> Self {
        Self {
            gateway,
            waits,
            patience,
            since: None,
            pause: PAUSE_MIN,
            place: None,
        }
    }

    /// Whether it has been waited at all.
    pub(super) fn has_waited(&self) -> bool {
        self.since.is_some()
    }

    /// Goes on waiting, but for another gateway.
    pub(super) fn turn_to(&mut self, gateway: Arc<Gateway>) {
        self.gateway = gateway;
    }

    /// Waits until the gateway answers plain HTTP, or has lost its place to another.
    pub(super) async fn until_answering(
        &mut self,
        displaced: impl Fn() -> bool,
    ) -> Result<(), Cause> {
        if self.gateway.view().phase.answers_http() {
            return Ok(());
        }
        let gateway = Arc::clone(&self.gateway);
        self.wait(async {
            gateway
                .wait_for(|view| displaced() || view.phase.answers_http())
                .await;
        })
        .await
    }

    /// Waits a little after a failure, or until the state changes.
    pub(super) async fn pause(&mut self) -> Result<(), Cause> {
        let before = self.gateway.view();
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        let gateway = Arc::clone(&self.gateway);
        self.wait(async {
            let _ = tokio::time::timeout(pause, gateway.wait_for(|view| *view != before)).await;
        })
        .await
    }

    /// Completes when the gateway has not been answering for as long as this request is patient:
    /// what was sent to it need not be waited for any more.
    pub(super) async fn lost_for_good(&self) -> View {
        loop {
            self.gateway
                .wait_for(|view| !view.phase.answers_http())
                .await;
            let back = self.gateway.wait_for(|view| view.phase.answers_http());
            if tokio::time::timeout(self.patience, back).await.is_err() {
                return self.gateway.view();
            }
        }
    }

    /// Why the wait ends unsuccessfully.
    pub(super) fn expired(&self) -> Cause {
        let view = self.gateway.view();
        let waited = self.since.map(|since| since.elapsed()).unwrap_or_default();
        Cause::HoldExpired { view, waited }
    }

    async fn wait(&mut self, event: impl Future<Output = ()>) -> Result<(), Cause> {
        if self.place.is_none() {
            let place = Arc::clone(&self.waits.places).try_acquire_owned();
            self.place = Some(place.map_err(|_| Cause::TooManyWaiting(self.gateway.view()))?);
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        tokio::select! {
            biased;
            () = self.waits.stop.cancelled() => Err(Cause::Stopping),
            () = event => Ok(()),
            () = tokio::time::sleep_until(since + self.patience) => Err(self.expired()),
        }
    }
}
