//! What two processes say to each other at a handover: pure, versioned, bounded.
//!
//! A message is a head of fixed layout, the same in every version, and a JSON body. Sockets travel
//! beside the head, and the head says how many.
//!
//! ```text
//! old ── Offer + sockets ──▶ new      here is what I listen on
//! old ◀── Prepared ───────── new      config read, certificates there, everything bound
//! old ── Take ─────────────▶ new      accept from now on
//! old ◀── Serving ────────── new      I do; only now does the old one stop
//! old ◀── Refused ────────── new      in place of any of its answers
//! ```

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::listen::Kind;

/// Of the conversation, not of the program.
pub(super) const VERSION: u16 = 1;
/// Bytes of a head.
pub(super) const HEAD: usize = 16;
/// Largest body; the words of a config with many errors are the longest there is.
pub(super) const LARGEST: usize = 256 * 1024;
/// Most sockets of one message: the kernel takes 253.
pub(super) const MOST_SOCKETS: usize = 250;

const MAGIC: [u8; 8] = *b"holdline";

/// Why a message is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// Whoever is at the other end speaks something else.
    #[error("the other process is no holdline")]
    Foreign,
    /// It is one that is too far away in age.
    #[error(
        "the other holdline speaks version {theirs} of the handover and this one {VERSION}: stop it and start the new one instead"
    )]
    Version {
        /// What it speaks.
        theirs: u16,
    },
    /// It would not fit.
    #[error("a message of {bytes} bytes, where {LARGEST} are the most")]
    TooLarge {
        /// What it says it has.
        bytes: usize,
    },
    /// The kernel takes no more at once.
    #[error("{sockets} sockets, where {MOST_SOCKETS} are the most")]
    TooManySockets {
        /// So many.
        sockets: usize,
    },
    /// What was announced and what came differ: the process may have too few descriptors left.
    #[error(
        "{announced} sockets were announced and {received} came; is the limit of open files (ulimit -n, LimitNOFILE=) reached?"
    )]
    Sockets {
        /// By the head, or by the body.
        announced: usize,
        /// By the kernel.
        received: usize,
    },
    /// Not understood.
    #[error("a message that cannot be read: {0}")]
    Body(String),
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Message {
    Offer(Offer),
    Prepared(Process),
    Take,
    Serving,
    Refused { reason: String },
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Of the program.
    pub version: String,
}

/// The sockets that come with it, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Offer {
    pub(super) from: Process,
    pub(super) sockets: Vec<Offered>,
}

/// One listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Offered {
    pub(super) kind: Kind,
    /// As the config has it: with port 0 this is the only way to find it again.
    pub(super) configured: SocketAddr,
}

/// What stands before every body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) sockets: usize,
    pub(super) length: usize,
}

// === impl Process ===

impl Process {
    /// This one.
    pub(super) fn this() -> Self {
        Self {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

// === impl Message ===

impl Message {
    /// Head and body.
    pub(super) fn encode(&self, sockets: usize) -> Result<Vec<u8>, MessageError> {
        let body =
            serde_json::to_vec(self).map_err(|error| MessageError::Body(error.to_string()))?;
        let too_large = |_| MessageError::TooLarge { bytes: body.len() };
        let length = u32::try_from(body.len()).map_err(too_large)?;
        let count = u16::try_from(sockets).map_err(|_| MessageError::TooManySockets { sockets })?;
        Head::checked(sockets, body.len())?;
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(count.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        Ok(bytes)
    }

    /// `received`: how many sockets came with it.
    pub(super) fn decode(body: &[u8], received: usize) -> Result<Self, MessageError> {
        let message =
            serde_json::from_slice(body).map_err(|error| MessageError::Body(error.to_string()))?;
        let announced = match &message {
            Self::Offer(offer) => offer.sockets.len(),
            _ => 0,
        };
        match announced == received {
            true => Ok(message),
            false => Err(MessageError::Sockets {
                announced,
                received,
            }),
        }
    }
}

// === impl Head ===

impl Head {
    pub(super) fn decode(bytes: [u8; HEAD]) -> Result<Self, MessageError> {
        let [magic @ .., v1, v0, s1, s0, l3, l2, l1, l0] = bytes;
        if magic != MAGIC {
            return Err(MessageError::Foreign);
        }
        let theirs = u16::from_be_bytes([v1, v0]);
        if theirs != VERSION {
            return Err(MessageError::Version { theirs });
        }
        let length = u32::from_be_bytes([l3, l2, l1, l0]);
        Self::checked(
            usize::from(u16::from_be_bytes([s1, s0])),
            usize::try_from(length).unwrap_or(usize::MAX),
        )
    }

    fn checked(sockets: usize, length: usize) -> Result<Self, MessageError> {
        if sockets > MOST_SOCKETS {
            return Err(MessageError::TooManySockets { sockets });
        }
        if length > LARGEST {
            return Err(MessageError::TooLarge { bytes: length });
        }
        Ok(Self { sockets, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(sockets: usize) -> Message {
        let offered = Offered {
            kind: Kind::Https,
            configured: "127.0.0.1:0".parse().unwrap(),
        };
        Message::Offer(Offer {
            from: Process::this(),
            sockets: vec![offered; sockets],
        })
    }

    fn split(bytes: &[u8]) -> ([u8; HEAD], &[u8]) {
        let (head, body) = bytes.split_at(HEAD);
        (head.try_into().unwrap(), body)
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let all = [
            offer(3),
            Message::Prepared(Process::this()),
            Message::Take,
            Message::Serving,
            Message::Refused {
                reason: "no".to_owned(),
            },
        ];
        for (message, sockets) in all.into_iter().zip([3, 0, 0, 0, 0]) {
            let bytes = message.encode(sockets).unwrap();
            let (head, body) = split(&bytes);
            let head = Head::decode(head).unwrap();
            assert_eq!((head.sockets, head.length), (sockets, body.len()));
            assert_eq!(Message::decode(body, sockets).unwrap(), message);
        }
    }

    #[test]
    fn another_version_is_said_to_be_one() {
        let mut bytes = Message::Take.encode(0).unwrap();
        bytes[9] = 7;
        let error = Head::decode(split(&bytes).0).unwrap_err();
        assert_eq!(error, MessageError::Version { theirs: 7 });
        assert!(error.to_string().contains("stop it"), "{error}");
        bytes[0] = b'H';
        assert_eq!(Head::decode(split(&bytes).0), Err(MessageError::Foreign));
    }

    #[test]
    fn what_a_later_version_adds_is_no_harm() {
        let body = br#"{"offer":{"from":{"pid":1,"version":"9.9","colour":"red"},"sockets":[]}}"#;
        assert!(Message::decode(body, 0).is_ok());
        let unknown = Message::decode(br#"{"dance":{}}"#, 0).unwrap_err();
        assert!(unknown.to_string().contains("dance"), "{unknown}");
    }

    #[test]
    fn what_is_too_much_is_neither_said_nor_heard() {
        let reason = "x".repeat(LARGEST);
        let error = Message::Refused { reason }.encode(0).unwrap_err();
        assert!(matches!(error, MessageError::TooLarge { .. }), "{error}");
        let error = offer(251).encode(251).unwrap_err();
        assert_eq!(error, MessageError::TooManySockets { sockets: 251 });
        let mut bytes = Message::Take.encode(0).unwrap();
        bytes[12..16].fill(0xff);
        let bytes_said = MessageError::TooLarge { bytes: 0xffff_ffff };
        assert_eq!(Head::decode(split(&bytes).0), Err(bytes_said));
        bytes[10..12].fill(0xff);
        let error = Head::decode(split(&bytes).0).unwrap_err();
        assert_eq!(error, MessageError::TooManySockets { sockets: 65535 });
    }

    #[test]
    fn a_wrong_number_of_sockets_is_refused() {
        for (announced, received) in [(2, 1), (0, 1), (1, 0)] {
            let bytes = offer(announced).encode(announced).unwrap();
            let error = Message::decode(split(&bytes).1, received).unwrap_err();
            assert_eq!(
                error,
                MessageError::Sockets {
                    announced,
                    received
                }
            );
        }
        // Nor does anything but an offer bring any.
        let bytes = Message::Take.encode(0).unwrap();
        assert!(Message::decode(split(&bytes).1, 1).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(head: [u8; HEAD], body: Vec<u8>, received in 0_usize..300) {
            if let Ok(head) = Head::decode(head) {
                prop_assert!(head.length <= LARGEST && head.sockets <= MOST_SOCKETS);
            }
            let _ = Message::decode(&body, received);
        }
    }
}
