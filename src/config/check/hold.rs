//! `[hold]` and `[http]`: how long whom waits, and what is kept meanwhile.

use std::time::Duration;

use crate::config::checker::Item;
use crate::config::model::{Hold, Http, ReplayRequests, Resume};
use crate::config::section::{Bounds, Section};
use crate::config::units::{Wrong, show_duration, show_size};

const DAY: Duration = Duration::from_secs(86_400);
const MAX: Bounds<Duration> = Bounds::up_to(DAY, "nobody waits longer than a day");
const BEFORE_ANSWER: Bounds<Duration> =
    Bounds::up_to(Duration::from_secs(14), "clients give up at 15 s");
const NOTICE_AFTER: Bounds<Duration> = Bounds::up_to(
    Duration::from_secs(25),
    "clients close a connection that is silent for long",
);
const NOTICE_EVERY: Bounds<Duration> = NOTICE_AFTER;
const BUFFER: Bounds<u64> = Bounds::new(1, 1 << 30, "this is kept in memory for every session");
const BUFFER_TOTAL: Bounds<u64> = Bounds::new(1, 1 << 40, "this is kept in memory");
const RATE: Bounds<u32> = Bounds::new(1, 100_000, "the gateway would be stampeded");
const UNFINISHED: Bounds<usize> = Bounds::new(1, 100_000, "the gateway would be stampeded");
const UNFINISHED_PER_IP: Bounds<usize> =
    Bounds::new(1, 32, "the gateway refuses the 33rd of an address");
const HTTP_HOLD: Bounds<Duration> = Bounds::up_to(
    Duration::from_secs(600),
    "clients of plain HTTP give up sooner",
);

/// The words of `resume`.
pub(super) const RESUMES: [(&str, Resume); 5] = [
    ("auto", Resume::Auto),
    ("replay", Resume::Replay),
    ("reconnect", Resume::Reconnect),
    ("splice", Resume::Splice),
    ("off", Resume::Off),
];

/// The section, and `resume`, which every route inherits.
pub(super) fn read(section: &mut Section<'_, '_>) -> (Hold, Item<Resume>) {
    let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
    let max = section.duration("max", seconds(600), MAX);
    let upgrade = section.duration("upgrade", seconds(12), BEFORE_ANSWER);
    let handshake = section.duration("handshake", seconds(12), BEFORE_ANSWER);
    let notice_after = section.duration("notice_after", millis(500), NOTICE_AFTER);
    let notice_every = section.duration("notice_every", seconds(5), NOTICE_EVERY);
    let buffer = section.size("buffer", 256 << 10, BUFFER);
    let buffer_total = section.size("buffer_total", 64 << 20, BUFFER_TOTAL);
    let resume = section.choice("resume", Resume::Auto, RESUMES);
    let resume_rate = section.count("resume_rate", 100, RATE);
    let unfinished = section.count("unfinished_handshakes", 64, UNFINISHED);
    let per_ip = section.count("unfinished_per_ip", 16, UNFINISHED_PER_IP);
    let words = [
        ("safe", ReplayRequests::Safe),
        ("never", ReplayRequests::Never),
    ];
    let replay_requests = section.choice("replay_requests", ReplayRequests::Safe, words);

    check_buffers(section, &buffer, &buffer_total);
    check_notice(section, &notice_after, &max);
    check_part(section, &per_ip, &unfinished);
    let hold = Hold {
        max: max.value,
        upgrade: upgrade.value,
        handshake: handshake.value,
        notice_after: notice_after.value,
        notice_every: notice_every.value,
        buffer: bytes(buffer.value),
        buffer_total: bytes(buffer_total.value),
        resume_rate: resume_rate.value,
        unfinished_handshakes: unfinished.value,
        unfinished_per_ip: per_ip.value,
        replay_requests: replay_requests.value,
    };
    (hold, resume)
}

/// `[http]`
pub(super) fn read_http(section: &mut Section<'_, '_>) -> Http {
    let hold = section.duration("hold", Duration::from_secs(30), HTTP_HOLD);
    let page_after = section.duration("page_after", Duration::from_secs(1), HTTP_HOLD);
    if page_after.is_set() && hold.is_sound() && page_after.value > hold.value {
        let longest = show_duration(hold.value);
        let what = format!(
            "longer than any request waits ({} is \"{longest}\")",
            hold.key
        );
        let wrong = Wrong::new(
            what,
            format!("write at most \"{longest}\", or raise {}", hold.key),
        );
        section.checker().error(&page_after, wrong);
    }
    Http {
        hold: hold.value,
        page_after: page_after.value,
    }
}

fn check_buffers(section: &mut Section<'_, '_>, one: &Item<u64>, total: &Item<u64>) {
    if one.value <= total.value || !one.is_sound() || !total.is_sound() {
        return;
    }
    let (one_size, total_size) = (show_size(one.value), show_size(total.value));
    if one.is_set() {
        let what = format!("more than {} (\"{total_size}\") has room for", total.key);
        let wrong = Wrong::new(
            what,
            format!("write at most \"{total_size}\", or raise {}", total.key),
        );
        section.checker().error(one, wrong);
    } else {
        let what = format!(
            "less than one session may keep ({} is \"{one_size}\")",
            one.key
        );
        let wrong = Wrong::new(
            what,
            format!("write at least \"{one_size}\", or lower {}", one.key),
        );
        section.checker().error(total, wrong);
    }
}

fn check_notice(section: &mut Section<'_, '_>, notice: &Item<Duration>, max: &Item<Duration>) {
    if notice.value < max.value || !notice.is_sound() || !max.is_sound() {
        return;
    }
    let place = if notice.is_set() { notice } else { max };
    let what = format!(
        "sessions end before they are told why they wait ({})",
        notice.key
    );
    let wrong = Wrong::new(
        what,
        format!("make {} shorter than {}", notice.key, max.key),
    );
    section.checker().warn(place, wrong);
}

/// A bound per address above the bound over all of them is never reached.
pub(super) fn check_part(section: &mut Section<'_, '_>, part: &Item<usize>, whole: &Item<usize>) {
    if part.is_set() && whole.is_sound() && part.value > whole.value {
        let what = format!("more than {} allows for all addresses together", whole.key);
        let remedy = format!("write at most {}, or raise {}", whole.value, whole.key);
        section.checker().error(part, Wrong::new(what, remedy));
    }
}

fn bytes(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
