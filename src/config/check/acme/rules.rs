//! What contradicts what in `[acme]`, and in what the rest of the config has to offer.

use std::net::{IpAddr, SocketAddr};

use http::Uri;

use super::super::listen;
use super::{Draft, EAB_WANTED, KNOWN, LETSENCRYPT, MOST_CERTIFICATES, SHORTLIVED, values};
use crate::config::checker::{Checker, Item};
use crate::config::model::{Acme, CertificateSource, Challenge, Directory, Dns, DnsHook, Tls};
use crate::config::units::Wrong;

impl Draft {
    /// What is to be done, if certificates are to come from a CA at all.
    pub(in crate::config) fn into_model(
        self,
        checker: &mut Checker<'_>,
        tls: &Tls,
        listen: &listen::Draft,
    ) -> Option<Acme> {
        let wanted = tls.certificate == CertificateSource::Acme;
        if !wanted {
            if !self.domains.value.is_empty() {
                let what = "names are listed, but [tls] serves another certificate";
                let remedy = "set [tls] certificate = \"acme\", or empty the list";
                checker.error(&self.domains, Wrong::new(what, remedy));
            }
            return None;
        }
        self.check_domains(checker);
        self.check_files(checker);
        let challenges = self.check_challenges(checker, listen);
        self.check_names(checker, &challenges);
        self.check_addresses(checker);
        self.check_eab(checker);
        let update = self
            .dns_update
            .into_model(self.rest.dns_timeout, &self.rest.dns_resolvers);
        let dns = update.map_or_else(
            || {
                Dns::Hook(DnsHook {
                    command: values(self.dns_hook.value),
                    timeout: self.rest.dns_timeout,
                    resolvers: self.rest.dns_resolvers,
                })
            },
            Dns::Update,
        );
        Some(Acme {
            certificates: values(self.domains.value),
            contact: self.rest.contact,
            directories: values(self.directories),
            dns: challenges.contains(&Challenge::Dns01).then_some(dns),
            challenges,
            profile: Some(self.profile.value).filter(|profile| !profile.is_empty()),
            eab: self.eab.into_iter().map(|(_, eab)| eab).collect(),
            ca_root: self.rest.ca_root,
            state_dir: self.rest.state_dir,
            import: self.rest.import,
        })
    }

    /// The key if it was written, else the section, else the file.
    pub(super) fn place<T>(&self, item: &Item<T>) -> Item<()> {
        match item.is_set() {
            true => item.with(()),
            false => Item {
                key: item.key.clone(),
                ..self.header.clone()
            },
        }
    }

    fn check_domains(&self, checker: &mut Checker<'_>) {
        if self.domains.is_sound() && self.domains.value.is_empty() {
            let what = "certificate = \"acme\" needs the names that clients use";
            let remedy = "write domains = [\"a.example.net\"] under [acme]";
            checker.error(&self.place(&self.domains), Wrong::new(what, remedy));
        }
        if self.domains.value.len() > MOST_CERTIFICATES {
            let what = format!("more than {MOST_CERTIFICATES} certificates");
            let remedy = "put names of one owner together in one text, separated by spaces";
            checker.error(&self.domains, Wrong::new(what, remedy));
        }
        let mut seen: Vec<&str> = Vec::new();
        for item in &self.domains.value {
            for name in &item.value {
                if seen.contains(&name.as_str()) {
                    let wrong = Wrong::new(format!("{name} is listed twice"), "list it once");
                    checker.error(item, wrong);
                }
                seen.push(name);
            }
        }
    }

    /// Those that can be used here. One that somebody wrote and that cannot be is an error.
    fn check_challenges(
        &self,
        checker: &mut Checker<'_>,
        listen: &listen::Draft,
    ) -> Vec<Challenge> {
        let written = self.challenges.is_set();
        if self.challenges.is_sound() && self.challenges.value.is_empty() {
            let remedy = "write challenges = [\"tls-alpn-01\", \"http-01\"]";
            let wrong = Wrong::new("no CA issues without a challenge", remedy);
            checker.error(&self.challenges, wrong);
        }
        // One that cannot be read is wanted all the same, and has been reported.
        let hook = !self.dns_hook.value.is_empty() || !self.dns_hook.is_sound();
        let update = self.dns_update.is_wanted();
        let mut usable = Vec::new();
        for item in &self.challenges.value {
            let wrong = match item.value {
                Challenge::Http01 if listen.http.is_empty() => Some(Wrong::new(
                    "http-01 needs a plain listener, which the CA reaches on port 80",
                    "set [listen] http = [\"0.0.0.0:80\", \"[::]:80\"], or leave http-01 out",
                )),
                Challenge::Dns01 if !hook && !update => Some(Wrong::new(
                    "dns-01 needs a command that writes the record, or a name server that takes updates",
                    "set dns_hook = [\"/etc/holdline/dns-hook\"] (docs/dns-hook is one to start from), or fill in [acme.dns_update]",
                )),
                Challenge::Http01 | Challenge::TlsAlpn01 | Challenge::Dns01 => None,
            };
            match wrong {
                None => usable.push(item.value),
                Some(wrong) if written => checker.error(item, wrong),
                Some(_) => {}
            }
        }
        let dns = usable.contains(&Challenge::Dns01);
        if hook && !dns {
            let remedy = "add \"dns-01\" to challenges, or remove dns_hook";
            let wrong = Wrong::new("without dns-01 among challenges it is never run", remedy);
            checker.error(&self.dns_hook, wrong);
        }
        let server = self.dns_update.server();
        if update && !dns {
            let remedy = "add \"dns-01\" to challenges, or remove [acme.dns_update]";
            let wrong = Wrong::new("without dns-01 among challenges it is never asked", remedy);
            checker.error(server, wrong);
        } else if update && hook {
            let what = "dns_hook and this server would both write the records";
            checker.error(
                server,
                Wrong::new(what, "keep dns_hook or [acme.dns_update]"),
            );
        }
        let loopback =
            |items: &[Item<SocketAddr>]| items.iter().all(|it| it.value.ip().is_loopback());
        let unreachable = match usable.as_slice() {
            [] => false,
            usable => usable.iter().all(|challenge| match challenge {
                Challenge::TlsAlpn01 => loopback(&listen.https),
                Challenge::Http01 => loopback(&listen.http),
                Challenge::Dns01 => false,
            }),
        };
        if unreachable && !self.is_ca_here() && !checker.has_errors() {
            let what = "no CA can connect to a loopback address";
            let remedy = "set [listen] https = [\"0.0.0.0:443\", \"[::]:443\"], unless something \
                          here passes ports 80 or 443 on";
            checker.warn(&self.place(&self.domains), Wrong::new(what, remedy));
        }
        usable
    }

    /// Whether every CA is one of this machine, which can connect to all that listens here.
    fn is_ca_here(&self) -> bool {
        self.directories.iter().all(|item| {
            let uri = item.value.url.parse::<Uri>().ok();
            uri.as_ref().and_then(Uri::host).is_some_and(|host| {
                let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
                host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
            })
        })
    }

    /// Names that only some challenges or CAs can serve.
    fn check_names(&self, checker: &mut Checker<'_>, challenges: &[Challenge]) {
        // One that is asked for and cannot be used has been reported.
        let asked = self.challenges.value.iter();
        let dns = asked.clone().any(|it| it.value == Challenge::Dns01);
        let only_dns = challenges.iter().all(|each| *each == Challenge::Dns01);
        for item in &self.domains.value {
            let wildcard = item.value.iter().find(|name| name.starts_with("*."));
            if let Some(name) = wildcard.filter(|_| !dns) {
                let what = format!("{name}: CAs issue wildcards only by dns-01");
                let remedy = "add \"dns-01\" to challenges and set dns_hook or [acme.dns_update], or \
                              list each name";
                checker.error(item, Wrong::new(what, remedy));
            }
            let Some(address) = item
                .value
                .iter()
                .find(|name| name.parse::<IpAddr>().is_ok())
            else {
                continue;
            };
            if only_dns && !challenges.is_empty() {
                let what = format!("{address}: an address has no record for dns-01");
                let remedy = "add \"tls-alpn-01\" or \"http-01\" to challenges";
                checker.error(item, Wrong::new(what, remedy));
            }
            let public = |it: &Item<Directory>| KNOWN.iter().any(|(_, url)| *url == it.value.url);
            if is_private(address) && self.directories.iter().all(public) {
                let what = format!("{address}: no public CA can connect to a private address");
                let remedy = "write the address that the internet has for it, or name a CA of your \
                              own in directories";
                checker.error(item, Wrong::new(what, remedy));
                continue;
            }
            let letsencrypt = self
                .directories
                .iter()
                .any(|it| it.value.name.starts_with(LETSENCRYPT));
            if letsencrypt && self.profile.is_sound() && self.profile.value != SHORTLIVED {
                let what = format!(
                    "{address}: Let's Encrypt issues for addresses with its short-lived profile only"
                );
                let remedy = "set profile = \"shortlived\", or name another CA in directories";
                checker.error(item, Wrong::new(what, remedy));
            }
        }
    }

    /// Of several certificates for addresses one would be served.
    fn check_addresses(&self, checker: &mut Checker<'_>) {
        let is_address = |name: &String| name.parse::<IpAddr>().is_ok();
        let addressed = |item: &&Item<Vec<String>>| item.value.iter().any(is_address);
        for item in self.domains.value.iter().filter(addressed).skip(1) {
            let what = "who connects to an address sends no name, and gets the first certificate \
                        that is for an address: this one is never seen";
            let remedy = "write all addresses in one text, separated by spaces";
            checker.warn(item, Wrong::new(what, remedy));
        }
    }

    /// A CA that would turn us away.
    fn check_eab(&self, checker: &mut Checker<'_>) {
        for item in &self.directories {
            let Directory { name, url } = &item.value;
            let bound = self
                .eab
                .iter()
                .any(|(_, eab)| eab.directory.as_ref().is_none_or(|of| of == url));
            if EAB_WANTED.contains(&name.as_str()) && !bound {
                let what = format!("{name} asks for a customer's account (EAB)");
                let remedy = format!(
                    "get kid and key from it, and set eab = [{{ directory = \"{name}\", kid = \
                     \"...\", key_file = \"eab.key\" }}]"
                );
                checker.error(item, Wrong::new(what, remedy));
            }
        }
        for (of, _) in &self.eab {
            let Directory { name, url } = &of.value;
            if of.is_set() && !self.directories.iter().any(|item| item.value.url == *url) {
                let what = format!("eab names a CA that is not among directories: {name}");
                let remedy = format!("add \"{name}\" to directories, or remove this entry of eab");
                checker.error(of, Wrong::new(what, remedy));
            }
        }
    }
}

/// Reached from networks of one owner only.
fn is_private(address: &str) -> bool {
    match address.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_) => false,
    }
}
