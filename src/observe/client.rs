//! The other side of the admin listener: asks a running holdline.
//!
//! One connection per question, each within a limit. What answers need not be a holdline, or not of
//! this version: nothing is taken for granted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::status::Status;

/// For an answer that is there already.
const LIMIT: Duration = Duration::from_secs(3);
/// A reload reads files and may have to wait for another one, or for an upgrade.
const RELOAD_LIMIT: Duration = Duration::from_secs(120);
/// Longer than a new process may take, and a reload that it has to wait for.
const UPGRADE_LIMIT: Duration = Duration::from_secs(90);
/// A status is some kilobytes.
const BODY: usize = 4 << 20;

/// Asks at one address.
#[derive(Debug, Clone, Copy)]
pub struct AdminClient {
    address: SocketAddr,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Nobody listens.
    #[error(
        "nothing answers on {address}: holdline is not running, or its admin listener is elsewhere. Start it, or say where it is with --admin ADDR or --config FILE"
    )]
    Nobody {
        /// The address.
        address: SocketAddr,
    },
    /// It cannot be reached for another reason.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody listens and does not answer.
    #[error(
        "{address} accepts connections but has not answered within {} s: if that is holdline, it hangs; `ss -ltnp 'sport = :{}'` as root shows who it is",
        limit.as_secs(), address.port()
    )]
    Slow {
        /// The address.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection ended before the answer.
    #[error("{address} ended the connection before an answer")]
    Broken {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: hyper::Error,
    },
    /// What answers is no admin listener.
    #[error(
        "{address} is no admin listener of holdline ({what}); say where it is with --admin ADDR or --config FILE"
    )]
    Stranger {
        /// The address.
        address: SocketAddr,
        /// What it said instead.
        what: String,
    },
    /// It is holdline, and it says no.
    #[error("{0}")]
    Denied(String),
    /// The new config is refused.
    #[error("{reason}")]
    NotReloaded {
        /// In words.
        reason: String,
        /// `{"error", "problems"}`: as `check --json` lists them, empty where the file is not at
        /// fault.
        said: Box<Value>,
    },
}

// === impl AdminClient ===

impl AdminClient {
    /// For a listener here; one on every address is asked over loopback.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address: reachable(address),
        }
    }

    /// Where it asks.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The status, as it was said and as it is read.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn status(&self) -> Result<(Value, Status), AdminError> {
        let answer = self.ask(Method::GET, "/status", LIMIT).await?;
        let stranger = |what: String| AdminError::Stranger {
            address: self.address,
            what,
        };
        if answer.status() != StatusCode::OK {
            return Err(stranger(format!(
                "/status is answered with {}",
                answer.status()
            )));
        }
        let no_status = |_| stranger("what it says on /status is no status".to_owned());
        let said: Value = serde_json::from_slice(answer.body()).map_err(no_status)?;
        // Of what is missing the reader makes nothing, but this much was always there.
        if !said.get("version").is_some_and(Value::is_string) || said.get("gateways").is_none() {
            return Err(stranger("what it says on /status is no status".to_owned()));
        }
        let read = Status::deserialize(&said).map_err(no_status)?;
        Ok((said, read))
    }

    /// Asks for the drain, which goes on without us.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn drain(&self) -> Result<(), AdminError> {
        let answer = self.ask(Method::POST, "/drain", LIMIT).await?;
        match answer.status() {
            StatusCode::ACCEPTED | StatusCode::OK => Ok(()),
            _ => Err(AdminError::Denied(reason(&answer))),
        }
    }

    /// Asks for a reload; what has changed, as it was said.
    ///
    /// # Errors
    /// Why nothing was taken: [`AdminError::NotReloaded`] holds the reason of the running holdline.
    pub async fn reload(&self) -> Result<Value, AdminError> {
        let answer = self.ask(Method::POST, "/reload", RELOAD_LIMIT).await?;
        if !answer.status().is_success() {
            return Err(match said_by(&answer) {
                Some(said) if said.get("problems").is_some() => AdminError::NotReloaded {
                    reason: reason(&answer),
                    said: Box::new(said),
                },
                _ => AdminError::Denied(reason(&answer)),
            });
        }
        let said = serde_json::from_slice::<Value>(answer.body());
        let mut said = said.map_err(|_| AdminError::Stranger {
            address: self.address,
            what: "what it says on /reload is no JSON".to_owned(),
        })?;
        Ok(said.get_mut("reloaded").map(Value::take).unwrap_or(said))
    }

    /// Asks for a certificate to be renewed, or for all of them; what is concerned, as the status
    /// tells it.
    ///
    /// # Errors
    /// Why not: [`AdminError::Denied`] holds the reason of the running holdline.
    pub async fn renew_certificates(&self, name: Option<&str>) -> Result<Value, AdminError> {
        let path = match name {
            Some(name) => format!("/cert/renew?name={name}"),
            None => "/cert/renew".to_owned(),
        };
        let answer = self.ask(Method::POST, &path, LIMIT).await?;
        match answer.status().is_success() {
            true => {
                let said =
                    said_by(&answer).and_then(|mut said| Some(said.get_mut("renewing")?.take()));
                Ok(said.unwrap_or_default())
            }
            false => Err(AdminError::Denied(reason(&answer))),
        }
    }

    /// Lets the binary that is there now take over; the answer says who serves.
    ///
    /// # Errors
    /// Why not; then everything is as it was.
    pub async fn upgrade(&self) -> Result<Value, AdminError> {
        let answer = self.ask(Method::POST, "/upgrade", UPGRADE_LIMIT).await?;
        match said_by(&answer) {
            Some(mut said) if answer.status().is_success() => {
                Ok(said.get_mut("upgraded").map(Value::take).unwrap_or(said))
            }
            _ => Err(AdminError::Denied(reason(&answer))),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<Response<Bytes>, AdminError> {
        let address = self.address;
        tokio::time::timeout(limit, self.exchange(method, path))
            .await
            .unwrap_or(Err(AdminError::Slow { address, limit }))
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<Response<Bytes>, AdminError> {
        let address = self.address;
        let broken = |source| AdminError::Broken { address, source };
        let stream = TcpStream::connect(address).await.map_err(|source| {
            match source.kind() == io::ErrorKind::ConnectionRefused {
                true => AdminError::Nobody { address },
                false => AdminError::Unreachable { address, source },
            }
        })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .unwrap_or_default();
        let answer = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BODY).collect().await;
        let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
        Ok(Response::from_parts(head, body))
    }
}

fn said_by(answer: &Response<Bytes>) -> Option<Value> {
    serde_json::from_slice(answer.body()).ok()
}

/// `{"error": …}`, or the text that there is in its place.
fn reason(answer: &Response<Bytes>) -> String {
    let said = said_by(answer);
    let error = said.as_ref().and_then(|said| said.get("error")?.as_str());
    let text = match error {
        Some(error) => error.to_owned(),
        None => String::from_utf8_lossy(answer.body()).trim().to_owned(),
    };
    match text.is_empty() {
        true => format!("it answers {}", answer.status()),
        false => text,
    }
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let answer = |body: &'static str| {
            let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
            *answer.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
            reason(&answer)
        };
        assert_eq!(answer(r#"{"error": "hold.max: no"}"#), "hold.max: no");
        assert_eq!(answer("use POST\n"), "use POST");
        assert_eq!(answer(""), "it answers 422 Unprocessable Entity");
    }

    #[test]
    fn a_listener_on_every_address_is_asked_over_loopback() {
        let asked = |text: &str| {
            AdminClient::new(text.parse().unwrap())
                .address()
                .to_string()
        };
        assert_eq!(asked("0.0.0.0:9180"), "127.0.0.1:9180");
        assert_eq!(asked("[::]:9180"), "[::1]:9180");
        assert_eq!(asked("127.0.0.2:1"), "127.0.0.2:1");
    }
}
