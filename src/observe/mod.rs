//! What the outside may see of us: the log, numbers, status, and the admin listener.
//!
//! Nothing here decides anything: other rooms count into [`Metrics`] and describe themselves
//! through [`StatusSource`]; this room only shows it, without anybody's secrets.

mod admin;
mod admin_door;
mod client;
mod guard;
pub mod labels;
pub mod log;
mod metrics;
mod process;
mod registry;
pub mod status;

pub use admin::{Admin, Command, StatusSource};
pub use admin_door::AdminDoor;
pub use client::{AdminClient, AdminError};
pub use metrics::Metrics;
pub use registry::{Counter, Family, Gauge, Gauges, Histogram, Label, Labels};
pub use status::Status;
