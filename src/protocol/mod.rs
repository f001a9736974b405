//! What frames mean, which frames we say ourselves, and what everybody is told when things fail.
//!
//! Pure: text in, facts out; facts in, text out. No I/O, no clocks, no session state.

pub mod methods;
pub mod openclaw;
pub mod rescue;
mod scan;
pub mod speech;
mod wall;
