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

mod clients_themselves;
mod gateway_itself;
