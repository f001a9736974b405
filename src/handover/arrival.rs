//! The new process's side: take the sockets at once, the place only when everything is ready.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::VARIABLE;
use super::channel::{Channel, ChannelError};
use super::message::{Message, Offer, Process};
use crate::listen::{Inherited, InheritedSocket};
use crate::observe::log::Beside;

/// For the old process to say its next word, which is always at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the place of the old process cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalError {
    /// Somebody set the variable by hand.
    #[error("{VARIABLE} is set, but standard input is no handover of a running holdline: {0}")]
    NoChannel(io::Error),
    /// The conversation failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A socket came that is of no use.
    #[error("a socket of the running holdline cannot be used: {0}")]
    Socket(io::Error),
    /// It has said what makes no sense now.
    #[error("the running holdline said something out of turn")]
    OutOfTurn,
    /// This process is ending.
    #[error("the handover was interrupted")]
    Interrupted,
}

/// A handover that this process was started for.
#[derive(Debug, Clone)]
pub struct Arrival {
    channel: Arc<Channel>,
    /// Whose place it is.
    pub predecessor: Process,
    beside: Arc<Beside>,
}

impl Arrival {
    /// The handover and its sockets, if this process was started for one. Blocks for ten seconds
    /// at most.
    ///
    /// # Errors
    /// When it was, and the sockets do not come.
    pub fn from_env() -> Result<Option<(Self, Inherited)>, ArrivalError> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let channel = Channel::of(io::stdin().as_fd()).map_err(ArrivalError::NoChannel)?;
        let received = Self::receive(&channel);
        if let Err(error) = &received {
            refuse(&channel, &error.to_string());
        }
        let (predecessor, inherited) = received?;
        let arrival = Self {
            channel: Arc::new(channel),
            predecessor,
            beside: Arc::new(Beside::another_process()),
        };
        Ok(Some((arrival, inherited)))
    }

    fn receive(channel: &Channel) -> Result<(Process, Inherited), ArrivalError> {
        let (message, sockets) = channel.receive(Instant::now() + PATIENCE)?;
        let Message::Offer(Offer {
            from,
            sockets: offered,
        }) = message
        else {
            return Err(ArrivalError::OutOfTurn);
        };
        let inherited = offered
            .into_iter()
            .zip(sockets)
            .map(|(offered, socket)| {
                let socket = TcpListener::from(socket);
                InheritedSocket::new(socket, Some(offered.kind), Some(offered.configured))
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(ArrivalError::Socket)?;
        Ok((from, Inherited::new(inherited)))
    }

    /// As long as one of these lives, lines of the log say of which of the two they are.
    pub(crate) fn beside(&self) -> Arc<Beside> {
        Arc::clone(&self.beside)
    }

    /// Says no: the old process goes on, and shows the reason.
    pub fn refuse(&self, reason: &str) {
        refuse(&self.channel, reason);
    }

    /// Everything is ready. Returns when the place is ours: only then may anything be accepted.
    ///
    /// # Errors
    /// When the old process keeps its place.
    pub async fn prepared(&self) -> Result<(), ArrivalError> {
        let channel = Arc::clone(&self.channel);
        let agreed = spawn_blocking(move || {
            let by = Instant::now() + PATIENCE;
            channel.send(&Message::Prepared(Process::this()), &[], by)?;
            match channel.receive(by)?.0 {
                Message::Take => Ok(()),
                _ => Err(ArrivalError::OutOfTurn),
            }
        });
        agreed.await.unwrap_or(Err(ArrivalError::Interrupted))
    }

    /// Connections are accepted: the old process may stop doing so.
    ///
    /// # Errors
    /// When it is not there any more; then this one serves alone.
    pub fn serving(&self) -> Result<(), ArrivalError> {
        let by = Instant::now() + PATIENCE;
        Ok(self.channel.send(&Message::Serving, &[], by)?)
    }
}

fn refuse(channel: &Channel, reason: &str) {
    /// Characters that are said of a very long list of errors.
    const LONGEST: usize = 16 * 1024;
    let reason: String = reason.trim_end().chars().take(LONGEST).collect();
    let message = Message::Refused { reason };
    // It may be gone already; it sees then that we end.
    let _ = channel.send(&message, &[], Instant::now() + PATIENCE);
}
