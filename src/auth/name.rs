//! What may stand as somebody's name in a header and in a line of the log, wherever it came from.

/// Longer than any name.
pub(crate) const LONGEST: usize = 200;

/// Whether `text` is a name: visible ASCII, not empty, not too long.
///
/// Spaces are out as well: a header's value loses those at its ends, and with them the difference
/// between two names.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic())
}
