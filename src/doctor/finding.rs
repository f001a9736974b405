//! What a look came to: seen, judged, and what to do.

use serde::Serialize;

/// One line of the diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which look it belongs to.
    pub look: &'static str,
    /// What of it was looked at: an address, a file, a setting. May be empty.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It could not be seen, which says nothing against it.
    CannotTell,
    /// It works, but not as it should, or not for long.
    Warning,
    /// It keeps somebody from being served.
    Failure,
}

impl Finding {
    pub(super) fn ok(subject: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, subject, seen, "")
    }

    pub(super) fn warning(
        subject: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Warning, subject, seen, remedy)
    }

    pub(super) fn failure(
        subject: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Failure, subject, seen, remedy)
    }

    pub(super) fn cannot_tell(subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Verdict::CannotTell, subject, why, "")
    }

    pub(super) fn new(
        verdict: Verdict,
        subject: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            // Set by whoever runs the look.
            look: "",
            subject: subject.into(),
            verdict,
            seen: seen.into(),
            remedy: remedy.into(),
        }
    }

    /// The same with something to do.
    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: remedy.into(),
            ..self
        }
    }
}
