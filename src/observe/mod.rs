//! What people and machines can see of holdline: the log, redacted.
//!
//! Nothing in this room decides anything.

pub mod log;
