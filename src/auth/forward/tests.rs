use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderMap, Method, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::*;

mod again;
mod over_tls;

const LONG: Duration = Duration::from_secs(60);
const YES: &str = "HTTP/1.1 200 OK\r\nx-auth-request-email: nick@example.com\r\n\
     x-auth-request-groups: staff\r\nset-cookie: _proxy=renewed\r\ncontent-length: 0\r\n\r\n";

/// A service that says what a test wants, once `go` lets it.
struct Service {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    asked: Arc<Notify>,
    go: Arc<Semaphore>,
    answer: Arc<Mutex<Vec<u8>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Service {
    async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let service = Self::held(answer).await;
        service.go.add_permits(1_000);
        service
    }

    /// Answers one question per permit of `go`; `NUMBER` in the answer is the question's own.
    async fn held(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(Mutex::new(answer.into()));
        let said = Arc::clone(&answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, asked) = (
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::<Notify>::default(),
        );
        let go = Arc::new(Semaphore::new(0));
        let shared = (Arc::clone(&heads), Arc::clone(&asked), Arc::clone(&go));
        let accepting = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (heads, asked, go) = shared.clone();
                let said = Arc::clone(&said);
                tokio::spawn(async move {
                    let head = read_head(&mut stream).await;
                    let number = {
                        let mut heads = heads.lock().unwrap();
                        heads.push(head);
                        format!("{:06}", heads.len())
                    };
                    asked.notify_one();
                    go.acquire().await.unwrap().forget();
                    let mut answer = said.lock().unwrap().clone();
                    if let Some(at) = memchr::memmem::find(&answer, b"NUMBER") {
                        answer[at..at + 6].copy_from_slice(number.as_bytes());
                    }
                    let _ = stream.write_all(&answer).await;
                });
            }
        });
        Self {
            address,
            heads,
            asked,
            go,
            answer,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    /// Something else from now on.
    fn now_says(&self, answer: &str) {
        *self.answer.lock().unwrap() = answer.as_bytes().to_vec();
    }

    fn config(&self) -> config::ForwardAuth {
        config::ForwardAuth {
            tls: false,
            ca_root: None,
            host: self.address.ip().to_string(),
            port: self.address.port(),
            path: "/oauth2/auth?strict".to_owned(),
            user: HeaderName::from_static("x-auth-request-email"),
            copy: vec![HeaderName::from_static("x-auth-request-groups")],
            timeout: LONG,
            cache: Duration::from_secs(10),
            recheck: Some(Duration::from_secs(60)),
            without_answer: Duration::from_secs(600),
        }
    }

    fn count(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    fn last(&self) -> String {
        self.heads.lock().unwrap().last().unwrap().clone()
    }

    async fn is_asked_often(&self, count: usize) {
        let often = async {
            while self.count() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, often).await.unwrap();
    }

    async fn is_asked(&self) {
        tokio::time::timeout(LONG, self.asked.notified())
            .await
            .unwrap();
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap_or(b'\n'));
    }
    String::from_utf8(head).unwrap()
}

/// A client's request that a test may change.
struct Client {
    method: Method,
    host: HeaderValue,
    target: &'static str,
    address: &'static str,
    headers: HeaderMap,
}

impl Client {
    fn new() -> Self {
        let mut headers = HeaderMap::new();
        let mut say = |name, value| headers.append(name, HeaderValue::from_static(value));
        say(header::COOKIE, "_proxy=secret");
        say(header::COOKIE, "theme=dark");
        say(header::AUTHORIZATION, "Bearer secret");
        say(header::USER_AGENT, "Browser/1");
        say(header::ACCEPT, "text/html");
        say(header::CONTENT_LENGTH, "5");
        say(header::UPGRADE, "websocket");
        say(HeaderName::from_static("x-forwarded-for"), "127.0.0.1");
        say(HeaderName::from_static("x-auth-request-email"), "root@x");
        Self {
            method: Method::POST,
            host: HeaderValue::from_static("claw.example.com"),
            target: "/chat?session=main",
            address: "203.0.113.7",
            headers,
        }
    }

    fn question(&self) -> Question<'_> {
        Question {
            method: &self.method,
            host: &self.host,
            target: self.target,
            address: self.address.parse().unwrap(),
            headers: &self.headers,
        }
    }

    async fn ask(&self, service: &ForwardAuth, config: &config::ForwardAuth) -> Answer {
        tokio::time::timeout(LONG * 3, service.ask(config, self.question()))
            .await
            .expect("answers")
    }
}

/// Makes another question of one.
type Change = dyn Fn(&mut Client);

async fn asked_once(answer: impl Into<Vec<u8>>) -> Answer {
    let service = Service::saying(answer).await;
    let config = service.config();
    Client::new().ask(&ForwardAuth::new(), &config).await
}

#[track_caller]
fn yes(answer: Answer) -> Admitted {
    match answer {
        Answer::Yes(admitted) => admitted,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn no(answer: Answer) -> Response<Bytes> {
    match answer {
        Answer::No(response) => *response,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failure(answer: Answer) -> Failure {
    match answer {
        Answer::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

// === what is asked ===

#[tokio::test]
async fn it_is_told_what_was_asked_for_by_whom_and_nothing_else() {
    let service = Service::saying(YES).await;
    yes(Client::new()
        .ask(&ForwardAuth::new(), &service.config())
        .await);
    let head = service.last();
    let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "GET /oauth2/auth?strict HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", service.address);
    let mut expected = vec![
        "accept: text/html",
        "authorization: Bearer secret",
        "connection: close",
        "cookie: _proxy=secret; theme=dark",
        host.as_str(),
        "user-agent: Browser/1",
        "x-forwarded-for: 203.0.113.7",
        "x-forwarded-host: claw.example.com",
        "x-forwarded-method: POST",
        "x-forwarded-proto: https",
        "x-forwarded-uri: /chat?session=main",
        "x-original-method: POST",
        "x-original-url: https://claw.example.com/chat?session=main",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_web_socket_over_http2_is_a_get_to_it() {
    let service = Service::saying(YES).await;
    let mut client = Client::new();
    client.method = Method::CONNECT;
    yes(client.ask(&ForwardAuth::new(), &service.config()).await);
    assert!(service.last().contains("x-forwarded-method: GET\r\n"));
}

#[tokio::test]
async fn two_credentials_are_not_asked_about() {
    let service = Service::saying(YES).await;
    let mut client = Client::new();
    let other = HeaderValue::from_static("Bearer other");
    client.headers.append(header::AUTHORIZATION, other);
    let answer = client.ask(&ForwardAuth::new(), &service.config()).await;
    assert!(matches!(failure(answer), Failure::Unsayable(_)));
    assert_eq!(service.count(), 0);
}

// === what it says ===

#[tokio::test]
async fn a_yes_names_the_user_and_brings_what_was_asked_of_it() {
    let admitted = yes(asked_once(YES).await);
    assert_eq!(&*admitted.identity.user, "nick@example.com");
    let credential = &admitted.identity.credential;
    assert!(matches!(credential, Credential::Forward(_)));
    let groups = HeaderName::from_static("x-auth-request-groups");
    assert_eq!(
        admitted.headers,
        [(groups, HeaderValue::from_static("staff"))]
    );
    assert_eq!(admitted.cookies, ["_proxy=renewed"]);
}

#[tokio::test]
async fn any_other_answer_is_for_the_client_as_it_is() {
    let response = no(asked_once(
        "HTTP/1.1 302 Found\r\nlocation: https://login.example.com/?rd=%2F\r\n\
         set-cookie: _csrf=1\r\nset-cookie: _state=2\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\
         keep-alive: timeout=5\r\ncontent-length: 5\r\ncontent-type: text/html\r\n\r\nFound",
    )
    .await);
    assert_eq!(response.status(), 302);
    let said = response.headers();
    assert_eq!(said["location"], "https://login.example.com/?rd=%2F");
    let cookies: Vec<_> = said.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["_csrf=1", "_state=2"]);
    for gone in ["connection", "keep-alive", "x-hop", "content-length"] {
        assert!(!said.contains_key(gone), "{gone}");
    }
    assert_eq!(response.body(), "Found");

    let response = no(asked_once(
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"claw\"\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nwho\r\n0\r\n\r\n",
    )
    .await);
    assert_eq!(response.status(), 401);
    assert_eq!(
        response.headers()["www-authenticate"],
        "Basic realm=\"claw\""
    );
    assert_eq!(response.body(), "who");

    for status in ["403 Forbidden", "429 Slow Down", "500 Oops", "304 Same"] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let response = no(asked_once(answer).await);
        assert!(status.starts_with(response.status().as_str()), "{status}");
    }
}

#[tokio::test]
async fn a_yes_to_nobody_in_particular_lets_nobody_in() {
    let answer = asked_once("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let failure_ = failure(answer);
    assert!(
        failure_.to_string().contains("no `x-auth-request-email`"),
        "{failure_}"
    );
    for user in ["", " ", "nick example", "n\u{e9}", &"n".repeat(201)] {
        let answer = format!(
            "HTTP/1.1 202 Accepted\r\nx-auth-request-email: {user}\r\ncontent-length: 0\r\n\r\n"
        );
        let answer = asked_once(answer).await;
        assert!(matches!(failure(answer), Failure::BadUser(_)), "{user:?}");
    }
    let two = "HTTP/1.1 200 OK\r\nx-auth-request-email: a\r\nx-auth-request-email: b\r\n\
        content-length: 0\r\n\r\n";
    assert!(matches!(
        failure(asked_once(two).await),
        Failure::BadUser(_)
    ));
}

#[tokio::test]
async fn what_is_no_answer_lets_nobody_in() {
    let huge = format!(
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 70000\r\n\r\n{}",
        "x".repeat(70_000)
    );
    assert_eq!(failure(asked_once(huge).await), Failure::TooLarge);
    let head = format!(
        "HTTP/1.1 200 OK\r\nx-auth-request-email: nick\r\nx-long: {}\r\n\r\n",
        "x".repeat(1_000_000)
    );
    for broken in [
        "",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 200 OK\r\nx-auth-request-email: nick@exam",
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        &head,
    ] {
        let failure = failure(asked_once(broken).await);
        assert!(matches!(failure, Failure::Broken(_)), "{failure:?}");
    }
}

#[tokio::test]
async fn nobody_there_lets_nobody_in() {
    let service = Service::saying(YES).await;
    let config = service.config();
    drop(service);
    let forward = ForwardAuth::new();
    // Its listener goes with its task.
    loop {
        match Client::new().ask(&forward, &config).await {
            Answer::Failed(Failure::Unreachable(_)) => break,
            Answer::Failed(Failure::Broken(_)) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_slow_one_lets_nobody_in() {
    let service = Service::held(YES).await;
    let (config, forward, client) = (service.config(), ForwardAuth::new(), Client::new());
    let patience = async {
        service.is_asked().await;
        tokio::time::pause();
    };
    let (answer, ()) = tokio::join!(client.ask(&forward, &config), patience);
    assert_eq!(failure(answer), Failure::TooSlow);
    assert_eq!(forward.known.sizes(), (0, 0));
}

// === what is remembered ===

#[tokio::test]
async fn a_yes_is_believed_for_as_long_as_the_config_says() {
    let service = Service::saying(YES).await;
    let (config, forward, client) = (service.config(), ForwardAuth::new(), Client::new());
    yes(client.ask(&forward, &config).await);
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(9_900)).await;
    let admitted = yes(client.ask(&forward, &config).await);
    assert_eq!(admitted.cookies, ["_proxy=renewed"]);
    assert_eq!(service.count(), 1);
    tokio::time::advance(Duration::from_millis(200)).await;
    tokio::time::resume();
    yes(client.ask(&forward, &config).await);
    assert_eq!(service.count(), 2);
}

#[tokio::test]
async fn nothing_is_believed_where_the_config_says_so_nor_is_a_no() {
    let service = Service::saying(YES).await;
    let mut config = service.config();
    config.cache = Duration::ZERO;
    let (forward, client) = (ForwardAuth::new(), Client::new());
    for count in 1..=3 {
        yes(client.ask(&forward, &config).await);
        assert_eq!(service.count(), count);
    }
    let refusing = Service::saying("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").await;
    for count in 1..=3 {
        no(client.ask(&forward, &refusing.config()).await);
        assert_eq!(refusing.count(), count);
    }
    assert_eq!(forward.known.sizes(), (0, 0));
}

#[tokio::test]
async fn another_question_has_its_own_answer() {
    let service = Service::saying(YES).await;
    let (config, forward) = (service.config(), ForwardAuth::new());
    yes(Client::new().ask(&forward, &config).await);
    let replace = |name: HeaderName, value: &'static str| {
        move |client: &mut Client| {
            client
                .headers
                .insert(name.clone(), HeaderValue::from_static(value));
        }
    };
    let changes: [Box<Change>; 7] = [
        Box::new(replace(header::COOKIE, "_proxy=other")),
        // The parts of one value do not run into the next.
        Box::new(replace(header::AUTHORIZATION, "Bearer secretx")),
        Box::new(replace(header::ACCEPT, "application/json")),
        Box::new(|client| client.address = "203.0.113.8"),
        Box::new(|client| client.host = HeaderValue::from_static("other.example.com")),
        Box::new(|client| client.target = "/admin"),
        Box::new(|client| client.method = Method::GET),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut client = Client::new();
        change(&mut client);
        yes(client.ask(&forward, &config).await);
        assert_eq!(service.count(), index + 2, "change {index}");
    }
    let mut elsewhere = config.clone();
    elsewhere.path = "/other".to_owned();
    yes(Client::new().ask(&forward, &elsewhere).await);
    assert_eq!(service.count(), 9);
    // What the service is not told makes no difference.
    let mut client = Client::new();
    client.headers.remove(header::CONTENT_LENGTH);
    yes(client.ask(&forward, &config).await);
    assert_eq!(service.count(), 9);
}

#[tokio::test]
async fn who_asks_the_same_at_the_same_time_shares_the_answer() {
    let service = Service::held(YES).await;
    let (config, forward) = (service.config(), ForwardAuth::new());
    let (one, two, three) = (Client::new(), Client::new(), Client::new());
    let release = async {
        service.is_asked().await;
        service.go.add_permits(1);
    };
    let (a, b, c, ()) = tokio::join!(
        one.ask(&forward, &config),
        two.ask(&forward, &config),
        three.ask(&forward, &config),
        release
    );
    for answer in [a, b, c] {
        yes(answer);
    }
    assert_eq!(service.count(), 1);
    assert_eq!(forward.known.sizes(), (1, 0));
}

/// What a client is told that has to sign in: for that client alone.
const SIGN_IN: &str = "HTTP/1.1 302 Found\r\nlocation: https://login.example.com/?state=1\r\n\
     set-cookie: _csrf=NUMBER\r\ncontent-length: 0\r\n\r\n";

fn own_cookies(answers: Vec<Answer>) -> std::collections::BTreeSet<HeaderValue> {
    let cookie = |answer| no(answer).headers()["set-cookie"].clone();
    answers.into_iter().map(cookie).collect()
}

#[tokio::test]
async fn strangers_behind_one_address_share_nothing() {
    let service = Service::held(SIGN_IN).await;
    let (config, forward) = (service.config(), ForwardAuth::new());
    let mut client = Client::new();
    client.headers.remove(header::AUTHORIZATION);
    client.headers.remove(header::COOKIE);
    let mut empty = Client::new();
    empty.headers = client.headers.clone();
    let none = HeaderValue::from_static("");
    empty.headers.insert(header::COOKIE, none);
    let release = async {
        service.is_asked_often(4).await;
        service.go.add_permits(4);
    };
    let (a, b, c, d, ()) = tokio::join!(
        client.ask(&forward, &config),
        client.ask(&forward, &config),
        empty.ask(&forward, &config),
        empty.ask(&forward, &config),
        release
    );
    assert_eq!(own_cookies(vec![a, b, c, d]).len(), 4);
    // Nor is somebody who is let in without one remembered.
    let open = Service::saying(YES).await;
    for count in 1..=3 {
        yes(client.ask(&forward, &open.config()).await);
        assert_eq!(open.count(), count);
    }
    assert_eq!(forward.known.sizes(), (0, 0));
}

#[tokio::test]
async fn a_no_is_for_who_asked_and_the_others_ask_at_once() {
    let service = Service::held(SIGN_IN).await;
    let (config, forward) = (service.config(), ForwardAuth::new());
    let client = Client::new();
    let release = async {
        service.is_asked().await;
        assert_eq!(service.count(), 1);
        service.go.add_permits(1);
        // Not one after the other.
        service.is_asked_often(3).await;
        service.go.add_permits(2);
    };
    let (a, b, c, ()) = tokio::join!(
        client.ask(&forward, &config),
        client.ask(&forward, &config),
        client.ask(&forward, &config),
        release
    );
    assert_eq!(own_cookies(vec![a, b, c]).len(), 3);
    assert_eq!(service.count(), 3);
    assert_eq!(forward.known.sizes(), (0, 0));
}

#[tokio::test]
async fn who_waits_for_a_slow_one_waits_once() {
    let service = Service::held(YES).await;
    let (config, forward, client) = (service.config(), ForwardAuth::new(), Client::new());
    let patience = async {
        service.is_asked().await;
        tokio::time::pause();
    };
    let (a, b, ()) = tokio::join!(
        client.ask(&forward, &config),
        client.ask(&forward, &config),
        patience
    );
    assert_eq!([failure(a), failure(b)], [const { Failure::TooSlow }; 2]);
    assert_eq!(service.count(), 1);
}

#[tokio::test]
async fn who_goes_away_while_it_asks_leaves_the_asking_to_the_next() {
    let service = Service::held(YES).await;
    let (config, forward) = (service.config(), Arc::new(ForwardAuth::new()));
    let spawn = || {
        let (config, forward) = (config.clone(), Arc::clone(&forward));
        tokio::spawn(async move { Client::new().ask(&forward, &config).await })
    };
    let first = spawn();
    service.is_asked().await;
    let second = spawn();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    service.is_asked().await;
    service.go.add_permits(2);
    yes(second.await.unwrap());
    assert_eq!(service.count(), 2);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let service = Service::saying(YES).await;
    let (mut config, forward) = (service.config(), ForwardAuth::new());
    config.cache = Duration::from_secs(300);
    let Answer::Yes(admitted) = Client::new().ask(&forward, &config).await else {
        panic!("no yes")
    };
    for number in 0..2 * known::MOST as u64 {
        let mut key = question::Key::default();
        key[..8].copy_from_slice(&number.to_be_bytes());
        if let Looked::Ask(seat) = forward.known.look(key) {
            seat.keep(&admitted, config.cache);
        }
    }
    assert_eq!(forward.known.sizes(), (known::MOST, 0));
    // The oldest had to go.
    yes(Client::new().ask(&forward, &config).await);
    assert_eq!(service.count(), 2);
}

#[test]
fn nothing_secret_is_printed() {
    let admitted = Admitted {
        identity: Identity {
            user: "nick".into(),
            credential: Credential::Certificate(config::CertificateName::SanDns, Arc::default()),
        },
        headers: vec![(
            HeaderName::from_static("x-token"),
            HeaderValue::from_static("secret"),
        )],
        cookies: vec![HeaderValue::from_static("secret")],
    };
    let client = Client::new();
    let question = Question {
        target: "/?token=secret",
        ..client.question()
    };
    let shown = format!("{admitted:?} {question:?} {:?}", ForwardAuth::new());
    assert!(!shown.contains("secret"), "{shown}");
}
