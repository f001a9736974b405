//! The admin listener's address as people write it.

use std::net::SocketAddr;
use std::str::FromStr;

use super::addresses::listen_address;
use super::units::Wrong;

/// Where the admin listener is, if there is one: `127.0.0.1:9180` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

impl FromStr for AdminAddress {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == "off" {
            return Ok(Self(None));
        }
        let port = text.rsplit(':').next().unwrap_or_default();
        let port = port.parse::<u16>().unwrap_or(9180);
        match listen_address(text) {
            Ok(address) => Ok(Self(Some(address))),
            // It is for this machine only: other addresses are not offered.
            Err(_) => Err(Wrong::new(
                "not an address to listen on: an IP address and a port",
                format!("write \"127.0.0.1:{port}\", or \"off\""),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_machine_is_offered() {
        for text in ["9180", ":9180", "*:9180", "localhost:9180", "localhost"] {
            let wrong = text.parse::<AdminAddress>().unwrap_err().to_string();
            assert!(
                wrong.contains("write \"127.0.0.1:9180\"") && !wrong.contains("0.0.0.0"),
                "{wrong}"
            );
        }
        assert_eq!("off".parse::<AdminAddress>().unwrap(), AdminAddress(None));
    }
}
