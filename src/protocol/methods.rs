//! Which requests of the OpenClaw protocol may be said twice, and which make up a connection's
//! standing.
//!
//! Found by reading the gateway's own method table and handlers (2026.9.6). Its `operator.read`
//! scope does not mean "only reads": subscriptions, model calls and capability URLs are in it too,
//! so the list is explicit. Idempotency keys do not help across a restart: the gateway keeps its
//! de-duplication in memory, and a `chat.send` repeated with its key to a new process runs again
//! (measured), so such requests count as mutating here.

/// What saying a request again would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nature {
    /// Answers from state and changes nothing: may be said again.
    ReadOnly,
    /// Sets something that lives and dies with the connection: said again after a replay.
    Standing(Standing),
    /// Anything else: never said again.
    Mutating,
}

/// How a request changes a connection's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Replaces the earlier request of this name.
    Set,
    /// One of several, told apart by `params.key`.
    Add,
    /// Does what the method of this name does without params, and then only reads.
    As(&'static str),
    /// Takes back what this method said for the same `params.key`.
    Remove(&'static str),
}

/// Every handler behind these answers from state.
const READ_ONLY: &[&str] = &[
    "agent.identity.get",
    "agents.files.get",
    "agents.files.list",
    "agents.list",
    "agents.workspace.get",
    "agents.workspace.list",
    "approval.get",
    "approval.history",
    "artifacts.get",
    "artifacts.list",
    "audit.activity.list",
    "audit.list",
    "chat.history",
    "chat.message.get",
    "chat.metadata",
    "commands.list",
    "config.get",
    "config.schema",
    "config.schema.lookup",
    "cron.get",
    "cron.list",
    "cron.runs",
    "cron.status",
    "device.pair.list",
    "environments.list",
    "exec.approval.get",
    "exec.approval.list",
    "gateway.identity.get",
    "gateway.suspend.status",
    "health",
    "hooks.status",
    "last-heartbeat",
    "logs.tail",
    "mentions.list",
    "models.list",
    "node.describe",
    "node.list",
    "node.pair.list",
    "plugin.approval.list",
    "plugins.controlUi.list",
    "plugins.list",
    "plugins.uiDescriptors",
    "projects.list",
    "question.get",
    "question.list",
    "session.members.list",
    "session.suggestions.list",
    "sessions.branches.list",
    "sessions.describe",
    "sessions.diff",
    "sessions.files.get",
    "sessions.files.list",
    "sessions.get",
    "sessions.groups.list",
    "sessions.list",
    "sessions.preview",
    "sessions.resolve",
    "sessions.usage",
    "sessions.usage.logs",
    "sessions.usage.timeseries",
    "skills.status",
    "status",
    "system-presence",
    "system.info",
    "talk.catalog",
    "taskSuggestions.list",
    "tasks.get",
    "tasks.history",
    "tasks.list",
    "tools.catalog",
    "tools.effective",
    "tts.providers",
    "tts.status",
    "usage.cost",
    "users.list",
    "users.prefs.get",
    "voicewake.get",
    "worktrees.list",
];

/// What saying `method` again would do. `of_session`: its params name one session.
#[must_use]
pub fn nature(method: &str, of_session: bool) -> Nature {
    let standing = match method {
        // The history of one session; without one it subscribes to the list of all first.
        "chat.startup" if of_session => return Nature::ReadOnly,
        "chat.startup" => Standing::As("sessions.subscribe"),
        "sessions.subscribe"
        | "sessions.observer.visibility"
        | "sessions.viewers.set"
        | "controlUi.sessionPullRequests.subscribe" => Standing::Set,
        "sessions.messages.subscribe" => Standing::Add,
        "sessions.unsubscribe" => Standing::Remove("sessions.subscribe"),
        "sessions.messages.unsubscribe" => Standing::Remove("sessions.messages.subscribe"),
        _ if READ_ONLY.binary_search(&method).is_ok() => return Nature::ReadOnly,
        _ => return Nature::Mutating,
    };
    Nature::Standing(standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_for_the_search() {
        assert!(READ_ONLY.is_sorted());
    }

    #[test]
    fn sending_is_never_safe() {
        for method in [
            "chat.send",
            "agent",
            "send",
            "sessions.create",
            "new.method",
        ] {
            assert_eq!(nature(method, true), Nature::Mutating, "{method}");
        }
        assert_eq!(nature("chat.history", false), Nature::ReadOnly);
        assert_eq!(
            nature("sessions.subscribe", false),
            Nature::Standing(Standing::Set)
        );
    }
}
