//! What has to be set on the OpenClaw gateway for a config of ours, and whether it is.
//!
//! [`Wanted`] is worked out from the config alone; [`check()`] looks at a running gateway from
//! outside, as a client of ours would reach it, and leaves nothing behind there: no device is
//! paired, nothing is written. Printing is the command line's business.

mod answer;
mod auto_approve;
mod check;
mod connect;
mod device;
mod identities;
mod names;
mod people;
mod wanted;

pub use check::check;
pub use names::names;
pub use wanted::{Options, SCOPES, Wanted, WantedError};

use serde::Serialize;

const AUTO_APPROVE: &str = "gateway.auth.trustedProxy.deviceAutoApprove";

/// What a look at a gateway came to.
#[derive(Debug, Clone, Default)]
pub struct Looked {
    /// Setting by setting.
    pub findings: Vec<Finding>,
    /// What it grants to whom, of those who were looked at.
    granted: Vec<(String, Vec<String>)>,
    /// What it has in its lists. `None`: that was not seen.
    lists: Option<Lists>,
}

/// The lists that can only be set as a whole.
#[derive(Debug, Clone, Default)]
struct Lists {
    trusted_proxies: Vec<String>,
    origins: Vec<String>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The setting, as a path in the gateway's config, or `gateway` for itself.
    pub setting: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

/// How a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Otherwise.
    Wrong,
    /// It cannot be seen from outside, or not now.
    CannotTell,
}

impl Finding {
    fn ok(setting: &str, seen: impl Into<String>) -> Self {
        Self::new(setting, Verdict::Ok, seen, "")
    }

    fn wrong(setting: &str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(setting, Verdict::Wrong, seen, remedy)
    }

    fn cannot_tell(setting: &str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(setting, Verdict::CannotTell, seen, remedy)
    }

    fn new(
        setting: &str,
        verdict: Verdict,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            setting: setting.to_owned(),
            verdict,
            seen: seen.into(),
            remedy: remedy.into(),
        }
    }
}
