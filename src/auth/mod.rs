//! Who may come in, where that is decided here and not by the gateway (`[auth]`).
//!
//! [`Desk`] is asked, and [`Identity`] is what comes of it: a name that the gateway is told, and the
//! credential that it hangs on. This room knows passwords, tokens and cookies; it does not know
//! routes, pages, sessions or frames, and nothing in it prints a secret.
//!
//! | file | what is there |
//! |---|---|
//! | `desk`, `sign_in` | the one shared object: cookies and tokens; passwords |
//! | `credential`, `password`, `token` | hashes as the config holds them; making and comparing them |
//! | `cookie`, `seal`, `values` | our cookies in headers; signatures; what is in them |
//! | `keyring`, `keys`, `state`, `aside` | the keys of the signatures, and the files that they and `ended` share |
//! | `fading` | the bounded tables of `throttle` and `crowd` |
//! | `throttle`, `gate` | delays after failures; whom they are for |
//! | `crowd`, `lane` | attempts of a neighbourhood; who is next |
//! | `certificate`, `forward`, `name` | client certificates; the service that is asked; names that a header can say |
//! | `grants` | who is in right now |
//! | `audit`, `refusals` | the lines of the log; how many of a flood |

mod aside;
mod audit;
pub mod certificate;
mod cookie;
mod credential;
mod crowd;
mod desk;
mod ended;
mod error;
mod fading;
pub mod forward;
mod gate;
mod grants;
mod identity;
mod keyring;
mod keys;
mod lane;
mod name;
mod password;
mod refusals;
mod seal;
mod sign_in;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;
mod token;
mod values;

pub use certificate::CertificateNames;
pub use credential::{Fingerprint, HashRefused, PasswordHash, TokenHash};
pub use desk::{CookieRefused, Desk, FormToken, Session, TokenCheck, check, rotate_key};
pub use error::DeskError;
pub use grants::{Entrant, Grant, Grants, Term};
pub use identity::{Credential, Identity, Service, SignIn, TokenName};
pub use keyring::Damage;
pub use password::{HashFailed, hash as hash_password};
pub use sign_in::{Attempt, SignInRefused, SignedIn};
pub use token::{NoRandom, make as make_token};
