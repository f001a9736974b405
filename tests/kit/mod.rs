//! The test kit: a scripted gateway, clients that behave as the real ones do, and the means to see
//! what each of them noticed.
//!
//! Include it with `#[path = "../kit/mod.rs"] mod kit;`. Everything runs on 127.0.0.1 inside the
//! test's own process; waits are for events, and every wait has a deadline.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "not every test binary uses every tool"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

pub mod anybody;
pub mod client;
pub mod frame;
pub mod gateway;
pub mod h2;
pub mod http;
pub mod log;
pub mod net;
pub mod proxy;
pub mod raw;
pub mod wait;

pub use anybody::Anybody;
pub use client::{Client, Outcome, Role};
pub use frame::{Decoder, Frame};
pub use gateway::{Options, ScriptedGateway, Stop};
pub use log::Log;
pub use net::{Target, own_ip, own_port};
pub use proxy::Proxy;
pub use raw::{End, Raw};
pub use wait::{DEADLINE, in_step, ms, stand_still, within};
