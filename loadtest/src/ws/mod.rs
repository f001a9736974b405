//! A lean WebSocket: enough of RFC 6455 to load a proxy without being the bottleneck.
//! One owner per connection, reused buffers, many frames in one write. It trusts its peer more
//! than a server on the internet may: UTF-8 is not checked. The tests hold it against an
//! independent implementation.

mod connection;
mod frame;
mod upgrade;

pub use connection::{Connection, Message, Role, WsError};
pub use frame::{FrameError, Header, Opcode, apply_mask, encode, parse};
pub use upgrade::{UpgradeError, accept_key, client_upgrade};
