//! How one session may wait and come back: the config's part and the client's part of it.

use std::time::Duration;

use crate::config::{Hold, ProtocolKind, ReplayRequests, Resume, Upstream};
use crate::protocol::openclaw::{CONTROL_UI, Connect};

/// The config as a session's machine needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) protocol: ProtocolKind,
    pub(super) resume: Resume,
    pub(super) max: Duration,
    pub(super) handshake: Duration,
    pub(super) notice_after: Duration,
    pub(super) notice_every: Duration,
    pub(super) repeat_requests: bool,
    /// Who it is was decided here, and the gateway is told: a signature is not needed again.
    pub(super) identified: bool,
}

/// How a lost session comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// Its handshake is said again; it never sees a close.
    Replay,
    /// It is shown the new challenge and answers it itself.
    Rechallenge,
    /// A gap in the event numbers makes it reconnect at once.
    Gap,
    /// Closed with 1012 when the gateway starts, so that its own wait runs meanwhile.
    Reconnect,
    /// The next connection takes up where this one ended.
    Splice,
    /// Its handshake has not succeeded yet: we speak for the gateway until it is back.
    Greet,
}

impl Policy {
    pub(super) fn new(upstream: &Upstream, hold: &Hold, identified: bool) -> Self {
        Self {
            protocol: upstream.protocol,
            resume: upstream.resume,
            max: hold.max,
            handshake: hold.handshake,
            notice_after: hold.notice_after,
            notice_every: hold.notice_every,
            repeat_requests: hold.replay_requests == ReplayRequests::Safe,
            identified,
        }
    }

    pub(super) fn is_openclaw(&self) -> bool {
        self.protocol == ProtocolKind::Openclaw
    }

    /// Whether a session of this client can be replayed: it did not sign the challenge, or need
    /// not have.
    pub(super) fn replays(&self, connect: &Connect) -> bool {
        self.is_openclaw()
            && matches!(self.resume, Resume::Auto | Resume::Replay)
            && !connect.is_node
            && (!connect.has_device || self.identified)
    }

    /// The best way that is honest for this session. `recorded`: all that a replay needs is there.
    pub(super) fn way(&self, client: Option<&Connect>, recorded: bool) -> Way {
        match (self.protocol, self.resume) {
            (ProtocolKind::Generic, Resume::Splice) => Way::Splice,
            (ProtocolKind::Generic, _) => Way::Reconnect,
            (ProtocolKind::Openclaw, Resume::Auto | Resume::Replay) if recorded => Way::Replay,
            (ProtocolKind::Openclaw, Resume::Auto) => match client {
                Some(client) if &*client.client == CONTROL_UI => Way::Gap,
                Some(client) if client.answers_challenges => Way::Rechallenge,
                _ => Way::Reconnect,
            },
            (ProtocolKind::Openclaw, _) => Way::Reconnect,
        }
    }
}
