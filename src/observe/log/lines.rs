//! How a line of the log is written: for people, and as JSON.
//!
//! A JSON line says of which process it is. One for people does so while another holdline writes
//! beside this one, which is as long as an upgrade of the binary goes on.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serializer as _;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// How many [`Beside`] there are. Of the process, as its number is.
static BESIDE: AtomicUsize = AtomicUsize::new(0);

/// Another process writes into the same log: as long as this lives, lines for people say which of
/// them they are of.
#[derive(Debug)]
pub(crate) struct Beside(());

impl Beside {
    pub(crate) fn another_process() -> Self {
        BESIDE.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        BESIDE.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn pretty<S, W>(to: W, ansi: bool) -> impl Layer<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_writer(to)
        .with_ansi(ansi)
        .with_timer(TimeAndProcess)
        .with_target(false)
}

pub(super) fn json<S, W>(to: W) -> impl Layer<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .event_format(JsonLine)
        .with_writer(to)
}

struct TimeAndProcess;

impl FormatTime for TimeAndProcess {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        SystemTime.format_time(writer)?;
        match BESIDE.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => write!(writer, " [{}]", std::process::id()),
        }
    }
}

struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // Libraries that log otherwise have their level and target among the fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut fields = Fields::default();
        event.record(&mut fields);
        let head = [
            ("timestamp", Value::from(time)),
            ("level", metadata.level().as_str().into()),
            ("pid", std::process::id().into()),
            ("message", fields.message.into()),
        ];
        let line = head
            .into_iter()
            .chain(fields.others)
            .chain([("target", metadata.target().into())]);
        let mut text = Vec::new();
        serde_json::Serializer::new(&mut text)
            .collect_map(line)
            .map_err(|_| fmt::Error)?;
        let text = String::from_utf8(text).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if !name.starts_with("log.") {
            self.others.push((name.trim_start_matches("r#"), value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.put(field, list(&text).unwrap_or(Value::String(text))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.put(field, value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// A list of texts, which a `?names` in a call is: JSON has lists of its own.
fn list(text: &str) -> Option<Value> {
    let texts: Vec<String> = text
        .starts_with('[')
        .then(|| serde_json::from_str(text).ok())??;
    Some(texts.into())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

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

    fn in_json(say: impl FnOnce()) -> Value {
        let out = Written::default();
        let to = out.clone();
        let subscriber = tracing_subscriber::registry().with(json(move || to.clone()));
        tracing::subscriber::with_default(subscriber, say);
        let text = out.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn json_lines_have_level_message_fields_a_process_and_an_rfc_3339_time() {
        let line = in_json(|| tracing::info!(port = 8443, r#type = "a\nb", "listening"));
        assert_eq!(
            (line["level"].as_str(), line["port"].as_u64()),
            (Some("INFO"), Some(8443))
        );
        assert_eq!(
            (&line["message"], &line["type"]),
            (&"listening".into(), &"a\nb".into())
        );
        assert_eq!(line["pid"], std::process::id());
        assert_eq!(line["target"], module_path!());
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }

    #[test]
    fn a_list_of_names_is_a_list() {
        let names = ["a.example".to_owned(), "b \"c\"".to_owned()];
        let none: [String; 0] = [];
        let line = in_json(|| {
            tracing::warn!(?names, ?none, some = ?Some("a"), left = None::<u64>, odd = %"[1]", "{} of them", 2);
        });
        assert_eq!(line["names"], Value::from(names.to_vec()));
        assert_eq!(line["none"], Value::Array(Vec::new()));
        assert_eq!(line["some"], "Some(\"a\")");
        assert_eq!(line["odd"], "[1]");
        assert_eq!(line.get("left"), None);
        assert_eq!(line["message"], "2 of them");
    }

    #[test]
    fn pretty_lines_have_colours_only_where_wanted_and_a_process_beside_another() {
        for (ansi, beside) in [(true, false), (false, false), (false, true)] {
            let out = Written::default();
            let to = out.clone();
            let subscriber = tracing_subscriber::registry().with(pretty(move || to.clone(), ansi));
            let _beside = beside.then(Beside::another_process);
            tracing::subscriber::with_default(subscriber, || tracing::warn!("the gateway is away"));
            let text = out.text();
            assert!(
                text.contains("the gateway is away") && text.lines().count() == 1,
                "{text}"
            );
            assert_eq!(text.contains('\x1b'), ansi, "{text}");
            let process = format!("Z [{}]  WARN ", std::process::id());
            assert_eq!(text.contains(&process), beside, "{text}");
        }
    }
}
