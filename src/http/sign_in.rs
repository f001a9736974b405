//! The page on which people sign in and out, and what its forms do.
//!
//! One document without any outside resource and without a script. Its forms are taken only from a
//! page of ours: the browser must say so, or hold the cookie that belongs to the form.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Body;
use super::form::Form;
use super::gate::Gate;
use super::headers::Presented;
use super::origin::{Origin, origin};
use super::refusal::{Asker, document};
use super::route::Host;
use super::waiting::policy_for;
use crate::auth::{Attempt, Credential, Desk, Session, SignInRefused};
use crate::config::Auth;
use crate::observe::Metrics;
use crate::observe::labels::{GrantEnd, SignInOutcome, Way};
use crate::protocol::rescue::{Cause, whole_seconds};

const TEMPLATE: &str = include_str!("sign_in.html");

/// Where it is.
const SIGN_IN: &str = "/.holdline/sign-in";
const SIGN_OUT: &str = "/.holdline/sign-out";
/// For a sign-out to be written down; it holds here from the start.
const WRITTEN: Duration = Duration::from_secs(5);
/// Longest path that is come back to.
const LONGEST_TARGET: usize = 2048;

/// Whether a path of ours is one of these.
pub(super) fn is_here(path: &str) -> bool {
    path == SIGN_IN || path == SIGN_OUT
}

/// A request for one of them.
pub(super) struct Visit<'a> {
    pub(super) auth: &'a Auth,
    pub(super) gate: &'a Gate,
    pub(super) metrics: &'a Metrics,
    pub(super) presented: Presented,
    pub(super) host: &'a Host,
}

impl Visit<'_> {
    /// The answer.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Cause> {
        if !self.auth.password {
            return Err(Cause::NotFound);
        }
        let (head, body) = request.into_parts();
        let session = self
            .gate
            .desk()
            .by_cookie(self.auth, &head.headers, SystemTime::now())
            .ok();
        let sign_in = head.uri.path() == SIGN_IN;
        match (&head.method, session) {
            (&Method::GET | &Method::HEAD, Some(session)) => Ok(self.signed_in(&head, &session)),
            (&Method::GET | &Method::HEAD, None) => {
                Ok(self.page(&Page::asking(target(&head.uri)), &head))
            }
            (&Method::POST, session) => {
                self.is_own_form(&head)?;
                let form = Form::read(body).await?;
                match (sign_in, session) {
                    (true, _) => Ok(self.sign_in(&head, &form).await),
                    (false, Some(session)) => self.sign_out(&form, &session).await,
                    (false, None) => Ok(see_other(SIGN_IN)),
                }
            }
            _ => Err(Cause::MethodNotAllowed),
        }
    }

    /// Forms are posted by pages of ours only. Browsers name the origin of every form.
    fn is_own_form(&self, head: &request::Parts) -> Result<(), Cause> {
        let kind = head.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let form = kind.split(';').next().unwrap_or_default().trim();
        if !form.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Cause::BadRequest("not a form".into()));
        }
        match origin(&head.headers, self.host) {
            Origin::Foreign => {
                self.note_refused("a form of another site");
                Err(Cause::ForeignOrigin)
            }
            // An old browser; the form's own token is asked for as well.
            Origin::Own | Origin::Unnamed => Ok(()),
        }
    }

    fn note_refused(&self, because: &'static str) {
        let desk = self.gate.desk();
        desk.note_refused(because, self.presented.address);
    }

    async fn sign_in(&self, head: &request::Parts, form: &Form) -> Response<Body> {
        let desk = self.gate.desk();
        let to = local(form.get("to")).unwrap_or_else(|| "/".to_owned());
        let user = form.get("user").trim();
        let again = |status, wrong: String| Page {
            status,
            wrong: Some(wrong),
            user: user.to_owned(),
            to: to.clone(),
            retry_after: None,
        };
        let (token, now) = (form.get("form"), SystemTime::now());
        if !desk.check_form_token(&head.headers, token, now) {
            self.note_refused("a sign-in form that is not ours, or too old");
            let wrong = match desk.lacks_cookies(&head.headers, token, now) {
                true => {
                    "Your browser has not kept the cookie of this page. Please allow cookies for \
                     this site and sign in again."
                }
                false => "This form was open for too long. Please sign in again.",
            };
            return self.page(&again(StatusCode::FORBIDDEN, wrong.to_owned()), head);
        }
        let attempt = Attempt {
            user,
            password: Zeroizing::new(form.get("password").to_owned()),
            address: self.presented.address,
            headers: &head.headers,
        };
        let signed_in = desk.sign_in(self.auth, attempt).await;
        let outcome = match &signed_in {
            Ok(_) => SignInOutcome::Ok,
            Err(SignInRefused::Wrong) => SignInOutcome::Wrong,
            Err(SignInRefused::TooMany { .. }) => SignInOutcome::Limited,
            Err(SignInRefused::Busy { .. }) => SignInOutcome::Busy,
        };
        self.metrics.sign_ins.inc((Way::Password, outcome));
        match signed_in {
            Ok(signed_in) => {
                let mut response = see_other(&to);
                for cookie in signed_in.cookies {
                    response.headers_mut().append(header::SET_COOKIE, cookie);
                }
                response
            }
            Err(SignInRefused::Wrong) => {
                let wrong = "The name or the password is wrong.".to_owned();
                self.page(&again(StatusCode::UNAUTHORIZED, wrong), head)
            }
            Err(SignInRefused::TooMany { retry_after }) => {
                let wrong = format!(
                    "Too many attempts. Please wait {} and try again.",
                    waiting_time(retry_after)
                );
                let page = again(StatusCode::TOO_MANY_REQUESTS, wrong);
                self.page(&page.after(retry_after), head)
            }
            Err(SignInRefused::Busy { retry_after }) => {
                self.note_refused("too many people are signing in at this moment");
                let wrong = "Many people sign in right now. Please try again.".to_owned();
                let page = again(StatusCode::SERVICE_UNAVAILABLE, wrong);
                self.page(&page.after(retry_after), head)
            }
        }
    }

    async fn sign_out(&self, form: &Form, session: &Session) -> Result<Response<Body>, Cause> {
        if verify_slices_are_equal(session.csrf.as_bytes(), form.get("form").as_bytes()).is_err() {
            self.note_refused("a sign-out form that is not ours");
            return Err(Cause::ForeignOrigin);
        }
        let Credential::Password(sign_in) = session.identity.credential else {
            return Ok(see_other(SIGN_IN));
        };
        let (desk, grants) = (self.gate.desk(), Arc::clone(self.gate.grants()));
        let (identity, address) = (session.identity.clone(), self.presented.address);
        let revoke = move || {
            let credential = Credential::Password(sign_in);
            grants.revoke(GrantEnd::SignedOut, |live| live.credential == credential);
        };
        let revoke_at_last = revoke.clone();
        // To its end even if the browser does not wait for it.
        let ended = tokio::task::spawn_blocking(move || {
            let cookies = desk.sign_out(&identity.user, address, sign_in, SystemTime::now());
            revoke();
            cookies
        });
        let cookies = match timeout(WRITTEN, ended).await {
            Ok(ended) => ended.unwrap_or_default(),
            Err(_) => {
                tracing::error!(
                    "a sign-out holds until this process ends: the file system of [auth] state_dir \
                     does not answer"
                );
                revoke_at_last();
                Desk::no_cookies()
            }
        };
        let mut response = see_other(SIGN_IN);
        for cookie in cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// The form, under a token of its own.
    fn page(&self, page: &Page, head: &request::Parts) -> Response<Body> {
        let token = self
            .gate
            .desk()
            .form_token(&head.headers, SystemTime::now());
        let head_only = Asker::of(head).head_only();
        let mut response = html("Sign in", &page.body(&token.field), head_only);
        *response.status_mut() = page.status;
        let headers = response.headers_mut();
        if let Some(cookie) = token.cookie {
            headers.append(header::SET_COOKIE, cookie);
        }
        if let Some(after) = page.retry_after {
            let seconds = HeaderValue::from(whole_seconds(after));
            headers.insert(header::RETRY_AFTER, seconds);
        }
        response
    }

    fn signed_in(&self, head: &request::Parts, session: &Session) -> Response<Body> {
        let body = format!(
            "<h1>Signed in</h1>\n<p class=\"quiet\">as {}</p>\n\
             <a class=\"button\" href=\"{}\">Go on</a>\n\
             <form method=\"post\" action=\"{SIGN_OUT}\">\n\
             <input type=\"hidden\" name=\"form\" value=\"{}\">\n\
             <button class=\"second\">Sign out</button>\n</form>",
            escaped(&session.identity.user),
            escaped(&target(&head.uri)),
            escaped(&session.csrf),
        );
        let mut response = html("Signed in", &body, Asker::of(head).head_only());
        if let Some(cookie) = session.renew.clone() {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

/// What the form says.
struct Page {
    status: StatusCode,
    wrong: Option<String>,
    user: String,
    to: String,
    retry_after: Option<Duration>,
}

impl Page {
    fn asking(to: String) -> Self {
        Self {
            status: StatusCode::OK,
            wrong: None,
            user: String::new(),
            to,
            retry_after: None,
        }
    }

    fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    fn body(&self, form: &str) -> String {
        let (wrong, described) = match &self.wrong {
            Some(wrong) => (
                format!(
                    "<p class=\"wrong\" id=\"wrong\" role=\"alert\">{}</p>\n",
                    escaped(wrong)
                ),
                " aria-describedby=\"wrong\"",
            ),
            None => (String::new(), ""),
        };
        // Whoever mistyped the password wants to be in its field.
        let (focus_user, focus_password) = match self.user.is_empty() {
            true => (" autofocus", ""),
            false => ("", " autofocus"),
        };
        format!(
            "<h1>Sign in</h1>\n<p class=\"quiet\">to your gateway</p>\n{wrong}\
             <form method=\"post\" action=\"{SIGN_IN}\">\n\
             <input type=\"hidden\" name=\"form\" value=\"{form}\">\n\
             <input type=\"hidden\" name=\"to\" value=\"{to}\">\n\
             <label for=\"user\">Name</label>\n\
             <input id=\"user\" name=\"user\" type=\"text\" value=\"{user}\" required maxlength=\"200\" \
             autocomplete=\"username\" autocapitalize=\"none\" autocorrect=\"off\" spellcheck=\"false\"{focus_user}{described}>\n\
             <label for=\"password\">Password</label>\n\
             <input id=\"password\" name=\"password\" type=\"password\" required maxlength=\"1024\" \
             autocomplete=\"current-password\"{focus_password}{described}>\n\
             <button>Sign in</button>\n</form>",
            form = escaped(form),
            to = escaped(&self.to),
            user = escaped(&self.user),
        )
    }
}

/// Sends a browser here, and back afterwards.
pub(super) fn redirect(asked: &Uri) -> Response<Body> {
    let path = asked.path_and_query().map_or("/", |path| path.as_str());
    let to = local(path).unwrap_or_else(|| "/".to_owned());
    match to.as_str() {
        "/" => see_other(SIGN_IN),
        to => see_other(&format!("{SIGN_IN}?to={}", percent_encoded(to))),
    }
}

/// Nobody can be asked who may come in.
pub(super) fn unavailable() -> Response<Body> {
    let body = "<h1>Sign-in is not possible</h1>\n<p class=\"quiet\">The service that says who may \
                come in does not answer. Please try again in a moment.</p>\n\
                <a class=\"button\" href=\"\">Try again</a>";
    let mut response = html("Sign-in is not possible", body, false);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// A forward-auth service's own answer.
pub(super) fn pass_on(answer: Response<Bytes>) -> Response<Body> {
    answer.map(|body| {
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync()
    })
}

fn see_other(to: &str) -> Response<Body> {
    let mut response = document(String::new(), "text/plain; charset=utf-8", false);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let location = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, location);
    response
}

fn html(title: &str, body: &str, head_only: bool) -> Response<Body> {
    static POLICY: LazyLock<HeaderValue> =
        LazyLock::new(|| policy_for(TEMPLATE, "form-action 'self'; frame-ancestors 'none'"));
    let page = TEMPLATE
        .replace("{{title}}", title)
        .replace("{{body}}", body);
    let mut response = document(page, "text/html; charset=utf-8", head_only);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Under "no-referrer" browsers post forms with `Origin: null`.
    let same_origin = HeaderValue::from_static("same-origin");
    headers.insert(header::REFERRER_POLICY, same_origin);
    response
}

/// Where to go afterwards: `?to=`, if it is a path of this host.
fn target(uri: &Uri) -> String {
    let query = Form::parse(uri.query().unwrap_or_default().as_bytes());
    local(query.get("to")).unwrap_or_else(|| "/".to_owned())
}

/// A path of this host and nothing that a browser could read as another's.
fn local(to: &str) -> Option<String> {
    let path = to.starts_with('/') && !to.starts_with("//");
    let plain = to
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let ours = is_here(to.split('?').next().unwrap_or_default());
    (path && plain && !ours && to.len() <= LONGEST_TARGET).then(|| to.to_owned())
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A wait as a person says it, rounded up.
fn waiting_time(wait: Duration) -> String {
    match wait.as_secs_f64().ceil() as u64 {
        0 | 1 => "a second".to_owned(),
        seconds @ 2..90 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_host_are_come_back_to() {
        for good in ["/", "/chat?x=1&y=%20", "/a//b"] {
            assert_eq!(local(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            "chat",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a b",
            "/\u{e9}",
            "/a\r\nSet-Cookie: x=1",
            SIGN_IN,
            "/.holdline/sign-out?x",
        ] {
            assert_eq!(local(bad), None, "{bad}");
        }
        let there = redirect(&Uri::from_static("/sessions?id=a&b=c"));
        let location = &there.headers()[header::LOCATION];
        assert_eq!(location, "/.holdline/sign-in?to=/sessions%3Fid%3Da%26b%3Dc");
        let uri: Uri = location.to_str().unwrap().parse().unwrap();
        assert_eq!(target(&uri), "/sessions?id=a&b=c");
    }

    #[test]
    fn nothing_typed_gets_into_the_page_as_markup() {
        let page = Page {
            status: StatusCode::UNAUTHORIZED,
            wrong: Some("<b>".to_owned()),
            user: "\"><script>'&".to_owned(),
            to: "/\"x".to_owned(),
            retry_after: None,
        };
        let body = page.body("t");
        assert!(!body.contains("<script>") && !body.contains("<b>"));
        assert!(body.contains("value=\"&quot;&gt;&lt;script&gt;&#39;&amp;\""));
    }

    #[test]
    fn waits_are_said_in_words() {
        let said = |ms| waiting_time(Duration::from_millis(ms));
        assert_eq!(said(300), "a second");
        assert_eq!(said(1200), "2 seconds");
        assert_eq!(said(300_000), "5 minutes");
    }
}
