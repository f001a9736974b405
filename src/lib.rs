//! holdline: a reverse proxy that holds the line in front of an OpenClaw gateway.

pub mod config;
pub mod gateway;
pub mod http;
pub mod listen;
pub mod observe;
pub mod protocol;
pub mod session;
pub mod tls;
pub mod ws;

/// A running proxy. (Stands in until the real one is merged.)
#[derive(Debug)]
pub struct Holdline(());

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {}

impl Holdline {
    /// Binds, loads certificates and serves.
    ///
    /// # Errors
    /// When one of these fails.
    pub async fn start(_config: config::Config) -> Result<Self, StartError> {
        Ok(Self(()))
    }

    /// Stops accepting, lets sessions finish within `limits.drain`, and ends.
    pub async fn drain(&self) {}

    /// Resolves when the proxy has ended.
    pub async fn wait_for_shutdown(&self) {
        std::future::pending().await
    }
}
