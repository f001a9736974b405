//! Cuts a byte stream into frames, in place, and knows where messages end.
//!
//! It owns no buffer: the caller shows it the bytes that are there and keeps what is not yet
//! enough. Frames up to [`WHOLE`] come in one piece, so that one torn by its sender's death can
//! be dropped unseen; longer ones come in parts as they arrive.

use super::frame::{FrameError, FrameHeader};

/// Payload bytes up to which a frame is only given out whole, unless told otherwise.
pub const WHOLE: usize = 64 * 1024;

/// Which side sends on this stream; decides about the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Its frames are masked.
    Client,
    /// Its frames are not.
    Server,
}

/// The next bytes of the stream, taken from the start of what was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes.
    pub length: usize,
    /// What they are.
    pub kind: PieceKind,
}

/// What a [`Piece`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// A whole frame.
    Whole(FrameHeader),
    /// The header and at least [`WHOLE`] payload bytes of a longer frame.
    Open(FrameHeader),
    /// More of the open frame.
    More {
        /// The frame ends here.
        last: bool,
    },
}

/// The state of one direction.
#[derive(Debug, Clone)]
pub struct Cutter {
    sender: Sender,
    /// Reserved bits that a negotiated extension may use.
    rsv_allowed: u8,
    limit: u64,
    whole: usize,
    /// Bytes of the open frame still to come.
    open: u64,
    in_message: bool,
    /// Whether the open frame ends its message.
    open_ends: bool,
}

impl Cutter {
    /// `limit`: largest payload of one frame. `extensions`: one was negotiated, so that the
    /// reserved bits are its business and not ours.
    #[must_use]
    pub fn new(sender: Sender, limit: u64, extensions: bool) -> Self {
        Self {
            sender,
            rsv_allowed: if extensions { 0x7 } else { 0 },
            limit,
            whole: WHOLE,
            open: 0,
            in_message: false,
            open_ends: false,
        }
    }

    /// Changes the limit for frames that have not begun.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Changes up to which payload length frames are only given out whole.
    pub fn set_whole(&mut self, whole: usize) {
        self.whole = whole;
    }

    /// Takes the next piece off the start of `bytes`; `None`: more are needed.
    ///
    /// # Errors
    /// As soon as a header shows that the frame must not be taken; the stream is unusable then.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece>, FrameError> {
        if self.open > 0 {
            return Ok(self.more(bytes.len()));
        }
        let Some(header) = FrameHeader::parse(bytes)? else {
            return Ok(None);
        };
        self.check(&header)?;
        let total = header.total();
        if bytes.len() as u64 >= total {
            self.begin(&header);
            self.end(header.fin);
            let length = usize::try_from(total).unwrap_or(bytes.len());
            return Ok(Some(Piece {
                length,
                kind: PieceKind::Whole(header),
            }));
        }
        if header.payload <= self.whole as u64 || bytes.len() < header.length + self.whole {
            return Ok(None);
        }
        self.begin(&header);
        self.open = total - bytes.len() as u64;
        self.open_ends = header.fin;
        Ok(Some(Piece {
            length: bytes.len(),
            kind: PieceKind::Open(header),
        }))
    }

    /// Between two frames: control frames may be put in here.
    #[must_use]
    pub fn between_frames(&self) -> bool {
        self.open == 0
    }

    /// Between two messages: anything may be put in here.
    #[must_use]
    pub fn between_messages(&self) -> bool {
        self.open == 0 && !self.in_message
    }

    fn more(&mut self, available: usize) -> Option<Piece> {
        if available == 0 {
            return None;
        }
        let length = usize::try_from(self.open)
            .unwrap_or(usize::MAX)
            .min(available);
        self.open -= length as u64;
        let last = self.open == 0;
        if last {
            self.end(self.open_ends);
        }
        Some(Piece {
            length,
            kind: PieceKind::More { last },
        })
    }

    fn check(&self, header: &FrameHeader) -> Result<(), FrameError> {
        use super::frame::Opcode;
        match (self.sender, header.mask) {
            (Sender::Client, None) => return Err(FrameError::NotMasked),
            (Sender::Server, Some(_)) => return Err(FrameError::Masked),
            _ => {}
        }
        if header.rsv & !self.rsv_allowed != 0 {
            return Err(FrameError::ReservedBits);
        }
        if header.opcode.is_control() {
            if header.payload > 125 {
                return Err(FrameError::ControlTooLong);
            }
            if !header.fin {
                return Err(FrameError::ControlFragmented);
            }
            return Ok(());
        }
        match (header.opcode, self.in_message) {
            (Opcode::Continuation, false) => return Err(FrameError::StrayContinuation),
            (Opcode::Text | Opcode::Binary, true) => return Err(FrameError::InterruptedMessage),
            _ => {}
        }
        if header.payload > self.limit {
            return Err(FrameError::TooBig {
                payload: header.payload,
                limit: self.limit,
            });
        }
        Ok(())
    }

    fn begin(&mut self, header: &FrameHeader) {
        if !header.opcode.is_control() {
            self.in_message = true;
            self.open_ends = header.fin;
        } else {
            // A control frame leaves the message around it as it was.
            self.open_ends = !self.in_message;
        }
    }

    fn end(&mut self, fin: bool) {
        if fin && self.open_ends {
            self.in_message = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{Opcode, mask};
    use super::*;

    #[derive(Debug, Clone)]
    struct Sent {
        fin: bool,
        opcode: Opcode,
        payload: Vec<u8>,
    }

    fn bytes_of(frames: &[Sent], masked: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            let key = masked.then_some([1, 2, 3, 4]);
            let header = FrameHeader {
                fin: frame.fin,
                rsv: 0,
                opcode: frame.opcode,
                mask: key,
                payload: frame.payload.len() as u64,
                length: 0,
            };
            header.write(&mut out);
            let start = out.len();
            out.extend_from_slice(&frame.payload);
            if let Some(key) = key {
                mask(key, &mut out[start..]);
            }
        }
        out
    }

    /// A legal sequence: messages of one to three frames, control frames anywhere between.
    fn any_frames() -> impl Strategy<Value = Vec<Sent>> {
        let payload = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..200),
            1 => (65_530usize..65_550).prop_map(|n| vec![7; n]),
            1 => (65_536usize..300_000).prop_map(|n| vec![9; n]),
        ];
        let control = (
            prop::sample::select(vec![Opcode::Ping, Opcode::Pong]),
            prop::collection::vec(any::<u8>(), 0..126),
        );
        let part = (payload, prop::option::weighted(0.3, control));
        prop::collection::vec(prop::collection::vec(part, 1..4), 1..5).prop_map(|messages| {
            let mut frames = Vec::new();
            for message in messages {
                let last = message.len() - 1;
                for (i, (payload, control)) in message.into_iter().enumerate() {
                    let opcode = if i == 0 {
                        Opcode::Text
                    } else {
                        Opcode::Continuation
                    };
                    frames.push(Sent {
                        fin: i == last,
                        opcode,
                        payload,
                    });
                    if let Some((opcode, payload)) = control {
                        frames.push(Sent {
                            fin: true,
                            opcode,
                            payload,
                        });
                    }
                }
            }
            frames
        })
    }

    /// Feeds in the given cuts; returns all bytes given out, whole headers, and the longest kept.
    fn feed(cutter: &mut Cutter, chunks: &[&[u8]]) -> (Vec<u8>, Vec<FrameHeader>, usize) {
        let (mut kept, mut out, mut headers, mut most) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for chunk in chunks {
            kept.extend_from_slice(chunk);
            let mut at = 0;
            while let Some(piece) = cutter.next(&kept[at..]).unwrap() {
                out.extend_from_slice(&kept[at..at + piece.length]);
                at += piece.length;
                if let PieceKind::Whole(header) | PieceKind::Open(header) = piece.kind {
                    headers.push(header);
                }
            }
            kept.drain(..at);
            most = most.max(kept.len());
        }
        assert!(kept.is_empty(), "a finished stream leaves nothing");
        (out, headers, most)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_split_gives_the_same_bytes_and_frames(
            frames in any_frames(),
            masked: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let bytes = bytes_of(&frames, masked);
            let mut cuts: Vec<_> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let sender = if masked { Sender::Client } else { Sender::Server };
            let mut cutter = Cutter::new(sender, 1 << 20, false);
            let (out, headers, most) = feed(&mut cutter, &chunks);
            prop_assert_eq!(out, bytes);
            prop_assert_eq!(headers.len(), frames.len());
            for (header, frame) in headers.iter().zip(&frames) {
                prop_assert_eq!((header.fin, header.opcode), (frame.fin, frame.opcode));
            }
            prop_assert!(cutter.between_messages());
            prop_assert!(most <= 14 + WHOLE);
        }
    }

    #[test]
    fn every_single_byte_split_of_every_small_shape() {
        let opcodes = [
            Opcode::Text,
            Opcode::Binary,
            Opcode::Ping,
            Opcode::Pong,
            Opcode::Close,
        ];
        for opcode in opcodes {
            for size in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537] {
                if opcode.is_control() && size > 125 {
                    continue;
                }
                for masked in [false, true] {
                    let frame = Sent {
                        fin: true,
                        opcode,
                        payload: vec![5; size],
                    };
                    let bytes = bytes_of(&[frame.clone(), frame], masked);
                    let step = if size > 1000 { 4096 } else { 1 };
                    let chunks: Vec<&[u8]> = bytes.chunks(step).collect();
                    let sender = if masked {
                        Sender::Client
                    } else {
                        Sender::Server
                    };
                    let mut cutter = Cutter::new(sender, 1 << 20, false);
                    assert_eq!(feed(&mut cutter, &chunks).0, bytes);
                }
            }
        }
    }

    #[test]
    fn a_control_frame_leaves_the_message_open() {
        let mut cutter = Cutter::new(Sender::Server, 1000, false);
        let part = Sent {
            fin: false,
            opcode: Opcode::Text,
            payload: vec![1],
        };
        let ping = Sent {
            fin: true,
            opcode: Opcode::Ping,
            payload: vec![2],
        };
        feed(&mut cutter, &[&bytes_of(&[part, ping], false)]);
        assert!(cutter.between_frames() && !cutter.between_messages());
        let end = Sent {
            fin: true,
            opcode: Opcode::Continuation,
            payload: vec![],
        };
        feed(&mut cutter, &[&bytes_of(&[end], false)]);
        assert!(cutter.between_messages());
    }

    #[test]
    fn what_the_rfc_forbids_is_refused_at_the_header() {
        let refuse =
            |sender, bytes: &[u8]| Cutter::new(sender, 1000, false).next(bytes).unwrap_err();
        assert_eq!(refuse(Sender::Client, &[0x81, 0]), FrameError::NotMasked);
        assert_eq!(
            refuse(Sender::Server, &[0x81, 0x80, 0, 0, 0, 0]),
            FrameError::Masked
        );
        assert_eq!(refuse(Sender::Server, &[0xC1, 0]), FrameError::ReservedBits);
        assert_eq!(
            refuse(Sender::Server, &[0x89, 126, 0, 126]),
            FrameError::ControlTooLong
        );
        assert_eq!(
            refuse(Sender::Server, &[0x09, 0]),
            FrameError::ControlFragmented
        );
        assert_eq!(
            refuse(Sender::Server, &[0x80, 0]),
            FrameError::StrayContinuation
        );
        assert_eq!(
            refuse(Sender::Server, &[0x82, 126, 0x10, 0]),
            FrameError::TooBig {
                payload: 4096,
                limit: 1000
            }
        );
        let mut cutter = Cutter::new(Sender::Server, 1000, false);
        cutter.next(&[0x01, 0]).unwrap();
        assert_eq!(
            cutter.next(&[0x01, 0]).unwrap_err(),
            FrameError::InterruptedMessage
        );
        assert!(
            Cutter::new(Sender::Server, 1000, true)
                .next(&[0xC1, 0])
                .is_ok()
        );
    }
}
