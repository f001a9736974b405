//! Close frames: their code and reason (RFC 6455, 5.5.1 and 7.4).

/// What a close frame's payload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The status code; `None` for an empty payload.
    pub code: Option<u16>,
    /// The reason; empty when absent or not UTF-8.
    pub reason: String,
}

/// Longest reason that fits a control frame beside the code.
pub const REASON_LIMIT: usize = 123;

impl Close {
    /// Reads an unmasked payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Self {
        match payload.split_first_chunk::<2>() {
            Some((code, reason)) => Self {
                code: Some(u16::from_be_bytes(*code)),
                reason: String::from_utf8_lossy(reason).into_owned(),
            },
            None => Self {
                code: None,
                reason: String::new(),
            },
        }
    }

    /// Whether a payload of this length may say this: no half a code, and none that RFC 6455, 7.4
    /// reserves.
    #[must_use]
    pub fn is_well_formed(&self, length: usize) -> bool {
        match self.code {
            None => length == 0,
            Some(code) => is_sendable(code),
        }
    }

    /// The payload for `code` and `reason`; the reason is cut at a character to fit.
    #[must_use]
    pub fn payload(code: u16, reason: &str) -> Vec<u8> {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(fitting(reason).as_bytes());
        payload
    }
}

/// The beginning of a reason that fits a close frame, cut at a character.
#[must_use]
pub fn fitting(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_LIMIT);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default()
}

/// Whether a code may stand in a close frame (RFC 6455, 7.4.1 and 7.4.2).
#[must_use]
pub fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Whether a gateway's close says that the gateway goes away, rather than something about this
/// client: 1001 going away, 1012 service restart, 1013 try again later.
#[must_use]
pub fn is_going_away(code: Option<u16>) -> bool {
    matches!(code, Some(1001 | 1012 | 1013))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_cuts_long_reasons_at_a_character() {
        let close = Close::parse(&Close::payload(1012, "service restart"));
        assert_eq!(
            (close.code, close.reason.as_str()),
            (Some(1012), "service restart")
        );
        let long = Close::payload(1013, &"ü".repeat(100));
        assert_eq!(long.len(), 2 + 122);
        assert!(std::str::from_utf8(&long[2..]).is_ok());
        assert_eq!(Close::parse(&[]).code, None);
        assert_eq!(Close::parse(&[3]).code, None);
        assert!(Close::parse(&[]).is_well_formed(0) && !Close::parse(&[3]).is_well_formed(1));
        for (code, allowed) in [
            (1000, true),
            (1005, false),
            (1006, false),
            (4008, true),
            (999, false),
        ] {
            assert_eq!(is_sendable(code), allowed, "{code}");
        }
    }
}
