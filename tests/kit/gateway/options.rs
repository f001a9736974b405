//! What kind of gateway a test wants, and how it misbehaves.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The token that [`AuthMode::Token`] accepts.
pub const TOKEN: &str = "kit-token";
/// The user that [`AuthMode::TrustedProxy`] knows.
pub const USER: &str = "nick@example.com";

/// Fixed for the life of a gateway, restarts included.
#[derive(Debug, Clone)]
pub struct Options {
    pub ip: IpAddr,
    pub protocol: Protocol,
    pub auth: AuthMode,
    pub startupz: Startupz,
    /// Whether `hello-ok` has its real size (some 17 kB) or only what a client reads.
    pub long_hello: bool,
    /// Unfinished handshakes per client address before the 503.
    pub unauthenticated_per_ip: usize,
    /// Time from the upgrade to a complete `connect`.
    pub preauth_timeout: Duration,
    pub ping_every: Duration,
    pub tick_interval: Duration,
    /// Size of its sockets' receive buffers; `None` leaves it to the kernel.
    pub receive_buffer: Option<u32>,
    /// Unanswered requests over all connections, from which on it is busy; each then takes a few
    /// milliseconds.
    pub busy_from: Option<usize>,
    /// Whether the journal keeps client frames' payloads.
    pub record_frames: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ip: Ipv4Addr::LOCALHOST.into(),
            protocol: Protocol::Openclaw,
            auth: AuthMode::Token,
            startupz: Startupz::Real,
            long_hello: true,
            unauthenticated_per_ip: 32,
            preauth_timeout: Duration::from_secs(15),
            ping_every: Duration::from_secs(25),
            tick_interval: Duration::from_secs(30),
            receive_buffer: None,
            busy_from: None,
            record_frames: true,
        }
    }
}

/// What its WebSocket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The gateway's JSON protocol.
    Openclaw,
    /// Every frame comes back as it is; `Sec-WebSocket-Protocol` gets its first offer.
    Echo,
}

/// How `connect` is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// `auth.token` must be [`TOKEN`].
    Token,
    /// `x-forwarded-user` must be [`USER`] on the upgrade; every scope is granted to it.
    TrustedProxy,
    /// Whoever asks gets what it asks for.
    Anyone,
}

/// Gateways before `/startupz` existed answer it in one of two other ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startupz {
    Real,
    NotFound,
    /// 200 and the Control UI's page, as for any unknown path.
    Html,
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No process, or none that listens.
    Down,
    Starting,
    Ready,
    /// Has been told to stop; still answers with explicit errors.
    Draining,
    /// Has sent its `shutdown` event; answers with errors that say nothing.
    Closing,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// `shutdown` event, close 1012, exit.
    Sigterm,
    /// `SIGUSR2`: the same, with `restartExpectedMs` 1500.
    Restart,
    /// Every connection is reset.
    Kill,
    /// Every connection ends with FIN and without a close frame.
    Fin,
}

/// How upgrades are answered, from the next one on.
#[derive(Debug, Clone, Default)]
pub enum UpgradeAnswer {
    /// As the phase asks for.
    #[default]
    Normal,
    /// This status, with a short body.
    Status(u16),
    /// 101 with a wrong `Sec-WebSocket-Accept`.
    WrongAccept,
    /// These bytes, then FIN.
    Bytes(Vec<u8>),
    /// Nothing, until the client gives up.
    Silence,
    /// A good 101 and challenge, a byte at a time.
    Slow,
    /// A good 101, and never a challenge.
    NoChallenge,
    /// A reset in place of an answer.
    Reset,
}
