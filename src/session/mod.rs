//! The heart: one WebSocket session, held and put back when its gateway goes away.
//!
//! [`machine`], [`away`] and [`comeback`] decide (pure), [`journal`] remembers, [`policy`] says what is allowed,
//! [`pump`] is the only I/O. JSON is read and written in [`crate::protocol`], never here.

mod away;
mod comeback;
mod event;
mod journal;
mod machine;
mod policy;
