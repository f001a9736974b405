//! The library behind the `loadtest` command: it measures what a WebSocket proxy costs and what
//! its clients go through while the backend restarts or the proxy is reloaded. Works against any
//! `ws://` or `wss://` URL.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`] | arguments and the commands' entry points |
//! | [`latency`], [`echo`], [`idle`], [`outage`], [`reload`], [`compare`] | one measurement each |
//! | [`server`] | the echo backend |
//! | [`target`], [`session`], [`protocol`] | what is measured, an open session, what is said on it |
//! | [`ws`], [`net`], [`http`], [`url`] | the wire |
//! | [`stats`], [`procfs`], [`pace`] | histograms, `/proc`, exact send times |
//! | [`report`], [`progress`], [`units`] | what a person sees |

pub mod cli;
pub mod compare;
pub mod echo;
pub mod http;
pub mod idle;
pub mod latency;
pub mod net;
pub mod outage;
pub mod pace;
pub mod procfs;
pub mod progress;
pub mod protocol;
pub mod reload;
pub mod report;
pub mod server;
pub mod session;
pub mod stats;
pub mod target;
pub mod units;
pub mod url;
pub mod ws;
