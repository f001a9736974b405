//! Records by dynamic updates (RFC 2136), signed with a key that the name server knows (TSIG, RFC
//! 8945): what BIND, Knot, PowerDNS and others take.
//!
//! TCP only. Every server of this kind speaks it, what is asked for is never cut off, and nobody
//! beside the road can slip in an answer. A change is one value of one name, so that those of a
//! wildcard and its base name stand beside each other, and doing it twice does no harm.
//!
//! Messages and signatures are hickory-proto's, which the resolver needs anyway, on the cryptographic
//! library that TLS has.

mod error;
mod message;
#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::config::LookupIpStrategy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use self::error::UpdateError;
use self::message::{Found, found, query, shows, sign, update};
use super::{Do, Seen, TxtRecord, alias};
use crate::config::DnsUpdate;
use crate::network::look_up;
use crate::tls::acme::moment::Moment;

/// One question and its answer.
const QUESTION: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// CAs follow about as many.
const MOST_ALIASES: usize = 8;

/// Where a record has to be written.
struct Place {
    name: Name,
    zone: Name,
}

/// Adds the record or takes it away; the error is a sentence.
pub(super) async fn run(dns: &DnsUpdate, what: Do, record: &TxtRecord) -> Result<(), String> {
    let server = Server(dns);
    let whole = timeout(dns.timeout, server.change(what, record));
    whole
        .await
        .unwrap_or(Err(UpdateError::TooSlow(dns.timeout.as_secs())))
        .map_err(|error| server.sentence(&error))
}

/// Waits until the server itself shows the record, until `deadline` at most: the name that others
/// may be asked for, and whether this one has answered at all.
pub(super) async fn see(
    dns: &DnsUpdate,
    record: &TxtRecord,
    deadline: Instant,
) -> Result<(String, Seen), String> {
    let server = Server(dns);
    server
        .see(record, deadline)
        .await
        .map_err(|error| server.sentence(&error))
}

/// Where the server is, as people write it.
pub(super) fn place(dns: &DnsUpdate) -> String {
    Server(dns).to_string()
}

/// The server of the config.
#[derive(Clone, Copy)]
struct Server<'a>(&'a DnsUpdate);

impl fmt::Display for Server<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DnsUpdate { host, port, .. } = self.0;
        match (host.contains(':'), port) {
            (true, _) => write!(f, "[{host}]:{port}"),
            (false, 53) => f.write_str(host),
            (false, _) => write!(f, "{host}:{port}"),
        }
    }
}

// === impl Server ===

impl Server<'_> {
    fn sentence(self, error: &UpdateError) -> String {
        format!("the name server {self}: {error}")
    }

    async fn change(self, what: Do, record: &TxtRecord) -> Result<(), UpdateError> {
        let Place { name, zone } = self.place(&record.name).await?;
        let change = update(what, &zone, &name, &record.value, self.0.ttl);
        let answer = self.ask(change).await;
        let name = reached(&record.name, &name);
        let (zone, key) = (shown(&zone), self.0.key.name.clone());
        let refused = |code| UpdateError::Refused {
            name: name.clone(),
            zone: zone.clone(),
            key: key.clone(),
            code,
        };
        match answer.map(|answer| answer.response_code) {
            Ok(ResponseCode::NoError) => Ok(()),
            Ok(ResponseCode::Refused) => Err(refused("REFUSED")),
            // It knew the key just now: so Knot says what it has no right to.
            Err(UpdateError::Key(..)) => Err(refused("BADKEY")),
            Ok(ResponseCode::NotAuth) => Err(UpdateError::NotPrimary { zone, key }),
            Ok(ResponseCode::NotZone) => Err(UpdateError::NotInZone { name, zone }),
            Ok(ResponseCode::NotImp) => Err(UpdateError::NoUpdates),
            Ok(ResponseCode::ServFail) => Err(UpdateError::Failed(zone)),
            Ok(other) => Err(UpdateError::Other(other)),
            Err(error) => Err(error),
        }
    }

    /// Follows the CNAMEs of a name, as a CA does, to the zone that the record belongs in.
    async fn place(self, written: &str) -> Result<Place, UpdateError> {
        let mut name = absolute(written)?;
        let configured = self.0.zone.as_deref().map(absolute).transpose()?;
        for _ in 0..=MOST_ALIASES {
            let answer = self.ask(query(&name, RecordType::CNAME)).await?;
            if answer.response_code == ResponseCode::ServFail {
                return Err(UpdateError::Failed(shown(&name)));
            }
            let zone = match found(&answer, &name) {
                Found::Alias(target) => {
                    name = target;
                    continue;
                }
                Found::Zone(zone) => Some(configured.clone().unwrap_or(zone)),
                // It may be delegated by a zone that this server does not hold.
                Found::Elsewhere => match alias(&shown(&name), &self.0.resolvers).await {
                    Some(target) => {
                        name = absolute(&target)?;
                        continue;
                    }
                    None => configured.clone(),
                },
            };
            return match zone {
                Some(zone) if zone.zone_of(&name) => Ok(Place { name, zone }),
                Some(zone) => Err(UpdateError::NotInZone {
                    name: reached(written, &name),
                    zone: shown(&zone),
                }),
                None => Err(UpdateError::Elsewhere {
                    name: reached(written, &name),
                    answer: match answer.response_code {
                        ResponseCode::NoError | ResponseCode::NXDomain => {
                            "does not speak for it".to_owned()
                        }
                        code => format!("answers: {code}"),
                    },
                }),
            };
        }
        Err(UpdateError::Circle(written.to_owned()))
    }

    async fn see(
        self,
        record: &TxtRecord,
        deadline: Instant,
    ) -> Result<(String, Seen), UpdateError> {
        let begun = Instant::now();
        let name = self.place(&record.name).await?.name;
        loop {
            match self.ask(query(&name, RecordType::TXT)).await {
                Ok(answer) if shows(&answer, &record.value) => {
                    return Ok((shown(&name), Seen::Yes));
                }
                Ok(answer) if answer.response_code == ResponseCode::NoError => {}
                Ok(answer) if answer.response_code == ResponseCode::NXDomain => {}
                Ok(_) => return Ok((shown(&name), Seen::Silent)),
                Err(error) => {
                    tracing::debug!(server = %self, %error, "does not say whether a record is there");
                    return Ok((shown(&name), Seen::Silent));
                }
            }
            if Instant::now() + LOOK_EVERY > deadline {
                return Err(UpdateError::NotShown {
                    name: shown(&name),
                    seconds: begun.elapsed().as_secs(),
                });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The answer to one message; it may be a refusal, but is a verified one if it is not.
    async fn ask(self, message: Message) -> Result<Message, UpdateError> {
        let key = &self.0.key;
        let signed = sign(message, key, Moment::now()).ok_or(UpdateError::Unwritable)?;
        let mut socket = self.connect().await?;
        let answer = timeout(QUESTION, exchange(&mut socket, &signed.bytes))
            .await
            .map_err(|_| UpdateError::Silent(QUESTION.as_secs()))?
            .map_err(UpdateError::Broken)?;
        signed
            .read(&answer)
            .map_err(|bad| UpdateError::bad(bad, key))
    }

    async fn connect(self) -> Result<TcpStream, UpdateError> {
        let DnsUpdate { host, port, .. } = self.0;
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => timeout(QUESTION, look_up(host, LookupIpStrategy::Ipv4AndIpv6))
                .await
                .map_err(|_| UpdateError::NoAddress("the look-up takes too long".to_owned()))?
                .map_err(|error| UpdateError::NoAddress(error.to_string()))?,
        };
        let mut last = io::Error::from(io::ErrorKind::HostUnreachable);
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect((address, *port))).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(UpdateError::Unreachable(last))
    }
}

/// Each message has its length before it (RFC 1035, 4.2.2), which bounds it.
async fn exchange(socket: &mut TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    socket.write_all(&framed).await?;
    let mut answer = vec![0; usize::from(socket.read_u16().await?)];
    socket.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A name as it is written here, without a dot at its end.
fn absolute(name: &str) -> Result<Name, UpdateError> {
    Name::from_ascii(format!("{}.", name.trim_end_matches('.')))
        .map_err(|_| UpdateError::Unwritable)
}

fn shown(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

/// The name that a CNAME of the one that was meant has led to, in the middle of a sentence.
fn reached(written: &str, name: &Name) -> String {
    let name = shown(name);
    match name.eq_ignore_ascii_case(written.trim_end_matches('.')) {
        true => name,
        false => format!("{name}, where {written} leads by CNAME,"),
    }
}
