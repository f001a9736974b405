//! The edge as its clients meet it: real sockets, real TLS, a small service behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod admin;
mod client_certificates;
mod http;
mod kit;
mod limits;
mod proxy;
mod tls;
