//! Who may come in, where that is decided here and not by the gateway (`[auth]`).
//!
//! [`Identity`] is what comes of it: a name that the gateway is told, and the credential that it
//! hangs on. This room knows passwords, tokens, cookies and certificates; it does not know routes,
//! sessions or frames, and nothing in it prints a secret.

mod credential;
mod grants;
mod identity;

pub use credential::{PasswordHash, TokenHash};
pub use grants::{Grant, Grants};
pub use identity::{Credential, Identity, SignIn};
mod stub;
pub use stub::*;
