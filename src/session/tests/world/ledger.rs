//! What every request of the world has become.

use tokio::time::Instant;

use super::World;
use crate::protocol::openclaw::{GatewaySays, gateway_says};

/// A request in the ledger.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) mutating: bool,
    /// It is what a person typed.
    pub(super) chat: bool,
    /// When it was heard.
    pub(super) at: Option<Instant>,
    /// Times that its last byte went into a gateway's socket.
    pub(super) delivered: u32,
    /// Answers that the client got.
    pub(super) answers: u32,
    /// What we told the client about it, if it was we who answered.
    pub(super) told: Option<String>,
}

impl World {
    pub(super) fn client_hears(&mut self, text: &str, ours: bool) {
        match gateway_says(text.as_bytes()) {
            GatewaySays::Response { id, .. } if &*id != "c" => {
                let asked = self.ledger.get_mut(&*id);
                let asked = asked.unwrap_or_else(|| panic!("an answer nobody asked for: {text}"));
                asked.answers += 1;
                assert_eq!(asked.answers, 1, "answered twice: {id}");
                if ours {
                    let frame: serde_json::Value = serde_json::from_str(text).unwrap();
                    let told = frame["error"]["details"]["execution"]
                        .as_str()
                        .unwrap()
                        .to_owned();
                    assert!(
                        told != "not_started" || asked.delivered == 0 || !asked.mutating,
                        "told not_started, but it was delivered: {id}"
                    );
                    asked.told = Some(told);
                }
            }
            GatewaySays::Response { .. } if ours => self.connect_is_answered = true,
            GatewaySays::Event { seq: Some(seq) } | GatewaySays::Shutdown { seq: Some(seq) } => {
                self.numbers.push(seq);
            }
            _ => {}
        }
    }

    /// Whether the client has had an answer, be it to a `connect` out of turn.
    pub(super) fn is_answered(&self, id: &str) -> bool {
        let answered = self.ledger.get(id).map(|asked| asked.answers > 0);
        answered.unwrap_or(id == "c" && self.connect_is_answered)
    }

    /// What we told the sender of a request in the gateway's place.
    pub(in super::super) fn told(&self, id: &str) -> Option<&str> {
        self.ledger.get(id)?.told.as_deref()
    }

    /// Every request, and whether doing it twice would do harm.
    pub(in super::super) fn asked(&self) -> impl Iterator<Item = (&str, bool)> {
        self.ledger
            .iter()
            .map(|(id, asked)| (id.as_str(), asked.mutating))
    }

    /// How often a request was answered.
    pub(in super::super) fn answers(&self, id: &str) -> u32 {
        self.ledger.get(id).map_or(0, |asked| asked.answers)
    }

    /// How often a request went to a gateway.
    pub(in super::super) fn delivered(&self, id: &str) -> u32 {
        self.ledger.get(id).map_or(0, |asked| asked.delivered)
    }
}
