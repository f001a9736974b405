//! Who may come in, where that is decided here and not by the gateway (`[auth]`).
//!
//! [`Identity`] is what comes of it: a name that the gateway is told, and the credential that it
//! hangs on. This room knows passwords, tokens, cookies and certificates; it does not know routes,
//! sessions or frames, and nothing in it prints a secret.

pub mod certificate;
mod credential;
pub mod forward;
mod identity;
mod name;

pub use certificate::CertificateNames;
pub use credential::{PasswordHash, TokenHash};
pub use identity::{Credential, Identity, SignIn};
