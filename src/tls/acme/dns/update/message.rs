//! What is said to a name server, signed, and what its answer means. Pure.
//!
//! Queries are signed as well: a server may answer this key only, or otherwise.

use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm as Algorithm, TsigError};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigVerifier, TSigner};

use crate::config::{TsigAlgorithm, TsigKey};
use crate::tls::acme::dns::Do;
use crate::tls::acme::moment::Moment;

/// How far the clocks may be apart, in seconds (RFC 8945, 10).
const FUDGE: u16 = 300;

/// A message that is ready to be sent, and what its answer has to fit.
pub(super) struct Signed {
    pub(super) bytes: Vec<u8>,
    id: u16,
    op_code: OpCode,
    verifier: TSigVerifier,
    now: Moment,
}

/// Why an answer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// No DNS message, or none to what was asked.
    Garbage,
    /// TCP has room for all of it.
    Truncated,
    Unsigned,
    /// The signature is not one of our key's, or of another time.
    Forged,
    /// The server does not know the key.
    Key,
    /// To the server, our signature is not one of the key.
    Signature,
    /// The clocks are so many seconds apart, if the server said so.
    Time(Option<u64>),
    /// Another error of the signature.
    Other(u16),
}

/// Where a name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Alias(Name),
    /// The server holds this zone, and the name is in it.
    Zone(Name),
    Elsewhere,
}

// === what is said ===

pub(super) fn query(name: &Name, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name.clone(), kind));
    message
}

/// Adds one value to those of a name, or takes away one (RFC 2136, 2.5.1 and 2.5.4).
pub(super) fn update(what: Do, zone: &Name, name: &Name, value: &str, ttl: Duration) -> Message {
    let mut message = query(zone, RecordType::SOA);
    message.metadata.op_code = OpCode::Update;
    let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    let data = RData::TXT(TXT::new(vec![value.to_owned()]));
    let mut record = Record::from_rdata(name.clone(), ttl, data);
    if what == Do::Cleanup {
        record.ttl = 0;
        record.dns_class = DNSClass::NONE;
    }
    // The place of updates in the message.
    message.authorities.push(record);
    message
}

/// None for a key that nothing can be signed with; the config has none of those.
pub(super) fn sign(mut message: Message, key: &TsigKey, now: Moment) -> Option<Signed> {
    let algorithm = match key.algorithm {
        TsigAlgorithm::HmacSha256 => Algorithm::HmacSha256,
        TsigAlgorithm::HmacSha384 => Algorithm::HmacSha384,
        TsigAlgorithm::HmacSha512 => Algorithm::HmacSha512,
    };
    let name = Name::from_ascii(&key.name).ok()?;
    let signer = TSigner::new(key.secret.0.to_vec(), algorithm, name, FUDGE).ok()?;
    let verifier = message.finalize(&signer, now.seconds()).ok()??;
    Some(Signed {
        bytes: message.to_vec().ok()?,
        id: message.id,
        op_code: message.op_code,
        verifier,
        now,
    })
}

// === what is answered ===

impl Signed {
    /// A refusal counts without a signature: it cannot make us believe anything.
    pub(super) fn read(mut self, answer: &[u8]) -> Result<Message, Bad> {
        let message = Message::from_vec(answer).map_err(|_| Bad::Garbage)?;
        let fits = message.id == self.id
            && message.op_code == self.op_code
            && message.message_type == MessageType::Response;
        if !fits {
            return Err(Bad::Garbage);
        }
        let refusal = !matches!(
            message.response_code,
            ResponseCode::NoError | ResponseCode::NXDomain
        );
        let Some(signature) = message.signature() else {
            return match refusal {
                true => Ok(message),
                false => Err(Bad::Unsigned),
            };
        };
        match signature.data.error {
            None => {}
            Some(TsigError::BadKey) => return Err(Bad::Key),
            Some(TsigError::BadSig) => return Err(Bad::Signature),
            Some(TsigError::BadTime) => {
                return Err(Bad::Time(
                    server_time(&signature.data.other)
                        .map(|theirs| theirs.seconds().abs_diff(self.now.seconds())),
                ));
            }
            Some(other) => return Err(Bad::Other(other.into())),
        }
        if self.verifier.verify(answer).is_err() {
            return Err(Bad::Forged);
        }
        match message.truncation {
            true => Err(Bad::Truncated),
            false => Ok(message),
        }
    }
}

/// 48 bits (RFC 8945, 5.2.3).
fn server_time(other: &[u8]) -> Option<Moment> {
    let bytes = <[u8; 6]>::try_from(other).ok()?;
    let seconds = bytes
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    Some(Moment(seconds))
}

/// What the answer to a query for the CNAME of `name` says of it.
pub(super) fn found(answer: &Message, name: &Name) -> Found {
    let of_name = answer.answers.iter().filter(|record| record.name == *name);
    let alias = of_name.into_iter().find_map(|record| match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    });
    if let Some(alias) = alias {
        return Found::Alias(alias);
    }
    // The server has no such record, and says by the SOA of which zone it knows.
    let zone = answer
        .authorities
        .iter()
        .filter(|record| record.record_type() == RecordType::SOA)
        .find(|record| record.name.zone_of(name) && !record.name.is_root());
    match zone {
        Some(zone) if answer.authoritative => Found::Zone(zone.name.clone()),
        _ => Found::Elsewhere,
    }
}

pub(super) fn shows(answer: &Message, value: &str) -> bool {
    answer.answers.iter().any(|record| match &record.data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    })
}
