//! Integration tests of the whole proxy, in-process, against a scripted gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

#[path = "../kit/mod.rs"]
mod kit;

mod admission;
mod bounds;
mod clients_themselves;
mod closes;
mod corners;
mod crowd;
mod draining;
mod faults;
mod flush;
mod frames;
mod generic;
mod half_closed;
mod http2;
mod identity;
mod long_waits;
mod newcomers;
mod open_sessions;
mod operation;
mod outage_log;
mod plain_http;
mod reload;
mod requests;
mod restoring;
mod sign_in;
