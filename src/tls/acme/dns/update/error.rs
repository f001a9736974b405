//! Why a name server has not done as it was told: sentences that say what to do.

use std::io;

use hickory_proto::op::ResponseCode;
use thiserror::Error;

use super::message::Bad;
use crate::config::TsigKey;

/// What could not be done at a name server. Says everything but which server it was.
#[derive(Debug, Error)]
pub(super) enum UpdateError {
    #[error("it has no address ({0}); check server in [acme.dns_update]")]
    NoAddress(String),
    #[error(
        "it cannot be reached over TCP ({0}); check server in [acme.dns_update], that it listens \
         there for this machine, and every firewall between"
    )]
    Unreachable(io::Error),
    #[error("it ended the connection instead of an answer ({0}); see its log")]
    Broken(io::Error),
    #[error("it does not answer within {0} s; see its log, and check server in [acme.dns_update]")]
    Silent(u64),
    #[error("what answers there does not speak DNS; check server in [acme.dns_update]")]
    Garbage,
    #[error("its answer is cut off; see its log")]
    Truncated,
    #[error(
        "its answer is not signed with the key {0}, so that anybody may have sent it; check that \
         server in [acme.dns_update] is the one that has the key"
    )]
    Unsigned(String),
    #[error(
        "its answer is signed with another secret than that of the key {0}, or the clock of one of \
         the two is wrong; write the same tsig_secret as there"
    )]
    Forged(String),
    #[error(
        "it does not know the key {0} with {1} (BADKEY); check tsig_name and tsig_algorithm, and \
         that it has read its own config again"
    )]
    Key(String, String),
    #[error(
        "it finds our signature wrong (BADSIG): its key {0} has another secret; write the same \
         tsig_secret as there"
    )]
    Signature(String),
    #[error("the clocks are {0} apart (BADTIME); set both, best by NTP")]
    Time(String),
    #[error("it cannot check our signature (error {0}); see its log")]
    OtherSignature(u16),
    #[error(
        "it refuses to change TXT records of {name} in the zone {zone} with the key {key} \
         ({code}); allow it there, as docs/certificates.md shows for BIND"
    )]
    Refused {
        name: String,
        zone: String,
        key: String,
        code: &'static str,
    },
    #[error(
        "it has no zone {zone} that the key {key} may change (NOTAUTH); check server and zone in \
         [acme.dns_update]: it has to be the zone's primary server"
    )]
    NotPrimary { zone: String, key: String },
    #[error("{name} is not in its zone {zone} (NOTZONE); check zone in [acme.dns_update]")]
    NotInZone { name: String, zone: String },
    #[error("it takes no updates (NOTIMP); name the zone's primary server in [acme.dns_update]")]
    NoUpdates,
    #[error(
        "it has failed (SERVFAIL); see its log: often it could not load the zone of {0}, \
         or may not write beside that zone's file"
    )]
    Failed(String),
    #[error("it answers {0}; see its log")]
    Other(ResponseCode),
    #[error(
        "it does not hold the zone that {name} is in (it {answer}); name that zone's primary \
         server in [acme.dns_update], and its zone"
    )]
    Elsewhere { name: String, answer: String },
    #[error(
        "the CNAME records from {0} on lead nowhere: there are too many of them, or they go in a circle"
    )]
    Circle(String),
    #[error("it took longer than {0} s in all; see its log, and dns_timeout")]
    TooSlow(u64),
    #[error("it has taken the record {name} and does not show it {seconds} s later; see its log")]
    NotShown { name: String, seconds: u64 },
    #[error("a message to it cannot be written; check tsig_name and zone in [acme.dns_update]")]
    Unwritable,
}

impl UpdateError {
    pub(super) fn bad(bad: Bad, key: &TsigKey) -> Self {
        let name = key.name.clone();
        match bad {
            Bad::Garbage => Self::Garbage,
            Bad::Truncated => Self::Truncated,
            Bad::Unsigned => Self::Unsigned(name),
            Bad::Forged => Self::Forged(name),
            Bad::Key => Self::Key(name, key.algorithm.to_string()),
            Bad::Signature => Self::Signature(name),
            Bad::Time(Some(apart)) => Self::Time(format!("{apart} s")),
            Bad::Time(None) => Self::Time("too far".to_owned()),
            Bad::Other(error) => Self::OtherSignature(error),
        }
    }
}
