//! Certificates from CAs: the whole proxy in this process, against a small CA of our own (`ca`) and
//! against Pebble, Let's Encrypt's test server.
//!
//! Those with Pebble need its programs: `tests/acme/run` installs and runs all of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

#[path = "../kit/mod.rs"]
mod kit;

mod accounts;
mod bad_days;
mod ca;
mod faults;
mod hooks;
mod keeping;
mod live;
mod name_server;
mod pebble;
mod served;
mod updates;
mod with_pebble;
mod zone;
