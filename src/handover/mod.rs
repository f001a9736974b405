//! A new binary takes the place of the running one, and nobody notices: it is started, given the
//! listening sockets, and only when it serves does the old one stop accepting.
//!
//! `message` is pure, `channel` carries it; `launch` is the old process's side and `arrival` the
//! new one's. What becomes of the sessions of the old one is [`crate::Holdline`]'s concern: they
//! are not moved.

mod arrival;
mod binary;
mod channel;
mod launch;
mod message;
mod upgrades;

pub use arrival::{Arrival, ArrivalError};
pub use binary::Binary;
pub use channel::ChannelError;
pub use message::{MessageError, Process};
pub use upgrades::{UpgradeError, Upgraded};

pub(crate) use launch::{LIMIT, Successor};
pub(crate) use upgrades::Upgrades;

/// Set for a process whose standard input is the other end of a handover.
const VARIABLE: &str = "HOLDLINE_HANDOVER";
