//! (being written)

pub mod headers;
pub mod route;
