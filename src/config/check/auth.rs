//! `[auth]`: who may come in, decided here.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, Uri};

use super::tls::LARGEST_PEM;
use crate::auth::forward::check_ca_root;
use crate::auth::{PasswordHash, TokenHash};
use crate::config::addresses::{GatewayUrl, absolute_path, file_path, path_prefix};
use crate::config::checker::Item;
use crate::config::model::{AccessToken, Auth, CertificateName, ForwardAuth, User};
use crate::config::outside::read_file;
use crate::config::section::{Bounds, Section};
use crate::config::units::{Wrong, show_duration};
use crate::http::headers::speaks_for_client;
use crate::tls::Authorities;

const DAY: Duration = Duration::from_secs(86_400);
const SESSION: Bounds<Duration> = Bounds::new(
    Duration::from_secs(60),
    Duration::from_secs(400 * 86_400),
    "browsers keep no cookie for longer than 400 days",
);
const FORWARD_TIMEOUT: Bounds<Duration> =
    Bounds::up_to(Duration::from_secs(60), "clients give up sooner");
const FORWARD_CACHE: Bounds<Duration> = Bounds::new(
    Duration::ZERO,
    Duration::from_secs(300),
    "who is locked out there would still come in here",
);
const RECHECK: Bounds<Duration> = Bounds::new(
    Duration::from_secs(5),
    Duration::from_secs(86_400),
    "who is locked out there would stay in here; \"off\" is the word for never",
);
const WITHOUT_ANSWER: Bounds<Duration> = Bounds::new(
    Duration::ZERO,
    Duration::from_secs(86_400),
    "who is locked out there could stay in here",
);
/// A name is said to the gateway in a header and in the log.
const LONGEST_NAME: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Password,
    Token,
    Mtls,
    Forward,
}

pub(super) fn read(section: &mut Section<'_, '_>) -> Auth {
    let modes = section.list("modes", Vec::new(), mode);
    let users = section.each(
        "users",
        "users = [{ name = \"…\", hash = \"…\" }]",
        read_user,
    );
    let form = "tokens = [{ name = \"…\", user = \"…\", hash = \"…\" }]";
    let tokens = section.each("tokens", form, read_token);
    let public = section.list("public", vec!["/health".to_owned()], prefix);
    let header = HeaderName::from_static("x-forwarded-user");
    let user_header = section.text("user_header", header, identity_header);
    let loopback_as = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let loopback_as = section.text("loopback_as", loopback_as, documentation_address);
    let idle = section.duration("session_idle", 7 * DAY, SESSION);
    let max = section.duration("session_max", 30 * DAY, SESSION);
    let state_dir = PathBuf::from("/var/lib/holdline");
    let state_dir = section.text("state_dir", state_dir, directory);
    let names = [
        ("subject.cn", CertificateName::SubjectCn),
        ("san.email", CertificateName::SanEmail),
        ("san.dns", CertificateName::SanDns),
        ("san.uri", CertificateName::SanUri),
    ];
    let certificate = section.choice("certificate_name", CertificateName::SubjectCn, names);
    let on = |wanted| modes.value.iter().any(|mode| mode.value == wanted);
    let forward = section.section("forward", |section| {
        read_forward(section, on(Mode::Forward))
    });

    check_sessions(section, &idle, &max);
    check_empty(section, &modes, "users", Mode::Password, users.is_empty());
    check_empty(section, &modes, "tokens", Mode::Token, tokens.is_empty());
    let state_dir = section.checker().path(&state_dir.value);
    let auth = Auth {
        password: on(Mode::Password),
        token: on(Mode::Token),
        certificate: on(Mode::Mtls).then_some(certificate.value),
        // [tls] says.
        client_cas: Authorities::default(),
        forward: forward.filter(|_| on(Mode::Forward)),
        users: users
            .iter()
            .flatten()
            .map(|user| user.value.clone())
            .collect(),
        tokens: tokens
            .iter()
            .flatten()
            .map(|token| token.value.clone())
            .collect(),
        public: public.value.into_iter().map(|path| path.value).collect(),
        user_header: user_header.value,
        loopback_as: loopback_as.value,
        session_idle: idle.value,
        session_max: max.value,
        state_dir,
    };
    check_twice(section, users.iter().flatten(), |user| &user.name);
    check_alike(section, users.iter().flatten());
    check_twice(section, tokens.iter().flatten(), |token| &token.name);
    auth
}

fn mode(text: &str) -> Result<Mode, Wrong> {
    match text {
        "password" => Ok(Mode::Password),
        "token" => Ok(Mode::Token),
        "mtls" => Ok(Mode::Mtls),
        "forward" => Ok(Mode::Forward),
        _ => Err(Wrong::new(
            "not a way to sign in",
            "write any of \"password\", \"token\", \"mtls\", \"forward\"",
        )),
    }
}

fn prefix(text: &str) -> Result<String, Wrong> {
    match path_prefix(text)? {
        Some(path) => Ok(path),
        None => Err(Wrong::new(
            "everything would be public",
            "write the paths that need no sign-in, or modes = [] for none at all",
        )),
    }
}

/// Only a name that clients cannot say themselves: what they send under it is removed.
fn identity_header(text: &str) -> Result<HeaderName, Wrong> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Wrong::new(
            "not a header's name",
            "write for example \"x-forwarded-user\"",
        )
    })?;
    if speaks_for_client(&name) {
        return Ok(name);
    }
    Err(Wrong::new(
        "not among the headers that are removed from clients",
        "write \"x-forwarded-user\", or another name that starts with \"x-forwarded-\"",
    ))
}

/// An address that is nobody's (RFC 5737, RFC 3849), so that no client is mistaken for another.
fn documentation_address(text: &str) -> Result<IpAddr, Wrong> {
    let example = "write for example \"192.0.2.1\"";
    let address: IpAddr = text
        .parse()
        .map_err(|_| Wrong::new("not an IP address", example))?;
    let nobodys = match address {
        IpAddr::V4(v4) => v4.is_documentation(),
        IpAddr::V6(v6) => v6.segments().starts_with(&[0x2001, 0xdb8]),
    };
    if nobodys {
        return Ok(address);
    }
    Err(Wrong::new(
        "an address that may be somebody's",
        "write one of 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 or 2001:db8::/32",
    ))
}

pub(super) fn directory(text: &str) -> Result<PathBuf, Wrong> {
    match text {
        "" => Err(Wrong::new(
            "no directory is named",
            "write for example \"/var/lib/holdline\"",
        )),
        text => file_path(text),
    }
}

/// Reads the name of a user or a token: what can stand in a header and in a line of the log.
///
/// # Errors
/// When it cannot: what is wrong with it.
pub fn user_name(text: &str) -> Result<String, Wrong> {
    let wrong = |what| {
        Err(Wrong::new(
            what,
            "write a name of visible ASCII characters, e.g. \"nick@example.com\"",
        ))
    };
    match text {
        "" => wrong("no name"),
        text if text.len() > LONGEST_NAME => wrong("longer than any name"),
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            wrong("a name that no header can say")
        }
        text => Ok(text.to_owned()),
    }
}

fn read_user(section: &mut Section<'_, '_>) -> Option<Item<User>> {
    let name = required(section, "name", "user add", user_name);
    let hash = required(section, "hash", "user add", |text| {
        PasswordHash::parse(text).map_err(|refused| {
            Wrong::new(
                refused.to_string(),
                "paste the whole line that `holdline user add NAME` prints, in the quotes it has",
            )
        })
    });
    let (name, hash) = (name?, hash?);
    Some(name.map(|name| User {
        name,
        hash: hash.value,
    }))
}

fn read_token(section: &mut Section<'_, '_>) -> Option<Item<AccessToken>> {
    let name = required(section, "name", "token add", user_name);
    let user = required(section, "user", "token add", user_name);
    let hash = required(section, "hash", "token add", |text| {
        TokenHash::parse(text).ok_or_else(|| {
            Wrong::new(
                "not a token's hash",
                "paste the line that `holdline token add NAME` prints: the token itself is not \
                 for the config",
            )
        })
    });
    let (name, user, hash) = (name?, user?, hash?);
    Some(name.map(|name| AccessToken {
        name,
        user: user.value,
        hash: hash.value,
    }))
}

fn required<T>(
    section: &mut Section<'_, '_>,
    key: &'static str,
    command: &str,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Option<Item<T>> {
    let item = section.text(key, None, |text| parse(text).map(Some));
    if item.is_sound() && !item.is_set() {
        let wrong = Wrong::new(
            format!("{key} is missing"),
            format!("paste the line that `holdline {command} NAME` prints"),
        );
        let header = section.header();
        section.checker().error(&header, wrong);
    }
    let place = item.with(());
    item.value.map(|value| place.with(value))
}

fn read_forward(section: &mut Section<'_, '_>, wanted: bool) -> Option<ForwardAuth> {
    let url = section.text("url", None, |text| match text {
        "" => Ok(None),
        text => forward_url(text).map(Some),
    });
    let user = HeaderName::from_static("x-auth-request-email");
    let user = section.text("user", user, answer_header);
    let copy = section.list("copy", Vec::new(), copied_header);
    let timeout = section.duration("timeout", Duration::from_secs(5), FORWARD_TIMEOUT);
    let cache = section.duration("cache", Duration::from_secs(10), FORWARD_CACHE);
    let minute = Duration::from_secs(60);
    let recheck = section.duration_or_off("recheck", Some(minute), RECHECK);
    let without_answer = section.duration("without_answer", 10 * minute, WITHOUT_ANSWER);
    let ca_root = section.text("ca_root", PathBuf::new(), file_path);
    if wanted && url.is_sound() && url.value.is_none() {
        let wrong = Wrong::new(
            "modes says \"forward\", but no service is named",
            "add url = \"http://HOST:PORT/PATH\" under [auth.forward]",
        );
        let header = section.header();
        section.checker().error(&header, wrong);
    }
    let ca_root = ca_root_of(section, &url, ca_root);
    let service = url.value?;
    Some(ForwardAuth {
        tls: service.tls,
        ca_root,
        host: service.host,
        port: service.port,
        path: service.path,
        user: user.value,
        copy: copy.value.into_iter().map(|name| name.value).collect(),
        timeout: timeout.value,
        cache: cache.value,
        recheck: recheck.value,
        without_answer: without_answer.value,
    })
}

/// Where a forward-auth service is.
#[derive(Debug, Clone)]
struct ServiceUrl {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

/// The CA of a service over TLS, if one is named.
fn ca_root_of(
    section: &mut Section<'_, '_>,
    url: &Item<Option<ServiceUrl>>,
    ca_root: Item<PathBuf>,
) -> Option<PathBuf> {
    if ca_root.value.as_os_str().is_empty() {
        return None;
    }
    let path = section.checker().path(&ca_root.value);
    let content = read_file(&path, LARGEST_PEM).ok();
    section
        .checker()
        .looked_into(&ca_root, &path, content.as_deref());
    if url.value.as_ref().is_some_and(|service| !service.tls) {
        let wrong = Wrong::new(
            "the service is asked over plain HTTP, where no certificate is looked at",
            "write https:// in url, or remove ca_root",
        );
        section.checker().error(&ca_root, wrong);
    } else if let Err(error) = check_ca_root(&path) {
        let text = error.to_string();
        let (what, remedy) = text.rsplit_once("; ").unwrap_or((&text, "name another"));
        section.checker().error(&ca_root, Wrong::new(what, remedy));
    }
    Some(path)
}

fn forward_url(text: &str) -> Result<ServiceUrl, Wrong> {
    let example = "write for example \"http://127.0.0.1:4180/\"";
    let uri: Uri = text.parse().map_err(|_| Wrong::new("not a URL", example))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let scheme = uri.scheme_str().unwrap_or_default();
    let tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(Wrong::new("not a URL", example)),
    };
    let port = if tls && uri.port().is_none() {
        ":443"
    } else {
        ""
    };
    let base: Result<GatewayUrl, Wrong> = format!("http://{authority}{port}").parse();
    let GatewayUrl { host, port } = base.map_err(|wrong| Wrong::new(wrong.what, example))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(ServiceUrl {
        tls,
        host,
        port,
        path: absolute_path(path)?,
    })
}

fn answer_header(text: &str) -> Result<HeaderName, Wrong> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Wrong::new(
            "not a header's name",
            "write for example \"x-auth-request-email\"",
        )
    })
}

/// Only what a client cannot say itself, or else it could say it wherever the service does not.
fn copied_header(text: &str) -> Result<HeaderName, Wrong> {
    let name = answer_header(text)?;
    if speaks_for_client(&name) || name == AUTHORIZATION {
        return Ok(name);
    }
    Err(Wrong::new(
        "clients could send this header themselves",
        "name headers that are removed from clients, such as \"x-auth-request-groups\", \
         \"x-forwarded-groups\" or \"remote-groups\", or \"authorization\"",
    ))
}

fn check_sessions(section: &mut Section<'_, '_>, idle: &Item<Duration>, max: &Item<Duration>) {
    if idle.value <= max.value || !idle.is_sound() || !max.is_sound() {
        return;
    }
    let place = if idle.is_set() { idle } else { max };
    let longest = show_duration(max.value);
    let wrong = Wrong::new(
        format!("a sign-in ends after {longest} anyway ({})", max.key),
        format!("make {} at most {}", idle.key, max.key),
    );
    section.checker().error(place, wrong);
}

/// A way to sign in that lets nobody in, and people for whom there is no way: left alone, the first
/// only shuts out, and the second would let in everybody.
fn check_empty(
    section: &mut Section<'_, '_>,
    modes: &Item<Vec<Item<Mode>>>,
    key: &'static str,
    mode: Mode,
    empty: bool,
) {
    let (command, word) = match mode {
        Mode::Password => ("user", "password"),
        _ => ("token", "token"),
    };
    let named = modes.value.iter().find(|named| named.value == mode);
    match named {
        Some(named) if empty => {
            let wrong = Wrong::new(
                format!("nobody can sign in this way: {key} is empty"),
                format!(
                    "add what `holdline {command} add NAME` prints to {key}, or remove the mode"
                ),
            );
            section.checker().warn(named, wrong);
        }
        None if !empty && modes.is_sound() => {
            let place = if modes.is_set() {
                modes.with(())
            } else {
                section.header()
            };
            let wrong = Wrong::new(
                format!("{key} are named, but no mode asks for them"),
                format!("add \"{word}\" to modes, or remove {key}"),
            );
            section.checker().error(&place, wrong);
        }
        _ => {}
    }
}

/// Mail addresses are compared without case in many places, a gateway's list of scopes among them.
fn check_alike<'i>(section: &mut Section<'_, '_>, users: impl Iterator<Item = &'i Item<User>>) {
    let mut seen: Vec<&String> = Vec::new();
    for item in users {
        let name = &item.value.name;
        let alike = |other: &&&String| **other != name && other.eq_ignore_ascii_case(name);
        if let Some(other) = seen.iter().find(alike) {
            let wrong = Wrong::new(
                format!("only upper and lower case tell it from \"{other}\""),
                "write names of which nobody takes one for the other",
            );
            section.checker().error(item, wrong);
        }
        seen.push(name);
    }
}

fn check_twice<'i, T: 'i>(
    section: &mut Section<'_, '_>,
    items: impl Iterator<Item = &'i Item<T>>,
    name: impl Fn(&T) -> &String,
) {
    let mut seen: Vec<&String> = Vec::new();
    for item in items {
        if seen.contains(&name(&item.value)) {
            let wrong = Wrong::new("this name is there already", "write another one");
            section.checker().error(item, wrong);
        }
        seen.push(name(&item.value));
    }
}
