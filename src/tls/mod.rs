//! TLS towards clients: which certificate is served, and on which terms.
//!
//! Certificates live behind one resolver ([`CertStore`]) and are swapped while connections live; a
//! chain is checked ([`Certificate`]) before it is published, so a bad file never replaces a good
//! one. Nothing here knows sockets, HTTP or routes: `listen` asks for the terms of each handshake.

pub mod acme;
mod authorities;
mod chain;
mod client;
mod dev;
mod error;
mod facts;
mod files;
mod server;
mod store;

pub use authorities::{Authorities, Authority};
pub use chain::Certificate;
pub use client::{Ordinary, Shown, greet};
pub use error::TlsError;
pub use facts::{EXPIRES_SOON, Facts, Warning};
pub(crate) use server::provider;
pub use server::{Prepared, Terms, Tls, read_client_ca};
pub use store::CertStore;
