//! The tally on records made by hand.

use super::*;
use crate::protocol::Refusal;

struct Script {
    tally: Tally,
    start: Instant,
}

impl Script {
    fn new(clients: usize) -> Self {
        let start = Instant::now();
        Self {
            tally: Tally::new(clients, Duration::from_millis(250)),
            start,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn on(&mut self, client: usize, ms: u64, kind: Kind) {
        let at = self.at(ms);
        self.tally.on(&Event { client, at, kind });
    }

    fn ask(&mut self, client: usize, ms: u64) {
        self.on(client, ms, Kind::Sent);
        self.on(client, ms, Kind::Answered);
    }
}

#[tokio::test]
async fn one_client_through_one_restart() {
    let mut s = Script::new(1);
    s.on(0, 0, Kind::Opened);
    assert!(!s.tally.all_answered());
    s.ask(0, 10);
    assert!(s.tally.all_answered());
    s.tally.outage_begins(s.at(1000));
    s.ask(0, 1100);
    s.on(0, 1200, Kind::Sent);
    s.on(
        0,
        1210,
        Kind::Refused(Refusal {
            code: "UNAVAILABLE".into(),
            ..Refusal::default()
        }),
    );
    s.on(0, 1300, Kind::Sent);
    s.on(
        0,
        1400,
        Kind::Ended {
            code: 1012,
            unanswered: 1,
        },
    );
    s.on(
        0,
        2400,
        Kind::Failed {
            cause: "refused".into(),
            upgraded: false,
        },
    );
    let (start, gone, ready) = (s.at(1000), Some(s.at(1400)), Some(s.at(4000)));
    let times = RestartTimes { start, gone, ready };
    assert!(!s.tally.all_back(&times));
    s.on(0, 4400, Kind::Opened);
    s.ask(0, 4500);
    assert!(s.tally.all_back(&times));
    s.on(0, 5000, Kind::Left { unanswered: 0 });
    let report = s.tally.report(&times, None);
    assert_eq!(
        (report.counts.disconnects, report.counts.unanswered),
        (1, 1)
    );
    assert_eq!((report.counts.requests, report.counts.answered), (5, 3));
    assert_eq!(report.counts.refused["UNAVAILABLE"], 1);
    assert_eq!(report.counts.failed_attempts["refused"], 1);
    assert_eq!(report.ready_to_usable_ms, Some([500.0, 500.0]));
    assert_eq!(report.gap_ms, Some([3400.0, 3400.0]));
    assert_eq!(report.backend_away_ms, Some(3000.0));
    // Three seconds without a session, four requests a second.
    assert_eq!((report.not_sent, report.not_back), (12, 0));
}

#[tokio::test]
async fn an_answer_of_the_old_backend_is_not_a_return() {
    let mut s = Script::new(2);
    for client in 0..2 {
        s.on(client, 0, Kind::Opened);
        s.ask(client, 10);
    }
    s.tally.outage_begins(s.at(100));
    s.ask(0, 110);
    let (start, gone, ready) = (s.at(100), Some(s.at(200)), Some(s.at(300)));
    let times = RestartTimes { start, gone, ready };
    assert!(!s.tally.all_back(&times));
    s.ask(0, 310);
    assert!(!s.tally.all_back(&times));
    let report = s.tally.report(&times, None);
    assert_eq!((report.not_back, report.counts.disconnects), (1, 0));
}

#[tokio::test]
async fn the_peak_counts_only_the_return() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let moments = [0, 1, 2, 3, 4000, 4900, 5100, 5200].map(at);
    assert_eq!(peak(&moments, None), 4);
    assert_eq!(peak(&moments, Some(at(1000))), 3);
    assert_eq!(peak(&[], None), 0);
}

#[test]
fn the_report_is_readable_and_json() {
    let report = Tally::new(1, Duration::from_secs(1));
    let report = report.report(&RestartTimes::never(Instant::now()), Some(Stats::default()));
    assert!(report.text().contains("never answered"));
    let json: serde_json::Value = serde_json::from_str(&report.render(true).unwrap()).unwrap();
    assert_eq!(
        (&json["clients"], &json["disconnects"]),
        (&1.into(), &0.into())
    );
}
