//! A desk with users whose hashes are cheap, and a browser that keeps its cookies.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::auth::password::{CHEAP, hash_at};
use crate::auth::{Attempt, Desk, SignInRefused, SignedIn, TokenHash};
use crate::config::{self, AccessToken, Auth, User};

pub(super) const NICK: &str = "nick@example.com";
pub(super) const MARA: &str = "mara@example.com";
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Nick's password is "nick's password", Mara's is "mara's password".
pub(super) fn auth(dir: &Path) -> Auth {
    let mut auth = config::parse("", "test").unwrap().config.auth;
    auth.password = true;
    auth.users = vec![
        person(NICK, "nick's password"),
        person(MARA, "mara's password"),
    ];
    auth.state_dir = dir.to_owned();
    auth
}

pub(super) fn person(name: &str, password: &str) -> User {
    User {
        name: name.to_owned(),
        hash: hash_at(CHEAP, password.as_bytes()).unwrap(),
    }
}

pub(super) fn access(name: &str, user: &str, token: &str) -> AccessToken {
    AccessToken {
        name: name.to_owned(),
        user: user.to_owned(),
        hash: TokenHash::of(token),
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A desk and its directory.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) auth: Auth,
    pub(super) desk: Desk,
}

pub(super) fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let auth = auth(folder.path());
    let desk = Desk::open(&auth).unwrap();
    World { folder, auth, desk }
}

impl World {
    pub(super) async fn try_in(
        &self,
        browser: &mut Browser,
        user: &str,
        password: &str,
    ) -> Result<SignedIn, SignInRefused> {
        let headers = browser.headers();
        let attempt = Attempt {
            user,
            password: Zeroizing::new(password.to_owned()),
            address: browser.address,
            headers: &headers,
        };
        let signed_in = self.desk.sign_in(&self.auth, attempt).await?;
        browser.take(&signed_in.cookies);
        Ok(signed_in)
    }

    /// Somebody signed in as Nick.
    pub(super) async fn nick(&self) -> Browser {
        let mut browser = Browser::at("192.0.2.7");
        self.try_in(&mut browser, NICK, "nick's password")
            .await
            .unwrap();
        browser
    }
}

/// Keeps cookies as a browser does.
#[derive(Clone)]
pub(super) struct Browser {
    pub(super) address: IpAddr,
    pub(super) cookies: Vec<(String, String)>,
}

impl Browser {
    pub(super) fn at(address: &str) -> Self {
        Self {
            address: ip(address),
            cookies: Vec::new(),
        }
    }

    pub(super) fn take<'v>(&mut self, set: impl IntoIterator<Item = &'v HeaderValue>) {
        for header in set {
            let text = header.to_str().unwrap();
            let (pair, attributes) = text.split_once("; ").unwrap();
            assert!(
                attributes.contains("Secure") && attributes.contains("HttpOnly"),
                "{attributes}"
            );
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|(kept, _)| kept != name);
            if !attributes.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    pub(super) fn cookie(&self, name: &str) -> &str {
        let found = self.cookies.iter().find(|(kept, _)| kept == name);
        &found.unwrap().1
    }

    pub(super) fn headers(&self) -> HeaderMap {
        let pairs: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        with_cookies(&pairs.join("; "))
    }
}

pub(super) fn with_cookies(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !text.is_empty() {
        headers.insert(COOKIE, text.parse().unwrap());
    }
    headers
}
