//! A name server that answers as a test says, in this process.

mod answers;
mod messages;

use std::future::Future;
use std::sync::{Arc, Mutex};

use hickory_proto::op::OpCode;
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::rdata::{CNAME, TXT};
use hickory_proto::rr::{DNSClass, RData, Record, TSigResponseContext};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use self::answers::{SECRET, blank, key, name, record, signed, signer, unsigned, zone};
use super::*;

struct Scripted {
    dns: DnsUpdate,
    _server: AbortOnDropHandle<()>,
}

/// `answer` gets each message; none is silence, and nothing at all ends the connection.
async fn server(answer: impl Fn(&Message) -> Option<Vec<u8>> + Send + 'static) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let mut silent = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; usize::from(socket.read_u16().await.unwrap())];
            socket.read_exact(&mut request).await.unwrap();
            let request = Message::from_vec(&request).unwrap();
            match answer(&request) {
                None => silent.push(socket),
                Some(bytes) if bytes.is_empty() => drop(socket),
                Some(bytes) => {
                    let length = u16::try_from(bytes.len()).unwrap();
                    socket.write_u16(length).await.unwrap();
                    socket.write_all(&bytes).await.unwrap();
                }
            }
        }
    };
    let dns = DnsUpdate {
        host: address.ip().to_string(),
        port: address.port(),
        zone: None,
        key: key(),
        ttl: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
        // Nobody: the system's are not to be asked.
        resolvers: vec!["127.0.0.1:1".parse().unwrap()],
    };
    Scripted {
        dns,
        _server: AbortOnDropHandle::new(tokio::spawn(serve)),
    }
}

/// What is said of a server that answers so.
async fn failure(
    answer: impl Fn(&Message) -> Option<Vec<u8>> + Send + 'static,
) -> (String, DnsUpdate) {
    let server = server(answer).await;
    let said = run(&server.dns, Do::Present, &record()).await.unwrap_err();
    (said, server.dns)
}

/// Refuses updates with a code; queries are answered.
fn refusing(code: ResponseCode) -> impl Fn(&Message) -> Option<Vec<u8>> + Send + 'static {
    move |request| {
        let mut answer = zone(request, &mut Vec::new());
        if request.op_code == OpCode::Update {
            answer.metadata.response_code = code;
        }
        Some(signed(request, &answer, SECRET, None))
    }
}

async fn assert_said<F: Future<Output = (String, DnsUpdate)>>(failure: F, words: &[&str]) {
    let (said, dns) = failure.await;
    let secret = String::from_utf8(SECRET.to_vec()).unwrap();
    assert!(!said.contains(&secret), "{said}");
    let server = format!("the name server {}:{}: ", dns.host, dns.port);
    assert!(said.starts_with(&server), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

/// What a primary server does with an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tls::acme::dns) enum Mood {
    Good,
    Refuses,
    /// Does it and never says so.
    Silent,
}

pub(in crate::tls::acme::dns) struct Primary {
    pub(in crate::tls::acme::dns) dns: DnsUpdate,
    pub(in crate::tls::acme::dns) mood: Arc<Mutex<Mood>>,
    told: Arc<Mutex<Vec<Record>>>,
    _server: Scripted,
}

pub(in crate::tls::acme::dns) async fn primary() -> Primary {
    let told = Arc::<Mutex<Vec<Record>>>::default();
    let mood = Arc::new(Mutex::new(Mood::Good));
    let (heard, felt) = (Arc::clone(&told), Arc::clone(&mood));
    let server = server(move |request| {
        let mood = match request.op_code {
            OpCode::Update => *felt.lock().unwrap(),
            _ => Mood::Good,
        };
        if mood == Mood::Refuses {
            return refusing(ResponseCode::Refused)(request);
        }
        let answer = zone(request, &mut heard.lock().unwrap());
        (mood == Mood::Good).then(|| signed(request, &answer, SECRET, None))
    })
    .await;
    let dns = server.dns.clone();
    Primary {
        dns,
        mood,
        told,
        _server: server,
    }
}

impl Primary {
    /// How many records are there.
    pub(in crate::tls::acme::dns) fn count(&self) -> usize {
        let mut there = Vec::new();
        for one in self.told.lock().unwrap().iter() {
            match one.dns_class {
                DNSClass::IN => there.push(one.data.clone()),
                _ => there.retain(|it| *it != one.data),
            }
        }
        there.len()
    }
}

#[tokio::test]
async fn one_value_is_added_shown_and_taken_away_where_an_alias_leads() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let server = server(move |request| {
        let answer = zone(request, &mut heard.lock().unwrap());
        Some(signed(request, &answer, SECRET, None))
    })
    .await;
    let record = TxtRecord::new("alias.example", "v-1".to_owned());
    run(&server.dns, Do::Present, &record).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let seen = see(&server.dns, &record, deadline).await.unwrap();
    assert_eq!(seen, ("_acme-challenge.a.example".to_owned(), Seen::Yes));
    run(&server.dns, Do::Cleanup, &record).await.unwrap();
    let told = told.lock().unwrap();
    let [added, removed] = &told[..] else {
        panic!("{told:?}")
    };
    for (each, class, ttl) in [(added, DNSClass::IN, 60), (removed, DNSClass::NONE, 0)] {
        assert_eq!(each.name, name("_acme-challenge.a.example."));
        assert_eq!((each.dns_class, each.ttl), (class, ttl));
        assert_eq!(each.data, RData::TXT(TXT::new(vec!["v-1".to_owned()])));
    }
}

/// Paused for those who are asked about an alias, and of whom nobody is there.
#[tokio::test(start_paused = true)]
async fn what_a_server_refuses_is_told_with_what_to_do() {
    for (code, words) in [
        (
            ResponseCode::Refused,
            [
                "_acme-challenge.a.example in the zone example with the key holdline (REFUSED)",
                "allow it there",
            ],
        ),
        (
            ResponseCode::NotAuth,
            [
                "no zone example that the key holdline may change (NOTAUTH)",
                "primary server",
            ],
        ),
        (ResponseCode::NotZone, ["NOTZONE", "check zone"]),
        (ResponseCode::NotImp, ["takes no updates", "primary server"]),
        (ResponseCode::ServFail, ["SERVFAIL", "its log"]),
        (ResponseCode::FormErr, ["it answers", "its log"]),
    ] {
        assert_said(failure(refusing(code)), &words).await;
    }
    // A refusal needs no signature.
    let plainly = |request: &Message| {
        let mut answer = blank(request);
        answer.metadata.response_code = ResponseCode::Refused;
        answer.metadata.authoritative = false;
        Some(answer.to_vec().unwrap())
    };
    assert_said(failure(plainly), &["does not hold the zone", "Refused"]).await;
    // As Knot says that a key has no right.
    let no_right = |request: &Message| match request.op_code {
        OpCode::Update => Some(unsigned(&blank(request), TsigError::BadKey, Vec::new())),
        _ => refusing(ResponseCode::NoError)(request),
    };
    assert_said(
        failure(no_right),
        &["with the key holdline (BADKEY)", "allow it there"],
    )
    .await;
}

#[tokio::test]
async fn errors_of_the_key_and_the_clock_are_told_apart() {
    let says = |error, other: fn() -> Vec<u8>| {
        failure(move |request: &Message| Some(unsigned(&blank(request), error, other())))
    };
    assert_said(
        says(TsigError::BadKey, Vec::new),
        &["holdline with hmac-sha256 (BADKEY)", "tsig_name"],
    )
    .await;
    assert_said(
        says(TsigError::BadSig, Vec::new),
        &["BADSIG", "tsig_secret"],
    )
    .await;
    let later = || (Moment::now().seconds() + 7000).to_be_bytes()[2..].to_vec();
    let (said, _) = says(TsigError::BadTime, later).await;
    let apart = ["6999 s", "7000 s", "7001 s"]
        .iter()
        .any(|it| said.contains(it));
    assert!(apart && said.contains("NTP"), "{said}");
    assert_said(says(TsigError::BadTime, || vec![1]), &["too far apart"]).await;
    assert_said(says(TsigError::BadTrunc, Vec::new), &["error 22"]).await;
}

#[tokio::test]
async fn an_answer_that_is_not_the_servers_own_counts_for_nothing() {
    let forged = |request: &Message| {
        let answer = zone(request, &mut Vec::new());
        Some(signed(request, &answer, b"another secret", None))
    };
    assert_said(failure(forged), &["another secret", "tsig_secret"]).await;
    let bare = |request: &Message| Some(zone(request, &mut Vec::new()).to_vec().unwrap());
    assert_said(failure(bare), &["not signed with the key holdline"]).await;
    // A good signature over another message.
    let replaced = |request: &Message| {
        let answer = zone(request, &mut Vec::new());
        let mut bytes = signed(request, &answer, SECRET, None);
        bytes[2] ^= 1;
        Some(bytes)
    };
    assert_said(failure(replaced), &["another secret"]).await;
    let late = |request: &Message| {
        let mac = request.signature().unwrap().data.mac.clone();
        let long_ago = Moment::now().seconds() - 1000;
        let mut answer = zone(request, &mut Vec::new());
        let context = TSigResponseContext::new(request.id, long_ago, signer(SECRET), mac, None);
        let signature = context.sign(&answer.to_vec().unwrap()).unwrap();
        answer.set_signature(signature);
        Some(answer.to_vec().unwrap())
    };
    assert_said(failure(late), &["clock"]).await;
}

#[tokio::test]
async fn garbage_and_broken_connections_are_told() {
    let noise = |_: &Message| Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert_said(failure(noise), &["does not speak DNS"]).await;
    let of_another = |request: &Message| {
        let mut answer = blank(request);
        answer.metadata.id ^= 1;
        Some(signed(request, &answer, SECRET, None))
    };
    assert_said(failure(of_another), &["does not speak DNS"]).await;
    let echo = |request: &Message| Some(request.to_vec().unwrap());
    assert_said(failure(echo), &["does not speak DNS"]).await;
    let cut_off = |request: &Message| {
        let mut answer = blank(request);
        answer.metadata.truncation = true;
        Some(signed(request, &answer, SECRET, None))
    };
    assert_said(failure(cut_off), &["cut off"]).await;
    let hang_up = |_: &Message| Some(Vec::new());
    assert_said(failure(hang_up), &["ended the connection"]).await;
    let nobody = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let dns = server(|_| None).await.dns;
        let gone = DnsUpdate { port, ..dns };
        let said = run(&gone, Do::Present, &record()).await.unwrap_err();
        (said, gone)
    };
    assert_said(
        nobody,
        &["cannot be reached over TCP", "refused", "firewall"],
    )
    .await;
}

#[tokio::test]
async fn silence_ends() {
    let server = server(|_| None).await;
    let record = record();
    let silent = run(&server.dns, Do::Present, &record);
    let whole = DnsUpdate {
        timeout: Duration::from_millis(100),
        ..server.dns.clone()
    };
    let said = run(&whole, Do::Present, &record).await.unwrap_err();
    assert!(said.contains("dns_timeout"), "{said}");
    tokio::time::pause();
    let said = silent.await.unwrap_err();
    assert!(said.contains("does not answer within 10 s"), "{said}");
}

#[tokio::test]
async fn aliases_that_go_in_a_circle_end() {
    let circle = |request: &Message| {
        let mut answer = blank(request);
        let asked = request.queries[0].name().clone();
        let other = name(match asked == name("b.example.") {
            true => "_acme-challenge.a.example.",
            false => "b.example.",
        });
        let alias = Record::from_rdata(asked, 60, RData::CNAME(CNAME(other)));
        answer.answers.push(alias);
        Some(signed(request, &answer, SECRET, None))
    };
    assert_said(
        failure(circle),
        &["_acme-challenge.a.example", "in a circle"],
    )
    .await;
}

#[tokio::test]
async fn a_zone_of_the_config_is_used_and_has_to_fit() {
    let answers = |request: &Message| {
        let answer = zone(request, &mut Vec::new());
        Some(signed(request, &answer, SECRET, None))
    };
    let server = server(answers).await;
    for (zone, fits) in [("a.example", true), ("b.example", false)] {
        let dns = DnsUpdate {
            zone: Some(zone.to_owned()),
            ..server.dns.clone()
        };
        match run(&dns, Do::Present, &record()).await {
            Ok(()) => assert!(fits),
            Err(said) => {
                assert!(
                    !fits && said.contains("is not in its zone b.example"),
                    "{said}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_taken_and_not_shown_is_waited_for_up_to_the_deadline() {
    let message =
        |request: &Message| signed(request, &zone(request, &mut Vec::new()), SECRET, None);
    let server = server(move |request| Some(message(request))).await;
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(20);
    let said = see(&server.dns, &record(), deadline).await.unwrap_err();
    assert!(
        said.contains("has taken the record _acme-challenge.a.example"),
        "{said}"
    );
    assert!(Instant::now() <= deadline);
}

#[test]
fn a_name_at_the_end_of_a_cname_is_told_with_where_it_began() {
    let name = absolute("foo.other.test").unwrap();
    assert_eq!(
        reached("_acme-challenge.q.z.test", &name),
        "foo.other.test, where _acme-challenge.q.z.test leads by CNAME,"
    );
    assert_eq!(reached("Foo.other.test.", &name), "foo.other.test");
}
