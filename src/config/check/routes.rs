//! `[[route]]`: more upstreams, by host and path.

use crate::config::addresses::{GatewayUrl, host_pattern, path_prefix};
use crate::config::checker::{At, Item};
use crate::config::model::{HostPattern, Resume, Route, Upstream};
use crate::config::section::Section;
use crate::config::units::Wrong;

use super::gateway::{self, PROTOCOLS, read_probe};
use super::hold::RESUMES;

/// What the last route is called, which takes what no other one does.
const DEFAULT: &str = "default";

/// A route with its places.
pub(super) struct Draft {
    pub(super) header: Item<()>,
    pub(super) host: Item<Option<HostPattern>>,
    pub(super) path: Item<Option<String>>,
    pub(super) url: Item<GatewayUrl>,
    pub(super) resume: Item<Resume>,
    pub(super) upstream: Upstream,
    name: String,
}

pub(super) fn read(section: &mut Section<'_, '_>, default: &gateway::Draft) -> Draft {
    let mut name = String::new();
    let host = section.text("host", None, |text| {
        name.push_str(text);
        host_pattern(text).map(Some)
    });
    let path = section.text("path", None, |text| {
        name.push_str(text);
        path_prefix(text)
    });
    let url = section.text("url", default.url.value.clone(), str::parse);
    let inherited = default.upstream();
    let upstream = Upstream {
        host: url.value.host.clone(),
        port: url.value.port,
        protocol: section
            .choice("protocol", inherited.protocol, PROTOCOLS)
            .value,
        probe: section.text("probe", inherited.probe, read_probe).value,
        ..inherited
    };
    let mut resume = section.choice("resume", upstream.resume, RESUMES);
    if matches!(resume.at, At::Default) {
        resume = default.resume.clone();
    }
    section.inherited("protocol", "gateway.protocol");
    section.inherited("probe", "gateway.probe");
    section.inherited("resume", "hold.resume");
    let upstream = Upstream {
        resume: resume.value,
        ..upstream
    };
    let header = section.header();
    if matches!(url.at, At::Default) {
        let wrong = Wrong::new(
            "a route without a url leads nowhere",
            "add url = \"http://HOST:PORT\"",
        );
        section.checker().error(&header, wrong);
    }
    if host.is_sound() && path.is_sound() && host.value.is_none() && path.value.is_none() {
        let remedy = "add host or path, or write the url under [gateway], the default route";
        section.checker().error(
            &header,
            Wrong::new("this route would take everything", remedy),
        );
    }
    Draft {
        header,
        host,
        path,
        url,
        resume,
        upstream,
        name,
    }
}

/// Most specific first, so that the first match is the right one whatever the order in the file.
/// The default route comes last.
pub(super) fn into_model(mut routes: Vec<Draft>, default: gateway::Draft) -> Vec<Route> {
    routes.sort_by_key(|route| {
        let host = match &route.host.value {
            Some(HostPattern::Exact(_)) => (2, 0),
            Some(HostPattern::Under(suffix)) => (1, suffix.len()),
            None => (0, 0),
        };
        std::cmp::Reverse((host, route.path.value.as_ref().map_or(0, String::len)))
    });
    let last = Route {
        name: DEFAULT.to_owned(),
        host: None,
        path: None,
        upstream: default.upstream(),
    };
    let route = |draft: Draft| Route {
        name: match draft.name.as_str() {
            // A host of this name is not to be taken for it.
            DEFAULT => format!("{DEFAULT}/"),
            _ => draft.name,
        },
        host: draft.host.value,
        path: draft.path.value,
        upstream: draft.upstream,
    };
    routes.into_iter().map(route).chain([last]).collect()
}
