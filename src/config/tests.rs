//! What a user of the config notices: effective values, and messages with their places.

mod agree;
pub(crate) mod broken;
mod changes;
mod dns_update;
mod explain;
mod files;
mod outside;
mod random;
mod schema;

use std::path::Path;
use std::time::Duration;

use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "GATEWAY_HOST" => Some("openclaw".to_owned()),
        "RATE" => Some("7".to_owned()),
        "PROXY" => Some("true".to_owned()),
        "WAIT" => Some("20s".to_owned()),
        _ => None,
    }
}

fn check(text: &str, overrides: &Overrides) -> Checked {
    let base = Path::new("/etc/holdline");
    Input {
        text,
        name: "holdline.toml",
        base,
        env: &env,
        overrides,
        purpose: Purpose::Config,
    }
    .check()
}

fn good(text: &str) -> Config {
    check(text, &Overrides::default()).verdict.unwrap()
}

fn warnings(text: &str) -> Vec<Problem> {
    let checked = check(text, &Overrides::default());
    checked.verdict.unwrap();
    checked.warnings
}

// === defaults ===

#[test]
fn what_acme_is_told_means() {
    let config = good(
        "[listen]\nhttps = [\"0.0.0.0:443\"]\n[tls]\ncertificate = \"acme\"\n[auth]\nstate_dir = \"/srv/state\"\n\
         [acme]\ndomains = [\"A.Example\", \"b.example www.b.example\"]\n\
         directories = [\"letsencrypt\", \"https://ca.example/dir\"]\ncontact = [\"mailto:a@b.example\"]",
    );
    let acme = config.acme.unwrap();
    assert_eq!(
        acme.certificates,
        [vec!["a.example"], vec!["b.example", "www.b.example"]]
    );
    // http-01 has no listener here, and nobody asked for it.
    assert_eq!(acme.challenges, [Challenge::TlsAlpn01]);
    assert_eq!(acme.contact, ["a@b.example"]);
    assert_eq!(acme.state_dir, Path::new("/srv/state"));
    assert_eq!(acme.directories[1].url, "https://ca.example/dir");
    assert_eq!(config.tls.certificate, CertificateSource::Acme);
}

#[test]
fn acme_behind_loopback_is_worth_a_warning() {
    let text = "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example\"]";
    let [one] = warnings(text).try_into().unwrap();
    assert!(one.what.contains("loopback"), "{one}");
}

#[test]
fn without_a_file_the_defaults_run() {
    let loaded = load(None, &Overrides::default()).unwrap();
    assert_eq!(loaded.source, Origin::Embedded);
    assert_eq!(
        loaded.config.listen.https,
        ["127.0.0.1:8443".parse().unwrap()]
    );
    assert_eq!(
        loaded.config.admin.listen,
        Some("127.0.0.1:9180".parse().unwrap())
    );
    let [route] = loaded.config.routes.as_slice() else {
        panic!("one route")
    };
    assert_eq!(
        (route.upstream.host.as_str(), route.upstream.port),
        ("127.0.0.1", 3001)
    );
    assert_eq!(
        loaded.config.tls.certificate,
        CertificateSource::Dev {
            dir: PathBuf::from("certs-dev")
        }
    );
}

// === values ===

#[test]
fn values_of_every_kind_arrive() {
    let config = good(
        r#"
        [listen]
        https = ["127.0.0.1:0", "[::1]:8443"]
        http = ["127.0.0.1:8080"]
        proxy_protocol = true
        trusted_proxies = ["10.1.2.3/8", "192.0.2.7"]
        [hold]
        max = "1m"
        buffer = "1KiB"
        resume = "reconnect"
        resume_rate = 5
        replay_requests = "never"
        [limits]
        handshakes_per_ip = "3/s"
        ping_every = "off"
        origins = ["https://A.example.net"]
        drain = "0s"
        [admin]
        listen = "off"
        [log]
        level = "warn,holdline=debug"
        format = "json"
        "#,
    );
    assert_eq!(config.listen.trusted_proxies[0].to_string(), "10.0.0.0/8");
    assert_eq!(config.listen.trusted_proxies[1].to_string(), "192.0.2.7/32");
    assert_eq!(config.hold.max, Duration::from_secs(60));
    assert_eq!(config.hold.buffer, 1024);
    assert_eq!(config.routes[0].upstream.resume, Resume::Reconnect);
    assert_eq!(config.hold.replay_requests, ReplayRequests::Never);
    assert_eq!(config.limits.handshakes_per_ip, 3);
    assert_eq!(config.limits.ping_every, None);
    assert_eq!(config.limits.origins, ["https://a.example.net"]);
    assert_eq!(config.limits.drain, Duration::ZERO);
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn the_environment_reaches_texts_numbers_and_switches() {
    let config = good(
        "[gateway]\nurl = \"http://${GATEWAY_HOST}:80\"\n[hold]\nresume_rate = \"${RATE}\"\n\
         [listen]\nproxy_protocol = \"${PROXY}\"\ntrusted_proxies = [\"::1\"]",
    );
    assert_eq!(config.routes[0].upstream.host, "openclaw");
    assert_eq!(config.hold.resume_rate, 7);
    assert!(config.listen.proxy_protocol);
}

#[test]
fn a_gateway_url_without_port_means_80_and_brackets_are_taken_off() {
    let config = good("[gateway]\nurl = \"http://[::1]\"");
    assert_eq!(
        (
            config.routes[0].upstream.host.as_str(),
            config.routes[0].upstream.port
        ),
        ("::1", 80)
    );
}

#[test]
fn a_forward_auth_service_may_be_asked_over_tls() {
    let forward = |text: &str| {
        let text = format!("[auth]\nmodes = [\"forward\"]\n[auth.forward]\n{text}");
        good(&text).auth.forward.unwrap()
    };
    let secure = forward("url = \"https://sso.example.net/auth?x\"");
    let to = (
        secure.tls,
        secure.host.as_str(),
        secure.port,
        secure.path.as_str(),
    );
    assert_eq!(to, (true, "sso.example.net", 443, "/auth?x"));
    assert_eq!(secure.recheck, Some(Duration::from_secs(60)));
    assert_eq!(secure.without_answer, Duration::from_secs(600));
    let plain = forward("url = \"http://[::1]\"\nrecheck = \"off\"\nwithout_answer = \"0s\"");
    let to = (
        plain.tls,
        plain.host.as_str(),
        plain.port,
        plain.path.as_str(),
    );
    assert_eq!(to, (false, "::1", 80, "/"));
    assert_eq!(
        (plain.recheck, plain.without_answer),
        (None, Duration::ZERO)
    );
    assert_eq!(forward("url = \"https://[::1]:9443/a\"").port, 9443);
}

#[test]
fn both_families_may_have_one_port_and_any_number_a_free_one() {
    let config =
        good("[listen]\nhttps = [\"0.0.0.0:443\", \"[::]:443\", \"[::1]:0\", \"[::1]:0\"]");
    assert_eq!(config.listen.https.len(), 4);
    good("[listen]\nhttps = [\"0.0.0.0:443\"]\n[gateway]\nurl = \"http://[::1]:443\"");
}

// === routes ===

#[test]
fn a_route_inherits_what_it_does_not_set() {
    let config = good(
        r#"
        [gateway]
        probe = "/ready"
        probe_interval = "1s"
        connect_timeout = "3s"
        loopback_clients = "refuse"
        [hold]
        resume = "off"
        [[route]]
        host = "Apps.Example.net."
        url = "http://apps:8080"
        protocol = "generic"
        resume = "splice"
        [[route]]
        path = "/ws/"
        url = "http://apps:8081"
        "#,
    );
    let [apps, ws, default] = config.routes.as_slice() else {
        panic!("three routes")
    };
    assert_eq!(
        apps.host,
        Some(HostPattern::Exact("apps.example.net".to_owned()))
    );
    assert_eq!(apps.upstream.protocol, ProtocolKind::Generic);
    assert_eq!(apps.upstream.resume, Resume::Splice);
    assert_eq!(apps.upstream.probe, Probe::Path("/ready".to_owned()));
    assert_eq!(apps.upstream.loopback_clients, LoopbackClients::Refuse);
    assert_eq!(apps.name, "Apps.Example.net.");
    assert_eq!(
        (ws.name.as_str(), ws.path.as_deref()),
        ("/ws/", Some("/ws"))
    );
    assert_eq!(ws.upstream.resume, Resume::Off);
    assert_eq!(ws.upstream.connect_timeout, Duration::from_secs(3));
    assert_eq!(
        (default.name.as_str(), &default.host, &default.path),
        ("default", &None, &None)
    );
}

#[test]
fn the_most_specific_route_comes_first_whatever_the_order_in_the_file() {
    let route = |keys: &str| format!("[[route]]\nurl = \"http://a\"\n{keys}\n");
    let config = good(
        &[
            route("path = \"/a\""),
            route("host = \"*.net\""),
            route("host = \"*.example.net\""),
            route("host = \"x.net\""),
            route("host = \"x.net\"\npath = \"/a\""),
            route("path = \"/a/b\""),
        ]
        .concat(),
    );
    let names: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "x.net/a",
            "x.net",
            "*.example.net",
            "*.net",
            "/a/b",
            "/a",
            "default"
        ]
    );
}

// === flags ===

#[test]
fn flags_win_over_the_file() {
    let overrides = Overrides {
        listen: vec!["127.0.0.1:1".parse().unwrap()],
        gateway: Some("http://gw:2".parse().unwrap()),
        admin: Some("127.0.0.1:3".parse().unwrap()),
    };
    let text = "[listen]\nhttps = [\"0.0.0.0:443\"]\n[gateway]\nurl = \"http://a:1\"";
    let checked = check(text, &overrides);
    let config = checked.verdict.unwrap();
    assert_eq!(config.listen.https, ["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(config.routes[0].upstream.host, "gw");
    assert_eq!(config.admin.listen, Some("127.0.0.1:3".parse().unwrap()));
    assert_eq!(
        checked.warnings,
        [],
        "the public listener of the file is not used"
    );
}

#[test]
fn a_contradiction_made_by_a_flag_points_at_the_flag() {
    let overrides = Overrides {
        listen: vec!["127.0.0.1:9180".parse().unwrap()],
        ..Overrides::default()
    };
    let errors = check("[admin]\nlisten = \"127.0.0.1:9180\"", &overrides)
        .verdict
        .unwrap_err();
    let text = errors.to_string();
    assert!(
        text.contains("the address is taken by listen.https (127.0.0.1:9180)"),
        "{text}"
    );
    let overrides = Overrides {
        gateway: "http://127.0.0.1:8443".parse().ok(),
        ..Overrides::default()
    };
    let text = check("", &overrides).verdict.unwrap_err().to_string();
    assert!(text.contains("--> command line, --gateway"), "{text}");
    assert!(
        text.contains("this is holdline itself (listen.https 127.0.0.1:8443)"),
        "{text}"
    );
}

// === warnings ===

#[test]
fn the_development_certificate_on_a_public_address_is_a_warning() {
    let [warning] = &warnings("[listen]\nhttps = [\"0.0.0.0:443\"]")[..] else {
        panic!("one")
    };
    assert_eq!(warning.severity, Severity::Warning);
    assert!(
        warning
            .to_string()
            .starts_with("holdline.toml:2:10: listen.https[0] = \"0.0.0.0:443\": ")
    );
    assert!(
        warning.remedy.contains("certificate = \"acme\""),
        "{warning}"
    );
}

#[test]
fn trusting_everyone_is_a_warning() {
    let found = warnings("[listen]\ntrusted_proxies = [\"0.0.0.0/0\"]");
    assert!(found[0].what.contains("everyone may claim"), "{found:?}");
}

#[test]
fn a_hold_that_ends_before_its_notice_is_a_warning() {
    let found = warnings("[hold]\nmax = \"300ms\"");
    assert!(
        found[0]
            .to_string()
            .contains("told why they wait (hold.notice_after)"),
        "{found:?}"
    );
}

#[test]
fn a_certificate_that_nobody_would_see_is_a_warning() {
    let of = |domains: &str| {
        let acme = "profile = \"shortlived\"\n[listen]\nhttps = [\"0.0.0.0:443\"]";
        warnings(&format!(
            "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [{domains}]\n{acme}"
        ))
    };
    assert_eq!(of("\"a.example\", \"192.0.2.7 2001:db8::7\""), []);
    let [one] = of("\"192.0.2.7\", \"a.example\", \"2001:db8::7\"")
        .try_into()
        .unwrap();
    assert_eq!(one.key, "acme.domains[2]");
    assert!(one.remedy.contains("in one text"), "{one}");
}
