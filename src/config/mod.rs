//! From a TOML file to a [`Config`] that can be trusted, or to messages that say what to write.
//!
//! Raw (serde, with spans) → checked model. No I/O but reading the named files; nothing here is
//! mutable after loading.

mod model;

pub use model::*;
