//! What a request leaves in the log and in the numbers. Decides nothing.

use http::{Method, Request, Response};
use tokio::time::Instant;

use super::Body;
use super::headers::Presented;
use super::hold::Waited;
use super::refusal::{self, Asker};
use crate::config::Route;
use crate::observe::labels::HttpOutcome;
use crate::observe::log::loggable_path;
use crate::protocol::rescue::{Cause, millis};

/// One request's traces: a line at `info` for a refusal of ours, else at `debug`. The loggable path
/// only: queries, cookies and tokens are nobody's business.
pub(super) struct Account {
    method: Method,
    path: String,
    route: Option<String>,
    client: Option<Presented>,
    since: Instant,
    kind: Kind,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something of the gateway's, in plain HTTP.
    Plain,
    /// Something of ours.
    Own,
    /// A WebSocket: counted elsewhere.
    Upgrade,
}

impl Account {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            path: loggable_path(request.uri()).to_string(),
            route: None,
            client: None,
            since: Instant::now(),
            kind: Kind::Plain,
        }
    }

    /// What the log shows of the target.
    #[cfg(test)]
    pub(super) fn path(&self) -> String {
        self.path.clone()
    }

    pub(super) fn is(&mut self, kind: Kind) {
        self.kind = kind;
    }

    pub(super) fn routed(&mut self, route: &Route, client: Presented) {
        self.route = Some(route.name.clone());
        self.client = Some(client);
    }

    /// The number to count it in, if it is a plain request.
    pub(super) fn outcome(
        &self,
        answered: &Result<Response<Body>, Cause>,
        asker: Asker,
    ) -> Option<HttpOutcome> {
        Some(match (answered, self.kind) {
            (_, Kind::Upgrade) => return None,
            (_, Kind::Own) => HttpOutcome::Own,
            (Ok(response), Kind::Plain) if response.extensions().get::<Waited>().is_some() => {
                HttpOutcome::Held
            }
            (Ok(_), Kind::Plain) => HttpOutcome::Forwarded,
            (Err(Cause::MayHaveExecuted(_) | Cause::BadAnswer), _) => HttpOutcome::Failed,
            (
                Err(
                    cause @ (Cause::GatewayAway(_)
                    | Cause::GatewayRestarting(_)
                    | Cause::HoldExpired { .. }
                    | Cause::TooManyWaiting(_)
                    | Cause::Stopping),
                ),
                _,
            ) => match refusal::waits_with_page(&cause.answer(Instant::now()), asker) {
                true => HttpOutcome::Page,
                false => HttpOutcome::Unavailable,
            },
            (Err(_), _) => HttpOutcome::Refused,
        })
    }

    pub(super) fn write(&self, answered: &Result<Response<Body>, Cause>) {
        let Self { method, path, .. } = self;
        let route = self.route.as_deref();
        let client = self
            .client
            .map(|client| tracing::field::display(client.address));
        let ms = millis(self.since.elapsed());
        match answered {
            Ok(response) => {
                let status = response.status().as_u16();
                tracing::debug!(%method, path, route, client, status, ms, "request");
            }
            Err(cause) => {
                let answer = cause.answer(Instant::now());
                let (status, kind) = (answer.status.as_u16(), answer.kind);
                tracing::info!(%method, path, route, client, status, kind, ms, "request refused");
            }
        }
    }
}
