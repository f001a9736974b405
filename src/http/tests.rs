//! The App between real sockets: a client, a scripted upstream, raw bytes where bytes matter.

mod forms;
mod h2;
mod hold;
mod kit;
mod log;
mod refused;
mod setup;
mod spoof;
mod stream;
mod torn;
