//! A client's connection after TLS: what hyper reads and writes, and what an upgrade hands on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::admission::Open;

/// A client's decrypted byte stream.
///
/// A concrete type, so that `Upgraded::downcast::<TokioIo<ClientStream>>()` gives it back. Whoever
/// takes it should drop the `read_buf` that comes along as soon as it is used up: an empty one
/// still pins hyper's read buffer. It counts as an open connection of its client's address until
/// it is dropped.
#[derive(Debug)]
pub struct ClientStream {
    tls: TlsStream<TcpStream>,
    _open: Open,
}

// === impl ClientStream ===

impl ClientStream {
    pub(super) fn new(tls: TlsStream<TcpStream>, open: Open) -> Self {
        Self { tls, _open: open }
    }

    /// The socket underneath, for its options and addresses only: its bytes are TLS.
    pub fn socket(&self) -> &TcpStream {
        self.tls.get_ref().0
    }

    fn tls(self: Pin<&mut Self>) -> Pin<&mut TlsStream<TcpStream>> {
        Pin::new(&mut self.get_mut().tls)
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.tls().poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tls().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tls().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls().poll_shutdown(cx)
    }
}
