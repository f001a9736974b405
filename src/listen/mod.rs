//! The front door: bind or inherit, accept, admit, PROXY header, TLS, and the HTTP server connection.
//!
//! What it hands on is a request with its [`Peer`]; who answers it, and what a route or a session
//! is, is none of its business. An upgraded socket leaves through hyper as a [`ClientStream`] and
//! nothing is kept here.

mod accept;
mod admission;
mod bind;
mod complaint;
mod door;
mod doors;
mod holder;
mod inherit;
mod plain;
mod proxy;
mod redirect;
mod serve;
mod socket;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

pub use bind::{BindError, Listener, Share};
pub use door::Edge;
pub use doors::{Changes, Doors};
pub use holder::Holder;
pub(crate) use holder::of as holder_of;
pub use inherit::{Inherited, InheritedSocket, Kind};
pub use socket::{KnownSocket, ListeningSocket};
pub use stream::ClientStream;

use crate::auth::CertificateNames;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The client's address; after a PROXY header the one that it tells.
    pub remote: SocketAddr,
    /// Our address that it reached.
    pub local: SocketAddr,
    /// Whether `remote` itself is one of `listen.trusted_proxies`: then, and only then, may it
    /// tell a further client's address in a header.
    pub via_trusted_proxy: bool,
    /// The name asked for in TLS (SNI), lower case.
    pub server_name: Option<String>,
    /// Whether HTTP/2 was agreed on.
    pub alpn_h2: bool,
    /// The names in the certificate of `tls.client_ca` that it has shown.
    pub client_certificate: Option<Arc<CertificateNames>>,
}
