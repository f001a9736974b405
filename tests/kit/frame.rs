//! A tiny WebSocket frame codec (RFC 6455 section 5) that hides nothing: every frame as it is on
//! the wire, torn, fragmented or invalid if a test wants it so.

use bytes::{Buf, Bytes, BytesMut};

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// One frame as it travels, unmasked.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    /// The three reserved bits, as a number from 0 to 7.
    pub rsv: u8,
    pub opcode: u8,
    /// Whether it was masked on the wire.
    pub masked: bool,
    pub payload: Bytes,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.payload[..self.payload.len().min(120)];
        write!(f, "Frame(op {:x}", self.opcode)?;
        if !self.fin {
            write!(f, ", not final")?;
        }
        write!(
            f,
            ", {} bytes: {:?})",
            self.payload.len(),
            String::from_utf8_lossy(shown)
        )
    }
}

impl Frame {
    pub fn new(opcode: u8, payload: impl Into<Bytes>) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode,
            masked: false,
            payload: payload.into(),
        }
    }

    pub fn text(payload: impl Into<String>) -> Self {
        Self::new(TEXT, payload.into())
    }

    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self::new(BINARY, payload)
    }

    pub fn ping(payload: impl Into<Bytes>) -> Self {
        Self::new(PING, payload)
    }

    pub fn pong(payload: impl Into<Bytes>) -> Self {
        Self::new(PONG, payload)
    }

    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        Self::new(CLOSE, payload)
    }

    /// The same frame as a part that is not the last of its message.
    #[must_use]
    pub fn not_final(mut self) -> Self {
        self.fin = false;
        self
    }

    pub fn is_control(&self) -> bool {
        self.opcode >= 0x8
    }

    /// A close frame's code; 1005 when it carries none.
    pub fn close_code(&self) -> Option<u16> {
        if self.opcode != CLOSE {
            return None;
        }
        let code = self
            .payload
            .get(..2)
            .map(|two| u16::from_be_bytes([two[0], two[1]]));
        Some(code.unwrap_or(1005))
    }

    /// A close frame's reason.
    pub fn close_reason(&self) -> String {
        String::from_utf8_lossy(self.payload.get(2..).unwrap_or_default()).into_owned()
    }

    /// The payload as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap_or(serde_json::Value::Null)
    }

    /// What a server sends.
    pub fn encode(&self) -> Vec<u8> {
        let mut wire = self.head(0);
        wire.extend_from_slice(&self.payload);
        wire
    }

    /// What a client sends.
    pub fn encode_masked(&self, key: [u8; 4]) -> Vec<u8> {
        let mut wire = self.head(0x80);
        wire.extend_from_slice(&key);
        wire.extend(
            self.payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        wire
    }

    fn head(&self, mask_bit: u8) -> Vec<u8> {
        let mut head = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        let length = self.payload.len();
        if length < 126 {
            head.push(mask_bit | length as u8);
        } else if let Ok(length) = u16::try_from(length) {
            head.push(mask_bit | 126);
            head.extend_from_slice(&length.to_be_bytes());
        } else {
            head.push(mask_bit | 127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
        head
    }
}

/// Cuts frames out of the bytes as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes not yet part of a whole frame.
    pub buffer: BytesMut,
}

impl Decoder {
    pub fn new(buffer: BytesMut) -> Self {
        Self { buffer }
    }

    /// The next whole frame, unmasked.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let wire = &self.buffer[..];
        let (first, second) = (*wire.first()?, *wire.get(1)?);
        let (length, mut at) = match second & 0x7f {
            126 => (
                u16::from_be_bytes(wire.get(2..4)?.try_into().ok()?) as usize,
                4,
            ),
            127 => (
                u64::from_be_bytes(wire.get(2..10)?.try_into().ok()?) as usize,
                10,
            ),
            short => (short as usize, 2),
        };
        let masked = second & 0x80 != 0;
        let mut key = [0; 4];
        if masked {
            key.copy_from_slice(wire.get(at..at + 4)?);
            at += 4;
        }
        if wire.len() < at + length {
            return None;
        }
        self.buffer.advance(at);
        let mut payload = self.buffer.split_to(length);
        for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
        let (fin, rsv, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 0xf);
        Some(Frame {
            fin,
            rsv,
            opcode,
            masked,
            payload: payload.freeze(),
        })
    }
}
