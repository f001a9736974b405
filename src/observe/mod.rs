//! What the outside may see of us: numbers, status, and the admin listener that serves them.
//!
//! Nothing here decides anything: other rooms count into [`Metrics`] and describe themselves
//! through [`StatusSource`]; this room only shows it.

mod admin;
mod guard;
pub mod labels;
mod metrics;
mod process;
mod registry;

pub use admin::{Admin, Command, StatusSource};
pub use metrics::Metrics;
pub use registry::{Counter, Family, Gauge, Gauges, Histogram, Label, Labels};
