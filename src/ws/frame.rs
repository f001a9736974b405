//! Frame headers (RFC 6455, 5.2): reading, checking and writing them, and the mask.

use aws_lc_rs::rand;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A further part of a message.
    Continuation,
    /// The first part of a text message.
    Text,
    /// The first part of a binary message.
    Binary,
    /// The close handshake.
    Close,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Close, ping or pong: may stand between the frames of a message.
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A parsed frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Last frame of its message.
    pub fin: bool,
    /// The three reserved bits, in the low bits of this byte (RSV1 = 4).
    pub rsv: u8,
    /// What it is.
    pub opcode: Opcode,
    /// The masking key, on frames from clients.
    pub mask: Option<[u8; 4]>,
    /// Payload bytes.
    pub payload: u64,
    /// Header bytes, 2 to 14.
    pub length: usize,
}

/// Why a frame cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// An opcode that RFC 6455 reserves.
    #[error("reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    /// A reserved bit without an extension that uses it.
    #[error("reserved bits set without an extension")]
    ReservedBits,
    /// A payload length over 2^63.
    #[error("payload length out of range")]
    LengthOutOfRange,
    /// A client's frame without a mask.
    #[error("frame from a client is not masked")]
    NotMasked,
    /// A server's frame with a mask.
    #[error("frame from a server is masked")]
    Masked,
    /// A control frame longer than 125 bytes.
    #[error("control frame longer than 125 bytes")]
    ControlTooLong,
    /// A control frame in parts.
    #[error("control frame is fragmented")]
    ControlFragmented,
    /// A continuation of nothing.
    #[error("continuation without a message")]
    StrayContinuation,
    /// A new message inside another.
    #[error("new message inside a fragmented one")]
    InterruptedMessage,
    /// A close frame with half a code or a reserved one.
    #[error("malformed close frame")]
    MalformedClose,
    /// Over the configured limit.
    #[error("frame of {payload} bytes is over the limit of {limit}")]
    TooBig {
        /// Its length.
        payload: u64,
        /// The limit.
        limit: u64,
    },
}

impl FrameHeader {
    /// Reads a header from the start of `bytes`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// Reserved opcodes and lengths over 2^63.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        let opcode =
            Opcode::from_bits(first & 0x0F).ok_or(FrameError::ReservedOpcode(first & 0x0F))?;
        let extended = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length_bytes) = rest.get(..extended) else {
            return Ok(None);
        };
        let payload = match extended {
            0 => u64::from(second & 0x7F),
            _ => length_bytes
                .iter()
                .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte)),
        };
        if payload >> 63 != 0 {
            return Err(FrameError::LengthOutOfRange);
        }
        let (mask, mask_length) = if second & 0x80 == 0 {
            (None, 0)
        } else {
            match rest
                .get(extended..)
                .and_then(|rest| rest.first_chunk::<4>())
            {
                Some(key) => (Some(*key), 4),
                None => return Ok(None),
            }
        };
        Ok(Some(Self {
            fin: first & 0x80 != 0,
            rsv: (first >> 4) & 0x7,
            opcode,
            mask,
            payload,
            length: 2 + extended + mask_length,
        }))
    }

    /// Header and payload together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.payload.saturating_add(self.length as u64)
    }

    /// Appends the header's bytes, in the shortest form.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push((u8::from(self.fin) << 7) | (self.rsv << 4) | self.opcode.bits());
        let masked = u8::from(self.mask.is_some()) << 7;
        if let Ok(short) = u8::try_from(self.payload)
            && short < 126
        {
            out.push(masked | short);
        } else if let Ok(medium) = u16::try_from(self.payload) {
            out.push(masked | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        } else {
            out.push(masked | 127);
            out.extend_from_slice(&self.payload.to_be_bytes());
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// Appends a whole, final frame as a server sends it: not masked.
pub fn write_server_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    header(opcode, None, payload).write(out);
    out.extend_from_slice(payload);
}

/// Appends a whole, final frame as a client sends it: masked with a fresh random key.
pub fn write_client_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let mut key = [0u8; 4];
    // A predictable key would harm nobody here: it guards browsers' caches, and we are none.
    let _ = rand::fill(&mut key);
    header(opcode, Some(key), payload).write(out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(masked) = out.get_mut(start..) {
        mask(key, masked);
    }
}

fn header(opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) -> FrameHeader {
    FrameHeader {
        fin: true,
        rsv: 0,
        opcode,
        mask,
        payload: payload.len() as u64,
        length: 0,
    }
}

/// Masks or unmasks `data`, which starts at a payload offset divisible by four.
pub fn mask(key: [u8; 4], data: &mut [u8]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_header() -> impl Strategy<Value = FrameHeader> {
        let opcode = prop::sample::select(vec![
            Opcode::Continuation,
            Opcode::Text,
            Opcode::Binary,
            Opcode::Close,
            Opcode::Ping,
            Opcode::Pong,
        ]);
        let payload = prop_oneof![0u64..130, 65_530u64..65_540, 0..u64::MAX >> 1];
        (
            any::<bool>(),
            0u8..8,
            opcode,
            any::<Option<[u8; 4]>>(),
            payload,
        )
            .prop_map(|(fin, rsv, opcode, mask, payload)| {
                let length = 2
                    + mask.map_or(0, |_| 4)
                    + if payload < 126 {
                        0
                    } else if payload < 65_536 {
                        2
                    } else {
                        8
                    };
                FrameHeader {
                    fin,
                    rsv,
                    opcode,
                    mask,
                    payload,
                    length,
                }
            })
    }

    proptest! {
        #[test]
        fn a_header_reads_back_and_no_prefix_of_it_does(header in any_header()) {
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            prop_assert_eq!(bytes.len(), header.length);
            prop_assert_eq!(FrameHeader::parse(&bytes), Ok(Some(header)));
            for cut in 0..bytes.len() {
                prop_assert_eq!(FrameHeader::parse(&bytes[..cut]), Ok(None));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = FrameHeader::parse(&bytes);
        }

        #[test]
        fn masking_is_its_own_inverse_and_bytewise(key: [u8; 4], data in prop::collection::vec(any::<u8>(), 0..70)) {
            let mut masked = data.clone();
            mask(key, &mut masked);
            for (i, byte) in masked.iter().enumerate() {
                prop_assert_eq!(*byte, data[i] ^ key[i % 4]);
            }
            mask(key, &mut masked);
            prop_assert_eq!(masked, data);
        }
    }

    #[test]
    fn reserved_things_are_refused() {
        assert_eq!(
            FrameHeader::parse(&[0x83, 0]),
            Err(FrameError::ReservedOpcode(3))
        );
        assert_eq!(
            FrameHeader::parse(&[0x8F, 0]),
            Err(FrameError::ReservedOpcode(15))
        );
        let long = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(FrameHeader::parse(&long), Err(FrameError::LengthOutOfRange));
    }
}
