//! Numbers that many tasks count into, and their Prometheus text form.
//!
//! Counting is one relaxed atomic addition; nothing here allocates, locks or fails after start.

use std::fmt::{self, Write as _};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows.
///
/// Aligned to a cache line, so that two busy ones do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counter(AtomicU64);

/// A number that comes and goes.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Gauge(AtomicI64);

/// One label of a series: a plain enum whose variants are numbered from 0.
pub trait Label: Copy {
    /// The label's name.
    const KEY: &'static str;
    /// The variants' values, in order.
    const NAMES: &'static [&'static str];

    /// The variant's place in [`Self::NAMES`].
    fn index(self) -> usize;
}

/// All labels of a series: one [`Label`], or a pair of them.
pub trait Labels: Copy {
    /// How many series there are.
    const COUNT: usize;

    /// Which of them this is.
    fn index(self) -> usize;

    /// As in `{key="value"}`, without the braces.
    fn text(index: usize) -> String;
}

/// A counter per label value.
#[derive(Debug)]
pub struct Family<L> {
    cells: Box<[Counter]>,
    labels: PhantomData<fn(L)>,
}

/// A gauge per label value.
#[derive(Debug)]
pub struct Gauges<L> {
    cells: Box<[Gauge]>,
    labels: PhantomData<fn(L)>,
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// Upper bounds of a [`Histogram`]'s buckets in milliseconds: from a handshake to a long outage.
const BOUNDS: [u64; 14] = [
    1, 5, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 15_000, 60_000, 180_000, 600_000,
];

/// Anything that can be written as the samples of one metric.
pub(super) trait Samples {
    const KIND: &'static str;

    fn write(&self, name: &str, out: &mut String) -> fmt::Result;
}

/// Writes one metric with its help and type.
pub(super) fn render<S: Samples>(out: &mut String, name: &str, help: &str, samples: &S) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}");
    let _ = writeln!(out, "# TYPE {name} {}", S::KIND);
    let _ = samples.write(name, out);
}

// === impl Counter ===

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Samples for Counter {
    const KIND: &'static str = "counter";

    fn write(&self, name: &str, out: &mut String) -> fmt::Result {
        writeln!(out, "{name} {}", self.get())
    }
}

// === impl Gauge ===

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Sets it.
    pub fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Samples for Gauge {
    const KIND: &'static str = "gauge";

    fn write(&self, name: &str, out: &mut String) -> fmt::Result {
        writeln!(out, "{name} {}", self.get())
    }
}

// === impl Labels ===

impl<L: Label> Labels for L {
    const COUNT: usize = L::NAMES.len();

    fn index(self) -> usize {
        Label::index(self)
    }

    fn text(index: usize) -> String {
        format!("{}=\"{}\"", L::KEY, L::NAMES.get(index).unwrap_or(&""))
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const COUNT: usize = A::NAMES.len() * B::NAMES.len();

    fn index(self) -> usize {
        Label::index(self.0) * B::NAMES.len() + Label::index(self.1)
    }

    fn text(index: usize) -> String {
        let width = B::NAMES.len().max(1);
        format!(
            "{},{}",
            <A as Labels>::text(index / width),
            <B as Labels>::text(index % width)
        )
    }
}

// === impl Family ===

impl<L: Labels> Family<L> {
    /// Counts one.
    pub fn inc(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts `n`.
    pub fn add(&self, labels: L, n: u64) {
        if let Some(cell) = self.cells.get(labels.index()) {
            cell.add(n);
        }
    }

    /// The count so far.
    pub fn get(&self, labels: L) -> u64 {
        self.cells.get(labels.index()).map_or(0, Counter::get)
    }

    /// The count so far over all labels.
    pub fn total(&self) -> u64 {
        self.cells.iter().map(Counter::get).sum()
    }
}

impl<L: Labels> Default for Family<L> {
    fn default() -> Self {
        let cells = (0..L::COUNT).map(|_| Counter::default()).collect();
        Self {
            cells,
            labels: PhantomData,
        }
    }
}

impl<L: Labels> Samples for Family<L> {
    const KIND: &'static str = "counter";

    fn write(&self, name: &str, out: &mut String) -> fmt::Result {
        for (index, cell) in self.cells.iter().enumerate() {
            writeln!(out, "{name}{{{}}} {}", L::text(index), cell.get())?;
        }
        Ok(())
    }
}

// === impl Gauges ===

impl<L: Labels> Gauges<L> {
    /// Adds `n`, which may be negative.
    pub fn add(&self, labels: L, n: i64) {
        if let Some(cell) = self.cells.get(labels.index()) {
            cell.add(n);
        }
    }

    /// Sets it.
    pub fn set(&self, labels: L, n: i64) {
        if let Some(cell) = self.cells.get(labels.index()) {
            cell.set(n);
        }
    }

    /// What it is now.
    pub fn get(&self, labels: L) -> i64 {
        self.cells.get(labels.index()).map_or(0, Gauge::get)
    }

    /// Something that was `from` (if it was anything) becomes `to` (if it goes on).
    pub fn shift(&self, from: Option<L>, to: Option<L>) {
        if let Some(from) = from {
            self.add(from, -1);
        }
        if let Some(to) = to {
            self.add(to, 1);
        }
    }
}

impl<L: Labels> Default for Gauges<L> {
    fn default() -> Self {
        let cells = (0..L::COUNT).map(|_| Gauge::default()).collect();
        Self {
            cells,
            labels: PhantomData,
        }
    }
}

impl<L: Labels> Samples for Gauges<L> {
    const KIND: &'static str = "gauge";

    fn write(&self, name: &str, out: &mut String) -> fmt::Result {
        for (index, cell) in self.cells.iter().enumerate() {
            writeln!(out, "{name}{{{}}} {}", L::text(index), cell.get())?;
        }
        Ok(())
    }
}

// === impl Histogram ===

impl Histogram {
    /// Records one.
    pub fn observe(&self, took: Duration) {
        let slot = BOUNDS
            .iter()
            .position(|bound| took <= Duration::from_millis(*bound));
        if let Some(bucket) = slot.and_then(|slot| self.buckets.get(slot)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

impl Samples for Histogram {
    const KIND: &'static str = "histogram";

    fn write(&self, name: &str, out: &mut String) -> fmt::Result {
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.load(Relaxed);
            let bound = Duration::from_millis(*bound).as_secs_f64();
            writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {below}")?;
        }
        let count = self.count();
        let sum = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
        writeln!(out, "{name}_sum {sum}")?;
        writeln!(out, "{name}_count {count}")
    }
}
