//! Frame headers, both ways (RFC 6455 section 5.2). Pure: bytes in, values out.

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of a fragmented message.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The peer ends the session.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

/// A parsed frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Last frame of its message.
    pub fin: bool,
    /// What it carries.
    pub opcode: Opcode,
    /// The key, on frames from a client.
    pub mask: Option<[u8; 4]>,
    /// Bytes of the header itself.
    pub header_len: usize,
    /// Bytes that follow it.
    pub payload_len: usize,
}

/// A header no peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Bits for an extension that was not negotiated.
    #[error("frame with reserved bits")]
    Reserved,
    /// An opcode that does not exist.
    #[error("frame with unknown opcode {0}")]
    Opcode(u8),
    /// Longer than this tool is willing to hold.
    #[error("frame of {0} bytes")]
    TooLong(u64),
}

/// The largest frame taken from a peer.
const MAX_FRAME: u64 = 64 * 1024 * 1024;

impl Opcode {
    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    const fn from_bits(bits: u8) -> Result<Self, FrameError> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            other => return Err(FrameError::Opcode(other)),
        })
    }
}

/// Reads a header from the front of `buf`; `None` means more bytes are needed.
///
/// # Errors
/// On a header that no peer may send.
pub fn parse(buf: &[u8]) -> Result<Option<Header>, FrameError> {
    let [first, second, rest @ ..] = buf else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    let opcode = Opcode::from_bits(first & 0x0f)?;
    let (length, rest, extended) = match (second & 0x7f, rest) {
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest, 2),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => (
            u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            rest,
            8,
        ),
        (126 | 127, _) => return Ok(None),
        (short, rest) => (u64::from(short), rest, 0),
    };
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let mask = match (second & 0x80 != 0, rest) {
        (false, _) => None,
        (true, [a, b, c, d, ..]) => Some([*a, *b, *c, *d]),
        (true, _) => return Ok(None),
    };
    let header_len = 2 + extended + if mask.is_some() { 4 } else { 0 };
    let payload_len = usize::try_from(length).map_err(|_| FrameError::TooLong(length))?;
    Ok(Some(Header {
        fin: first & 0x80 != 0,
        opcode,
        mask,
        header_len,
        payload_len,
    }))
}

/// Appends a whole, unfragmented frame to `out`.
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    out.push(0x80 | opcode.bits());
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => out.push(masked | short),
        (_, Ok(medium)) => {
            out.push(masked | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
    let body = out.len();
    out.extend_from_slice(payload);
    if let (Some(key), Some(body)) = (mask, out.get_mut(body..)) {
        apply_mask(body, key);
    }
}

/// Masks or unmasks in place.
pub fn apply_mask(data: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in chunks
        .into_remainder()
        .iter_mut()
        .zip(key.into_iter().cycle())
    {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_form_comes_back() {
        for len in [0, 1, 125, 126, 65535, 65536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload = vec![7; len];
                let mut wire = Vec::new();
                encode(&mut wire, Opcode::Binary, &payload, mask);
                let header = parse(&wire).unwrap().unwrap();
                assert_eq!(
                    (header.payload_len, header.mask, header.fin),
                    (len, mask, true)
                );
                assert_eq!(wire.len(), header.header_len + len);
                let mut body = wire[header.header_len..].to_vec();
                apply_mask(&mut body, mask.unwrap_or_default());
                assert_eq!(body, payload);
            }
        }
    }

    #[test]
    fn every_cut_header_asks_for_more() {
        for len in [5, 300, 70000] {
            let mut wire = Vec::new();
            encode(&mut wire, Opcode::Text, &vec![0; len], Some([9; 4]));
            let header_len = parse(&wire).unwrap().unwrap().header_len;
            for cut in 0..header_len {
                assert_eq!(
                    parse(&wire[..cut]),
                    Ok(None),
                    "cut at {cut} of {header_len}"
                );
            }
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        assert_eq!(parse(&[0xc1, 0]), Err(FrameError::Reserved));
        assert_eq!(parse(&[0x83, 0]), Err(FrameError::Opcode(3)));
        assert!(parse(&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
