use super::*;
use crate::config::{self, Auth};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};
use std::net::IpAddr;
use std::time::*;
use zeroize::Zeroizing;
#[derive(Debug)]
pub struct Desk;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct DeskError;
pub struct Attempt<'a> {
    pub user: &'a str,
    pub password: Zeroizing<String>,
    pub address: IpAddr,
    pub headers: &'a HeaderMap,
}
pub struct SignedIn {
    pub identity: Identity,
    pub cookies: Vec<HeaderValue>,
}
pub enum SignInRefused {
    Wrong,
    TooMany { retry_after: Duration },
    Busy { retry_after: Duration },
}
pub struct Session {
    pub identity: Identity,
    pub csrf: String,
    pub renew: Option<HeaderValue>,
}
impl Session {
    pub fn is_csrf(&self, _: &str) -> bool {
        false
    }
}
pub enum TokenCheck {
    None,
    Good(Identity),
    Wrong,
    TooMany { retry_after: Duration },
}
pub struct FormToken {
    pub value: String,
    pub cookie: HeaderValue,
}
impl Desk {
    pub fn open(_: &Auth) -> Result<Self, DeskError> {
        Ok(Self)
    }
    pub fn prepare(&self, _: &Auth) -> Result<(), DeskError> {
        Ok(())
    }
    pub async fn sign_in(&self, _: &Auth, _: Attempt<'_>) -> Result<SignedIn, SignInRefused> {
        Err(SignInRefused::Wrong)
    }
    pub fn by_cookie(&self, _: &Auth, _: &HeaderMap, _: SystemTime) -> Option<Session> {
        None
    }
    pub fn by_token(&self, _: &Auth, _: &HeaderMap, _: IpAddr) -> TokenCheck {
        TokenCheck::None
    }
    pub fn sign_out(&self, _: SignIn, _: SystemTime) -> Vec<HeaderValue> {
        vec![]
    }
    pub fn stands(&self, _: &Auth, _: &Identity) -> bool {
        true
    }
    pub fn form_token(&self, _: SystemTime) -> FormToken {
        todo!()
    }
    pub fn check_form_token(&self, _: &HeaderMap, _: &str, _: SystemTime) -> bool {
        false
    }
    pub fn remove_ours(_: &mut HeaderMap) {}
}
pub mod certificate {
    use super::*;
    pub fn identify(_: &crate::listen::Peer, _: &Auth) -> Option<Identity> {
        None
    }
}
#[derive(Debug, Default)]
pub struct ForwardAuth;
pub struct Question<'a> {
    pub method: &'a Method,
    pub host: &'a HeaderValue,
    pub uri: &'a Uri,
    pub address: IpAddr,
    pub headers: &'a HeaderMap,
}
pub enum Answer {
    Yes {
        identity: Identity,
        headers: Vec<(HeaderName, HeaderValue)>,
        cookies: Vec<HeaderValue>,
    },
    No(Response<bytes::Bytes>),
    Unreachable(String),
}
impl ForwardAuth {
    pub async fn ask(&self, _: &config::ForwardAuth, _: Question<'_>) -> Answer {
        Answer::Unreachable(String::new())
    }
}
