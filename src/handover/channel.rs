//! The socket between the two processes of a handover: whole messages, with a time limit each.
//!
//! Blocking: a conversation has a thread of its own, and the receiving side needs its sockets
//! before it has a runtime.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::time::Instant;

use super::message::{HEAD, Head, MOST_SOCKETS, Message, MessageError};

/// For the kernel's description of the sockets beside a head.
const BESIDE: usize = rustix::cmsg_space!(ScmRights(MOST_SOCKETS));

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side has hung up between two messages.
    #[error("the other process has closed the handover")]
    Closed,
    /// ... or within one.
    #[error("the other process has closed the handover in the middle of a message")]
    Cut,
    /// It takes too long.
    #[error("the other process did not answer in time")]
    TimedOut,
    /// It came, and is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Anything else.
    #[error("the handover's socket: {0}")]
    Io(#[from] io::Error),
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
}

// === impl Channel ===

impl Channel {
    /// Our end, and the one for the other process.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self { stream: ours }, theirs.into()))
    }

    /// The end that this process was started with.
    ///
    /// # Errors
    /// When it is no Unix socket.
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let stream = UnixStream::from(socket.try_clone_to_owned()?);
        // A terminal or a pipe has no such address.
        stream.peer_addr()?;
        Ok(Self { stream })
    }

    pub(super) fn send(
        &self,
        message: &Message,
        sockets: &[BorrowedFd<'_>],
        by: Instant,
    ) -> Result<(), ChannelError> {
        let bytes = message.encode(sockets.len())?;
        self.stream.set_write_timeout(Some(left(by)?))?;
        let mut space = vec![MaybeUninit::uninit(); BESIDE];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
            let sockets = sockets.len();
            return Err(MessageError::TooManySockets { sockets }.into());
        }
        let sent = sendmsg(
            &self.stream,
            &[IoSlice::new(&bytes)],
            &mut beside,
            SendFlags::NOSIGNAL,
        )
        .map_err(|error| failed(error.into()))?;
        let rest = bytes.get(sent..).unwrap_or_default();
        (&self.stream).write_all(rest).map_err(failed)
    }

    pub(super) fn receive(&self, by: Instant) -> Result<(Message, Vec<OwnedFd>), ChannelError> {
        let mut head = [0; HEAD];
        let (got, sockets) = self.receive_first(&mut head, by)?;
        if got == 0 {
            return Err(ChannelError::Closed);
        }
        self.fill(head.get_mut(got..).unwrap_or_default(), by)?;
        let head = Head::decode(head)?;
        if head.sockets != sockets.len() {
            return Err(MessageError::Sockets {
                announced: head.sockets,
                received: sockets.len(),
            }
            .into());
        }
        let mut body = vec![0; head.length];
        self.fill(&mut body, by)?;
        Ok((Message::decode(&body, sockets.len())?, sockets))
    }

    /// Ends the conversation, also for a thread that is in the middle of it.
    pub(super) fn shut(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The bytes that sockets come with, at the beginning of a message.
    fn receive_first(
        &self,
        into: &mut [u8],
        by: Instant,
    ) -> Result<(usize, Vec<OwnedFd>), ChannelError> {
        self.stream.set_read_timeout(Some(left(by)?))?;
        let mut space = vec![MaybeUninit::uninit(); BESIDE];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.stream,
            &mut [IoSliceMut::new(into)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(|error| failed(error.into()))?;
        let sockets: Vec<OwnedFd> = beside
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            })
            .flatten()
            .collect();
        if received.flags.contains(ReturnFlags::CTRUNC) {
            // What did not fit, or what there was no descriptor left for, is lost.
            let (announced, received) = (sockets.len().saturating_add(1), sockets.len());
            return Err(MessageError::Sockets {
                announced,
                received,
            }
            .into());
        }
        Ok((received.bytes, sockets))
    }

    fn fill(&self, mut into: &mut [u8], by: Instant) -> Result<(), ChannelError> {
        while !into.is_empty() {
            // Anew each time, or a byte now and then would last for ever.
            self.stream.set_read_timeout(Some(left(by)?))?;
            match (&self.stream).read(into) {
                Ok(0) => return Err(ChannelError::Cut),
                Ok(read) => into = into.get_mut(read..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Until `by`; never zero, which would be no limit at all.
fn left(by: Instant) -> Result<std::time::Duration, ChannelError> {
    let left = by.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ChannelError::TimedOut),
        false => Ok(left),
    }
}

fn failed(error: io::Error) -> ChannelError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ChannelError::TimedOut,
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ChannelError::Closed,
        _ => ChannelError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Offer, Offered, Process};
    use super::*;
    use crate::listen::Kind;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn pair() -> (Channel, Channel) {
        let (one, other) = Channel::pair().unwrap();
        (one, Channel::of(other.as_fd()).unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn offer(sockets: usize) -> Message {
        let offered = Offered {
            kind: Kind::Https,
            configured: "127.0.0.1:0".parse().unwrap(),
        };
        Message::Offer(Offer {
            from: Process::this(),
            sockets: vec![offered; sockets],
        })
    }

    #[test]
    fn a_socket_arrives_and_listens() {
        let (old, new) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        old.send(&offer(1), &[listener.as_fd()], soon()).unwrap();
        old.send(&Message::Take, &[], soon()).unwrap();
        drop(listener);
        let (message, mut sockets) = new.receive(soon()).unwrap();
        assert_eq!(message, offer(1));
        let inherited = TcpListener::from(sockets.remove(0));
        TcpStream::connect(address).unwrap();
        inherited.accept().unwrap();
        // What follows is a message of its own.
        assert_eq!(new.receive(soon()).unwrap().0, Message::Take);
        drop(old);
        assert!(matches!(new.receive(soon()), Err(ChannelError::Closed)));
    }

    #[test]
    fn as_many_as_the_kernel_takes() {
        let (old, new) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = vec![listener.as_fd(); MOST_SOCKETS];
        old.send(&offer(MOST_SOCKETS), &sockets, soon()).unwrap();
        assert_eq!(new.receive(soon()).unwrap().1.len(), MOST_SOCKETS);
        let sockets = vec![listener.as_fd(); MOST_SOCKETS + 1];
        let refused = old.send(&offer(MOST_SOCKETS + 1), &sockets, soon());
        assert!(matches!(refused, Err(ChannelError::Message(_))));
    }

    #[test]
    fn half_a_message_is_none() {
        let bytes = offer(0).encode(0).unwrap();
        for half in [1, HEAD - 1, HEAD, bytes.len() - 1] {
            let (old, new) = pair();
            (&old.stream).write_all(&bytes[..half]).unwrap();
            drop(old);
            let cut = new.receive(soon());
            assert!(matches!(cut, Err(ChannelError::Cut)), "{half}: {cut:?}");
        }
    }

    #[test]
    fn sockets_that_were_not_announced_are_refused() {
        for (announced, sent) in [(2, 1), (0, 1), (1, 0)] {
            let (old, new) = pair();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let bytes = offer(announced).encode(announced).unwrap();
            let sockets = vec![listener.as_fd(); sent];
            let mut space = vec![MaybeUninit::uninit(); BESIDE];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            assert!(beside.push(SendAncillaryMessage::ScmRights(&sockets)));
            let io = [IoSlice::new(&bytes)];
            sendmsg(&old.stream, &io, &mut beside, SendFlags::NOSIGNAL).unwrap();
            let refused = new.receive(soon()).unwrap_err().to_string();
            let words = format!("{announced} sockets were announced and {sent} came");
            assert!(refused.contains(&words), "{refused}");
        }
    }

    #[test]
    fn silence_ends_and_so_does_a_drip() {
        let (old, new) = pair();
        let by = || Instant::now() + Duration::from_millis(30);
        assert!(matches!(new.receive(by()), Err(ChannelError::TimedOut)));
        (&old.stream).write_all(b"hold").unwrap();
        assert!(matches!(new.receive(by()), Err(ChannelError::TimedOut)));
        let past = Instant::now();
        assert!(matches!(new.receive(past), Err(ChannelError::TimedOut)));
    }

    #[test]
    fn whoever_waits_is_released() {
        let (old, new) = pair();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| new.receive(soon()));
            new.shut();
            assert!(matches!(waiting.join().unwrap(), Err(ChannelError::Closed)));
        });
        drop(old);
    }

    #[test]
    fn what_is_no_socket_is_said_to_be_none() {
        let file = tempfile::tempfile().unwrap();
        assert!(Channel::of(file.as_fd()).is_err());
    }
}
