//! A CA as it presents itself: its directory, how it is told something, and when it wants a
//! certificate to be renewed.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Response;
use instant_acme::{CertificateIdentifier, Error, Problem, RenewalInfo};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;

use super::history::{Renewal, Window};
use super::jws::Signer;
use super::moment::{DAY, HOUR, MINUTE, Moment};
use super::problem::{Failure, Stage, address, kind, wants_a_person};
use super::state::file_name;
use super::transport::{Transport, TransportError, nonce_of, retry_after};

/// Where a CA does not say how soon it wants to be asked again (RFC 9773, 4.3.3).
const ASK_AGAIN: u64 = 6 * HOUR;
/// A disk that takes longer does not answer at all.
const DISK: Duration = Duration::from_secs(60);
/// So many nonces in a row are refused by a CA that has lost count, not by chance.
const NONCES: u32 = 4;

/// An ACME server.
#[derive(Debug)]
pub(super) struct Ca {
    pub(super) url: String,
    pub(super) transport: Transport,
    pub(super) directory: Directory,
}

/// What of a directory (RFC 8555, 7.1.1) the library does not tell.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    new_nonce: String,
    pub(super) new_account: String,
    #[serde(default)]
    pub(super) key_change: Option<String>,
    #[serde(default)]
    renewal_info: Option<String>,
    #[serde(default)]
    pub(super) meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    #[serde(default)]
    pub(super) external_account_required: bool,
    #[serde(default)]
    profiles: std::collections::HashMap<String, String>,
}

// === impl Ca ===

impl Ca {
    pub(super) async fn open(url: &str, transport: Transport) -> Result<Self, Failure> {
        let failed = |error: Error| Failure::of(&error, Stage::Directory, transport.wait_until());
        let answer = transport
            .get(url)
            .await
            .map_err(|error| failed(Error::Other(error.into())))?;
        let directory = serde_json::from_slice(answer.body()).map_err(|_| {
            Failure::ca(format!(
                "what is at {url} is not an ACME directory; check directories"
            ))
        })?;
        Ok(Self {
            url: url.to_owned(),
            transport,
            directory,
        })
    }

    pub(super) fn has_renewal_info(&self) -> bool {
        self.directory.renewal_info.is_some()
    }

    /// The wanted profile, if this CA has it.
    pub(super) fn profile<'p>(&self, wanted: Option<&'p str>) -> Option<&'p str> {
        let wanted = wanted?;
        let profiles = &self.directory.meta.profiles;
        if profiles.contains_key(wanted) {
            return Some(wanted);
        }
        tracing::warn!(
            ca = self.url,
            profile = wanted,
            has = ?profiles.keys().collect::<Vec<_>>(),
            "this CA has no such profile; it is asked for what it issues without one"
        );
        None
    }

    pub(super) fn failed(&self, error: &Error, stage: Stage) -> Failure {
        let failure = Failure::of(error, stage, self.transport.wait_until());
        match (error, self.transport.instance()) {
            (Error::Api(problem), Some(instance)) if wants_a_person(problem) => Failure {
                reason: format!("{}; see {}", failure.reason, address(&instance)),
                ..failure
            },
            _ => failure,
        }
    }

    /// Tells the CA something about accounts, with a nonce that it takes.
    pub(super) async fn post(
        &self,
        url: &str,
        signer: &Signer<'_>,
        payload: Option<&Value>,
    ) -> Result<Response<Bytes>, Error> {
        let other = |error: TransportError| Error::Other(error.into());
        let mut nonce = None;
        let mut tries = NONCES;
        loop {
            tries -= 1;
            let fresh = match nonce.take() {
                Some(nonce) => nonce,
                None => {
                    let url = &self.directory.new_nonce;
                    self.transport.nonce(url).await.map_err(other)?
                }
            };
            let body = signer.request(&fresh, url, payload);
            let body = body.map_err(|_| Error::Crypto)?;
            let answer = self.transport.post(url, body).await.map_err(other)?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            let problem: Problem = match serde_json::from_slice(answer.body()) {
                Ok(problem) => problem,
                Err(_) => return Err(other(TransportError::Status(answer.status()))),
            };
            if tries == 0 || kind(problem.r#type.as_deref()) != "badNonce" {
                return Err(Error::Api(problem));
            }
            nonce = nonce_of(&answer);
        }
    }

    // === renewal (RFC 9773) ===

    /// When the CA wants this certificate renewed. `explained`: where it has said why before.
    pub(super) async fn renewal(
        &self,
        certificate: &str,
        explained: Option<&str>,
    ) -> Result<Renewal, Failure> {
        let now = Moment::now();
        let nothing = |ask_again: u64| Renewal {
            certificate: certificate.to_owned(),
            window: None,
            explanation: None,
            ask_again: now.after(ask_again),
        };
        let Some(url) = &self.directory.renewal_info else {
            return Ok(nothing(DAY));
        };
        let url = format!("{}/{certificate}", url.trim_end_matches('/'));
        let answer = self
            .transport
            .get(&url)
            .await
            .map_err(|error| self.failed(&Error::Other(error.into()), Stage::Directory))?;
        let info: RenewalInfo = serde_json::from_slice(answer.body())
            .map_err(|_| Failure::ca("its renewal information cannot be read"))?;
        let window = Window {
            start: info.suggested_window.start.into(),
            end: info.suggested_window.end.into(),
        };
        let explanation = info.explanation_url.as_deref().map(address);
        if let Some(url) = explanation.as_deref().filter(|url| Some(*url) != explained) {
            tracing::info!(ca = self.url, url, start = %window.start, end = %window.end, "the CA explains when it wants a certificate renewed");
        }
        let wanted = retry_after(answer.headers(), SystemTime::now())
            .map_or(ASK_AGAIN, |moment| moment.since(now));
        Ok(Renewal {
            window: Some(window),
            explanation,
            ..nothing(wanted.clamp(MINUTE, DAY))
        })
    }
}

/// The name of a certificate in renewal information (RFC 9773, 4.1).
pub(super) fn identifier(leaf: &CertificateDer<'_>) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(leaf)
        .ok()
        .map(CertificateIdentifier::into_owned)
}

pub(super) fn health_file(url: &str) -> String {
    format!("cas/{}.json", url_name(url))
}

pub(super) fn url_name(url: &str) -> String {
    file_name(url.strip_prefix("https://").unwrap_or(url))
}

/// Runs what waits for a disk where that holds nobody up, and waits for it for a minute at most. What
/// takes longer goes on, unheard.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    match tokio::time::timeout(DISK, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Failure::here("holdline is stopping")),
        Err(_) => Err(Failure::here(format!(
            "a disk of this machine has not answered for {} s; check that of [acme] state_dir",
            DISK.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acme::history::Concerns;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_not_waited_for_and_no_fault_of_the_ca() {
        let (answer, hangs) = std::sync::mpsc::channel::<()>();
        let reading = tokio::spawn(blocking(move || hangs.recv()));
        tokio::task::yield_now().await;
        tokio::time::advance(DISK).await;
        let failure = reading.await.unwrap().unwrap_err();
        assert_eq!(failure.concerns, Concerns::Here);
        drop(answer);
    }
}
