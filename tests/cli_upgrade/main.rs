//! The real binary is replaced while it serves, and managed by something like systemd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

#[path = "../kit/mod.rs"]
mod kit;

#[allow(dead_code, reason = "shared with the tests of certificates")]
#[path = "../acme/ca.rs"]
mod ca;
#[allow(dead_code, reason = "shared with the tests of certificates")]
#[path = "../acme/served.rs"]
mod served;
#[allow(dead_code, reason = "shared with the tests of certificates")]
#[path = "../acme/zone.rs"]
mod zone;

mod activation;
mod certificates;
mod load;
mod manager;
mod refused;
mod service;
mod stay;
mod who;
