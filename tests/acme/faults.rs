//! A panic in the middle of holdline, wherever it says something: a log that fails when told to.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What is said, and about whom.
static ARMED: Mutex<Vec<(&str, &str)>> = Mutex::new(Vec::new());

/// Once, as soon as this is said about that: a name or address that no other test has.
pub(crate) fn panic_at(message: &'static str, about: &'static str) {
    static LISTENS: OnceLock<()> = OnceLock::new();
    LISTENS.get_or_init(|| tracing::subscriber::set_global_default(Fails).unwrap());
    ARMED.lock().unwrap().push((message, about));
}

struct Fails;

#[derive(Default)]
struct Said(String);

impl Visit for Said {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        write!(self.0, "{value:?} ").unwrap();
    }
}

impl Subscriber for Fails {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("holdline")
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut armed = ARMED.lock().unwrap();
        let wanted =
            |(message, about): &(&str, &str)| said.0.contains(message) && said.0.contains(about);
        let Some(at) = armed.iter().position(wanted) else {
            return;
        };
        armed.remove(at);
        drop(armed);
        panic!("a fault that a test wants");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
