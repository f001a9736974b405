//! Messages without a server.

use proptest::prelude::*;

use super::answers::{SECRET, key, name, record, signed, signer, zone};
use super::*;
use crate::tls::acme::dns::update::message::{Bad, Signed};

#[test]
fn the_request_is_signed_for_its_zone_and_says_nothing_else() {
    let zone = name("example.");
    let now = Moment(1_800_000_000);
    let change = update(
        Do::Present,
        &zone,
        &name("b.example."),
        "v",
        Duration::from_secs(60),
    );
    let signed = sign(change, &key(), now).unwrap();
    let (_, time, _) = signer(SECRET)
        .verify_message_byte(&signed.bytes, None, true)
        .unwrap();
    assert_eq!(time, now.seconds());
    let other = signer(b"another").verify_message_byte(&signed.bytes, None, true);
    assert!(other.is_err());
    let sent = Message::from_vec(&signed.bytes).unwrap();
    assert_eq!(
        (sent.op_code, sent.recursion_desired),
        (OpCode::Update, false)
    );
    let about = &sent.queries[0];
    assert_eq!((about.name(), about.query_type()), (&zone, RecordType::SOA));
    assert_eq!(
        (
            sent.queries.len(),
            sent.answers.len(),
            sent.authorities.len()
        ),
        (1, 0, 1)
    );
    assert!(sent.additionals.is_empty() && sent.edns.is_none());
    // As long as what it has to be: header, zone, name, TXT, TSIG.
    assert!(signed.bytes.len() < 200, "{}", signed.bytes.len());
}

/// A question, and the answer to it that a server signs.
fn asked_and_answered() -> (Signed, Vec<u8>) {
    let mut told = vec![Record::from_rdata(
        name("_acme-challenge.a.example."),
        60,
        RData::TXT(TXT::new(vec![record().value])),
    )];
    let question = query(&told[0].name, RecordType::TXT);
    let signed_question = sign(question, &key(), Moment::now()).unwrap();
    let request = Message::from_vec(&signed_question.bytes).unwrap();
    let answer = signed(&request, &zone(&request, &mut told), SECRET, None);
    (signed_question, answer)
}

fn content(message: &Message) -> String {
    let Message {
        metadata,
        answers,
        authorities,
        ..
    } = message;
    format!("{metadata:?} {answers:?} {authorities:?}")
}

#[test]
fn an_answer_to_another_question_counts_for_nothing() {
    let ((question, answer), (_, other)) = (asked_and_answered(), asked_and_answered());
    assert!(shows(&question.read(&answer).unwrap(), "v-1"));
    let (question, _) = asked_and_answered();
    assert!(question.read(&other).is_err());
}

proptest! {
    #[test]
    fn what_is_changed_on_the_way_is_not_believed(at in any::<prop::sample::Index>(), mask in 1..=u8::MAX) {
        let (question, answer) = asked_and_answered();
        let expected = content(&Message::from_vec(&answer).unwrap());
        let mut changed = answer.clone();
        changed[at.index(answer.len())] ^= mask;
        // Where nothing depends on it, such as the signature's own time to live, it may differ.
        if let Ok(read) = question.read(&changed) {
            prop_assert_eq!(content(&read), expected);
        }
    }

    #[test]
    fn a_part_of_an_answer_is_none(at in any::<prop::sample::Index>()) {
        let (question, answer) = asked_and_answered();
        prop_assert!(question.read(&answer[..at.index(answer.len())]).is_err());
    }

    #[test]
    fn noise_gets_no_further(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (question, answer) = asked_and_answered();
        prop_assert_eq!(question.read(&bytes).err(), Some(Bad::Garbage));
        let (question, _) = asked_and_answered();
        prop_assert!(question.read(&[&answer[..12], &bytes].concat()).is_err());
    }
}
