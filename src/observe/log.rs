//! The log: how lines look, and what of a request may be in them.
//!
//! Lines go to standard error by the way of `out`; how they are written is in `lines`. What a client
//! asked for is only ever logged through [`loggable_path`]: queries carry tokens, and some paths are
//! secrets themselves.

mod lines;
mod out;

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use http::Uri;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Log, LogFormat};
pub(crate) use lines::Beside;
use lines::{json, pretty};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// `log.level` is no filter. A checked config has no such level.
    #[error("log.level is not a log filter")]
    Filter(#[from] ParseError),
    /// A process has one log.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// The process's log while it runs. Cheap to clone.
#[derive(Clone)]
pub struct LogControl {
    level: reload::Handle<EnvFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
}

/// A level that is a filter, and not in force yet.
#[derive(Debug)]
pub struct LogPlan {
    level: EnvFilter,
    format: LogFormat,
}

/// Sets up logging for the process; what is returned changes it.
///
/// # Errors
/// When it is set up already.
pub fn init(log: &Log) -> Result<LogControl, LogError> {
    let (level, level_control) = reload::Layer::new(filter(log)?);
    let (lines, lines_control) = reload::Layer::new(lines(log.format));
    tracing_subscriber::registry()
        .with(level)
        .with(lines)
        .try_init()?;
    out::start();
    Ok(LogControl {
        level: level_control,
        lines: lines_control,
    })
}

/// Waits until what was logged is written, for at most `limit`: at the end of the process.
pub fn flush(limit: Duration) {
    out::flush(limit);
}

impl LogControl {
    /// Checks another level and format.
    ///
    /// # Errors
    /// When the level is no filter.
    pub fn prepare(log: &Log) -> Result<LogPlan, LogError> {
        Ok(LogPlan {
            level: filter(log)?,
            format: log.format,
        })
    }

    /// From the next line on.
    pub fn apply(&self, plan: LogPlan) {
        // They fail only when the log is gone, at the end of the process.
        let _ = self.level.reload(plan.level);
        let _ = self.lines.reload(lines(plan.format));
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

fn filter(log: &Log) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(&log.level)
}

fn lines(format: LogFormat) -> Lines {
    let terminal = io::stderr().is_terminal();
    match format.is_pretty(terminal) {
        true => Box::new(pretty(out::line, terminal && colors_wanted())),
        false => Box::new(json(out::line)),
    }
}

/// Whether the user wants colours at all (<https://no-color.org>).
#[must_use]
pub fn colors_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl LogFormat {
    fn is_pretty(self, terminal: bool) -> bool {
        match self {
            Self::Auto => terminal,
            Self::Pretty => true,
            Self::Json => false,
        }
    }
}

/// An error and what led to it, in one line. A cause that an error tells itself is not told again.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(&format!(": {words}"));
        }
        cause = error.source();
    }
    text
}

// === what of a request may be logged ===

/// The part of a URI that a log may show: its path, without what is secret in it.
#[must_use]
pub fn loggable_path(uri: &Uri) -> LoggablePath<'_> {
    LoggablePath { path: uri.path() }
}

/// Shows a path for the log; made by [`loggable_path`].
#[derive(Clone, Copy)]
pub struct LoggablePath<'u> {
    path: &'u str,
}

/// The OpenClaw gateway hands out URLs below this with a secret as their next segment.
const CAPABILITY: &str = "/__openclaw__/cap/";

/// A longer path helps nobody who reads a log.
const LONGEST: usize = 200;

impl fmt::Display for LoggablePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, rest) = match self.path.split_once(CAPABILITY) {
            Some((before, secret)) => {
                write_start(f, before)?;
                (
                    CAPABILITY,
                    Some(secret.split_once('/').map_or("", |(_, rest)| rest)),
                )
            }
            None => (self.path, None),
        };
        write_start(f, start)?;
        match rest {
            Some("") => f.write_str("[redacted]"),
            Some(rest) => {
                f.write_str("[redacted]/")?;
                write_start(f, rest)
            }
            None => Ok(()),
        }
    }
}

/// A `?path` in a log line must not show more than a `%path`.
impl fmt::Debug for LoggablePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn write_start(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => write!(f, "{}...", text.get(..end).unwrap_or_default()),
        None => f.write_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(uri: &str) -> String {
        loggable_path(&uri.parse().unwrap()).to_string()
    }

    #[test]
    fn auto_follows_the_terminal() {
        assert!(LogFormat::Auto.is_pretty(true) && !LogFormat::Auto.is_pretty(false));
        assert!(LogFormat::Pretty.is_pretty(false) && !LogFormat::Json.is_pretty(true));
    }

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        enum Failed {
            #[error("no key: {source}; look at the disk")]
            Tells { source: io::Error },
            #[error("no key")]
            Leaves { source: io::Error },
        }
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let tells = Failed::Tells { source: source() };
        assert_eq!(with_causes(&tells), tells.to_string());
        let leaves = Failed::Leaves { source: source() };
        assert_eq!(with_causes(&leaves), "no key: permission denied");
    }

    #[test]
    fn a_query_never_gets_into_the_log() {
        assert_eq!(shown("/ws?token=abc"), "/ws");
        assert_eq!(shown("http://user:pw@host/a/b?token=abc"), "/a/b");
    }

    #[test]
    fn a_secret_in_the_path_is_left_out() {
        assert_eq!(
            shown("/__openclaw__/cap/s3cret/index.html"),
            "/__openclaw__/cap/[redacted]/index.html"
        );
        assert_eq!(
            shown("/__openclaw__/cap/s3cret"),
            "/__openclaw__/cap/[redacted]"
        );
        assert_eq!(
            shown("/base/__openclaw__/cap/s3cret/?t=1"),
            "/base/__openclaw__/cap/[redacted]"
        );
    }

    #[test]
    fn a_very_long_path_is_cut() {
        assert_eq!(shown(&format!("/{}", "a".repeat(5_000))).len(), LONGEST + 3);
    }
}
