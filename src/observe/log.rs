//! The log: how lines look, and what of a request may be in them.
//!
//! Lines go to standard error. What a client asked for is only ever logged through
//! [`loggable_path`]: queries carry tokens, and some paths are secrets themselves.

use std::fmt;
use std::io::{self, IsTerminal};

use http::Uri;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

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

/// Sets up logging for the process.
///
/// # Errors
/// When it is set up already.
pub fn init(log: &Log) -> Result<(), LogError> {
    let terminal = io::stderr().is_terminal();
    if log.format.is_pretty(terminal) {
        pretty(log, io::stderr, terminal && colors_wanted())?.try_init()?;
    } else {
        json(log, io::stderr)?.try_init()?;
    }
    Ok(())
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

fn pretty<W>(log: &Log, to: W, ansi: bool) -> Result<impl Subscriber + use<W>, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(&log.level)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    Ok(lines
        .with_writer(to)
        .with_ansi(ansi)
        .with_target(false)
        .finish())
}

fn json<W>(log: &Log, to: W) -> Result<impl Subscriber + use<W>, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(&log.level)?;
    let lines = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false);
    Ok(lines.with_env_filter(filter).with_writer(to).finish())
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
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log(level: &str) -> Log {
        Log {
            level: level.to_owned(),
            format: LogFormat::Auto,
        }
    }

    fn shown(uri: &str) -> String {
        loggable_path(&uri.parse().unwrap()).to_string()
    }

    #[test]
    fn json_lines_have_level_message_fields_and_an_rfc_3339_time() {
        let out = Written::default();
        let to = out.clone();
        let subscriber = json(&log("info"), move || to.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(port = 8443, "listening");
            tracing::debug!("not at this level");
        });
        let text = out.text();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (line["level"].as_str(), line["port"].as_u64()),
            (Some("INFO"), Some(8443))
        );
        assert_eq!(line["message"], "listening");
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }

    #[test]
    fn pretty_lines_have_colours_only_where_wanted() {
        for ansi in [true, false] {
            let out = Written::default();
            let to = out.clone();
            let subscriber = pretty(&log("warn"), move || to.clone(), ansi).unwrap();
            tracing::subscriber::with_default(subscriber, || tracing::warn!("the gateway is away"));
            let text = out.text();
            assert!(
                text.contains("the gateway is away") && text.lines().count() == 1,
                "{text}"
            );
            assert_eq!(text.contains('\x1b'), ansi, "{text}");
        }
    }

    #[test]
    fn auto_follows_the_terminal() {
        assert!(LogFormat::Auto.is_pretty(true) && !LogFormat::Auto.is_pretty(false));
        assert!(LogFormat::Pretty.is_pretty(false) && !LogFormat::Json.is_pretty(true));
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
