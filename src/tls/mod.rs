//! TLS towards clients: which certificate is served, and on which terms.
//!
//! Certificates live behind one resolver ([`CertStore`]) and are swapped while connections live; a
//! chain is checked ([`Certificate`]) before it is published, so a bad file never replaces a good
//! one. Nothing here knows sockets, HTTP or routes: `listen` asks for an acceptor and runs it.

pub mod acme;
mod chain;
mod dev;
mod error;
mod facts;
mod files;
mod server;
mod store;

pub use chain::Certificate;
pub use error::TlsError;
pub use facts::{Facts, Warning};
pub use server::{Terms, Tls, check_client_ca};
pub use store::CertStore;
