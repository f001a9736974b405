//! `[listen]`

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::config::addresses::{listen_address, network};
use crate::config::checker::{At, Item};
use crate::config::model::Listen;
use crate::config::section::Section;
use crate::config::units::Wrong;

/// The section with its places.
pub(super) struct Draft {
    pub(super) https: Vec<Item<SocketAddr>>,
    pub(super) http: Vec<Item<SocketAddr>>,
    proxy_protocol: bool,
    trusted_proxies: Vec<Item<IpNet>>,
}

pub(super) fn read(section: &mut Section<'_, '_>, flags: &[SocketAddr]) -> Draft {
    let default = vec![SocketAddr::from(([127, 0, 0, 1], 8443))];
    let mut https = section.list("https", default, listen_address);
    let mut given = flags.iter().map(|address| Item {
        value: *address,
        key: "listen.https".to_owned(),
        at: At::Flag("--listen", address.to_string()),
    });
    if let Some(first) = given.next() {
        https = first.with([first.clone()].into_iter().chain(given).collect());
        let all: Vec<_> = flags
            .iter()
            .map(|address| format!("\"{address}\""))
            .collect();
        section.overridden("https", "--listen", format!("[{}]", all.join(", ")));
    }
    if https.is_sound() && https.value.is_empty() {
        let remedy =
            "write for example https = [\"0.0.0.0:443\", \"[::]:443\"], or remove the line";
        section
            .checker()
            .error(&https, Wrong::new("nobody could connect", remedy));
    }
    let http = section.list("http", Vec::new(), listen_address);
    let proxy_protocol = section.flag("proxy_protocol", false);
    let trusted_proxies = section.list("trusted_proxies", Vec::new(), network);
    if proxy_protocol.value && trusted_proxies.is_sound() && trusted_proxies.value.is_empty() {
        let remedy =
            "write the load balancers' addresses in trusted_proxies, e.g. [\"10.0.0.0/8\"]";
        let wrong = Wrong::new(
            "without trusted_proxies nobody may send a PROXY header",
            remedy,
        );
        section.checker().error(&proxy_protocol, wrong);
    }
    for everyone in trusted_proxies
        .value
        .iter()
        .filter(|net| net.value.prefix_len() == 0)
    {
        let remedy = "write only the addresses of your own load balancers";
        let wrong = Wrong::new("everyone may claim to be any client", remedy);
        section.checker().warn(everyone, wrong);
    }
    Draft {
        https: https.value,
        http: http.value,
        proxy_protocol: proxy_protocol.value,
        trusted_proxies: trusted_proxies.value,
    }
}

impl Draft {
    pub(super) fn into_model(self) -> Listen {
        Listen {
            https: values(self.https),
            http: values(self.http),
            proxy_protocol: self.proxy_protocol,
            trusted_proxies: values(self.trusted_proxies),
        }
    }
}

fn values<T>(items: Vec<Item<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}
