//! DNS-01 by dynamic updates: Pebble looks at a name server that holdline has written to.

use crate::kit::Proxy;
use crate::kit::gateway::ScriptedGateway;
use crate::name_server::{ANOTHERS, Kind, NameServer, SECRET, program};
use crate::pebble::{Options, Pebble};
use crate::served::{is_trusted, until_failed, until_trusted};

async fn both(kind: Kind) -> (NameServer, Pebble) {
    let server = NameServer::start(kind).await;
    let options = Options {
        resolver: Some(server.port),
        ..Options::default()
    };
    (server, Pebble::start(options).await)
}

async fn issues(kind: Kind) {
    let (server, pebble) = both(kind).await;
    let (state, gateway) = (tempfile::tempdir().unwrap(), ScriptedGateway::start().await);
    // Two values at one name, and one where a CNAME leads to.
    let acme = server.settings("*.example.net example.net alias.example.net");
    // Where nobody else can be asked, the server that has the record is enough.
    let acme = match kind {
        Kind::Bind => acme,
        Kind::Knot => acme.replace("dns_resolvers", "# dns_resolvers"),
    };
    let proxy = Proxy::with(&gateway, &pebble.settings(state.path(), &acme)).await;
    let root = pebble.root().await;
    until_trusted(&proxy, "x.example.net", &root).await;
    for name in ["example.net", "alias.example.net"] {
        assert!(is_trusted(proxy.addr(), name, &root).await, "{name}");
    }
    assert_eq!(
        server.texts("_acme-challenge.example.net").await,
        [ANOTHERS]
    );
    assert!(
        server
            .texts("_acme-challenge.alias.example.net")
            .await
            .is_empty()
    );
}

#[tokio::test]
#[ignore = "needs Pebble, BIND and Knot"]
async fn bind_is_written_to_as_the_documentation_says() {
    issues(Kind::Bind).await;
}

#[tokio::test]
#[ignore = "needs Pebble, BIND and Knot"]
async fn knot_is_written_to() {
    issues(Kind::Knot).await;
}

async fn refuses(kind: Kind) {
    let (server, pebble) = both(kind).await;
    let gateway = ScriptedGateway::start().await;
    let other = SECRET.replace("mONS", "AAAA");
    let of = |name: &str| server.settings(name);
    for (name, acme, words) in [
        (
            "other.example.net",
            of("other.example.net"),
            [
                "in the zone example.net with the key holdline",
                "allow it there",
            ],
        ),
        (
            "a.elsewhere.test",
            of("a.elsewhere.test"),
            [
                "does not hold the zone that _acme-challenge.a.elsewhere.test is in",
                "primary",
            ],
        ),
        (
            "example.net",
            of("example.net").replace("\"holdline\"", "\"nobody\""),
            ["the key nobody with hmac-sha256 (BADKEY)", "tsig_name"],
        ),
        (
            "example.net",
            of("example.net").replace(
                "[acme.dns_update]",
                "[acme.dns_update]\ntsig_algorithm = \"hmac-sha512\"",
            ),
            ["hmac-sha512 (BADKEY)", "tsig_algorithm"],
        ),
        (
            "example.net",
            of("example.net").replace(SECRET, &other),
            ["BADSIG", "tsig_secret"],
        ),
        (
            "example.net",
            of("example.net").replace("[acme.dns_update]", "[acme.dns_update]\nzone = \"net\""),
            [
                "no zone net that the key holdline may change (NOTAUTH)",
                "check server and zone",
            ],
        ),
    ] {
        let state = tempfile::tempdir().unwrap();
        let proxy = Proxy::with(&gateway, &pebble.settings(state.path(), &acme)).await;
        let said = until_failed(&proxy, name).await;
        let server = format!("{name}: the name server 127.0.0.1:{}: ", server.port);
        assert!(said.starts_with(&server), "{said}");
        for word in words {
            assert!(said.contains(word), "{kind:?}: no {word:?} in: {said}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Pebble, BIND and Knot"]
async fn what_bind_refuses_is_told_with_what_to_do() {
    refuses(Kind::Bind).await;
}

#[tokio::test]
#[ignore = "needs Pebble, BIND and Knot"]
async fn what_knot_refuses_is_told_with_what_to_do() {
    refuses(Kind::Knot).await;
}

/// `docs/dns-hook` does the same.
#[tokio::test]
#[ignore = "needs Pebble, BIND and nsupdate"]
async fn the_hook_of_the_documentation_writes_by_nsupdate() {
    let (server, pebble) = both(Kind::Bind).await;
    let (state, gateway) = (tempfile::tempdir().unwrap(), ScriptedGateway::start().await);
    let key = state.path().join("tsig.key");
    let written = format!("key \"holdline\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n");
    std::fs::write(&key, written).unwrap();
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dns-hook");
    let mut command = vec![
        "env".to_owned(),
        format!("SERVER=127.0.0.1 {}", server.port),
        format!("KEY_FILE={}", key.display()),
    ];
    let nsupdate = program("nsupdate", &[]);
    for (name, value) in nsupdate.as_std().get_envs() {
        let value = value.unwrap().to_str().unwrap();
        command.push(format!("{}={value}", name.to_str().unwrap()));
    }
    command.extend(["sh".to_owned(), hook.to_owned()]);
    let acme = format!(
        "domains = [\"*.example.net example.net\"]\nchallenges = [\"dns-01\"]\ndns_hook = {command:?}\n\
         dns_resolvers = [\"127.0.0.1:{}\"]\ndns_timeout = \"20s\"",
        server.port
    );
    let proxy = Proxy::with(&gateway, &pebble.settings(state.path(), &acme)).await;
    until_trusted(&proxy, "x.example.net", &pebble.root().await).await;
    assert_eq!(
        server.texts("_acme-challenge.example.net").await,
        [ANOTHERS]
    );
}
