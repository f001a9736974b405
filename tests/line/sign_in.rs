//! Signing in with a browser: the page, the cookie, and what neither is good for.

use std::sync::{Arc, LazyLock, Mutex};

use serde_json::json;
use tempfile::TempDir;

use crate::kit::gateway::{AuthMode, Options, ScriptedGateway, Stop, USER};
use crate::kit::http::Response;
use crate::kit::{Client, Proxy, Raw, Role, Target, h2, http, stand_still};

const PASSWORD: &str = "correct & horse + battery";
static HASH: LazyLock<String> = LazyLock::new(|| hash(PASSWORD));

fn hash(password: &str) -> String {
    holdline::auth::hash_password(password.as_bytes())
        .unwrap()
        .to_phc()
}

fn auth(state: &TempDir, hash: &str) -> String {
    format!(
        "[auth]\nmodes = [\"password\"]\nstate_dir = {:?}\nusers = [{{ name = \"{USER}\", hash = \"{hash}\" }}]\n",
        state.path()
    )
}

struct Scene {
    gateway: ScriptedGateway,
    proxy: Proxy,
    settings: Arc<Mutex<String>>,
    state: TempDir,
}

async fn scene() -> Scene {
    let options = Options {
        auth: AuthMode::TrustedProxy,
        ..Options::default()
    };
    let gateway = ScriptedGateway::with(options).await;
    let state = tempfile::tempdir().unwrap();
    let settings = Arc::new(Mutex::new(auth(&state, &HASH)));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    Scene {
        gateway,
        proxy,
        settings,
        state,
    }
}

/// A browser's cookies and what it says by itself.
struct Browser {
    target: Target,
    cookies: Vec<(String, String)>,
}

impl Browser {
    fn new(proxy: &Proxy) -> Self {
        Self {
            target: proxy.target(),
            cookies: vec![("theme".into(), "dark".into())],
        }
    }

    fn origin(&self) -> String {
        format!("https://{}", self.target.host)
    }

    fn cookie(&self) -> String {
        let pairs = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }

    fn session(&self) -> Option<&str> {
        self.cookies
            .iter()
            .find(|(name, _)| name == "__Host-holdline")
            .map(|(_, value)| value.as_str())
    }

    fn keep(&mut self, response: &Response) {
        let set = response
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie");
        for (_, cookie) in set {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            for wanted in ["Secure", "HttpOnly", "SameSite=", "Path=/"] {
                assert!(attributes.contains(wanted), "{cookie}");
            }
            self.cookies.retain(|(known, _)| known != name);
            if !attributes.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    async fn open(&mut self, path: &str) -> Response {
        let cookie = self.cookie();
        let headers = [
            ("accept", "text/html"),
            ("sec-fetch-mode", "navigate"),
            ("cookie", cookie.as_str()),
        ];
        let response = http::get(&self.target, path, &headers).await;
        self.keep(&response);
        response
    }

    async fn post(&mut self, path: &str, form: &str, origin: &str) -> Response {
        let cookie = self.cookie();
        let length = form.len().to_string();
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", origin),
            ("cookie", cookie.as_str()),
            ("content-length", length.as_str()),
        ];
        let response = http::request(&self.target, "POST", path, &headers, form.as_bytes()).await;
        self.keep(&response);
        response
    }

    async fn sign_in(&mut self, to: &str, user: &str, password: &str) -> Response {
        let page = self.open("/.holdline/sign-in").await.text();
        let form = format!(
            "form={}&to={}&user={}&password={}",
            field(&page, "form"),
            encoded(to),
            encoded(user),
            encoded(password)
        );
        let origin = self.origin();
        self.post("/.holdline/sign-in", &form, &origin).await
    }

    async fn signed_in(proxy: &Proxy) -> Self {
        let mut browser = Self::new(proxy);
        assert_eq!(browser.sign_in("/", USER, PASSWORD).await.status, 303);
        browser
    }

    fn ui(&self, origin: &str) -> Role {
        let mut role = Role::control_ui();
        role.headers.clear();
        role.header("cookie", &self.cookie())
            .header("origin", origin)
    }
}

fn field(page: &str, name: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("name=\"{name}\" value=\""))
        .unwrap();
    encoded(&rest.split_once('"').unwrap().0.replace("&amp;", "&"))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn a_person_signs_in_and_gets_where_they_wanted_to_go() {
    let scene = scene().await;
    let mut browser = Browser::new(&scene.proxy);
    let sent = browser.open("/chat?session=main&x=1").await;
    assert_eq!(sent.status, 303);
    let location = sent.header("location").unwrap().to_owned();
    let page = browser.open(&location).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    // With less, browsers would not say whose form it is.
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    let text = page.text();
    for said in [
        "autocomplete=\"username\"",
        "autocomplete=\"current-password\"",
    ] {
        assert!(text.contains(said), "{said}");
    }
    assert!(!text.contains("<script") && !text.contains("http://") && !text.contains("https://"));
    let form = format!(
        "form={}&to={}&user={}&password={}",
        field(&text, "form"),
        field(&text, "to"),
        encoded(USER),
        encoded(PASSWORD)
    );
    let origin = browser.origin();
    let done = browser.post("/.holdline/sign-in", &form, &origin).await;
    assert_eq!(
        (done.status, done.header("location")),
        (303, Some("/chat?session=main&x=1"))
    );
    assert_eq!(browser.open("/chat?session=main&x=1").await.status, 200);
    let journal = scene.gateway.journal();
    let [(head, _)] = journal.http()[..] else {
        panic!("only the page itself is the gateway's")
    };
    assert_eq!(head.header("x-forwarded-user"), Some(USER));
    assert_eq!(
        head.header("cookie"),
        Some("theme=dark"),
        "ours is not for the gateway"
    );
    assert!(
        browser
            .open("/.holdline/sign-in")
            .await
            .text()
            .contains("Sign out")
    );
}

#[tokio::test]
async fn the_control_ui_of_somebody_signed_in_goes_through_a_crash_on_its_socket() {
    let scene = scene().await;
    let browser = Browser::signed_in(&scene.proxy).await;
    let role = browser.ui(&browser.origin());
    let ui = Client::connected(role, scene.proxy.target()).await;
    scene.gateway.stop(Stop::Kill).await;
    ui.event("gateway.down", 1).await;
    scene.gateway.begin_starting().await;
    scene.gateway.ready();
    assert_eq!(ui.event("gateway.up", 1).await["resumed"], "replay");
    ui.request("sessions.list", json!({})).await.ok();
    ui.record().assert_untouched();
}

#[tokio::test]
async fn what_is_wrong_is_said_and_not_which_part_of_it() {
    let scene = scene().await;
    let mut pages = Vec::new();
    for (user, password) in [(USER, "wrong & <b>"), ("nobody", PASSWORD)] {
        let mut browser = Browser::new(&scene.proxy);
        let page = browser.sign_in("/", user, password).await;
        assert_eq!(page.status, 401);
        assert!(page.text().contains("role=\"alert\""));
        assert!(
            page.text().contains(&format!("value=\"{user}\"")),
            "the name stays"
        );
        assert!(!page.text().contains("<b>") && !page.text().contains(PASSWORD));
        assert_eq!(browser.session(), None);
        let text = page.text();
        let token = text.split("name=\"form\" value=\"").nth(1).unwrap();
        let token = token.split('"').next().unwrap();
        pages.push(text.replace(user, "").replace(token, ""));
    }
    assert_eq!(pages[0], pages[1], "the same for a name that is not known");
}

#[tokio::test]
async fn a_program_is_told_the_ways_that_are_open() {
    let scene = scene().await;
    let stranger = http::get(&scene.proxy.target(), "/api", &[]).await;
    assert_eq!(stranger.status, 401);
    let message = stranger.json()["error"]["message"].to_string();
    assert!(
        message.contains("/.holdline/sign-in") && !message.contains("token"),
        "{message}"
    );
}

#[tokio::test]
async fn who_tries_too_often_has_to_wait_and_is_told_how_long() {
    let scene = scene().await;
    // The first wait is one of a second.
    let _still = stand_still();
    let mut browser = Browser::new(&scene.proxy);
    let mut limited = None;
    for attempt in 0..30 {
        let page = browser.sign_in("/", USER, "wrong").await;
        if page.status == 429 {
            limited = Some((attempt, page));
            break;
        }
    }
    let (attempt, page) = limited.expect("a limit");
    assert!(attempt >= 2, "some mistakes are free");
    assert!(page.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(page.text().contains("Please wait"));
    // Even the right password has to wait from there.
    assert_eq!(browser.sign_in("/", USER, PASSWORD).await.status, 429);
}

#[tokio::test]
async fn a_reload_gives_nobody_new_tries() {
    let scene = scene().await;
    let _still = stand_still();
    let mut browser = Browser::new(&scene.proxy);
    while browser.sign_in("/", USER, "wrong").await.status != 429 {}
    let elsewhere = tempfile::tempdir().unwrap();
    let reload = async |settings: String| {
        *scene.settings.lock().unwrap() = settings;
        scene.proxy.holdline.reload().await.unwrap();
    };
    // Another directory, with keys of its own.
    reload(auth(&elsewhere, &HASH)).await;
    assert_eq!(browser.sign_in("/", USER, PASSWORD).await.status, 429);
    // Passwords off and on again.
    reload(String::new()).await;
    assert_eq!(browser.open("/.holdline/sign-in").await.status, 404);
    reload(auth(&scene.state, &HASH)).await;
    assert_eq!(browser.sign_in("/", USER, PASSWORD).await.status, 429);
}

#[tokio::test]
async fn forms_of_other_sites_do_nothing() {
    let scene = scene().await;
    let mut browser = Browser::new(&scene.proxy);
    let page = browser.open("/.holdline/sign-in").await.text();
    let token = field(&page, "form");
    let good = format!(
        "form={token}&user={}&password={}",
        encoded(USER),
        encoded(PASSWORD)
    );
    for origin in ["https://evil.example", "null", "http://localhost:8443"] {
        let answer = browser.post("/.holdline/sign-in", &good, origin).await;
        assert_eq!(answer.status, 403, "{origin}");
    }
    let origin = browser.origin();
    let bare = format!("user={}&password={}", encoded(USER), encoded(PASSWORD));
    let foreign = format!("form={}&{bare}", "x".repeat(40));
    for form in [bare, foreign] {
        let answer = browser.post("/.holdline/sign-in", &form, &origin).await;
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains("open for too long"));
    }
    // The token of another browser's form is no good without that browser's cookie.
    let mut other = Browser::new(&scene.proxy);
    assert_eq!(
        other
            .post("/.holdline/sign-in", &good, &origin)
            .await
            .status,
        403
    );
    assert_eq!(browser.session().or_else(|| other.session()), None);

    let mut browser = Browser::signed_in(&scene.proxy).await;
    for form in ["", "form=x"] {
        let answer = browser.post("/.holdline/sign-out", form, &origin).await;
        assert_eq!(answer.status, 403, "{form:?}");
    }
    assert_eq!(browser.open("/.holdline/sign-out").await.status, 200);
    assert_eq!(browser.open("/").await.status, 200, "still signed in");
}

#[tokio::test]
async fn a_cookie_is_of_no_use_to_pages_of_other_sites() {
    let scene = scene().await;
    let browser = Browser::signed_in(&scene.proxy).await;
    let own = browser.origin();
    let cookie = browser.cookie();
    for (origin, allowed) in [
        (Some("https://evil.example"), false),
        (Some("null"), false),
        (Some("http://localhost"), false),
        (None, false),
        (Some(own.as_str()), true),
    ] {
        let mut role = Role::control_ui();
        role.headers = vec![("cookie".into(), cookie.clone())];
        if let Some(origin) = origin {
            role = role.header("origin", origin);
        }
        let client = Client::start(role, scene.proxy.target());
        if allowed {
            client.hello(1).await;
        } else {
            client
                .wait_for("a refusal", |record| !record.failed.is_empty())
                .await;
            assert_eq!(client.record().failed[0], "upgrade: HTTP 403", "{origin:?}");
        }
        let mut headers = vec![("cookie", cookie.as_str()), ("content-length", "0")];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let answer = http::request(&scene.proxy.target(), "POST", "/api/x", &headers, b"").await;
        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{origin:?}");
    }
    assert_eq!(scene.gateway.journal().upgrades().len(), 1);
    let mut h2 = h2::Connection::open(&scene.proxy.target()).await;
    for origin in ["https://evil.example", "null"] {
        let headers = [("cookie", cookie.as_str()), ("origin", origin)];
        let refused = h2.websocket("/", &headers).await.err().unwrap();
        assert_eq!(refused.status, 403, "{origin}");
    }
    let headers = [("cookie", cookie.as_str()), ("origin", own.as_str())];
    assert!(h2.websocket("/", &headers).await.is_ok());
}

#[tokio::test]
async fn signing_out_ends_the_sessions_and_the_cookie_for_good() {
    let scene = scene().await;
    let mut browser = Browser::signed_in(&scene.proxy).await;
    let before = browser.cookie();
    let live = Client::connected(browser.ui(&browser.origin()), scene.proxy.target()).await;
    let other = Browser::signed_in(&scene.proxy).await;
    let stays = Client::connected(other.ui(&other.origin()), scene.proxy.target()).await;

    let page = browser.open("/.holdline/sign-out").await.text();
    let form = format!("form={}", field(&page, "form"));
    let origin = browser.origin();
    let done = browser.post("/.holdline/sign-out", &form, &origin).await;
    assert_eq!(done.status, 303);
    assert_eq!(browser.session(), None);
    live.wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert_eq!(live.record().disconnects[0].code, 1008);
    stays.request("health", json!({})).await.ok();
    stays.record().assert_untouched();

    let replayed = [("cookie", before.as_str())];
    assert_eq!(
        http::get(&scene.proxy.target(), "/api", &replayed)
            .await
            .status,
        401
    );
    // After a restart of holdline, too.
    let again = Proxy::with(&scene.gateway, &auth(&scene.state, &HASH)).await;
    assert_eq!(
        http::get(&again.target(), "/api", &replayed).await.status,
        401
    );
    let kept = other.cookie();
    let kept = [("cookie", kept.as_str())];
    assert_eq!(http::get(&again.target(), "/api", &kept).await.status, 200);
}

/// Opening it hangs, as a network disk does whose server is away; until this is dropped.
struct Hangs(std::path::PathBuf);

impl Hangs {
    fn instead_of(path: std::path::PathBuf) -> Self {
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        Self(path)
    }
}

impl Drop for Hangs {
    fn drop(&mut self) {
        let mut both = std::fs::OpenOptions::new();
        drop(both.read(true).write(true).open(&self.0).unwrap());
    }
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_nobody_from_signing_out() {
    let scene = scene().await;
    let mut browser = Browser::signed_in(&scene.proxy).await;
    let before = browser.cookie();
    let live = Client::connected(browser.ui(&browser.origin()), scene.proxy.target()).await;
    let page = browser.open("/.holdline/sign-out").await.text();
    let _hangs = Hangs::instead_of(scene.state.path().join("auth.lock"));
    let form = format!("form={}", field(&page, "form"));
    let origin = browser.origin();
    let done = browser.post("/.holdline/sign-out", &form, &origin).await;
    assert_eq!((done.status, browser.session()), (303, None));
    live.wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    let replayed = [("cookie", before.as_str())];
    let refused = http::get(&scene.proxy.target(), "/api", &replayed).await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn cookies_that_are_not_ours_are_none() {
    let scene = scene().await;
    let browser = Browser::signed_in(&scene.proxy).await;
    let good = browser.session().unwrap().to_owned();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Proxy::with(&scene.gateway, &auth(&elsewhere, &HASH)).await;
    let foreign = Browser::signed_in(&stranger).await;
    let foreign = foreign.session().unwrap().to_owned();
    let mut forged = vec![
        foreign,
        String::new(),
        "x".repeat(5000),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        good.to_uppercase(),
    ];
    for at in [0, good.len() / 2, good.len() - 2] {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        forged.push(String::from_utf8(bytes).unwrap());
    }
    for forged in forged {
        let cookie = format!("__Host-holdline={forged}");
        let headers = [("cookie", cookie.as_str())];
        let answer = http::get(&scene.proxy.target(), "/api", &headers).await;
        assert_eq!(answer.status, 401, "{forged}");
    }
    let cookie = format!("a=b; __Host-holdline={good}");
    let headers = [("cookie", cookie.as_str())];
    assert_eq!(
        http::get(&scene.proxy.target(), "/api", &headers)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_new_password_ends_what_hung_on_the_old_one() {
    let scene = scene().await;
    let mut browser = Browser::signed_in(&scene.proxy).await;
    let live = Client::connected(browser.ui(&browser.origin()), scene.proxy.target()).await;
    *scene.settings.lock().unwrap() = auth(&scene.state, &hash("another one"));
    let done = scene.proxy.holdline.reload().await.unwrap();
    assert_eq!(done.ended, 1);
    assert!(
        done.changes
            .iter()
            .all(|change| change.key.starts_with("auth."))
    );
    live.wait_for("its end", |record| !record.disconnects.is_empty())
        .await;
    assert_eq!(live.record().disconnects[0].code, 1008);
    assert_eq!(browser.open("/").await.status, 303);
    assert_eq!(browser.sign_in("/", USER, PASSWORD).await.status, 401);
    assert_eq!(browser.sign_in("/", USER, "another one").await.status, 303);
}

#[tokio::test]
async fn tokens_of_who_is_gone_are_named() {
    let scene = scene().await;
    let token = |name: &str, user: &str| {
        let hash = holdline::auth::TokenHash::of(name).to_base64url();
        format!("{{ name = \"{name}\", user = \"{user}\", hash = \"{hash}\" }}")
    };
    let tokens = format!(
        "tokens = [{}, {}]\n",
        token("phone", USER),
        token("ci", "a-program")
    );
    let both =
        auth(&scene.state, &HASH).replace("\"password\"", "\"password\", \"token\"") + &tokens;
    let gone = both.replace(
        &format!("name = \"{USER}\", hash"),
        "name = \"another\", hash",
    );
    let reload = async |text: &str| {
        *scene.settings.lock().unwrap() = text.to_owned();
        scene.proxy.holdline.reload().await.unwrap()
    };
    assert_eq!(reload(&both).await.tokens_left, []);
    let left = reload(&gone).await;
    let named: Vec<_> = left
        .tokens_left
        .iter()
        .map(|token| (token.name.as_str(), token.user.as_str()))
        .collect();
    assert_eq!(named, [("phone", USER)]);
    let told = left.json();
    assert_eq!(told["tokensLeft"], json!([{"name": "phone", "user": USER}]));
    // Only whoever takes the user out is told.
    assert_eq!(
        reload(&(gone + "session_idle = \"6d\"\n"))
            .await
            .tokens_left,
        []
    );
}

#[tokio::test]
async fn a_shorter_sign_in_is_shorter_for_those_who_are_in() {
    let scene = scene().await;
    let mut browser = Browser::signed_in(&scene.proxy).await;
    // It answers whatever it is asked, but has no patience of its own.
    let role = browser.ui(&browser.origin());
    let (mut live, _) = Raw::connected(&scene.proxy.target(), &role).await;
    let short = "session_idle = \"60s\"\nsession_max = \"60s\"\n";
    *scene.settings.lock().unwrap() = auth(&scene.state, &HASH) + short;
    assert_eq!(scene.proxy.holdline.reload().await.unwrap().ended, 0);
    assert_eq!(browser.open("/").await.status, 200);
    live.request("1", "health", json!({})).await;
    assert_eq!(live.answer("1").await["ok"], true);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(live.closed().await.0, 1008);
}

/// Or they would try again for ever.
#[tokio::test]
async fn who_keeps_no_cookies_is_told_so() {
    let scene = scene().await;
    let mut browser = Browser::new(&scene.proxy);
    let form = |page: &str| {
        let (token, password) = (field(page, "form"), encoded(PASSWORD));
        format!("form={token}&user={}&password={password}", encoded(USER))
    };
    let page = browser.open("/.holdline/sign-in").await.text();
    browser.cookies.clear();
    let origin = browser.origin();
    let told = browser
        .post("/.holdline/sign-in", &form(&page), &origin)
        .await;
    assert_eq!(told.status, 403);
    assert!(told.text().contains("allow cookies"), "{}", told.text());
    // Kept, but of another form: what is wrong is the form.
    let other = browser.open("/.holdline/sign-in").await.text();
    assert_eq!(field(&other, "form"), field(&told.text(), "form"));
    let told = browser
        .post("/.holdline/sign-in", &form(&page), &origin)
        .await;
    assert_eq!(told.status, 403);
    assert!(told.text().contains("open for too long"), "{}", told.text());
    let done = browser
        .post("/.holdline/sign-in", &form(&other), &origin)
        .await;
    assert_eq!(done.status, 303);
}

#[tokio::test]
async fn nobody_is_sent_to_another_site() {
    let scene = scene().await;
    for to in [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\t//x",
        "/\r\nx: y",
    ] {
        let mut browser = Browser::new(&scene.proxy);
        let done = browser.sign_in(to, USER, PASSWORD).await;
        assert_eq!(
            (done.status, done.header("location")),
            (303, Some("/")),
            "{to}"
        );
    }
}

#[tokio::test]
async fn broken_requests_for_the_page_get_a_clear_answer() {
    let scene = scene().await;
    let target = scene.proxy.target();
    let path = "/.holdline/sign-in";
    let json = [
        ("content-type", "application/json"),
        ("content-length", "2"),
    ];
    assert_eq!(
        http::request(&target, "POST", path, &json, b"{}")
            .await
            .status,
        400
    );
    let put = http::request(&target, "PUT", path, &[("content-length", "0")], b"").await;
    assert_eq!(put.status, 405);
    let long = "x".repeat(20_000);
    let length = long.len().to_string();
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", length.as_str()),
    ];
    assert_eq!(
        http::request(&target, "POST", path, &form, long.as_bytes())
            .await
            .status,
        400
    );
    let mut connection = http::Connection::open(&target).await;
    connection.start("HEAD", path, &[], b"").await;
    assert_eq!(connection.response_head().await.status, 200);
}
