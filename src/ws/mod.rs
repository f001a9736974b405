//! WebSocket on the wire (RFC 6455), pure: handshake, frame headers, message boundaries, closes.
//!
//! No I/O and no knowledge of gateways: bytes in, facts out.

pub mod close;
pub mod cutter;
pub mod frame;
pub mod handshake;
