//! Opening sessions: stream, upgrade, and for OpenClaw challenge, connect and hello.
//! Every stage has the patience of the official client (15 s) and an error of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{error::Elapsed, timeout};
use tokio_rustls::TlsConnector;

use crate::net::{self, Stream};
use crate::progress::Progress;
use crate::protocol::{self, Incoming, Protocol, Refusal, Template, Verdict};
use crate::url::Url;
use crate::ws::{Connection, Opcode, Role, UpgradeError, WsError, client_upgrade};

/// The official client gives each stage this long.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Everything needed to open sessions, shared by all of them.
#[derive(Clone)]
pub struct Dialer {
    /// TLS client for `wss`.
    pub tls: Option<TlsConnector>,
    /// What the backend speaks.
    pub protocol: Protocol,
    /// Token for OpenClaw's `connect`.
    pub token: String,
    /// The method OpenClaw requests call.
    pub method: String,
    /// Extra headers of the upgrade.
    pub headers: Vec<(String, String)>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No stream: refused, reset, TLS.
    #[error("connect")]
    Connect(#[source] std::io::Error),
    /// No WebSocket.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// A stage took longer than a client waits.
    #[error("{0} took more than {PATIENCE:?}")]
    Patience(Stage),
    /// The session ended before it was usable.
    #[error("before hello")]
    Early(#[source] WsError),
    /// `connect` was answered with an error.
    #[error("connect answered {} {}", .0.code, .0.reason)]
    Rejected(Refusal),
}

/// The waits of an opening session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// TCP, TLS and the 101.
    Upgrade,
    /// The gateway's challenge.
    Challenge,
    /// The answer to `connect`.
    Hello,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Upgrade => "upgrade",
            Self::Challenge => "challenge",
            Self::Hello => "hello",
        })
    }
}

impl OpenError {
    /// Whether the upgrade had succeeded: the backend (or its proxy) had a handshake to do.
    #[must_use]
    pub const fn was_upgraded(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Upgrade(_) | Self::Patience(Stage::Upgrade) => false,
            Self::Patience(_) | Self::Early(_) | Self::Rejected(_) => true,
        }
    }

    /// A few words that group equal causes.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Connect(e) => match e.kind() {
                std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
                std::io::ErrorKind::ConnectionReset => "reset".to_owned(),
                std::io::ErrorKind::UnexpectedEof => "closed in TLS handshake".to_owned(),
                kind => format!("connect: {kind}"),
            },
            Self::Upgrade(UpgradeError::Refused { status, .. }) => format!("HTTP {status}"),
            Self::Upgrade(UpgradeError::Io(e)) => format!("upgrade: {}", e.kind()),
            Self::Upgrade(UpgradeError::Accept) => "wrong accept key".to_owned(),
            Self::Patience(stage) => format!("{stage} timeout"),
            Self::Early(e) => format!("closed {} before hello", e.code()),
            Self::Rejected(r) => format!("connect {} {}", r.code, r.reason).trim().to_owned(),
        }
    }
}

/// A session ready for requests.
#[derive(Debug)]
pub struct Session {
    /// The socket.
    pub ws: Connection<Stream>,
    /// What is said on it.
    pub protocol: Protocol,
    mask: [u8; 4],
    method: String,
}

impl Session {
    /// A request of about `size` bytes for this session.
    #[must_use]
    pub fn template(&self, size: usize) -> Template {
        Template::new(self.protocol, &self.method, size, self.mask)
    }

    /// Waits for the answer to `id`; events and other answers pass by.
    ///
    /// # Errors
    /// When the session ends first.
    pub async fn answer(&mut self, id: u64) -> Result<(), WsError> {
        loop {
            let message = self.ws.next().await?;
            if protocol::answered_id(self.protocol, message.payload) == Some(id) {
                return Ok(());
            }
        }
    }

    /// Says goodbye and waits a moment for the answer, so that nobody sees a torn session.
    pub async fn bye(mut self) {
        // A peer that is gone already needs no goodbye.
        let _ = timeout(GOODBYE, async {
            self.ws.close(1000, "").await?;
            while self.ws.next().await.is_ok() {}
            Ok::<_, WsError>(())
        })
        .await;
    }
}

impl Dialer {
    /// Opens one session.
    ///
    /// # Errors
    /// With the stage that failed.
    pub async fn open(&self, url: &Url) -> Result<Session, OpenError> {
        let late = |stage| move |_: Elapsed| OpenError::Patience(stage);
        let upgrade = timeout(PATIENCE, self.upgrade(url));
        let mut ws = upgrade.await.map_err(late(Stage::Upgrade))??;
        if self.protocol == Protocol::Openclaw {
            let challenge = timeout(PATIENCE, challenge(&mut ws));
            challenge
                .await
                .map_err(late(Stage::Challenge))?
                .map_err(OpenError::Early)?;
            let hello = timeout(PATIENCE, hello(&mut ws, &self.token));
            hello.await.map_err(late(Stage::Hello))??;
        }
        let mask = match ws.role() {
            Role::Client(mask) => mask,
            Role::Server => [0; 4],
        };
        Ok(Session {
            ws,
            protocol: self.protocol,
            mask,
            method: self.method.clone(),
        })
    }

    async fn upgrade(&self, url: &Url) -> Result<Connection<Stream>, OpenError> {
        let io = net::connect(url, self.tls.as_ref())
            .await
            .map_err(OpenError::Connect)?;
        Ok(client_upgrade(io, url, &self.headers).await?)
    }

    /// Opens `count` sessions, at most `at_once` handshakes at a time.
    ///
    /// # Errors
    /// With the first one that failed; those already open are dropped.
    pub async fn open_many(
        &self,
        url: &Url,
        count: usize,
        at_once: usize,
    ) -> Result<Vec<Session>, OpenError> {
        let (gate, dialer) = (
            Arc::new(Semaphore::new(at_once.max(1))),
            Arc::new(self.clone()),
        );
        let mut progress = Progress::new(&format!("opening sessions to {url}"), count);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (gate, dialer, url) = (Arc::clone(&gate), Arc::clone(&dialer), url.clone());
            tasks.spawn(async move {
                let _turn = gate.acquire().await;
                dialer.open(&url).await
            });
        }
        let mut sessions = Vec::with_capacity(count);
        while let Some(opened) = tasks.join_next().await {
            let opened = opened.map_err(|e| OpenError::Connect(std::io::Error::other(e)))?;
            sessions.push(opened?);
            progress.step();
        }
        Ok(sessions)
    }
}

async fn challenge(ws: &mut Connection<Stream>) -> Result<(), WsError> {
    while !protocol::is_challenge(ws.next().await?.payload) {}
    Ok(())
}

async fn hello(ws: &mut Connection<Stream>, token: &str) -> Result<(), OpenError> {
    let id = 0;
    let connect = protocol::connect_frame(id, token);
    ws.send(Opcode::Text, &connect)
        .await
        .map_err(OpenError::Early)?;
    loop {
        let message = ws.next().await.map_err(OpenError::Early)?;
        match protocol::classify(Protocol::Openclaw, message.payload) {
            Incoming::Answer(answered, verdict) if answered == id => match verdict {
                Verdict::Ok => return Ok(()),
                Verdict::Error(refusal) => return Err(OpenError::Rejected(refusal)),
            },
            Incoming::Answer(..) | Incoming::Event | Incoming::Other => {}
        }
    }
}
