//! `hello-ok`: the shape and, if wanted, the size of the real one.

use serde_json::{Value, json};

use super::Inner;
use super::options::AuthMode;
use super::process::Process;

/// The payload of a successful `connect`.
pub(super) fn hello_ok(inner: &Inner, process: &Process, conn: u64, scopes: &[String]) -> Value {
    let names = |count: usize, prefix: &str| -> Vec<String> {
        let count = if inner.options.long_hello { count } else { 2 };
        (0..count)
            .map(|number| format!("{prefix}.some-method-name.{number:04}"))
            .collect()
    };
    let (mode, method) = match inner.options.auth {
        AuthMode::Token | AuthMode::Anyone => ("token", "token"),
        AuthMode::TrustedProxy => ("trusted-proxy", "trusted-proxy"),
    };
    json!({
        "type": "hello-ok",
        "protocol": 4,
        "server": {
            "version": "2026.9.6",
            "buildId": "2026.9.6-kit",
            "bootId": process.boot_id,
            "controlUiBuildSource": "bundled",
            "connId": format!("c0000000-0000-4000-8000-{conn:012}"),
        },
        "features": {
            "methods": names(466, "method"),
            "events": names(62, "event"),
            "capabilities": ["model-catalog-snapshot"],
        },
        "snapshot": {
            "suspension": {"phase": "accepting"},
            "presence": [],
            "health": {"ok": true},
            "stateVersion": {"presence": 7, "health": 3},
            "uptimeMs": process.born.elapsed().as_millis() as u64,
            "authMode": mode,
        },
        "pluginSurfaceUrls": {
            "canvas": format!("http://127.0.0.1:3002/__openclaw__/cap/kit-secret-{conn}"),
        },
        "auth": {"method": method, "role": "operator", "scopes": scopes, "recoveryScope": "kit"},
        "policy": {
            "maxPayload": 26_214_400,
            "maxBufferedBytes": 52_428_800,
            "tickIntervalMs": inner.options.tick_interval.as_millis() as u64,
        },
    })
}
