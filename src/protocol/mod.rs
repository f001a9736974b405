//! What is said: to clients, in their protocol's words.
//!
//! No I/O.

pub mod rescue;
