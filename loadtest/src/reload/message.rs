//! Numbered messages of many shapes, and what is wrong with what comes back. Pure.

use crate::ws::{Opcode, encode};

/// The shapes take turns: text, fragmented text with a ping inside, bytes; now and then a large one.
const LARGE: usize = 70 * 1024;
/// Messages after which a session has sent one of every shape.
pub(super) const ALL_SHAPES: u8 = 16;

/// One numbered message of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) opcode: Opcode,
    pub(super) payload: Vec<u8>,
    fragmented: bool,
}

impl Message {
    /// The message with this number; what it says is known from session and number.
    pub(super) fn new(session: usize, number: u64) -> Self {
        let large = number.is_multiple_of(u64::from(ALL_SHAPES));
        let (opcode, length) = match number % 4 {
            _ if large => (Opcode::Binary, LARGE),
            2 => (Opcode::Binary, 300),
            _ => (Opcode::Text, 40 + (number % 200) as usize),
        };
        let mut payload = format!("{number:016x}{session:016x}").into_bytes();
        let filler = (number as usize).wrapping_add(session);
        payload.extend((payload.len()..length).map(|at| b'a' + ((at + filler) % 26) as u8));
        Self {
            opcode,
            payload,
            fragmented: number % 4 == 1,
        }
    }

    /// As it goes over the wire.
    pub(super) fn encoded(&self, mask: [u8; 4]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 64);
        let third = self.payload.len() / 3;
        if !self.fragmented {
            encode(&mut out, self.opcode, &self.payload, Some(mask));
            return out;
        }
        let (first, rest) = self.payload.split_at(third);
        let (second, last) = rest.split_at(third);
        unfinished(&mut out, self.opcode, first, mask);
        encode(&mut out, Opcode::Ping, b"between", Some(mask));
        unfinished(&mut out, Opcode::Continuation, second, mask);
        encode(&mut out, Opcode::Continuation, last, Some(mask));
        out
    }
}

/// A frame without FIN.
fn unfinished(out: &mut Vec<u8>, opcode: Opcode, part: &[u8], mask: [u8; 4]) {
    let at = out.len();
    encode(out, opcode, part, Some(mask));
    if let Some(first) = out.get_mut(at) {
        *first &= 0x7f;
    }
}

/// What is wrong with a message that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It was there before.
    Duplicated,
    /// Those before it are missing (so far).
    Reordered,
    /// It says something else than was sent.
    Altered,
}

/// Compares what came with the number that is next and those that are still to come.
pub(super) fn check(
    session: usize,
    next: u64,
    opcode: Opcode,
    payload: &[u8],
) -> Result<(), (Flaw, Option<u64>)> {
    let expected = Message::new(session, next);
    if expected.opcode == opcode && expected.payload == payload {
        return Ok(());
    }
    let digits = payload.get(..16).and_then(|d| std::str::from_utf8(d).ok());
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match number {
        Some(number) if number < next => Err((Flaw::Duplicated, Some(number))),
        Some(number) if number > next => Err((Flaw::Reordered, Some(number))),
        _ => Err((Flaw::Altered, None)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::ws::{Connection, Role};

    #[tokio::test]
    async fn every_shape_arrives_as_it_was_meant() {
        let (a, b) = duplex(1 << 20);
        let mut client = Connection::new(a, Role::Client([1, 2, 3, 4]), &[]);
        let mut server = Connection::new(b, Role::Server, &[]);
        for number in 0..u64::from(ALL_SHAPES) + 4 {
            client.queue_raw(&Message::new(7, number).encoded([1, 2, 3, 4]));
            client.flush().await.unwrap();
            let got = server.next().await.unwrap();
            assert_eq!(check(7, number, got.opcode, got.payload), Ok(()));
        }
    }

    #[test]
    fn flaws_are_told_apart() {
        let other = |session, number| {
            let message = Message::new(session, number);
            check(1, 5, message.opcode, &message.payload)
        };
        assert_eq!(other(1, 4), Err((Flaw::Duplicated, Some(4))));
        assert_eq!(other(1, 6), Err((Flaw::Reordered, Some(6))));
        assert_eq!(other(2, 5), Err((Flaw::Altered, None)));
        assert_eq!(
            check(1, 5, Opcode::Text, b"short"),
            Err((Flaw::Altered, None))
        );
    }
}
