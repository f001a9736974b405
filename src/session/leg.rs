//! One side of a session: a socket, what could not be written to it yet, what was read of an
//! unfinished frame. An idle leg owns no buffer.
//!
//! Knows frames only as far as they must not be torn; who says what is the pump's concern.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ws::cutter::Cutter;

/// Bytes read at a time, into a buffer that all sessions of a thread share.
pub(super) const SCRATCH: usize = 64 * 1024;

/// One side.
#[derive(Debug)]
pub(super) struct Leg<I> {
    io: I,
    /// Cuts what this side sends.
    pub(super) cutter: Cutter,
    /// Read, but not yet a whole piece.
    inbox: Vec<u8>,
    /// The inbox came with the socket and was not looked at yet.
    fresh: bool,
    outbox: Vec<u8>,
    /// Bytes of the outbox that are written.
    gone: usize,
    /// Bytes ever queued, and those of them that the system took.
    queued: u64,
    written: u64,
    unflushed: bool,
    /// Nothing can be written any more; what the other end said may still be read.
    broken: bool,
    shutdown: Shutdown,
}

/// The end of what we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    No,
    Wanted,
    Done,
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Read {
    /// This many bytes of the scratch buffer.
    Bytes(usize),
    /// The other end sends no more.
    End,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Leg<I> {
    pub(super) fn new(io: I, cutter: Cutter, already_read: &[u8]) -> Self {
        Self {
            io,
            cutter,
            inbox: already_read.to_vec(),
            fresh: !already_read.is_empty(),
            outbox: Vec::new(),
            gone: 0,
            queued: 0,
            written: 0,
            unflushed: false,
            broken: false,
            shutdown: Shutdown::No,
        }
    }

    /// Reads once. A stream that ends without saying so is an end like any other: what it meant
    /// is known from its frames.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<Read>> {
        let mut buffer = ReadBuf::new(scratch);
        match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Ok(Read::End)),
            Ok(()) => Poll::Ready(Ok(Read::Bytes(buffer.filled().len()))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(Read::End))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// The bytes to cut next: what was left over and what was just read.
    pub(super) fn take_inbox(&mut self, read: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.inbox);
        bytes.extend_from_slice(read);
        bytes
    }

    /// Whether the next bytes continue something.
    pub(super) fn has_inbox(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Whether bytes that came with the socket wait to be cut; says so once.
    pub(super) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Gives back what [`Self::take_inbox`] gave out, without what was used of it.
    pub(super) fn restore_inbox(&mut self, mut bytes: Vec<u8>, used: usize) {
        if used >= bytes.len() {
            return;
        }
        bytes.drain(..used);
        self.inbox = bytes;
    }

    /// Keeps what is not yet a piece.
    pub(super) fn keep_rest(&mut self, rest: &[u8]) {
        self.inbox.extend_from_slice(rest);
    }

    /// Sends, at once as far as the socket takes it.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        let mut rest = bytes;
        while self.outbox.is_empty() && !self.broken && !rest.is_empty() {
            match self.poll_write(cx, rest) {
                Poll::Ready(Ok(n)) => {
                    self.queued += n as u64;
                    rest = rest.get(n..).unwrap_or_default();
                }
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        self.queue(rest);
    }

    /// Queues without writing: where there is no task context.
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.queued += bytes.len() as u64;
        if !self.broken {
            self.outbox.extend_from_slice(bytes);
        }
    }

    /// Writes what is queued, flushes, and ends the stream when that is wanted.
    ///
    /// # Errors
    /// Once, when the stream broke; afterwards there is nothing left to do.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        while self.gone < self.outbox.len() {
            let outbox = std::mem::take(&mut self.outbox);
            let written = self.poll_write(cx, outbox.get(self.gone..).unwrap_or_default());
            if !self.broken {
                self.outbox = outbox;
            }
            self.gone += ready!(written)?;
        }
        if !self.outbox.is_empty() {
            self.outbox = Vec::new();
            self.gone = 0;
        }
        if self.unflushed {
            let flushed = ready!(Pin::new(&mut self.io).poll_flush(cx));
            self.check(flushed)?;
            self.unflushed = false;
        }
        if self.shutdown == Shutdown::Wanted {
            let ended = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            self.check(ended)?;
            self.shutdown = Shutdown::Done;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match ready!(Pin::new(&mut self.io).poll_write(cx, bytes)) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        };
        let n = self.check(written)?;
        self.written += n as u64;
        self.unflushed = true;
        Poll::Ready(Ok(n))
    }

    fn check<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.broken = true;
            self.outbox = Vec::new();
            self.gone = 0;
        }
        result
    }

    /// Whether the end of what we send is out.
    pub(super) fn has_ended(&self) -> bool {
        self.shutdown == Shutdown::Done
    }

    /// Nothing follows what is queued.
    pub(super) fn end(&mut self) {
        if self.shutdown == Shutdown::No {
            self.shutdown = Shutdown::Wanted;
        }
    }

    /// Bytes still to be written.
    pub(super) fn backlog(&self) -> usize {
        self.outbox.len() - self.gone
    }

    /// Bytes ever queued.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Bytes handed to the system.
    pub(super) fn written(&self) -> u64 {
        self.written
    }
}
