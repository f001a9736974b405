//! The edge as its clients meet it: real sockets, real TLS, a small service behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod admin;
#[path = "../kit/anybody.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "not every test binary uses all of it"
)]
mod anybody;
mod client_certificates;
mod http;
mod kit;
mod limits;
mod proxy;
mod tls;
