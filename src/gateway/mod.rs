//! The one owner of a gateway's state: the prober, dialling, the paced return.
//!
//! Sessions and requests subscribe, report what they see, and dial through here. Nothing in this
//! room knows about clients or frames.

mod state;

pub use state::{CrashLoop, Phase, Reason, View};
