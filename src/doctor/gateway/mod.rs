//! The gateways, asked directly: whether anybody listens, what they say of themselves, and whether
//! a WebSocket works. Every gateway is looked at at the same time.

pub(super) mod challenge;
pub(super) mod health;
pub(super) mod process;

use std::sync::Arc;

use super::Finding;
use super::case::{Case, Gateway};
use crate::config::ProtocolKind;

/// The findings on every gateway, in order.
async fn each<F>(case: &Arc<Case>, look: impl Fn(Arc<Case>, usize) -> F) -> Vec<Finding>
where
    F: Future<Output = Vec<Finding>> + Send + 'static,
{
    if case.config.is_none() {
        return vec![Finding::cannot_tell(
            "",
            "there is no good config that names it",
        )];
    }
    let looking: Vec<_> = (0..case.gateways.len())
        .map(|index| {
            tokio_util::task::AbortOnDropHandle::new(tokio::spawn(look(Arc::clone(case), index)))
        })
        .collect();
    let mut findings = Vec::new();
    for looked in looking {
        findings.extend(looked.await.unwrap_or_default());
    }
    findings
}

fn is_openclaw(gateway: &Gateway) -> bool {
    gateway.upstream.protocol == ProtocolKind::Openclaw
}
