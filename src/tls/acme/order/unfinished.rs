//! An order from the moment that a CA has it: on disk with its key, so that whoever comes after us goes
//! on with it and needs no second one.

use instant_acme::{Account, Error, Order, OrderStatus};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Job;
use crate::tls::acme::ca::{Ca, blocking};
use crate::tls::acme::moment::{DAY, HOUR, Moment};
use crate::tls::acme::problem::{Failure, kind};
use crate::tls::acme::state::Record;
use crate::tls::acme::transport::TransportError;

/// CAs keep an order for some days.
const UNFINISHED: u64 = DAY;
/// Of one that was never asked to sign nothing is lost but a request.
const UNPROVED: u64 = HOUR;

/// An order that a CA has, and the key that is for it.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::tls::acme) struct Unfinished {
    pub(in crate::tls::acme) ca: String,
    pub(in crate::tls::acme) order: String,
    pub(in crate::tls::acme) names: Vec<String>,
    pub(in crate::tls::acme) since: Moment,
    pub(in crate::tls::acme) key: Zeroizing<String>,
    /// And so may have signed, and counted a certificate.
    #[serde(default)]
    pub(in crate::tls::acme) asked_to_sign: bool,
}

impl Record for Unfinished {}

// === impl Unfinished ===

impl Unfinished {
    fn lasts(&self) -> u64 {
        match self.asked_to_sign {
            true => UNFINISHED,
            false => UNPROVED,
        }
    }

    /// What the CA has not decided about yet is shown to it in the same way for some time: it may be
    /// slow. Then in the next one.
    pub(super) fn undecided(&self, failure: Failure) -> Failure {
        Failure {
            unproved: Moment::now().since(self.since) >= UNPROVED / 2,
            ..failure
        }
    }
}

/// Where the order of a certificate's folder is kept.
pub(in crate::tls::acme) fn file(folder: &str) -> String {
    format!("{folder}/order.json")
}

// === impl Job ===

impl Job {
    fn unfinished(&self) -> String {
        file(&self.folder)
    }

    pub(super) async fn remember(&self, unfinished: &Unfinished) -> Result<(), Failure> {
        let unfinished = unfinished.clone();
        let (state, name) = (self.state.clone(), self.unfinished());
        Ok(blocking(move || state.save(&name, &unfinished)).await??)
    }

    /// An order that we did not live to see the end of, or that the CA could not go on with; `None`
    /// if there is no such order, or nothing can come of it any more. Any other failure is one of
    /// that order, and no reason to have a second one.
    pub(super) async fn resume(
        &self,
        ca: &Ca,
        account: &Account,
    ) -> Result<Option<(Order, Unfinished)>, Failure> {
        let (state, name) = (self.state.clone(), self.unfinished());
        let unfinished = blocking(move || state.load_some::<Unfinished>(&name)).await??;
        let Some(unfinished) = unfinished else {
            return Ok(None);
        };
        let fits = unfinished.ca == self.ca
            && unfinished.names == self.names
            && Moment::now().since(unfinished.since) < unfinished.lasts();
        if !fits {
            return Ok(None);
        }
        let mut order = match account.order(unfinished.order.clone()).await {
            Ok(order) => order,
            Err(error) if is_gone(&error) || is_not_ours(&error) => return Ok(None),
            Err(error) => return Err(self.refused(ca, account, &error).await),
        };
        if order.state().status == OrderStatus::Invalid {
            return Ok(None);
        }
        tracing::info!(ca = self.ca, names = ?self.names, "taking up an order that was left unfinished");
        Ok(Some((order, unfinished)))
    }

    pub(super) async fn forget(&self) -> Result<(), Failure> {
        let (state, name) = (self.state.clone(), self.unfinished());
        blocking(move || state.remove(&name)).await
    }
}

/// Whether the CA says that there is no such order, or no such certificate.
pub(super) fn is_gone(error: &Error) -> bool {
    let gone = |status: u16| status == 404 || status == 410;
    match error {
        Error::Api(problem) => problem.status.is_some_and(gone),
        Error::Other(inner) => matches!(
            inner.downcast_ref::<TransportError>(),
            Some(TransportError::Status(status)) if gone(status.as_u16())
        ),
        _ => false,
    }
}

/// Whether the order belongs to an account that we had before.
fn is_not_ours(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind(problem.r#type.as_deref()) == "unauthorized")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acme::moment::clock;
    use crate::tls::acme::problem::Stage;

    #[test]
    fn an_order_that_is_not_decided_is_shown_in_the_same_way_for_some_time() {
        let since = Moment(1_800_000_000);
        let left = Unfinished {
            ca: String::new(),
            order: String::new(),
            names: Vec::new(),
            since,
            key: Zeroizing::default(),
            asked_to_sign: false,
        };
        for (age, unproved) in [(0, false), (UNPROVED / 2 - 1, false), (UNPROVED / 2, true)] {
            clock::set(since.after(age));
            let failure = Failure::of(&Error::Timeout(None), Stage::Validation, None);
            assert_eq!(left.undecided(failure).unproved, unproved, "{age}");
        }
    }
}
