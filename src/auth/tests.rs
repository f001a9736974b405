//! The desk as its callers meet it: users and cookies in, identities out.

mod cookies;
mod flood;
mod kit;
pub(crate) mod logged;
mod sign_in;
mod state;
mod tokens;
