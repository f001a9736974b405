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

    /// The payload for `code` and `reason`; the reason is cut at a character to fit.
    #[must_use]
    pub fn payload(code: u16, reason: &str) -> Vec<u8> {
        let mut payload = code.to_be_bytes().to_vec();
        let mut end = reason.len().min(REASON_LIMIT);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
        payload
    }
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
    }
}
