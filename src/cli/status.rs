//! `holdline status`: how the gateways, the sessions and the certificates of a running holdline are.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use holdline::hint;
use holdline::observe::log::colors_wanted;
use holdline::observe::status::{
    AcmeStatus, CertificateStatus, GatewayStatus, SessionCounts, Status,
};
use holdline::observe::{AdminClient, AdminError};
use serde_json::{Value, json};

use super::admin::{block_on, print};
use super::predecessor;
use super::words::{Tone, count, duration, printable, size, toned};
use super::{Settings, fail};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Look again every second until Ctrl-C; in a pipe a line per change
    #[arg(long)]
    watch: bool,
    /// Print it as JSON, as the admin listener says it
    #[arg(long)]
    json: bool,
}

const EVERY: Duration = Duration::from_secs(1);
/// A certificate that ends sooner is shown as odd.
const SOON_MS: u64 = 14 * 24 * 3600 * 1000;

pub(crate) fn run(settings: &Settings, asked: &StatusArgs) -> ExitCode {
    let client = match settings.running() {
        Ok(client) => client,
        Err(refused) => return refused,
    };
    block_on(async {
        match asked.watch {
            false => once(&client, asked.json).await,
            true => tokio::select! {
                ended = watch(&client, asked.json) => ended,
                _ = tokio::signal::ctrl_c() => ExitCode::SUCCESS,
            },
        }
    })
}

async fn once(client: &AdminClient, json: bool) -> ExitCode {
    let (said, status) = match asked(client).await {
        Ok(answer) => answer,
        Err(error) => return fail("no status", &error),
    };
    let text = match json {
        true => format!("{said:#}\n"),
        false => in_words(&status, colors(), now()),
    };
    print(&text).map_or_else(|gone| gone, |()| ExitCode::SUCCESS)
}

/// Until nobody reads it any more.
async fn watch(client: &AdminClient, json: bool) -> ExitCode {
    let redraws = !json && io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        ticks.tick().await;
        let asked = asked(client).await;
        let told = match redraws {
            true => print(&redrawn(client, &asked)),
            false => {
                let change = change(&asked, json);
                match change == last {
                    true => Ok(()),
                    false => {
                        last.clone_from(&change);
                        print(&dated(&change, json, &asked))
                    }
                }
            }
        };
        if let Err(gone) = told {
            return gone;
        }
    }
}

type Answer = Result<(Value, Status), AdminError>;

/// What it says, with a predecessor only if that still lives.
async fn asked(client: &AdminClient) -> Answer {
    let (said, mut status) = client.status().await?;
    if predecessor::living(&status).is_none() {
        status.process.predecessor = None;
    }
    Ok((said, status))
}

/// From the top left corner, over what was there.
fn redrawn(client: &AdminClient, asked: &Answer) -> String {
    let text = match asked {
        Ok((_, status)) => in_words(status, colors(), now()),
        Err(_) => unreachable_words(client, colors()),
    };
    let lines = text.lines().map(|line| format!("{line}\x1b[K\n"));
    format!("\x1b[H{}\x1b[J", lines.collect::<String>())
}

fn unreachable_words(client: &AdminClient, colors: bool) -> String {
    let word = toned("not reachable", Tone::Bad, colors);
    format!("holdline at {}: {word}; looking on\n", client.address())
}

/// What has to differ for another line: no time in it.
fn change(asked: &Answer, json: bool) -> String {
    match (asked, json) {
        (Err(error), _) => match error {
            AdminError::Nobody { .. } => "not reachable".to_owned(),
            other => format!("not reachable: {other}"),
        },
        (Ok((_, status)), _) => summary(status),
    }
}

fn dated(change: &str, json: bool, asked: &Answer) -> String {
    match (json, asked) {
        (true, Ok((said, _))) => format!("{said}\n"),
        (true, Err(error)) => format!("{}\n", json!({"error": error.to_string()})),
        (false, _) => format!("{} {change}\n", clock(now())),
    }
}

fn summary(status: &Status) -> String {
    let mut parts: Vec<String> = status
        .gateways
        .iter()
        .map(|gateway| {
            let crash = gateway
                .crash_loop
                .map(|_| " (crash loop)")
                .unwrap_or_default();
            let reason = gateway
                .reason
                .as_deref()
                .map(|reason| format!(" ({})", printable(reason)));
            let (route, state) = (printable(&gateway.route), printable(&gateway.state));
            format!("{route} {state}{}{crash}", reason.unwrap_or_default())
        })
        .collect();
    parts.push(sessions_in_words(&status.sessions));
    if status.draining {
        parts.push("draining".to_owned());
    }
    if let Some((_, refused)) = status.refused() {
        parts.push(format!("reload refused: {}", printable(&refused.why)));
    }
    for acme in &status.acme {
        let names = printable(&acme.names.join(", "));
        if acme.state == "awaited" {
            parts.push(format!("certificate for {names} awaited"));
        }
        if let Some(error) = &acme.last_error {
            let reason = first_line(&error.reason);
            parts.push(format!("order for {names} failed: {reason}"));
        }
    }
    if let Some(before) = &status.process.predecessor {
        parts.push(format!("process {} keeps its sessions", before.pid));
    }
    if status.process.upgrade.state == "failed" {
        let reason = first_line(&status.process.upgrade.reason);
        parts.push(format!("upgrade failed: {reason}"));
    }
    parts.join("; ")
}

fn in_words(status: &Status, colors: bool, now_ms: u64) -> String {
    let mut text = format!(
        "holdline {}, up {}{}\n",
        printable(&status.version),
        duration(status.uptime_ms),
        match status.pid {
            0 => String::new(),
            pid => format!(", pid {pid}"),
        }
    );
    if let Some(started) = &status.config {
        text.push_str(&format!("config: {}\n", printable(&started.in_words())));
    }
    if status.draining {
        let word = toned("draining", Tone::Odd, colors);
        let left = status.drain.map(|drain| {
            format!(
                " for {}, at most {} more",
                duration(drain.since_ms),
                duration(drain.left_ms)
            )
        });
        let sessions = count(status.sessions.open, "session");
        text.push_str(&format!(
            "{word}{}: {sessions} left\n",
            left.unwrap_or_default()
        ));
    }
    text.push_str(&refused_in_words(status, colors));
    text.push_str(&process_in_words(status, colors, now_ms));
    for gateway in &status.gateways {
        text.push_str(&gateway_in_words(gateway, colors));
    }
    text.push_str(&format!(
        "sessions: {}\n",
        sessions_in_words(&status.sessions)
    ));
    let kept = status.sessions.kept_bytes;
    if kept > 0 {
        text.push_str(&format!("kept for held sessions: {}\n", size(kept)));
    }
    text.push_str(&format!("outages seen: {}\n", status.outages));
    // What stands in is told with what it stands in for.
    let stands_alone = |one: &&CertificateStatus| !one.stands_in() || status.acme.is_empty();
    for certificate in status.certificates.iter().filter(stands_alone) {
        text.push_str(&certificate_in_words(certificate, colors, now_ms));
    }
    for acme in &status.acme {
        let stood_in = status
            .certificates
            .iter()
            .any(|one| one.stands_in() && one.names == acme.names);
        text.push_str(&acme_in_words(acme, stood_in, colors));
    }
    text
}

/// That the file is not what is in force.
fn refused_in_words(status: &Status, colors: bool) -> String {
    let Some((ago, refused)) = status.refused() else {
        return String::new();
    };
    let word = toned("reload refused", Tone::Bad, colors);
    let more = match refused.in_file {
        true => {
            let check = hint::config_command_of("check", status.config.as_ref());
            format!(" (`{}` says more)", printable(&check))
        }
        false => String::new(),
    };
    let why = printable(&refused.why);
    format!("{word} {} ago: {why}{more}\n", duration(ago))
}

/// What an upgrade has left, or why there was none.
fn process_in_words(status: &Status, colors: bool, now_ms: u64) -> String {
    let mut text = String::new();
    if let Some(before) = &status.process.predecessor {
        let (word, version) = (
            toned("keeps its sessions", Tone::Odd, colors),
            printable(&before.version),
        );
        let pid = before.pid;
        text.push_str(&format!(
            "process {pid} before this one (holdline {version}) {word}\n"
        ));
    }
    let upgrade = &status.process.upgrade;
    if upgrade.state == "failed" {
        let word = toned("upgrade failed", Tone::Bad, colors);
        let ago = duration(now_ms.saturating_sub(upgrade.at));
        let reason = first_line(&upgrade.reason);
        text.push_str(&format!("{word} {ago} ago: {reason}\n"));
    }
    text
}

/// What is missing or has gone wrong at a CA; nothing if all is well.
fn acme_in_words(acme: &AcmeStatus, stood_in: bool, colors: bool) -> String {
    let awaited = acme.state == "awaited";
    if !awaited && acme.last_error.is_none() {
        return String::new();
    }
    let word = match (awaited, stood_in) {
        (true, true) => toned(
            "awaited, self-signed until the CA has issued one",
            Tone::Bad,
            colors,
        ),
        (true, false) => toned("awaited", Tone::Bad, colors),
        (false, _) => toned("not renewed", Tone::Odd, colors),
    };
    let names = printable(&acme.names.join(", "));
    let mut text = format!(
        "certificate for {names}: {word}; it {}\n",
        printable(&acme.next)
    );
    if let Some(error) = &acme.last_error {
        let at = match error.ca.is_empty() {
            true => String::new(),
            false => format!(" at {}", printable(&error.ca)),
        };
        let (when, reason) = (printable(&error.at), first_line(&error.reason));
        text.push_str(&format!("  failed on {when}{at}: {reason}\n"));
    }
    text
}

fn first_line(text: &str) -> String {
    printable(text.lines().next().unwrap_or_default())
}

fn gateway_in_words(gateway: &GatewayStatus, colors: bool) -> String {
    let tone = match gateway.state.as_str() {
        "ready" => Tone::Good,
        "starting" | "draining" => Tone::Odd,
        _ => Tone::Bad,
    };
    let mut text = format!(
        "{} ({}): {} for {}",
        printable(&gateway.route),
        printable(&gateway.gateway),
        toned(&printable(&gateway.state), tone, colors),
        duration(gateway.since_ms)
    );
    if gateway.state != "ready" {
        if let Some(reason) = gateway
            .reason
            .as_ref()
            .filter(|reason| **reason != gateway.state)
        {
            text.push_str(&format!(", {}", printable(reason)));
        }
        if let Some(hint) = &gateway.hint {
            text.push_str(&format!(": {}", printable(hint)));
        }
        if gateway.attempt > 0 {
            text.push_str(&format!(
                "; not ready in {}",
                count(gateway.attempt, "probe")
            ));
        }
        if let Some(expected) = gateway.expected_ms {
            text.push_str(&format!("; its outages last {}", duration(expected)));
        }
    }
    if let Some(crash) = gateway.crash_loop {
        let word = toned("crash loop", Tone::Bad, colors);
        let (outages, since) = (count(crash.outages, "outage"), duration(crash.since_ms));
        text.push_str(&format!("; {word}: {outages} within {since}"));
    }
    text.push('\n');
    text
}

fn sessions_in_words(sessions: &SessionCounts) -> String {
    let rare = [
        (sessions.greeting, "greeted"),
        (sessions.resuming, "returning"),
        (sessions.waiting, "waiting"),
    ];
    let rare = rare.into_iter().filter(|(number, _)| *number > 0);
    let rare: String = rare
        .map(|(number, word)| format!(", {number} {word}"))
        .collect();
    format!(
        "{} live, {} held{rare}, {} in all",
        sessions.live, sessions.held, sessions.open
    )
}

fn certificate_in_words(certificate: &CertificateStatus, colors: bool, now_ms: u64) -> String {
    let left = certificate.not_after.saturating_sub(now_ms);
    let tone = match left {
        0 => Tone::Bad,
        left if left < SOON_MS => Tone::Odd,
        _ => Tone::Good,
    };
    let until = printable(&certificate.until);
    let until = match left {
        0 => format!("expired since {until}"),
        left => format!("until {until}, {} left", duration(left)),
    };
    let names = certificate.names.join(", ");
    let names = match names.is_empty() {
        true => printable(&certificate.source),
        false => printable(&names),
    };
    format!(
        "certificate for {names}: {}\n  SHA-256 {}\n",
        toned(&until, tone, colors),
        printable(&certificate.sha256)
    )
}

fn colors() -> bool {
    io::stdout().is_terminal() && colors_wanted()
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The time of day in UTC.
fn clock(ms: u64) -> String {
    let seconds = ms / 1000 % 86400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use holdline::config::Started;
    use holdline::observe::status::{CrashLoopStatus, Drain};

    use super::*;

    fn away() -> Status {
        Status {
            version: "1.2.3".to_owned(),
            pid: 42,
            uptime_ms: 3_600_000,
            outages: 4,
            gateways: vec![GatewayStatus {
                route: "default".to_owned(),
                gateway: "127.0.0.1:3001".to_owned(),
                state: "down".to_owned(),
                since_ms: 12_000,
                reason: Some("refused".to_owned()),
                hint: Some(
                    "nothing listens on the gateway's port: it is probably not running".to_owned(),
                ),
                attempt: 7,
                expected_ms: Some(14_000),
                crash_loop: Some(CrashLoopStatus {
                    outages: 3,
                    since_ms: 80_000,
                }),
            }],
            sessions: SessionCounts {
                open: 16,
                live: 1,
                held: 12,
                waiting: 3,
                kept_bytes: 2048,
                ..SessionCounts::default()
            },
            certificates: vec![CertificateStatus {
                names: vec!["a.example".to_owned(), "*.a.example".to_owned()],
                until: "2026-01-02 03:04 UTC".to_owned(),
                not_after: 90_000_000,
                sha256: "AB:CD".to_owned(),
                ..CertificateStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn everything_that_is_known_is_told() {
        assert_eq!(
            in_words(&away(), false, 3_600_000),
            "holdline 1.2.3, up 1 h, pid 42\n\
             default (127.0.0.1:3001): down for 12 s, refused: nothing listens on the gateway's port: it is probably not running; \
             not ready in 7 probes; its outages last 14 s; crash loop: 3 outages within 1 min 20 s\n\
             sessions: 1 live, 12 held, 3 waiting, 16 in all\n\
             kept for held sessions: 2.0 KiB\n\
             outages seen: 4\n\
             certificate for a.example, *.a.example: until 2026-01-02 03:04 UTC, 1 d left\n  \
             SHA-256 AB:CD\n"
        );
    }

    #[test]
    fn what_was_refused_or_has_failed_is_told_in_words_and_in_a_watch() {
        let mut status: Status = serde_json::from_value(json!({
            "pid": 8,
            "lastReload": {"agoMs": 12_000,
                "refused": "the new config is refused, the old one is in force:\nerror: h.toml:2:1: hold.maxx: no such key\n  more"},
            "process": {"pid": 8, "predecessor": {"pid": 7, "version": "1.2.2"},
                "upgrade": {"state": "failed", "at": 1000, "reason": "it ended\nmore"}},
            "acme": [
                {"names": ["a.example"], "state": "awaited", "next": "is tried again on T", "failures": 1,
                    "lastError": {"at": "S", "ca": "letsencrypt", "reason": "no such\tname\nmore"}},
                {"names": ["b.example"], "state": "served", "next": "is renewed on T", "failures": 0},
            ],
        }))
        .unwrap();
        status.certificates = vec![CertificateStatus {
            source: "self-signed, until the CA has issued one".to_owned(),
            names: vec!["a.example".to_owned()],
            until: "4096-01-01 00:00 UTC".to_owned(),
            not_after: u64::MAX,
            ..CertificateStatus::default()
        }];
        let text = in_words(&status, false, 61_000);
        for line in [
            "reload refused 12 s ago: h.toml:2:1: hold.maxx: no such key (`holdline check` says more)\n",
            "process 7 before this one (holdline 1.2.2) keeps its sessions\n",
            "upgrade failed 1 min ago: it ended\n",
            "certificate for a.example: awaited, self-signed until the CA has issued one; it is tried again on T\n",
            "  failed on S at letsencrypt: no such\u{fffd}name\n",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        assert!(
            !text.contains("4096") && !text.contains("b.example"),
            "{text}"
        );
        status.config = Some(Started {
            source: "/etc/h.toml".to_owned(),
            flags: vec!["--gateway http://gw:1".to_owned()],
        });
        let text = in_words(&status, false, 61_000);
        for line in [
            "\nconfig: /etc/h.toml, with --gateway http://gw:1\n",
            "(`holdline check --config /etc/h.toml` says more)\n",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        let watched = summary(&status);
        for part in [
            "; reload refused: h.toml:2:1: hold.maxx: no such key; ",
            "; certificate for a.example awaited; ",
            "; process 7 keeps its sessions; upgrade failed: it ended",
        ] {
            assert!(watched.contains(part), "no {part} in {watched}");
        }
        let mut later = status;
        later.last_reload.as_mut().unwrap().ago_ms += 1000;
        assert_eq!(summary(&later), watched);
    }

    #[test]
    fn a_drain_says_how_far_it_is() {
        let status = Status {
            draining: true,
            drain: Some(Drain {
                since_ms: 4_000,
                left_ms: 26_000,
            }),
            ..away()
        };
        let text = in_words(&status, false, 0);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(
            line,
            "draining for 4 s, at most 26 s more: 16 sessions left"
        );
    }

    #[test]
    fn an_expired_certificate_is_told_so_and_in_red() {
        let text = in_words(&away(), true, 90_000_000);
        assert!(
            text.contains("\x1b[31mexpired since 2026-01-02 03:04 UTC\x1b[0m"),
            "{text}"
        );
    }

    #[test]
    fn time_alone_is_no_change() {
        let (before, mut after) = (away(), away());
        after.uptime_ms += 1000;
        after.gateways[0].since_ms += 1000;
        after.gateways[0].attempt += 1;
        assert_eq!(summary(&before), summary(&after));
        after.sessions.held -= 1;
        assert_ne!(summary(&before), summary(&after));
    }

    #[test]
    fn nothing_of_an_unknown_status_breaks() {
        let text = in_words(&Status::default(), false, 0);
        assert!(
            text.contains("sessions: 0 live, 0 held, 0 in all"),
            "{text}"
        );
        let mut strange = away();
        strange.gateways[0].state = "x\x1b[2J".to_owned();
        assert!(!in_words(&strange, false, 0).contains('\x1b'));
    }
}
