//! What comes of a reload: why a new config is not taken, or what it has changed, for whoever asked
//! and for the status. Nothing here reads or takes one.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Doubted, HANGING, LIMIT, SETTLES};
use crate::auth::DeskError;
use crate::config::{Auth, Change, ConfigErrors, Problem};
use crate::listen::BindError;
use crate::observe::log::LogError;
use crate::protocol::rescue::millis;
use crate::tls::TlsError;

/// Why a new config is not taken. The old one is still in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It was not started from anything that could have changed.
    #[error("it runs without a config file: there is nothing to read anew")]
    NoSource,
    /// The new one has errors.
    #[error("the new config is refused, the old one is in force:\n{0}")]
    Config(ConfigErrors),
    /// A certificate or a TLS setting.
    #[error("the new config is refused, the old one is in force: {0}")]
    Tls(#[from] TlsError),
    /// The key of the sign-ins.
    #[error("the new config is refused, the old one is in force: {0}")]
    Auth(#[from] DeskError),
    /// An address.
    #[error("the new config is refused, the old one is in force: {0}")]
    Bind(#[from] BindError),
    /// The log's level.
    #[error("the new config is refused, the old one is in force: {0}")]
    Log(#[from] LogError),
    /// A file that changed could be half-written, or opens the door.
    #[error("the changed file is not taken by itself, the old config is in force: {0}")]
    Doubtful(Doubted),
    /// What was read at the start cannot be read again.
    #[error(
        "the new config is refused, the old one is in force: {} is no regular file, so it cannot be \
         read again; put a file in its place",
        .0.display()
    )]
    NoFile(PathBuf),
    /// The file system of the config, or of what it takes from files, does not answer.
    #[error(
        "the new config could not be read within {} s, the old one is in force; see to the file \
         system that it is on, and try again",
        LIMIT.as_secs()
    )]
    Slow,
    /// That of a certificate, a key or `state_dir` does not.
    #[error(
        "the new config is not taken, the old one is in force: the certificates and keys that it \
         names could not be read within {} s; see to the file system that they are on, or name \
         others, and try again",
        LIMIT.as_secs()
    )]
    SlowFiles,
    /// Too often.
    #[error(
        "the new config is not read, the old one is in force: {HANGING} earlier attempts still \
         wait for a file system that does not answer; when it does, try again"
    )]
    Hanging,
    /// A file that changed is in another file's place, and may still be being written.
    #[error(
        "the changed file is only the beginning of what it was: if it stays so for {} s, it is taken",
        SETTLES.as_secs()
    )]
    Unsettled,
    /// The proxy ends.
    #[error("the config is not read any more: holdline is stopping")]
    Stopping,
}

/// What a reload has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// What is different from before, and to what it applies.
    pub changes: Vec<Change>,
    /// Sessions whose sign-in or token is gone, and which were ended for it.
    pub ended: usize,
    /// Tokens that are valid though their user is gone from `auth.users`.
    pub tokens_left: Vec<TokenLeft>,
    /// Where nothing is different: the last reload that has changed something. A file that changed
    /// has often been taken before somebody asks for it.
    pub before: Option<Before>,
}

/// A token of somebody who can no longer sign in with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLeft {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
}

/// An earlier reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// How long ago it was.
    pub ago: Duration,
    /// Whether nobody asked for it: a file had changed.
    pub by_itself: bool,
    /// What it has done, as [`Reloaded::json`].
    pub done: Value,
}

/// Who wants a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// An operator.
    Command,
    /// Nobody: a file has changed.
    File,
}

impl Reloaded {
    /// For the answer to a command.
    #[must_use]
    pub fn json(&self) -> Value {
        let changes: Vec<Value> = self.changes.iter().map(Change::json).collect();
        let mut said = json!({"changed": changes, "sessionsEnded": self.ended});
        if let (false, Some(said)) = (self.tokens_left.is_empty(), said.as_object_mut()) {
            let left = |token: &TokenLeft| json!({"name": token.name, "user": token.user});
            let left = self.tokens_left.iter().map(left).collect();
            said.insert("tokensLeft".to_owned(), Value::Array(left));
        }
        if let (Some(before), Some(said)) = (&self.before, said.as_object_mut()) {
            let by = match before.by_itself {
                true => "file",
                false => "command",
            };
            let before = json!({"agoMs": millis(before.ago), "by": by, "done": before.done});
            said.insert("before".to_owned(), before);
        }
        said
    }

    /// The keys that changed.
    pub(super) fn keys(&self) -> String {
        let keys: Vec<&str> = self
            .changes
            .iter()
            .map(|change| change.key.as_str())
            .collect();
        match keys.is_empty() {
            true => "nothing".to_owned(),
            false => keys.join(", "),
        }
    }
}

impl TokenLeft {
    /// Of those who were among the users and are not any more. Others were never there: programs.
    pub(super) fn of(old: &Auth, new: &Auth) -> Vec<Self> {
        let is_in = |auth: &Auth, name: &str| auth.users.iter().any(|user| user.name == name);
        let tokens = new.tokens.iter().filter(|_| new.token);
        tokens
            .filter(|token| is_in(old, &token.user) && !is_in(new, &token.user))
            .map(|token| Self {
                name: token.name.clone(),
                user: token.user.clone(),
            })
            .collect()
    }
}

impl ReloadError {
    /// For the answer to a command.
    #[must_use]
    pub fn json(&self) -> Value {
        let problems: Vec<Value> = match self {
            Self::Config(errors) => errors.errors.iter().map(Problem::json).collect(),
            _ => Vec::new(),
        };
        json!({"error": self.to_string(), "problems": problems})
    }
}

/// How the last reload went, for the status.
#[derive(Debug, Default)]
pub(crate) struct LastReload(Mutex<Option<Outcome>>);

#[derive(Debug)]
struct Outcome {
    at: Instant,
    /// What was wrong, if it was refused.
    error: Option<String>,
    /// Set: the file waits for somebody's word.
    doubt: Option<Doubted>,
}

impl LastReload {
    pub(super) fn note(&self, reloaded: &Result<Reloaded, ReloadError>) {
        let outcome = Outcome {
            at: Instant::now(),
            error: reloaded.as_ref().err().map(ToString::to_string),
            doubt: match reloaded {
                Err(ReloadError::Doubtful(doubted)) => Some(doubted.clone()),
                _ => None,
            },
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// What speaks against taking the file unasked, if it waits for somebody's word.
    pub(super) fn doubt(&self) -> Option<Doubted> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()?.doubt.clone()
    }

    /// When, and what was wrong with it if it was refused; `null` before the first.
    pub(crate) fn json(&self, now: Instant) -> Value {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map_or(Value::Null, |last| {
            let ago = now.saturating_duration_since(last.at);
            json!({"agoMs": millis(ago), "refused": last.error})
        })
    }
}
