//! One client, modelled on the official node client: reconnects after 1, 2, 4 … 30 s, reset by a
//! success; takes "starting" as an invitation to come back soon without growing its backoff;
//! never sends a lost request again. It asks something at a fixed rate while it is connected.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Plan;
use super::events::{Event, Kind};
use crate::protocol::{self, Incoming, Refusal, Template, Verdict};
use crate::session::{Dialer, OpenError, Session};
use crate::ws::WsError;

/// The official client fails a request unanswered for this long.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);
/// Answers still on their way at the end of the run get this long.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Bounds of the official client for the wait the gateway asks for while it starts.
const STARTING_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What all clients share.
pub(super) struct Shared {
    pub(super) dialer: Dialer,
    pub(super) plan: Plan,
    /// Bounds the first handshakes; a reconnect asks nobody, as in real life.
    pub(super) gate: Semaphore,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl Shared {
    fn note(&self, client: usize, kind: Kind) {
        // Nobody listens any more only when the run is over.
        let _ = self.events.send(Event {
            client,
            at: Instant::now(),
            kind,
        });
    }
}

/// Waits between failures.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new((first, longest): (Duration, Duration)) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// This wait; the next one is twice as long.
    pub(super) fn wait(&mut self) -> Duration {
        let now = self.next;
        self.next = now.saturating_mul(2).min(self.longest);
        now
    }

    pub(super) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// How long to wait after an answer that means "starting"; `None` for any other failure.
pub(super) fn starting_wait(error: &OpenError) -> Option<Duration> {
    match error {
        OpenError::Rejected(Refusal {
            reason,
            retry_after_ms,
            ..
        }) if reason == "startup-sidecars" => {
            let asked = Duration::from_millis(retry_after_ms.unwrap_or(0));
            Some(asked.clamp(STARTING_WAIT.0, STARTING_WAIT.1))
        }
        _ => None,
    }
}

/// Runs one client until told to stop.
pub(super) async fn run(id: usize, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(shared.plan.backoff);
    let mut first = shared.gate.acquire().await.ok();
    loop {
        let opened = tokio::select! {
            opened = shared.dialer.open(&shared.plan.url) => opened,
            _ = stop.changed() => return,
        };
        let wait = match opened {
            Ok(session) => {
                first.take();
                backoff.reset();
                shared.note(id, Kind::Opened);
                let mut work = Work::new(id, &shared, session);
                match work.until_ended(&mut stop).await {
                    Some(end) => work.ended(&end),
                    None => return work.leave().await,
                }
                backoff.wait()
            }
            Err(error) => match starting_wait(&error) {
                Some(wait) => {
                    shared.note(id, Kind::Greeted);
                    wait
                }
                None => {
                    let (cause, upgraded) = (error.cause(), error.was_upgraded());
                    shared.note(id, Kind::Failed { cause, upgraded });
                    backoff.wait()
                }
            },
        };
        tokio::select! {
            () = sleep(wait) => {}
            _ = stop.changed() => return,
        }
    }
}

/// One open session and what is pending on it.
struct Work<'a> {
    id: usize,
    shared: &'a Shared,
    template: Template,
    session: Session,
    next: u64,
    pending: VecDeque<(u64, Instant)>,
}

impl<'a> Work<'a> {
    fn new(id: usize, shared: &'a Shared, session: Session) -> Self {
        let template = session.template(shared.plan.size);
        Self {
            id,
            shared,
            template,
            session,
            next: 1,
            pending: VecDeque::new(),
        }
    }

    /// Asks at the fixed rate; `None` when told to stop.
    async fn until_ended(&mut self, stop: &mut watch::Receiver<bool>) -> Option<WsError> {
        let mut tick = interval(self.shared.plan.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.changed() => return None,
                _ = tick.tick() => {
                    self.expire(Instant::now());
                    if let Err(end) = self.ask().await {
                        return Some(end);
                    }
                }
                heard = hear(&mut self.session) => match heard {
                    Ok(incoming) => self.take(incoming),
                    Err(end) => return Some(end),
                },
            }
        }
    }

    async fn ask(&mut self) -> Result<(), WsError> {
        let id = self.next;
        self.next += 1;
        self.pending.push_back((id, Instant::now()));
        self.shared.note(self.id, Kind::Sent);
        self.session.ws.queue_raw(self.template.with_id(id));
        self.session.ws.flush().await
    }

    fn take(&mut self, incoming: Incoming) {
        let Incoming::Answer(id, verdict) = incoming else {
            return;
        };
        let Some(at) = self.pending.iter().position(|(pending, _)| *pending == id) else {
            return;
        };
        self.pending.remove(at);
        let kind = match verdict {
            Verdict::Ok => Kind::Answered,
            Verdict::Error(refusal) => Kind::Refused(refusal),
        };
        self.shared.note(self.id, kind);
    }

    fn expire(&mut self, now: Instant) {
        while self
            .pending
            .front()
            .is_some_and(|(_, sent)| now - *sent >= REQUEST_PATIENCE)
        {
            self.pending.pop_front();
            self.shared.note(self.id, Kind::TimedOut);
        }
    }

    fn ended(&self, end: &WsError) {
        let (code, unanswered) = (end.code(), self.pending.len());
        self.shared.note(self.id, Kind::Ended { code, unanswered });
    }

    /// The run is over: hears what is still coming, then says goodbye.
    async fn leave(mut self) {
        let drained = timeout(LAST_ANSWERS, async {
            while !self.pending.is_empty() {
                let incoming = hear(&mut self.session).await?;
                self.take(incoming);
            }
            Ok::<_, WsError>(())
        });
        // Whether they came, or the session ended, or time was up: what is pending says it.
        let _ = drained.await;
        self.shared.note(
            self.id,
            Kind::Left {
                unanswered: self.pending.len(),
            },
        );
        self.session.bye().await;
    }
}

async fn hear(session: &mut Session) -> Result<Incoming, WsError> {
    let protocol = session.protocol;
    let message = session.ws.next().await?;
    Ok(protocol::classify(protocol, message.payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_is_the_official_clients() {
        let mut backoff = Backoff::new((Duration::from_secs(1), Duration::from_secs(30)));
        let waits: Vec<u64> = (0..7).map(|_| backoff.wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        backoff.reset();
        assert_eq!(backoff.wait(), Duration::from_secs(1));
    }

    #[test]
    fn only_starting_is_an_invitation_and_its_wait_is_clamped() {
        let rejected = |reason: &str, retry_after_ms| {
            let reason = reason.to_owned();
            OpenError::Rejected(Refusal {
                reason,
                retry_after_ms,
                ..Refusal::default()
            })
        };
        let wait = |error| starting_wait(&error).map(|w| w.as_millis());
        assert_eq!(wait(rejected("startup-sidecars", Some(500))), Some(500));
        assert_eq!(wait(rejected("startup-sidecars", Some(30_000))), Some(2000));
        assert_eq!(wait(rejected("startup-sidecars", None)), Some(100));
        assert_eq!(wait(rejected("gateway-restarting", Some(500))), None);
        assert_eq!(wait(OpenError::Early(WsError::Cut)), None);
    }
}
