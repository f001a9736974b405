//! How clients' HTTP is read: hyper's settings, in one place.
//!
//! Bounds on heads, streams and slow senders. TLS and accepting are not here.

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;

use crate::config::Limits;

/// Largest request head, and largest decoded header list over HTTP/2.
const HEAD: usize = 64 * 1024;
/// Requests (and WebSockets) at a time on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// HTTP/2 flow-control windows: enough for a fast upload at 50 ms, and a bound on what a client
/// can park here.
const STREAM_WINDOW: u32 = 256 * 1024;
/// See [`STREAM_WINDOW`]; for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// A server for one connection: HTTP/1.1 or HTTP/2 by its first bytes, upgrades and extended
/// CONNECT allowed (`serve_connection_with_upgrades`).
#[must_use]
pub fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(limits.ping_every)
        .keep_alive_timeout(limits.header_timeout);
    builder
}
