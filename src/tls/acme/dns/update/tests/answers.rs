//! What a name server says, well signed or not.

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::tsig::{TSIG, TsigAlgorithm as Algorithm, TsigError};
use hickory_proto::rr::rdata::{CNAME, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigResponseContext, TSigner};

use crate::config::{TsigAlgorithm, TsigKey, TsigSecret};
use crate::tls::acme::dns::TxtRecord;
use crate::tls::acme::moment::Moment;

pub(super) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn key() -> TsigKey {
    TsigKey {
        name: "holdline".to_owned(),
        algorithm: TsigAlgorithm::HmacSha256,
        secret: TsigSecret(SECRET.to_vec().into()),
    }
}

pub(super) fn signer(secret: &[u8]) -> TSigner {
    TSigner::new(
        secret.to_vec(),
        Algorithm::HmacSha256,
        name("holdline."),
        300,
    )
    .unwrap()
}

pub(super) fn record() -> TxtRecord {
    TxtRecord::new("*.a.example", "v-1".to_owned())
}

/// The answer to a request, signed as a server does.
pub(super) fn signed(
    request: &Message,
    answer: &Message,
    secret: &[u8],
    error: Option<TsigError>,
) -> Vec<u8> {
    let mac = request.signature().unwrap().data.mac.clone();
    let now = Moment::now().seconds();
    let context = TSigResponseContext::new(request.id, now, signer(secret), mac, error);
    let signature = context.sign(&answer.to_vec().unwrap()).unwrap();
    let mut answer = answer.clone();
    answer.set_signature(signature);
    answer.to_vec().unwrap()
}

/// With an error of the signature and none of its own.
pub(super) fn unsigned(answer: &Message, error: TsigError, other: Vec<u8>) -> Vec<u8> {
    let now = Moment::now().seconds();
    let data = TSIG::new(
        Algorithm::HmacSha256,
        now,
        300,
        Vec::new(),
        answer.id,
        Some(error),
        other,
    );
    let mut signature = Record::from_rdata(name("holdline."), 0, data);
    signature.dns_class = DNSClass::ANY;
    let mut answer = answer.clone();
    answer.metadata.response_code = ResponseCode::NotAuth;
    answer.set_signature(Box::new(signature));
    answer.to_vec().unwrap()
}

pub(super) fn blank(request: &Message) -> Message {
    let mut answer = Message::new(request.id, MessageType::Response, request.op_code);
    answer.add_queries(request.queries.clone());
    answer.metadata.authoritative = true;
    answer
}

/// As the primary server of `example` answers, with one alias in it; what it was told is noted.
pub(super) fn zone(request: &Message, told: &mut Vec<Record>) -> Message {
    let mut answer = blank(request);
    if request.op_code == OpCode::Update {
        told.extend(request.authorities.iter().cloned());
        return answer;
    }
    let asked = request.queries[0].name().clone();
    let alias = (asked == name("_acme-challenge.alias.example."))
        .then(|| name("_acme-challenge.a.example."));
    let texts = told
        .iter()
        .filter(|it| it.dns_class == DNSClass::IN && it.name == asked);
    match alias {
        Some(target) => {
            let alias = Record::from_rdata(asked, 60, RData::CNAME(CNAME(target)));
            answer.answers.push(alias);
        }
        None if request.queries[0].query_type() == RecordType::TXT => {
            answer.answers.extend(texts.cloned());
        }
        None => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(name("ns.example."), name("root.example."), 1, 1, 1, 1, 1);
            let soa = Record::from_rdata(name("example."), 60, RData::SOA(soa));
            answer.authorities.push(soa);
        }
    }
    answer
}
