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

mod activation;
mod load;
mod manager;
mod refused;
mod service;
mod stay;
mod who;
