//! `holdline gateway-config`: what it prints, and what it makes of gateways of every kind.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::task::AbortOnDropHandle;

use super::{Ended, ended, folder, run};

const NICK: &str = "nick@example.com";
const READER: &str = "reader@example.com";
/// Decided here who comes in, for a gateway on this machine.
const SIGNED_IN: &str = "[auth]\nmodes = [\"forward\"]\n\
    [auth.forward]\nurl = \"http://127.0.0.1:4180/auth\"\n";
const SIX: [&str; 6] = [
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
    "operator.pairing",
];
/// Of these a device is approved for all that is not power over others.
const FOUR: [&str; 4] = [SIX[1], SIX[2], SIX[3], SIX[4]];

/// What is said where nobody could see what the gateway has in them.
const LISTS: &str = "what gateway.trustedProxies and gateway.controlUi.allowedOrigins have already \
    was not seen, and is replaced: `openclaw config get` of each shows what to add to its command; \
    --origin https://NAME adds an origin";

async fn asked(config: &str, args: &[&str]) -> Ended {
    let folder = folder(config);
    let config = ["gateway-config", "--config", "holdline.toml"];
    ended(&folder, &[&config, args].concat()).await
}

async fn printed(config: &str, args: &[&str]) -> Value {
    let ended = asked(config, &[&["--print", "--json"], args].concat()).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    one(&ended.out)
}

/// What is said of the only gateway.
fn one(out: &str) -> Value {
    let report: Value = serde_json::from_str(out).unwrap();
    let [gateway] = &report["gateways"].as_array().unwrap()[..] else {
        panic!("{report:#}")
    };
    assert_eq!(report["ok"], gateway["ok"]);
    gateway.clone()
}

// === what is to be set ===

#[tokio::test]
async fn without_auth_the_gateway_keeps_its_own() {
    let report = printed("", &[]).await;
    let expected = json!({"gateway": {
        "trustedProxies": ["127.0.0.1", "::1"],
        "controlUi": {"allowedOrigins": ["https://localhost:8443", "https://127.0.0.1:8443"]},
    }});
    assert_eq!(report["settings"], expected);
    assert_eq!(report["checks"], Value::Null);
    assert_eq!(report["ok"], Value::Null);
    assert_eq!(
        report["commands"],
        json!([
            "openclaw config set gateway.trustedProxies '[\"127.0.0.1\",\"::1\"]' --strict-json",
            "openclaw config set gateway.controlUi.allowedOrigins \
             '[\"https://localhost:8443\",\"https://127.0.0.1:8443\"]' --strict-json",
        ])
    );
}

#[tokio::test]
async fn with_auth_the_gateway_is_to_believe_us() {
    let config = format!("{SIGNED_IN}[gateway]\nurl = \"http://localhost:3001\"\n")
        .replace("[auth]\n", "[auth]\nuser_header = \"x-forwarded-email\"\n");
    let report = printed(&config, &["--user", NICK, "--user", "o'hara@x"]).await;
    let auth = &report["settings"]["gateway"]["auth"];
    assert_eq!(
        *auth,
        json!({
            "mode": "trusted-proxy",
            "trustedProxy": {
                "userHeader": "x-forwarded-email",
                "requiredHeaders": ["x-forwarded-proto", "x-forwarded-host"],
                "allowLoopback": true,
                "deviceAutoApprove": {"enabled": true, "scopes": FOUR},
            },
            "identityScopes": {NICK: SIX, "o'hara@x": SIX},
        })
    );
    let commands = report["commands"].as_array().unwrap();
    let scopes = commands[3].as_str().unwrap();
    assert!(scopes.contains(r"o'\''hara@x"), "{scopes}");
    // Other people there, and `allowUsers`, are none of our business.
    for command in &commands[2..4] {
        assert!(
            command
                .as_str()
                .unwrap()
                .ends_with("' --strict-json --merge"),
            "{command}"
        );
    }
    let mode = "openclaw config set gateway.auth.mode '\"trusted-proxy\"' --strict-json";
    assert_eq!(*commands.last().unwrap(), mode);
    let fewer = printed(
        &config,
        &["--user", NICK, "--scopes", "operator.read,operator.write"],
    )
    .await;
    assert_eq!(
        fewer["settings"]["gateway"]["auth"]["identityScopes"],
        json!({NICK: ["operator.read", "operator.write"]})
    );
}

#[tokio::test]
async fn a_device_is_approved_for_no_more_than_its_person() {
    for (scopes, approve) in [
        (
            "operator.read",
            json!({"enabled": true, "scopes": ["operator.read"]}),
        ),
        (
            "operator.admin,operator.write,operator.pairing",
            json!({"enabled": true, "scopes": ["operator.write"]}),
        ),
        ("operator.admin,operator.pairing", json!({"enabled": false})),
    ] {
        let args = ["--user", NICK, "--scopes", scopes];
        let report = printed(SIGNED_IN, &args).await;
        let auth = &report["settings"]["gateway"]["auth"];
        assert_eq!(auth["trustedProxy"]["deviceAutoApprove"], approve);
        let command = report["commands"][2].as_str().unwrap();
        let value = format!("\"deviceAutoApprove\":{approve}");
        assert!(command.contains(&value), "{command}");
        let words = asked(SIGNED_IN, &[&["--print"], &args[..]].concat()).await;
        let note =
            "\nnote: a device keeps what it was approved for, beside its person's identityScopes";
        assert!(words.out.contains(note), "{}", words.out);
    }
    let report = printed("", &["--scopes", "operator.read"]).await;
    assert_eq!(report["notes"], json!([LISTS]), "the gateway keeps its own");
}

#[tokio::test]
async fn scopes_are_said_per_user() {
    let users = [
        "--user",
        NICK,
        "--user",
        "reader@example.com=operator.read",
        "--user",
        "CN=two=operator.write,operator.read",
    ];
    let report = printed(SIGNED_IN, &users).await;
    let auth = &report["settings"]["gateway"]["auth"];
    assert_eq!(
        auth["identityScopes"],
        json!({
            NICK: SIX,
            READER: ["operator.read"],
            "CN=two": ["operator.write", "operator.read"],
        })
    );
    let approve = &auth["trustedProxy"]["deviceAutoApprove"];
    assert_eq!(
        *approve,
        json!({"enabled": true, "scopes": ["operator.read"]}),
        "nobody gets by a device what another may"
    );
    let args = [
        &users[..],
        &["--scopes", "operator.read,operator.approvals"],
    ]
    .concat();
    let report = printed(SIGNED_IN, &args).await;
    let scopes = &report["settings"]["gateway"]["auth"]["identityScopes"];
    assert_eq!(scopes[NICK], json!(["operator.read", "operator.approvals"]));
    assert_eq!(scopes[READER], json!(["operator.read"]));
    // Somebody of the config, too.
    let config = format!(
        "[auth]\nmodes = [\"token\"]\n\
         tokens = [{{ name = \"cli\", user = \"{READER}\", hash = \"{}\" }}]\n",
        "A".repeat(43)
    );
    let report = printed(&config, &["--user", "reader@example.com=operator.read"]).await;
    let scopes = &report["settings"]["gateway"]["auth"]["identityScopes"];
    assert_eq!(*scopes, json!({READER: ["operator.read"]}));
}

#[tokio::test]
async fn what_only_the_other_side_knows_is_asked_for() {
    let config = format!(
        "{SIGNED_IN}[gateway]\nurl = \"http://gateway:3001\"\n\
         [listen]\nhttps = [\"0.0.0.0:443\", \"[::]:443\", \"198.51.100.7:8443\"]\n"
    );
    let report = printed(&config, &[]).await;
    let gateway = &report["settings"]["gateway"];
    assert_eq!(gateway["trustedProxies"], json!(["ADDRESS-OF-HOLDLINE"]));
    assert_eq!(
        gateway["auth"]["trustedProxy"]["allowLoopback"],
        Value::Null
    );
    assert_eq!(
        gateway["controlUi"]["allowedOrigins"],
        json!([
            "https://localhost",
            "https://127.0.0.1",
            "https://[::1]",
            "https://198.51.100.7:8443"
        ])
    );
    let notes = report["notes"].to_string();
    for words in [
        "ADDRESS-OF-HOLDLINE",
        "--user NAME",
        "--origin https://NAME",
    ] {
        assert!(notes.contains(words), "no {words} in {notes}");
    }
    let named = printed(&config, &["--origin", "https://Claw.example.com/"]).await;
    let origins = named["settings"]["gateway"]["controlUi"]["allowedOrigins"].clone();
    assert_eq!(origins[4], "https://claw.example.com");
    assert!(
        !named["notes"]
            .to_string()
            .contains("stands in their browsers")
    );
}

/// What stands in browsers are the certificate's names, at the ports that others get to.
#[tokio::test]
async fn the_names_of_the_certificate_are_the_origins() {
    let origins =
        |report: &Value| report["settings"]["gateway"]["controlUi"]["allowedOrigins"].clone();
    let acme = "[listen]\nhttps = [\"0.0.0.0:443\", \"[::]:443\", \"0.0.0.0:8443\"]\n\
         [tls]\ncertificate = \"acme\"\n\
         [acme]\ndomains = [\"claw.example.net\", \"a.example.org b.example.org\"]\n";
    let report = printed(acme, &[]).await;
    let names = ["claw.example.net", "a.example.org", "b.example.org"];
    let expected = names.map(|name| [format!("https://{name}"), format!("https://{name}:8443")]);
    assert_eq!(origins(&report), json!(expected.concat()));
    assert_eq!(report["notes"], json!([LISTS]), "nothing else is to say");

    // A name of another gateway is that one's affair.
    let routes = format!(
        "{acme}[[route]]\nhost = \"a.example.org\"\nurl = \"http://127.0.0.1:3002\"\n\
         [[route]]\nhost = \"*.example.net\"\nurl = \"http://127.0.0.1:3003\"\n"
    );
    let report = asked(&routes, &["--print", "--json"]).await.out;
    let report: Value = serde_json::from_str(&report).unwrap();
    let of = |gateway: &str| {
        let mut all = report["gateways"].as_array().unwrap().iter();
        origins(all.find(|one| one["gateway"] == gateway).unwrap())
    };
    for (gateway, name) in [
        ("127.0.0.1:3001", "b.example.org"),
        ("127.0.0.1:3002", "a.example.org"),
        ("127.0.0.1:3003", "claw.example.net"),
    ] {
        let expected = [format!("https://{name}"), format!("https://{name}:8443")];
        assert_eq!(of(gateway), json!(expected), "{gateway}");
    }

    let files = folder(
        "[listen]\nhttps = [\"0.0.0.0:8443\", \"127.0.0.1:9443\"]\n[tls]\ncertificate = \"files\"\n\
         files = [{ cert = \"c.pem\", key = \"k.pem\" }]\n",
    );
    let certificate = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(files.path().join("c.pem"), made.cert.pem()).unwrap();
        std::fs::write(files.path().join("k.pem"), made.signing_key.serialize_pem()).unwrap();
    };
    let config = ["gateway-config", "--config", "holdline.toml"];
    let print = [&config[..], &["--print", "--json"]].concat();
    certificate(&["claw.example.net", "*.w.example.net"]);
    let report = one(&ended(&files, &print).await.out);
    let here = ["https://localhost:9443", "https://127.0.0.1:9443"];
    assert_eq!(
        origins(&report),
        json!([&["https://claw.example.net:8443"], &here[..]].concat())
    );
    assert_eq!(report["notes"], json!([LISTS]));
    certificate(&["*.w.example.net"]);
    let report = one(&ended(&files, &print).await.out);
    assert_eq!(origins(&report), json!(here));
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("*.w.example.net of the certificate is no"),
        "{notes}"
    );
}

/// What is true of each gateway is said once.
#[tokio::test]
async fn notes_are_not_repeated() {
    let config = format!(
        "{SIGNED_IN}[[route]]\nhost = \"two.example.net\"\nurl = \"http://127.0.0.1:3002\"\n"
    );
    let told = asked(&config, &["--print", "--user", NICK]).await.out;
    assert_eq!(told.matches("OPENCLAW_GATEWAY_TOKEN").count(), 1, "{told}");
    assert_eq!(
        told.matches("\nnote, for each of them: ").count(),
        4,
        "{told}"
    );
    // Nor where it runs with that already.
    let running = Scripted::good().start().await;
    let report = running.report(SIGNED_IN, &AS_NICK).await;
    assert!(
        !report["notes"]
            .to_string()
            .contains("OPENCLAW_GATEWAY_TOKEN"),
        "{report:#}"
    );
}

#[tokio::test]
async fn wrong_words_are_a_usage_error_and_a_bad_config_a_bad_config() {
    for (args, words) in [
        (["--scopes", "operator.everything"], "operator.admin"),
        (["--user", "a=operator.reed"], "operator.admin"),
        (["--user", "a="], "operator.admin"),
        (["--user", "=operator.read"], "nobody is named"),
        (["--origin", "http://plain.example.com"], "not an origin"),
        (["--origin", "https://a.example/path"], "not an origin"),
    ] {
        let ended = run(&[&["gateway-config", "--print"], &args[..]].concat()).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(64), ""), "{args:?}");
        assert!(ended.err.contains(words), "{}", ended.err);
    }
    assert_eq!(asked("[hold]\nmaxx = 1", &["--print"]).await.code, Some(78));
    let generic = asked("[gateway]\nprotocol = \"generic\"", &["--print"]).await;
    assert_eq!(generic.code, Some(1));
    assert!(generic.err.contains("OpenClaw"), "{}", generic.err);
}

// === what is set ===

/// A gateway's settings; answers as version 2026.9.6 does, in its order.
#[derive(Clone)]
pub(super) struct Scripted {
    trusts: bool,
    /// `trustedProxies`, as its config has them.
    proxies: Vec<&'static str>,
    /// "*": any.
    origins: Vec<&'static str>,
    mode: &'static str,
    user_header: &'static str,
    required: Vec<&'static str>,
    loopback: bool,
    allowed: Option<&'static str>,
    scopes: Vec<&'static str>,
    /// `identityScopes` of the only user who has others.
    finer: (&'static str, Vec<&'static str>),
    /// `deviceAutoApprove`.
    approve: Value,
    started: bool,
}

impl Scripted {
    fn good() -> Self {
        Self {
            trusts: true,
            proxies: vec!["127.0.0.1", "::1"],
            origins: vec!["https://localhost:8443", "https://127.0.0.1:8443"],
            mode: "trusted-proxy",
            user_header: "x-forwarded-user",
            required: vec!["x-forwarded-proto", "x-forwarded-host"],
            loopback: true,
            allowed: None,
            scopes: SIX.to_vec(),
            finer: ("", Vec::new()),
            approve: json!({"enabled": true}),
            started: true,
        }
    }

    pub(super) fn token() -> Self {
        Self {
            mode: "token",
            ..Self::good()
        }
    }

    fn granted(&self, head: &Head) -> &[&'static str] {
        match head.get(self.user_header) == Some(self.finer.0) {
            true => &self.finer.1,
            false => &self.scopes,
        }
    }

    /// What a restricted person has, beside somebody who may do everything.
    pub(super) fn restricted(user: &'static str, scopes: &[&'static str]) -> Self {
        Self {
            finer: (user, scopes.to_vec()),
            approve: json!({"enabled": true, "scopes": ["operator.read"]}),
            ..Self::good()
        }
    }

    /// `authReason` of a refusal.
    fn refusal(&self, head: &Head) -> Option<String> {
        match self.mode {
            "token" => return Some("token_missing".to_owned()),
            "rate" => return Some("rate_limited".to_owned()),
            _ => {}
        }
        if !self.loopback {
            return Some("trusted_proxy_loopback_source".to_owned());
        }
        if let Some(missing) = self.required.iter().find(|name| head.get(name).is_none()) {
            return Some(format!("trusted_proxy_missing_header_{missing}"));
        }
        match (head.get(self.user_header), self.allowed) {
            (None, _) => Some("trusted_proxy_user_missing".to_owned()),
            (Some(user), Some(allowed)) if user != allowed => {
                Some("trusted_proxy_user_not_allowed".to_owned())
            }
            _ => None,
        }
    }

    fn connect(&self, head: &Head, params: &Value) -> Result<Value, Value> {
        let refuse = |code: &str, auth: Option<String>| {
            Err(json!({"code": "INVALID_REQUEST", "message": "no",
                "details": {"code": code, "authReason": auth}}))
        };
        if !self.started {
            return Err(json!({"code": "UNAVAILABLE", "retryable": true}));
        }
        let origin = head.get("origin").unwrap_or_default();
        if !self
            .origins
            .iter()
            .any(|allowed| ["*", origin].contains(allowed))
        {
            return refuse("CONTROL_UI_ORIGIN_NOT_ALLOWED", None);
        }
        let device = params["device"].is_object();
        match self.refusal(head) {
            None if device => refuse("PAIRING_REQUIRED", None),
            None if self.mode == "none" => refuse("CONTROL_UI_DEVICE_IDENTITY_REQUIRED", None),
            None => Ok(json!({"type": "hello-ok",
                "auth": {"method": "trusted-proxy", "scopes": self.granted(head)}})),
            Some(_) if !device => refuse("CONTROL_UI_DEVICE_IDENTITY_REQUIRED", None),
            Some(reason) if reason == "token_missing" => refuse("AUTH_TOKEN_MISSING", Some(reason)),
            Some(reason) if reason == "rate_limited" => refuse("AUTH_RATE_LIMITED", Some(reason)),
            Some(reason) => refuse("AUTH_UNAUTHORIZED", Some(reason)),
        }
    }

    pub(super) fn of_any_origin(self) -> Self {
        Self {
            origins: vec!["*"],
            ..self
        }
    }

    pub(super) fn of_origin(self, origin: &'static str) -> Self {
        Self {
            origins: vec![origin],
            ..self
        }
    }

    pub(super) async fn start(self) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connects = Arc::<Mutex<Vec<Value>>>::default();
        let seen = Arc::clone(&connects);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(self.clone(), stream, Arc::clone(&seen)));
            }
        });
        Running {
            address,
            connects,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    /// What every `connect` said.
    connects: Arc<Mutex<Vec<Value>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Running {
    async fn report(&self, config: &str, args: &[&str]) -> Value {
        let url = format!("http://{}", self.address);
        let args = [&["--json", "--gateway", &url][..], args].concat();
        let ended = asked(config, &args).await;
        let report = one(&ended.out);
        assert_eq!(report["ok"], json!(ended.code == Some(0)));
        report
    }

    /// The findings as `verdict setting: seen`, those with a remedy with `-> remedy`; exit code.
    async fn check(&self, config: &str, args: &[&str]) -> (Vec<String>, Option<i32>) {
        let report = self.report(config, args).await;
        let lines = report["checks"].as_array().unwrap().iter().map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            let setting = text("setting");
            let setting = setting.rsplit('.').next().unwrap();
            let line = format!("{} {setting}: {}", text("verdict"), text("seen"));
            match text("remedy").as_str() {
                "" => line,
                remedy => format!("{line} -> {remedy}"),
            }
        });
        (lines.collect(), Some(i32::from(report["ok"] != true)))
    }
}

struct Head(String);

impl Head {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

async fn serve(gateway: Scripted, mut stream: TcpStream, seen: Arc<Mutex<Vec<Value>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = Head(String::from_utf8(head).unwrap());
    let path = head.0.split(' ').nth(1).unwrap().to_owned();
    let forwarded = head.0.to_ascii_lowercase().contains("\r\nx-forwarded-");
    let (status, body) = match path.as_str() {
        "/health" => ("200 OK", json!({"ok": true, "status": "live"})),
        _ if forwarded && !gateway.trusts => {
            let error = json!({"error": {"type": "proxy_attribution_required"}});
            ("403 Forbidden", error)
        }
        "/startupz" if gateway.started => ("200 OK", json!({"ok": true, "status": "started"})),
        "/startupz" => ("503 No", json!({"ok": false, "status": "starting"})),
        "/control-ui-config.json" if gateway.mode == "none" => ("200 OK", json!({})),
        "/control-ui-config.json" => ("401 Unauthorized", json!({"error": {}})),
        _ => return talk(gateway, stream, &head, seen).await,
    };
    let body = body.to_string();
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await;
}

async fn talk(gateway: Scripted, mut stream: TcpStream, head: &Head, seen: Arc<Mutex<Vec<Value>>>) {
    let accept = derive_accept_key(head.get("sec-websocket-key").unwrap().as_bytes());
    let switching = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(switching.as_bytes()).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let say = |value: Value| Message::text(value.to_string());
    let challenge = json!({"type": "event", "event": "connect.challenge",
        "payload": {"nonce": "n-1", "ts": 1_795_290_202_130_u64}});
    socket.send(say(challenge)).await.unwrap();
    // A ping and another event may come before the answer.
    socket.send(Message::Ping(Vec::new().into())).await.unwrap();
    socket
        .send(say(json!({"type": "event", "event": "tick"})))
        .await
        .unwrap();
    let Some(Ok(Message::Text(text))) = socket.next().await else {
        return;
    };
    let request: Value = serde_json::from_str(&text).unwrap();
    seen.lock().unwrap().push(request["params"].clone());
    let connected = gateway.connect(head, &request["params"]);
    let welcome = connected.is_ok();
    let answer = |request: &Value, answer: Result<Value, Value>| match answer {
        Ok(what) => json!({"type": "res", "id": request["id"], "ok": true, "payload": what}),
        Err(error) => json!({"type": "res", "id": request["id"], "ok": false, "error": error}),
    };
    let _ = socket.send(say(answer(&request, connected))).await;
    if welcome && let Some(Ok(Message::Text(text))) = socket.next().await {
        let request: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(request["method"], "config.get", "a method that only reads");
        let may_read = |scope: &&str| ["operator.read", "operator.admin"].contains(scope);
        let config = match gateway.granted(head).iter().any(may_read) {
            true => Ok(json!({"valid": true, "config": {"gateway": {
                "trustedProxies": gateway.proxies,
                "controlUi": {"allowedOrigins": gateway.origins},
                "auth": {"token": "__REDACTED__",
                    "trustedProxy": {"deviceAutoApprove": gateway.approve}}}}})),
            false => Err(json!({"code": "FORBIDDEN", "details": {"code": "MISSING_SCOPE"}})),
        };
        let _ = socket.send(say(answer(&request, config))).await;
    }
    let _ = socket.close(None).await;
}

const AS_NICK: [&str; 2] = ["--user", NICK];

#[tokio::test]
async fn a_gateway_that_is_set_up_is_found_so_and_nothing_is_left_there() {
    let gateway = Scripted::good().start().await;
    let (findings, code) = gateway.check(SIGNED_IN, &AS_NICK).await;
    assert_eq!(
        findings,
        [
            "ok gateway: it answers",
            "ok trustedProxies: it takes the forwarding headers of a remote client from us",
            "ok allowedOrigins: https://localhost:8443 is allowed",
            "ok allowedOrigins: https://127.0.0.1:8443 is allowed",
            "ok mode: trusted-proxy",
            "ok userHeader: it reads x-forwarded-user",
            "ok allowLoopback: it believes us over loopback",
            &format!("ok identityScopes: {NICK}: {}", SIX.join(", ")),
            "ok requiredHeaders: x-forwarded-proto is required",
            "ok requiredHeaders: x-forwarded-host is required",
            "ok deviceAutoApprove: devices get operator.read, operator.write, \
             operator.approvals, operator.questions",
        ]
    );
    assert_eq!(code, Some(0));
    let connects = gateway.connects.lock().unwrap();
    assert!(
        connects.iter().all(|params| params["device"].is_null()),
        "a device would have been paired"
    );
    assert_eq!(connects[0]["client"]["id"], "openclaw-control-ui");
}

#[tokio::test]
async fn each_wrong_setting_is_named_with_what_to_do() {
    let good = Scripted::good;
    let cases = [
        (
            Scripted {
                trusts: false,
                ..good()
            },
            "wrong trustedProxies: it refuses requests with forwarding headers \
             (proxy_attribution_required) -> add the address that holdline has for it; from here \
             that is 127.0.0.1",
        ),
        (
            Scripted {
                origins: vec!["https://127.0.0.1:8443"],
                ..good()
            },
            "wrong allowedOrigins: pages of https://localhost:8443 are refused -> add \
             \"https://localhost:8443\"",
        ),
        (
            Scripted::token(),
            "wrong mode: it answers AUTH_TOKEN_MISSING (token_missing) -> set it to \
             \"trusted-proxy\"",
        ),
        (
            Scripted {
                loopback: false,
                ..good()
            },
            "wrong allowLoopback: it believes nobody on its own machine -> set it to true",
        ),
        (
            Scripted {
                user_header: "x-user",
                ..good()
            },
            "wrong userHeader: it does not read x-forwarded-user -> set it to \"x-forwarded-user\"",
        ),
        (
            Scripted {
                required: vec!["x-other"],
                ..good()
            },
            "wrong requiredHeaders: it wants x-other, which holdline does not send -> set it to \
             [\"x-forwarded-proto\", \"x-forwarded-host\"]",
        ),
        (
            Scripted {
                required: vec!["x-forwarded-proto"],
                ..good()
            },
            "wrong requiredHeaders: it lets nick@example.com in without x-forwarded-host -> add \
             \"x-forwarded-host\"",
        ),
        (
            Scripted {
                allowed: Some("someone@else"),
                ..good()
            },
            "wrong allowUsers: nick@example.com is refused -> add \"nick@example.com\", or unset it",
        ),
        (
            Scripted {
                scopes: Vec::new(),
                ..good()
            },
            "wrong identityScopes: nick@example.com: nothing; they may come in, and do nothing -> \
             say what they may do; for everything: openclaw config set gateway.auth.identityScopes \
             '{\"nick@example.com\":[\"operator.admin\",\"operator.read\",\"operator.write\",\
             \"operator.approvals\",\"operator.questions\",\"operator.pairing\"]}' --strict-json --merge",
        ),
        (
            Scripted {
                approve: json!({"enabled": false}),
                ..good()
            },
            "wrong deviceAutoApprove: a new browser has to be approved by hand -> set enabled to true",
        ),
        (
            Scripted {
                approve: json!({"enabled": true, "scopes": ["operator.read", "operator.admin"]}),
                ..good()
            },
            "wrong deviceAutoApprove: whoever signs in gets operator.read, operator.admin for a \
             device -> set scopes to operator.read, operator.write, operator.approvals, \
             operator.questions",
        ),
    ];
    for (gateway, expected) in cases {
        let gateway = gateway.start().await;
        let (findings, code) = gateway.check(SIGNED_IN, &AS_NICK).await;
        let wrong: Vec<_> = findings
            .iter()
            .filter(|line| line.starts_with("wrong"))
            .collect();
        assert_eq!(wrong, [expected]);
        assert_eq!(code, Some(1));
    }
}

#[tokio::test]
async fn what_nobody_may_read_cannot_be_told() {
    let gateway = Scripted {
        scopes: Vec::new(),
        ..Scripted::good()
    };
    let (findings, _) = gateway.start().await.check(SIGNED_IN, &AS_NICK).await;
    assert_eq!(
        *findings.last().unwrap(),
        "cannot_tell deviceAutoApprove: nick@example.com may not read the gateway's config \
         (MISSING_SCOPE) -> see that enabled is true, and scopes are operator.read, \
         operator.write, operator.approvals, operator.questions: openclaw config get \
         gateway.auth.trustedProxy.deviceAutoApprove"
    );
}

#[tokio::test]
async fn every_gateway_of_a_route_is_looked_at() {
    let (one, two) = (
        Scripted::good().start().await,
        Scripted::token().start().await,
    );
    let config = format!(
        "[listen]\nhttps = [\"127.0.0.1:8443\"]\n[gateway]\nurl = \"http://{0}\"\n\
         [[route]]\nhost = \"two.example.net\"\nurl = \"http://{1}\"\n\
         [[route]]\npath = \"/same\"\nurl = \"http://{0}\"\n\
         [[route]]\nhost = \"*.app.example.net\"\nurl = \"http://127.0.0.1:9\"\nprotocol = \"generic\"\n",
        one.address, two.address
    );
    let ended = asked(&config, &["--json"]).await;
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    let [first, second] = &report["gateways"].as_array().unwrap()[..] else {
        panic!("{report:#}")
    };
    assert_eq!(first["gateway"], json!(one.address.to_string()));
    assert_eq!(first["routes"], json!(["default", "/same"]));
    assert_eq!(second["gateway"], json!(two.address.to_string()));
    let origins = &second["settings"]["gateway"]["controlUi"]["allowedOrigins"];
    assert_eq!(*origins, json!(["https://two.example.net:8443"]));
    assert!(
        second["checks"]
            .to_string()
            .contains("pages of https://two.example.net:8443 are refused")
    );
    assert_eq!((ended.code, &report["ok"]), (Some(1), &json!(false)));
}

/// The command that sets the scopes of people, without its beginning and end.
fn scopes_command(gateway: &Value) -> Option<Value> {
    let commands = gateway["commands"].as_array().unwrap().iter();
    let mut commands = commands.map(|command| command.as_str().unwrap());
    let of = "openclaw config set gateway.auth.identityScopes '";
    let value = commands.find_map(|command| command.strip_prefix(of))?;
    let value = value.strip_suffix("' --strict-json --merge").unwrap();
    Some(serde_json::from_str(value).unwrap())
}

const BOTH: [&str; 4] = ["--user", NICK, "--user", READER];

#[tokio::test]
async fn a_restricted_person_stays_so() {
    let gateway = Scripted::restricted(READER, &["operator.read"])
        .start()
        .await;
    let (findings, code) = gateway.check(SIGNED_IN, &BOTH).await;
    let of_scopes = |line: &&String| line.contains("identityScopes");
    assert_eq!(
        findings.iter().filter(of_scopes).collect::<Vec<_>>(),
        [
            &format!("ok identityScopes: {NICK}: {}", SIX.join(", ")),
            "ok identityScopes: reader@example.com: operator.read",
        ]
    );
    assert_eq!(code, Some(0), "{findings:#?}");
    let report = gateway.report(SIGNED_IN, &BOTH).await;
    assert_eq!(scopes_command(&report), None, "all of it is there");
    let auth = &report["settings"]["gateway"]["auth"];
    assert_eq!(
        auth["identityScopes"],
        json!({NICK: SIX, READER: ["operator.read"]})
    );
    assert!(!report["commands"].to_string().contains("deviceAutoApprove"));
    assert!(!report["notes"].to_string().contains("overwritten"));

    // Another, who has nothing, needs a command for them only.
    let args = [&BOTH[..], &["--user", "new@example.com"]].concat();
    let mut nothing = Scripted::restricted("new@example.com", &[]);
    nothing.scopes = vec!["operator.read", "operator.write"];
    let report = nothing.start().await.report(SIGNED_IN, &args).await;
    assert_eq!(
        scopes_command(&report),
        Some(json!({"new@example.com": SIX}))
    );
    assert_eq!(report["ok"], false);
}

/// More may come in than are looked at, and some are refused before it is seen what they may do.
#[tokio::test]
async fn who_was_not_looked_at_gets_nothing_more() {
    let others: Vec<String> = (0..70).map(|each| format!("{each}@example.com")).collect();
    let others = others.iter().map(String::as_str);
    let all = [NICK].into_iter().chain(others).chain([READER]);
    let args: Vec<&str> = all.flat_map(|user| ["--user", user]).collect();
    let many = Scripted::restricted(READER, &["operator.read"]);
    let mut few = Scripted::restricted(READER, &["operator.read"]);
    few.allowed = Some(NICK);
    for (gateway, args) in [(many, &args[..]), (few, &BOTH)] {
        let report = gateway.start().await.report(SIGNED_IN, args).await;
        let settings = &report["settings"]["gateway"]["auth"]["identityScopes"];
        assert_eq!(
            (&settings[READER], &settings[NICK]),
            (&Value::Null, &json!(SIX))
        );
        assert_eq!(scopes_command(&report), None, "{}", report["commands"]);
        let notes = report["notes"].to_string();
        let alone = format!("{READER} was not seen, and is not in these settings");
        assert!(notes.contains(&alone), "{notes}");
        assert!(!notes.contains("is overwritten"), "{notes}");
    }
}

#[tokio::test]
async fn what_is_overwritten_is_said() {
    let gateway = Scripted::restricted(READER, &["operator.read"])
        .start()
        .await;
    let args = [
        "--user",
        NICK,
        "--user",
        "reader@example.com=operator.write",
    ];
    let report = gateway.report(SIGNED_IN, &args).await;
    assert_eq!(
        scopes_command(&report),
        Some(json!({READER: ["operator.write"]}))
    );
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("what the gateway grants reader@example.com is overwritten: operator.read"),
        "{notes}"
    );
    assert!(
        report["checks"]
            .to_string()
            .contains("add operator.write for reader@example.com; remove operator.read for reader")
    );

    let report = printed(SIGNED_IN, &BOTH).await;
    let notes = report["notes"].to_string();
    let unseen = "what the gateway grants nick@example.com, reader@example.com already was not \
         seen, and is overwritten: ";
    assert!(notes.contains(unseen), "{notes}");
}

/// A list can only be set as a whole.
#[tokio::test]
async fn what_a_gateway_has_in_its_lists_stays_there() {
    let mut gateway = Scripted::good();
    gateway.proxies = vec!["10.0.0.5", "127.0.0.1"];
    gateway.origins = vec!["https://gateway.example.net", "https://localhost:8443"];
    // Who may not read is asked last.
    let mut restricted = gateway.clone();
    restricted.finer = (READER, Vec::new());
    for (gateway, args) in [(gateway, &AS_NICK[..]), (restricted, &BOTH)] {
        let report = gateway.start().await.report(SIGNED_IN, args).await;
        let settings = &report["settings"]["gateway"];
        assert_eq!(
            settings["controlUi"]["allowedOrigins"],
            json!([
                "https://gateway.example.net",
                "https://localhost:8443",
                "https://127.0.0.1:8443"
            ])
        );
        assert_eq!(
            settings["trustedProxies"],
            json!(["10.0.0.5", "127.0.0.1", "::1"])
        );
        let commands = report["commands"].to_string();
        for kept in ["10.0.0.5", "https://gateway.example.net"] {
            assert!(commands.contains(kept), "{commands}");
        }
        assert!(!report["notes"].to_string().contains(LISTS), "{report:#}");
    }
    // Where nobody can be asked, it is said: the gateway decides itself, or lets no page of ours in.
    let mut elsewhere = Scripted::good();
    elsewhere.origins = vec!["https://gateway.example.net"];
    for (gateway, config) in [(Scripted::token(), ""), (elsewhere, SIGNED_IN)] {
        let gateway = gateway.start().await;
        let report = gateway.report(config, &[]).await;
        assert!(report["notes"].to_string().contains(LISTS), "{report:#}");
    }
}

/// The true reason, and not one that has been met.
#[tokio::test]
async fn why_something_is_overwritten_unseen_is_said() {
    let mut elsewhere = Scripted::good();
    elsewhere.origins = vec!["https://gateway.example.net"];
    let mut late = Scripted::good();
    late.started = false;
    for (gateway, why) in [
        (
            Scripted::token(),
            "the gateway is not in trusted-proxy mode yet; `openclaw config get \
             gateway.auth.identityScopes` shows it, and --user NAME=SCOPE,SCOPE says it",
        ),
        (
            elsewhere,
            "gateway.auth: what comes after an allowed origin was not looked at; ",
        ),
        (late, "gateway: it is starting; "),
    ] {
        let report = gateway.start().await.report(SIGNED_IN, &AS_NICK).await;
        let notes = report["notes"].to_string();
        let note = format!("{NICK} already was not seen, and is overwritten: {why}");
        assert!(notes.contains(&note), "no {note} in {notes}");
        assert!(!notes.contains("without --print"), "{notes}");
    }
    let notes = printed(SIGNED_IN, &AS_NICK).await["notes"].to_string();
    assert!(
        notes.contains(
            "is overwritten: with the gateway running and without --print it is kept, and"
        ),
        "{notes}"
    );
}

#[tokio::test]
async fn who_administers_limits_no_device() {
    let mut gateway = Scripted::good();
    gateway.scopes = vec!["operator.admin"];
    let (findings, code) = gateway.start().await.check(SIGNED_IN, &AS_NICK).await;
    assert!(
        findings
            .last()
            .unwrap()
            .starts_with("ok deviceAutoApprove: "),
        "{findings:#?}"
    );
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_device_that_gets_more_than_somebody_may_is_found() {
    let mut gateway = Scripted::restricted(READER, &["operator.read"]);
    gateway.approve = json!({"enabled": true});
    let gateway = gateway.start().await;
    let (findings, _) = gateway.check(SIGNED_IN, &BOTH).await;
    assert!(
        findings
            .last()
            .unwrap()
            .starts_with("wrong deviceAutoApprove: ")
            && findings
                .last()
                .unwrap()
                .ends_with("-> set scopes to operator.read"),
        "{findings:#?}"
    );
}

#[tokio::test]
async fn more_than_was_asked_for_is_wrong_as_well() {
    let gateway = Scripted::good().start().await;
    let args = [&AS_NICK[..], &["--scopes", "operator.read,operator.write"]].concat();
    let (findings, code) = gateway.check(SIGNED_IN, &args).await;
    let wanted = "-> remove operator.admin, operator.approvals, operator.questions, \
         operator.pairing for nick@example.com";
    assert!(
        findings.iter().any(|line| line.ends_with(wanted)),
        "{findings:#?}"
    );
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn without_auth_the_gateways_own_way_is_looked_at() {
    let gateway = Scripted::token().start().await;
    let (findings, code) = gateway.check("", &[]).await;
    assert_eq!(findings.last().unwrap(), "ok mode: token");
    assert_eq!((findings.len(), code), (5, Some(0)));
    let signed = gateway.connects.lock().unwrap().last().unwrap()["device"].clone();
    assert_eq!(signed["nonce"], "n-1");
    assert_eq!(signed["id"].as_str().unwrap().len(), 64);

    let gateway = Scripted::good().start().await;
    let (findings, code) = gateway.check("", &[]).await;
    assert_eq!(
        findings.last().unwrap(),
        "wrong mode: trusted-proxy, but holdline names nobody while [auth] is off -> set [auth] \
         modes here, or \"token\" there"
    );
    assert_eq!(code, Some(1));

    let open = Scripted {
        mode: "none",
        ..Scripted::good()
    };
    let gateway = open.start().await;
    for (config, remedy) in [
        (
            "",
            "set it to \"token\" or \"password\", or set [auth] modes",
        ),
        (SIGNED_IN, "set it to \"trusted-proxy\""),
    ] {
        let (findings, code) = gateway.check(config, &[]).await;
        let wrong = format!("wrong mode: it lets anybody in -> {remedy}");
        assert!(findings.contains(&wrong), "{findings:#?}");
        assert_eq!(code, Some(1));
    }
    let connects = gateway.connects.lock().unwrap();
    assert!(connects.iter().all(|params| params["device"].is_null()));
}

#[tokio::test]
async fn a_gateway_that_has_had_enough_is_left_alone() {
    let limited = Scripted {
        mode: "rate",
        ..Scripted::good()
    };
    let gateway = limited.start().await;
    let args = [&AS_NICK[..], &["--user", "another@example.com"]].concat();
    let (findings, _) = gateway.check(SIGNED_IN, &args).await;
    assert_eq!(
        *findings.last().unwrap(),
        "cannot_tell mode: it answers AUTH_RATE_LIMITED (rate_limited) -> try again in some minutes"
    );
    let connects = gateway.connects.lock().unwrap();
    let failed = connects
        .iter()
        .filter(|params| params["device"].is_object());
    assert_eq!(failed.count(), 1);
}

#[tokio::test]
async fn a_gateway_that_cannot_be_seen_is_no_success() {
    let starting = Scripted {
        started: false,
        ..Scripted::good()
    };
    let gateway = starting.start().await;
    let (findings, code) = gateway.check(SIGNED_IN, &AS_NICK).await;
    assert_eq!(
        findings,
        ["cannot_tell gateway: it is starting -> try again when it has started"]
    );
    assert_eq!(code, Some(1));

    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", reserved.local_addr().unwrap());
    let ended = asked("", &["--gateway", &url]).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(1), ""));
    assert!(
        ended.out.contains("wrong: gateway: cannot connect: ")
            && ended
                .out
                .contains("\n  -> start the gateway, or correct [gateway] url"),
        "{}",
        ended.out
    );
    assert!(
        ended
            .out
            .contains("openclaw config set gateway.trustedProxies")
    );
}
