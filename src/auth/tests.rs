//! The desk as its callers meet it.
