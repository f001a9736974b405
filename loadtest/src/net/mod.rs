//! Streams to a proxy: TCP, with TLS where the URL says so. Knows nothing of WebSockets.

mod stream;
mod tls;

pub use stream::{Stream, connect};
pub use tls::{TlsError, Trust, connector};
