//! `[limits]`: bounds on what clients may do.

use std::time::Duration;

use crate::config::addresses::origin;
use crate::config::checker::Item;
use crate::config::model::Limits;
use crate::config::section::{Bounds, Section};
use crate::config::units::{Wrong, show_size};

use super::hold::check_part;

const SESSIONS: Bounds<usize> = Bounds::new(1, 10_000_000, "no machine has so many sockets");
const HANDSHAKES: Bounds<u32> = Bounds::new(1, 1_000_000, "this is no limit any more");
const TIMEOUT: Bounds<Duration> =
    Bounds::up_to(Duration::from_secs(300), "idle connections would pile up");
const FRAME: Bounds<u64> = Bounds::new(1, 1 << 32, "no client sends larger ones");
const PING: Bounds<Duration> = Bounds::up_to(
    Duration::from_secs(3600),
    "dead clients would stay for hours",
);
const DRAIN: Bounds<Duration> = Bounds::new(
    Duration::ZERO,
    Duration::from_secs(3600),
    "a stop would seem to hang",
);

const HANDOVER: Bounds<Duration> = Bounds::new(
    Duration::ZERO,
    Duration::from_secs(30 * 24 * 3600),
    "old processes would pile up",
);

pub(super) fn read(section: &mut Section<'_, '_>) -> Limits {
    let seconds = Duration::from_secs;
    let sessions = section.count("sessions", 8000, SESSIONS);
    let sessions_per_ip = section.count("sessions_per_ip", 256, SESSIONS);
    let handshakes_per_ip = section.rate("handshakes_per_ip", 20, HANDSHAKES);
    let header_timeout = section.duration("header_timeout", seconds(10), TIMEOUT);
    let tls_timeout = section.duration("tls_timeout", seconds(10), TIMEOUT);
    let frame = section.size("frame", 25 << 20, FRAME);
    let preauth_frame = section.size("preauth_frame", 64 << 10, FRAME);
    let ping_every = section.duration_or_off("ping_every", Some(seconds(30)), PING);
    let origins = section.list("origins", Vec::new(), origin);
    let drain = section.duration("drain", seconds(30), DRAIN);
    let handover = section.duration("handover", seconds(3600), HANDOVER);

    check_part(section, &sessions_per_ip, &sessions);
    check_frames(section, &preauth_frame, &frame);
    Limits {
        sessions: sessions.value,
        sessions_per_ip: sessions_per_ip.value,
        handshakes_per_ip: handshakes_per_ip.value,
        header_timeout: header_timeout.value,
        tls_timeout: tls_timeout.value,
        frame: frame.value,
        preauth_frame: preauth_frame.value,
        ping_every: ping_every.value,
        origins: origins
            .value
            .into_iter()
            .map(|origin| origin.value)
            .collect(),
        drain: drain.value,
        handover: handover.value,
    }
}

fn check_frames(section: &mut Section<'_, '_>, preauth: &Item<u64>, frame: &Item<u64>) {
    if preauth.is_set() && frame.is_sound() && preauth.value > frame.value {
        let largest = show_size(frame.value);
        let what = format!("more than {} (\"{largest}\") allows later", frame.key);
        let wrong = Wrong::new(
            what,
            format!("write at most \"{largest}\", or raise {}", frame.key),
        );
        section.checker().error(preauth, wrong);
    }
}
