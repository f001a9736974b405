//! The PROXY protocol header, versions 1 and 2, that a load balancer puts before a connection.
//!
//! Pure: bytes in, header out. Strict where it matters (a header is all or nothing), and TLVs are
//! skipped. Specification: haproxy's `doc/proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header we read: far above version 1 (107) and any sane set of TLVs.
pub(super) const MOST: usize = 4096;

/// Longest version 1 line, CRLF included.
const MOST_V1: usize = 107;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family, length.
const V2_FIXED: usize = 16;

/// What a header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The client's address; `None` when the proxy speaks for itself or does not know it.
    pub(super) source: Option<SocketAddr>,
    /// Bytes of the header; what follows belongs to the client.
    pub(super) length: usize,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Neither signature.
    #[error("no PROXY header")]
    Missing,
    /// Longer than anything sane.
    #[error("PROXY header too long")]
    TooLong,
    /// A version 1 line that breaks its grammar.
    #[error("malformed PROXY line")]
    Line,
    /// Not version 2, or an unknown command.
    #[error("unknown PROXY version or command")]
    Command,
    /// A family or transport that cannot be, or too few bytes for its addresses.
    #[error("malformed PROXY addresses")]
    Addresses,
}

/// Reads the header at the start of `bytes`; `None` when it is not complete yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if agrees(bytes, V1) {
        parse_v1(bytes)
    } else if agrees(bytes, V2) {
        parse_v2(bytes)
    } else {
        Err(Malformed::Missing)
    }
}

/// Whether `bytes` starts with `signature`, as far as it goes.
fn agrees(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let window = bytes.get(..MOST_V1).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= MOST_V1 {
            Err(Malformed::TooLong)
        } else {
            Ok(None)
        };
    };
    let line = window.get(V1.len()..end).ok_or(Malformed::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let source = source_v1(line)?;
    Ok(Some(Header {
        source,
        length: end + 2,
    }))
}

/// `UNKNOWN ...`, or `TCP4|TCP6 source destination source-port destination-port`.
fn source_v1(line: &str) -> Result<Option<SocketAddr>, Malformed> {
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let mut word = || words.next().ok_or(Malformed::Line);
    let (source, destination, source_port, destination_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(Malformed::Line);
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            Some("TCP4") => text.parse().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let source = address(source).ok_or(Malformed::Line)?;
    address(destination).ok_or(Malformed::Line)?;
    port(destination_port)?;
    Ok(Some(SocketAddr::new(
        source.to_canonical(),
        port(source_port)?,
    )))
}

fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| plain).ok_or(Malformed::Line)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(&[command, family, high, low]) = bytes.get(V2.len()..V2_FIXED) else {
        // What is there already must make sense.
        return match bytes.get(V2.len()) {
            Some(command) if !matches!(command, 0x20 | 0x21) => Err(Malformed::Command),
            _ => Ok(None),
        };
    };
    if !matches!(command, 0x20 | 0x21) {
        return Err(Malformed::Command);
    }
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MOST {
        return Err(Malformed::TooLong);
    }
    let Some(payload) = bytes.get(V2_FIXED..length) else {
        return Ok(None);
    };
    let local = command == 0x20;
    let source = if local {
        None
    } else {
        source_v2(family, payload)?
    };
    Ok(Some(Header { source, length }))
}

fn source_v2(family: u8, payload: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    match family {
        0x11 => {
            let Some(&[a, b, c, d, _, _, _, _, high, low, _, _]) = payload.get(..12) else {
                return Err(Malformed::Addresses);
            };
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddr::new(
                Ipv4Addr::new(a, b, c, d).into(),
                port,
            )))
        }
        0x21 => {
            let source = payload
                .get(..16)
                .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            let (Some(source), Some(&[high, low, _, _])) = (source, payload.get(32..36)) else {
                return Err(Malformed::Addresses);
            };
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddr::new(
                IpAddr::V6(Ipv6Addr::from(source)).to_canonical(),
                port,
            )))
        }
        // UNSPEC, and a stream socket of the proxy's own machine: no address to tell.
        0x00 => Ok(None),
        0x31 if payload.len() >= 216 => Ok(None),
        _ => Err(Malformed::Addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn done(source: Option<&str>, length: usize) -> Result<Option<Header>, Malformed> {
        Ok(Some(Header {
            source: source.map(address),
            length,
        }))
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = V2.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb];

    #[test]
    fn version_1() {
        let line = "PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n";
        assert_eq!(
            parse(line.as_bytes()),
            done(Some("192.0.2.1:12345"), line.len())
        );
        let line = "PROXY TCP6 2001:db8::1 ::1 1 443\r\n";
        assert_eq!(
            parse(line.as_bytes()),
            done(Some("[2001:db8::1]:1"), line.len())
        );
        assert_eq!(parse(b"PROXY UNKNOWN\r\n\x16"), done(None, 15));
        let line = format!("PROXY UNKNOWN {}\r\n", "f".repeat(MOST_V1 - 16));
        assert_eq!(parse(line.as_bytes()), done(None, MOST_V1));
    }

    #[test]
    fn version_1_is_strict() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 12345\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 12345 443 9\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 12345 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 1 443\r\n",
            "PROXY TCP4 \u{661}.0.2.1 198.51.100.1 1 443\r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(Malformed::Line), "{line}");
        }
        assert_eq!(parse(b"PROXY TCP4 \xff\r\n"), Err(Malformed::Line));
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(MOST_V1 - 15));
        assert_eq!(parse(long.as_bytes()), Err(Malformed::TooLong));
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Err(Malformed::Missing));
        assert_eq!(parse(b"\x16\x03\x01"), Err(Malformed::Missing));
    }

    #[test]
    fn version_2() {
        assert_eq!(
            parse(&v2(0x21, 0x11, &V4)),
            done(Some("192.0.2.1:12345"), 28)
        );
        let mut with_tlv = V4.to_vec();
        with_tlv.extend([0x04, 0, 3, 1, 2, 3]);
        assert_eq!(
            parse(&v2(0x21, 0x11, &with_tlv)),
            done(Some("192.0.2.1:12345"), 34)
        );
        let mut v6 = Ipv6Addr::LOCALHOST.octets().to_vec();
        v6.extend([0; 16]);
        v6.extend([0, 80, 1, 187]);
        assert_eq!(parse(&v2(0x21, 0x21, &v6)), done(Some("[::1]:80"), 52));
        let mut mapped = "::ffff:192.0.2.1"
            .parse::<Ipv6Addr>()
            .unwrap()
            .octets()
            .to_vec();
        mapped.extend(&v6[16..]);
        assert_eq!(
            parse(&v2(0x21, 0x21, &mapped)),
            done(Some("192.0.2.1:80"), 52)
        );
    }

    #[test]
    fn version_2_without_an_address() {
        assert_eq!(parse(&v2(0x20, 0x00, &[])), done(None, 16));
        assert_eq!(parse(&v2(0x20, 0x11, &V4)), done(None, 28));
        assert_eq!(parse(&v2(0x21, 0x00, &[1, 2, 3])), done(None, 19));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), done(None, 232));
    }

    #[test]
    fn version_2_is_strict() {
        assert_eq!(parse(&v2(0x11, 0x11, &V4)), Err(Malformed::Command));
        assert_eq!(parse(&v2(0x22, 0x11, &V4)), Err(Malformed::Command));
        assert_eq!(parse(&v2(0x22, 0x11, &V4)[..13]), Err(Malformed::Command));
        assert_eq!(parse(&v2(0x21, 0x12, &V4)), Err(Malformed::Addresses));
        assert_eq!(parse(&v2(0x21, 0x11, &V4[..11])), Err(Malformed::Addresses));
        assert_eq!(parse(&v2(0x21, 0x21, &[0; 35])), Err(Malformed::Addresses));
        assert_eq!(parse(&v2(0x21, 0x41, &V4)), Err(Malformed::Addresses));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; MOST])), Err(Malformed::TooLong));
    }

    fn v1_line() -> impl Strategy<Value = Vec<u8>> {
        (
            any::<[u8; 4]>(),
            any::<u16>(),
            any::<[u8; 16]>(),
            any::<bool>(),
        )
            .prop_map(|(v4, port, v6, six)| {
                let (v4, v6) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
                if six {
                    format!("PROXY TCP6 {v6} {v6} {port} 443\r\n").into_bytes()
                } else {
                    format!("PROXY TCP4 {v4} {v4} {port} 443\r\n").into_bytes()
                }
            })
    }

    fn v2_header() -> impl Strategy<Value = Vec<u8>> {
        (any::<bool>(), prop::collection::vec(any::<u8>(), 36..600))
            .prop_map(|(six, payload)| v2(0x21, if six { 0x21 } else { 0x11 }, &payload))
    }

    proptest! {
        /// However a header is split, it is incomplete until its last byte and then the same.
        #[test]
        fn every_split(header in prop_oneof![v1_line(), v2_header()], rest in any::<[u8; 8]>()) {
            let whole = parse(&header).unwrap().unwrap();
            prop_assert_eq!(whole.length, header.len());
            prop_assert!(whole.source.is_some());
            for end in 0..header.len() {
                prop_assert_eq!(parse(&header[..end]), Ok(None), "at {}", end);
            }
            let mut followed = header;
            followed.extend(rest);
            prop_assert_eq!(parse(&followed), Ok(Some(whole)));
        }

        /// Garbage never panics, and never asks for more than the limit.
        #[test]
        fn garbage(mut bytes in prop::collection::vec(any::<u8>(), 0..5000), prefix in 0usize..3) {
            let signature: &[u8] = [b"".as_slice(), V1, V2][prefix];
            bytes.splice(0..0, signature.iter().copied());
            match parse(&bytes) {
                Ok(None) => prop_assert!(bytes.len() < MOST),
                Ok(Some(header)) => prop_assert!(header.length <= bytes.len().min(MOST)),
                Err(_) => {}
            }
        }
    }
}
