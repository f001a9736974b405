//! holdline: a reverse proxy that holds the line in front of an OpenClaw gateway.

pub mod config;
pub mod gateway;
pub mod http;
pub mod listen;
pub mod observe;
pub mod protocol;
pub mod session;
pub mod tls;
pub mod ws;
