//! holdline holds the line in front of an OpenClaw gateway: clients stay connected while it
//! restarts, crashes, hangs or is not up yet.
//!
//! The road of a byte, and the rooms it goes through:
//!
//! ```text
//! client ─ listen ─ tls ─ http ─┬─ session ── gateway ─ upstream socket
//!                               │     └ ws (frames)  └ state: Ready, Starting, Draining, Down, Hung
//!                               └─ forward (plain HTTP)
//! admin ── observe reads the same state;  config ── one immutable model that everyone loads
//! ```
//!
//! | room | lives there | must not |
//! |---|---|---|
//! | [`config`] | TOML with places → checked model | be mutable |
//! | [`listen`] | bind or inherit, accept, PROXY protocol, admission, the HTTP server connection | know routes |
//! | [`tls`] | terms, certificates behind one resolver | know HTTP |
//! | [`http`] | routing, header hygiene, plain requests, refusals, upgrades | know frames |
//! | [`auth`] | who may come in, where that is decided here | know routes, sessions or frames |
//! | [`ws`] | pure: handshake, frame headers, boundaries, close codes | know gateways |
//! | [`gateway`] | the one owner of a gateway's state: prober, dialling, paced return | know clients |
//! | [`gateway_settings`] | what to set on a gateway for a config, and whether it is | pair or write anything there |
//! | [`doctor`] | looks at everything that has to work, from outside, and says what to do | change anything |
//! | [`session`] | the heart: pure machine, journal, and the pump that does its I/O | parse JSON |
//! | [`protocol`] | what a frame means, which frames we say, what each failure is answered with | do I/O |
//! | `reload` | a new config: read, built aside, then swapped whole under open sessions | know sockets or frames |
//! | `run` | starts the rooms in order, ends them in order, and follows one process by the next | decide what is theirs |
//! | [`handover`] | a new binary takes the place of the running one | know sessions |
//! | `supervise` | starts anew what has panicked and must not be missing | know what that does |
//! | [`hint`] | commands that a person is told to type | know what they are for |
//! | [`systemd`] | sockets from a service manager, what it is told, its watchdog | decide anything |
//! | `temporary` | names for files that are to replace others, and the end of those that never did | know what is in them |
//! | [`observe`] | log, numbers, status, admin listener | decide anything |
//!
//! [`Holdline::start`] runs the whole proxy inside any tokio program.

pub mod auth;
pub mod config;
pub mod doctor;
pub mod gateway;
pub mod gateway_settings;
pub mod handover;
pub mod hint;
pub mod http;
pub mod listen;
mod network;
pub mod observe;
pub mod protocol;
mod reload;
mod run;
pub mod session;
mod status;
mod supervise;
pub mod systemd;
mod temporary;
pub mod tls;
pub mod ws;

pub use reload::{Before, Doubt, Doubted, Loader, ReloadError, Reloaded, Source, TokenLeft};
pub use run::{Holdline, StartError, Surroundings};
