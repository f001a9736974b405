//! Our own surface on the public port: everything under `/.holdline/`, which is little.
//!
//! `status.json` says the state of one gateway and when to ask again, and nothing else; it is for
//! everybody. More is on the admin listener.

use http::{Method, Response, Uri, request};
use serde_json::{Map, json};
use tokio::time::Instant;

use super::refusal::{Asker, document};
use super::{Body, Table};
use crate::gateway::View;
use crate::protocol::rescue::{Cause, millis};

/// What is ours and never the gateway's.
const PREFIX: &str = "/.holdline";

/// Whether a path is ours.
pub(super) fn is_ours(path: &str) -> bool {
    path.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The answer to a request for a path of ours.
pub(super) fn answer(
    table: &Table,
    host: &str,
    request: &request::Parts,
) -> Result<Response<Body>, Cause> {
    let reads = [Method::GET, Method::HEAD].contains(&request.method);
    if !reads || request.uri.path() != "/.holdline/status.json" {
        return Err(Cause::NotFound);
    }
    let path = asked_path(&request.uri).unwrap_or_else(|| "/".to_owned());
    let (_, _, forwarder) = table.choose(host, &path).ok_or(Cause::NotFound)?;
    let view = forwarder.gateway().view();
    let head_only = Asker::of(request).head_only();
    Ok(document(
        status(&view, Instant::now()),
        "application/json",
        head_only,
    ))
}

/// `?path=`: the page that waits, whose route decides which gateway is meant.
fn asked_path(uri: &Uri) -> Option<String> {
    let value = uri
        .query()?
        .split('&')
        .find_map(|pair| pair.strip_prefix("path="))?;
    let path = percent_decoded(value)?;
    path.starts_with('/').then_some(path)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn status(view: &View, now: Instant) -> String {
    let mut status = Map::new();
    status.insert("state".into(), view.phase.as_str().into());
    if let Some(reason) = view.reason {
        status.insert("reason".into(), reason.as_str().into());
    }
    status.insert("retryAfterMs".into(), millis(view.retry_after(now)).into());
    if let Some(since) = view.outage_since {
        status.insert("downMs".into(), millis(now.duration_since(since)).into());
    }
    json!(status).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_a_segment() {
        assert!(is_ours("/.holdline") && is_ours("/.holdline/") && is_ours("/.holdline/x"));
        assert!(!is_ours("/.holdlinex") && !is_ours("/") && !is_ours("/x/.holdline/"));
    }

    #[test]
    fn the_page_names_its_path() {
        let asked = |uri: &str| asked_path(&uri.parse().unwrap());
        assert_eq!(asked("/s?path=%2Fa%2Fb%20c").as_deref(), Some("/a/b c"));
        assert_eq!(asked("/s?x=1&path=/a").as_deref(), Some("/a"));
        for bad in [
            "/s",
            "/s?path=",
            "/s?path=a",
            "/s?path=%2",
            "/s?path=%zz",
            "/s?path=%2F%ff",
        ] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }
}
