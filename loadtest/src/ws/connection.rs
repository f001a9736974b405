//! One open WebSocket: reads whole messages, writes many frames in one go, answers pings.
//! All state lives in the value, so a dropped `next` or `flush` loses nothing.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::{self, FrameError, Header, Opcode};

const FIRST_BUFFER: usize = 1024;

/// Which end we are: clients mask what they send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Frames are masked with this key.
    Client([u8; 4]),
    /// Frames go out as they are.
    Server,
}

/// A whole message, valid until the next read.
#[derive(Debug)]
pub struct Message<'a> {
    /// Text or binary.
    pub opcode: Opcode,
    /// What it carries, unmasked.
    pub payload: &'a [u8],
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub enum WsError {
    /// The peer said goodbye; without a code it is 1005.
    #[error("closed {code} {reason:?}")]
    Closed {
        /// Close code.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// The stream ended without a close frame: what browsers call 1006.
    #[error("the stream ended without a close frame")]
    Cut,
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl WsError {
    /// The close code a browser would report.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Closed { code, .. } => *code,
            Self::Cut | Self::Io(_) => 1006,
            Self::Frame(_) => 1002,
        }
    }
}

/// Where the bytes of the current message are.
#[derive(Debug, Clone, Copy)]
enum Place {
    Input(usize, usize),
    Joined,
}

/// One open WebSocket over any stream.
#[derive(Debug)]
pub struct Connection<S> {
    io: S,
    role: Role,
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    written: usize,
    joined: Vec<u8>,
    joining: Option<Opcode>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes over a stream after the upgrade, with bytes already read behind it.
    pub fn new(io: S, role: Role, leftover: &[u8]) -> Self {
        let mut input = vec![0; FIRST_BUFFER.max(leftover.len())];
        if let Some(front) = input.get_mut(..leftover.len()) {
            front.copy_from_slice(leftover);
        }
        let end = leftover.len();
        let (output, joined) = (Vec::new(), Vec::new());
        Self {
            io,
            role,
            input,
            start: 0,
            end,
            output,
            written: 0,
            joined,
            joining: None,
        }
    }

    /// Which end we are.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Puts a frame into the output; `flush` sends it.
    pub fn queue(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = match self.role {
            Role::Client(key) => Some(key),
            Role::Server => None,
        };
        frame::encode(&mut self.output, opcode, payload, mask);
    }

    /// Puts an already encoded frame into the output.
    pub fn queue_raw(&mut self, frame: &[u8]) {
        self.output.extend_from_slice(frame);
    }

    /// Writes out everything queued.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn flush(&mut self) -> Result<(), WsError> {
        while let Some(rest) = self
            .output
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match self.io.write(rest).await? {
                0 => return Err(WsError::Cut),
                n => self.written += n,
            }
        }
        self.output.clear();
        self.written = 0;
        self.io.flush().await?;
        Ok(())
    }

    /// Queues one message and sends it.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), WsError> {
        self.queue(opcode, payload);
        self.flush().await
    }

    /// Sends a close frame; the caller may go on reading for the answer.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), WsError> {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        self.send(Opcode::Close, &payload).await
    }

    /// Whether another whole frame can be had without reading from the stream.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        let ready = self.input.get(self.start..self.end).unwrap_or_default();
        matches!(frame::parse(ready), Ok(Some(h)) if h.header_len + h.payload_len <= ready.len())
    }

    /// The next message. Pings are answered on the way; a close is answered and returned.
    ///
    /// # Errors
    /// When the session is over, with what ended it.
    pub async fn next(&mut self) -> Result<Message<'_>, WsError> {
        let (opcode, place) = self.advance().await?;
        let payload = match place {
            Place::Input(from, to) => self.input.get(from..to),
            Place::Joined => Some(self.joined.as_slice()),
        };
        Ok(Message {
            opcode,
            payload: payload.unwrap_or_default(),
        })
    }

    async fn advance(&mut self) -> Result<(Opcode, Place), WsError> {
        loop {
            let (header, from, to) = self.frame().await?;
            if let (Some(key), Some(body)) = (header.mask, self.input.get_mut(from..to)) {
                frame::apply_mask(body, key);
            }
            self.start = to;
            match header.opcode {
                Opcode::Ping => self.answer_ping(from, to).await?,
                Opcode::Pong => {}
                Opcode::Close => return Err(self.answer_close(from, to).await),
                opcode => {
                    if let Some(message) = self.join(opcode, header.fin, from, to) {
                        return Ok(message);
                    }
                }
            }
        }
    }

    /// Collects fragments; a message in one frame stays where it is.
    fn join(
        &mut self,
        opcode: Opcode,
        fin: bool,
        from: usize,
        to: usize,
    ) -> Option<(Opcode, Place)> {
        if fin && self.joining.is_none() {
            return Some((opcode, Place::Input(from, to)));
        }
        if opcode != Opcode::Continuation {
            self.joined.clear();
            self.joining = Some(opcode);
        }
        self.joined
            .extend_from_slice(self.input.get(from..to).unwrap_or_default());
        fin.then(|| self.joining.take().map(|first| (first, Place::Joined)))
            .flatten()
    }

    async fn answer_ping(&mut self, from: usize, to: usize) -> Result<(), WsError> {
        let payload = self.input.get(from..to).unwrap_or_default().to_vec();
        self.send(Opcode::Pong, &payload).await
    }

    async fn answer_close(&mut self, from: usize, to: usize) -> WsError {
        let payload = self.input.get(from..to).unwrap_or_default().to_vec();
        // The session ends either way; a peer that is gone needs no answer.
        let _ = self
            .send(Opcode::Close, payload.get(..2).unwrap_or_default())
            .await;
        match payload.as_slice() {
            [a, b, reason @ ..] => WsError::Closed {
                code: u16::from_be_bytes([*a, *b]),
                reason: String::from_utf8_lossy(reason).into_owned(),
            },
            _ => WsError::Closed {
                code: 1005,
                reason: String::new(),
            },
        }
    }

    /// Reads until a whole frame lies in the buffer; says where its payload is.
    async fn frame(&mut self) -> Result<(Header, usize, usize), WsError> {
        loop {
            let ready = self.input.get(self.start..self.end).unwrap_or_default();
            let mut wanted = 1;
            if let Some(header) = frame::parse(ready)? {
                let total = header.header_len + header.payload_len;
                if total <= ready.len() {
                    let from = self.start + header.header_len;
                    return Ok((header, from, self.start + total));
                }
                wanted = total - ready.len();
            }
            self.make_room(wanted);
            let room = self.input.get_mut(self.end..).unwrap_or_default();
            match self.io.read(room).await? {
                0 => return Err(WsError::Cut),
                n => self.end += n,
            }
        }
    }

    fn make_room(&mut self, wanted: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end + wanted <= self.input.len() && self.end < self.input.len() {
            return;
        }
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let needed = (self.end + wanted).max(self.input.len());
        // A full buffer means a fast peer: let the next read take more.
        let grown = if self.end * 2 > self.input.len() {
            needed * 2
        } else {
            needed
        };
        self.input.resize(grown, 0);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn pair() -> (
        Connection<tokio::io::DuplexStream>,
        Connection<tokio::io::DuplexStream>,
    ) {
        let (a, b) = duplex(1 << 20);
        (
            Connection::new(a, Role::Client([1, 2, 3, 4]), &[]),
            Connection::new(b, Role::Server, &[]),
        )
    }

    #[tokio::test]
    async fn many_messages_in_one_write_arrive_one_by_one() {
        let (mut client, mut server) = pair();
        for n in 0..100usize {
            client.queue(Opcode::Text, &vec![b'x'; n * 37]);
        }
        client.flush().await.unwrap();
        for n in 0..100 {
            let message = server.next().await.unwrap();
            assert_eq!(
                (message.opcode, message.payload.len()),
                (Opcode::Text, n * 37)
            );
            assert!(message.payload.iter().all(|b| *b == b'x'));
        }
        assert!(!server.has_buffered());
    }

    #[tokio::test]
    async fn a_ping_inside_a_fragmented_message_is_answered() {
        let (mut client, mut server) = pair();
        server.queue_raw(&[0x01, 2, b'a', b'b']);
        server.queue(Opcode::Ping, b"still there?");
        server.queue_raw(&[0x80, 1, b'c']);
        server.flush().await.unwrap();
        let message = client.next().await.unwrap();
        assert_eq!(
            (message.opcode, message.payload),
            (Opcode::Text, b"abc".as_slice())
        );
        client.send(Opcode::Binary, b"after").await.unwrap();
        assert_eq!(server.next().await.unwrap().payload, b"after");
    }

    #[tokio::test]
    async fn a_close_is_answered_with_its_code() {
        let (mut client, mut server) = pair();
        server.close(1012, "service restart").await.unwrap();
        let end = client.next().await.unwrap_err();
        assert_eq!(
            (end.code(), end.to_string().contains("service restart")),
            (1012, true)
        );
        assert_eq!(server.next().await.unwrap_err().code(), 1012);
    }

    #[tokio::test]
    async fn an_end_without_close_is_1006() {
        let (mut client, server) = pair();
        drop(server);
        assert_eq!(client.next().await.unwrap_err().code(), 1006);
    }
}
