//! The desk under a clock that the test sets: what is ordered and what is served when machines sleep,
//! are off, or are told another time.

use tempfile::TempDir;
use time::OffsetDateTime;

use super::*;
use crate::tls::acme::ca::health_file;
use crate::tls::acme::history::{History, Outcome};
use crate::tls::acme::judge::judge;
use crate::tls::acme::moment::{DAY, HOUR, MINUTE, clock};
use crate::tls::acme::order::Unfinished;
use crate::tls::acme::status::State;

const YEAR: u64 = 365 * DAY;

/// One machine, its disk, and a CA that is always up.
struct World {
    disk: TempDir,
    store: Arc<CertStore>,
    desk: Desk,
    /// What the CA's clock says.
    real: Moment,
    /// Ours is set wrong by so many seconds.
    wrong: i64,
    /// How long certificates are valid.
    lifetime: u64,
    /// Whether the CA can be spoken to by a clock that is wrong: its own certificate is not valid by
    /// that.
    strict: bool,
    orders: usize,
}

impl Desk {
    /// With a disk that answers.
    fn configure(&mut self, acme: Option<Acme>) {
        self.adopt(acme);
        while self.read_next() {}
    }
}

impl World {
    fn new(lifetime: u64) -> Self {
        let store = Arc::new(CertStore::new());
        let real = Moment(1_800_000_000);
        clock::set(real);
        let mut world = Self {
            disk: tempfile::tempdir().unwrap(),
            desk: Desk::new(Arc::clone(&store), Arc::default(), Arc::default()),
            store,
            real,
            wrong: 0,
            lifetime,
            strict: true,
            orders: 0,
        };
        world.start();
        world.look();
        world
    }

    fn now(&self) -> Moment {
        match u64::try_from(self.wrong) {
            Ok(ahead) => self.real.after(ahead),
            Err(_) => self.real.before(self.wrong.unsigned_abs()),
        }
    }

    /// As a process does.
    fn start(&mut self) {
        clock::set(self.now());
        let text = format!(
            "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example\"]\nimport = []\n\
             directories = [\"https://ca.example/dir\"]\nstate_dir = {:?}",
            self.disk.path()
        );
        let config = crate::config::parse(&text, "t").unwrap().config;
        self.store.publish(Vec::new());
        self.desk = Desk::new(Arc::clone(&self.store), Arc::default(), Arc::default());
        self.desk.begin_ordering();
        self.desk.configure(config.acme);
    }

    /// Looks until there is nothing more to do now.
    fn look(&mut self) {
        clock::set(self.now());
        loop {
            let starts = self.desk.look();
            if starts.is_empty() {
                return;
            }
            for start in starts {
                let done = self.perform(start);
                self.desk.finish(done);
            }
        }
    }

    fn perform(&mut self, start: Start) -> Done {
        match start {
            Start::Order(job, lock) => {
                self.orders += 1;
                let result = self.order(&job);
                Done::Order {
                    folder: job.folder.clone(),
                    state: job.state.clone(),
                    names: job.names.clone(),
                    moved: job.moved.clone(),
                    ca: job.ca.clone(),
                    signed: result.is_ok() || !self.strict,
                    result,
                    lock,
                }
            }
            Start::Renewal {
                folder,
                certificate,
                ..
            } => Done::Renewal {
                folder,
                certificate,
                result: Err(Failure::ca("it has no such thing")),
            },
        }
    }

    fn order(&self, job: &Job) -> Result<Zeroizing<Vec<u8>>, Failure> {
        if self.strict && self.wrong != 0 {
            return Err(Failure::ca(
                "the CA's certificate is not valid; check this machine's clock",
            ));
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(job.names.clone()).unwrap();
        let at = |moment: Moment| OffsetDateTime::from(moment.system());
        // Without it a CA has no name for it.
        params.use_authority_key_identifier_extension = true;
        params.not_before = at(self.real.before(HOUR));
        params.not_after = at(self.real.after(self.lifetime - HOUR));
        let chain = params.self_signed(&key).unwrap().pem();
        let pem = Zeroizing::new(format!("{}{chain}", key.serialize_pem()).into_bytes());
        let judged = judge(&pem, self.disk.path(), &job.names, self.now().system());
        match judged {
            Ok(_) => Ok(pem),
            Err(refused) => Err(Failure::names(refused.to_string())),
        }
    }

    /// Minute by minute, as the keeper looks.
    fn pass(&mut self, span: u64) {
        let until = self.real.after(span);
        while self.real < until {
            self.real = self.real.after(MINUTE);
            self.look();
        }
    }

    /// A machine that sleeps.
    fn sleep(&mut self, span: u64) {
        self.real = self.real.after(span);
        self.look();
    }

    fn set_clock(&mut self, wrong: i64) {
        self.wrong = wrong;
        self.look();
    }

    /// Whether a client whose clock is right takes what it is shown.
    fn serves(&self) -> bool {
        let shown = self.store.facts();
        let real = self.real.system();
        shown.first().is_some_and(|it| {
            it.source != stand_in::SOURCE && it.not_before <= real && it.not_after > real
        })
    }

    /// What is told, if it is that there is none: why, and seconds to the next attempt.
    fn awaited(&self) -> Option<(String, u64)> {
        let told = self.desk.status().remove(0);
        (told.state == State::Awaited).then(|| {
            let wait = told.next_at.unwrap().since(self.now());
            (told.last_error.unwrap().reason, wait)
        })
    }
}

fn year() -> i64 {
    i64::try_from(YEAR).unwrap()
}

#[test]
fn a_clock_that_is_set_back_by_a_year_costs_nothing() {
    let mut world = World::new(90 * DAY);
    assert!(world.serves() && world.orders == 1);
    world.set_clock(-year());
    world.pass(DAY);
    assert!(world.serves() && world.awaited().is_none());
    world.set_clock(0);
    world.pass(HOUR);
    assert!(world.serves() && world.orders == 1);
}

#[test]
fn a_start_with_a_clock_of_last_year_serves_what_is_there_and_orders_nothing() {
    let mut world = World::new(90 * DAY);
    for back in [year(), 50 * year()] {
        world.wrong = -back;
        world.start();
        assert!(world.serves());
        world.pass(DAY);
        assert!(world.serves() && world.awaited().is_none());
        world.set_clock(0);
        world.pass(HOUR);
        assert!(world.serves() && world.orders == 1);
    }
}

#[test]
fn a_clock_that_is_set_ahead_by_a_year_is_told_and_over_as_soon_as_it_is_right() {
    for restarts in [false, true] {
        let mut world = World::new(90 * DAY);
        world.set_clock(year());
        if restarts {
            world.start();
        }
        world.pass(DAY);
        let (why, wait) = world.awaited().unwrap();
        assert!(
            why.contains("check this machine's clock") && wait <= HOUR,
            "{why}, {wait} s"
        );
        assert!((2..40).contains(&world.orders), "{} orders", world.orders);
        let before = world.orders;
        world.set_clock(0);
        assert!(world.serves() && world.awaited().is_none());
        world.pass(DAY);
        assert!(world.serves());
        assert_eq!(world.orders, before);
    }
}

/// It signs, and what it signs cannot be served: a week's worth of it, and no more.
#[test]
fn a_clock_that_is_wrong_does_not_use_up_the_certificates_of_a_ca_that_does_not_mind() {
    for wrong in [-year(), year()] {
        let mut world = World::new(90 * DAY);
        world.strict = false;
        std::fs::remove_dir_all(world.disk.path().join("acme/certificates")).unwrap();
        world.wrong = wrong;
        world.start();
        world.orders = 0;
        world.pass(6 * DAY);
        assert!((1..=4).contains(&world.orders), "{} orders", world.orders);
        assert!(world.awaited().is_some());
        world.set_clock(0);
        world.pass(8 * DAY);
        assert!(world.serves(), "{:?}", world.awaited());
    }
}

#[test]
fn a_machine_that_slept_for_three_weeks_orders_once() {
    // Renewed at two thirds; of the second nothing is left.
    for lifetime in [30 * DAY, 6 * DAY] {
        let mut world = World::new(lifetime);
        world.sleep(21 * DAY);
        assert!(world.serves() && world.awaited().is_none());
        world.pass(DAY);
        assert_eq!(world.orders, 2, "of {lifetime} s");
    }
    let mut world = World::new(90 * DAY);
    world.sleep(21 * DAY);
    assert!(world.serves() && world.orders == 1, "it is good for long");
}

#[test]
fn what_expired_while_the_machine_was_off_is_ordered_once() {
    let mut world = World::new(6 * DAY);
    world.real = world.real.after(YEAR);
    world.start();
    assert!(!world.serves());
    world.look();
    assert!(world.serves());
    world.pass(DAY);
    assert_eq!(world.orders, 2);
}

impl World {
    /// An order that is to be made now.
    fn job(&mut self) -> (Box<Job>, Locked) {
        clock::set(self.now());
        let orders = self.desk.look().into_iter().find_map(|start| match start {
            Start::Order(job, lock) => Some((job, lock)),
            Start::Renewal { .. } => None,
        });
        orders.expect("nothing is ordered")
    }

    fn end(&mut self, (job, lock): (Box<Job>, Locked), result: Result<(), Failure>) {
        let result = result.and_then(|()| self.order(&job));
        self.desk.finish(Done::Order {
            state: job.state.clone(),
            names: job.names.clone(),
            moved: job.moved.clone(),
            folder: job.folder.clone(),
            ca: job.ca.clone(),
            signed: result.is_ok(),
            result,
            lock,
        });
    }
}

#[test]
fn what_another_instance_was_told_in_the_middle_of_our_order_is_kept() {
    for result in [Ok(()), Err(Failure::ca("a fault"))] {
        let mut world = World::new(90 * DAY);
        world.real = world.real.after(70 * DAY);
        let job = world.job();
        let (state, file) = (StateDir::new(world.disk.path()), health_file(&job.0.ca));
        let until = world.now().after(2 * HOUR);
        let mut theirs = Health::default();
        let limit = Failure {
            not_before: Some(until),
            ..Failure::ca("a limit")
        };
        theirs.failed(world.now(), &limit);
        state.save(&file, &theirs).unwrap();
        world.end(job, result);
        assert_eq!(state.load::<Health>(&file).not_before, Some(until));
    }
}

// === whoever asks for a renewal ===

#[test]
fn a_renewal_beyond_our_own_limit_is_refused_with_the_reason_and_forgotten() {
    let mut world = World::new(90 * DAY);
    for orders in 2..=4 {
        world.pass(2 * HOUR);
        world.desk.renew(Some("a.example")).unwrap();
        world.look();
        assert_eq!(world.orders, orders);
    }
    world.pass(2 * HOUR);
    for name in [Some("a.example"), None] {
        let refused = world.desk.renew(name).unwrap_err();
        assert!(
            refused.contains(
                "a.example: the limit is 4 certificates a week for these names at this CA; next on 2027-01-"
            ),
            "{refused}"
        );
    }
    let next = &world.desk.status()[0].next;
    assert!(next.starts_with("is renewed on 2027-03"), "{next}");
    world.start();
    world.pass(8 * DAY);
    assert_eq!(world.orders, 4, "nobody wants it any more");
    world.desk.renew(None).unwrap();
    world.look();
    assert_eq!(world.orders, 5);
}

#[test]
fn of_several_each_is_told_whether_it_is_renewed() {
    let disk = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(Arc::default(), Arc::default(), Arc::default());
    let start = Moment(1_800_000_000);
    desk.begin_ordering();
    let names = ["a.example", "b.example", "c.example"];
    for (round, domains) in [&names[..1], &names[..1], &names[..1], &names]
        .into_iter()
        .enumerate()
    {
        let now = start.after(u64::try_from(round).unwrap() * 2 * HOUR);
        clock::set(now);
        let domains: Vec<String> = domains.iter().map(|name| format!("{name:?}")).collect();
        desk.configure(Some(by_dns(&disk, &domains.join(", "))));
        desk.renew(Some("a.example")).unwrap();
        order(&mut desk, now, 90);
    }
    clock::set(start.after(8 * HOUR));
    // Nobody can write in the place of a folder.
    let history = disk.path().join("acme/certificates/b.example/history.json");
    std::fs::remove_file(&history).unwrap();
    std::fs::create_dir(&history).unwrap();
    let told = desk.renew(None).unwrap();
    let next: Vec<&str> = told.iter().map(|one| one.next.as_str()).collect();
    assert!(
        next[0].starts_with("is not renewed now: the limit is 4 certificates a week"),
        "{next:?}"
    );
    assert!(
        next[1].starts_with("is not renewed now: cannot read ") && next[1].contains("b.example"),
        "{next:?}"
    );
    assert_eq!(next[2], "is ordered in a moment");
    let ordered: Vec<String> = desk
        .look()
        .into_iter()
        .filter_map(|start| match start {
            Start::Order(job, _) => Some(job.names.join(" ")),
            Start::Renewal { .. } => None,
        })
        .collect();
    assert_eq!(ordered, ["c.example"]);
}

/// Expired, or never there; beside a wildcard that is good.
#[test]
fn a_name_that_a_good_wildcard_covers_is_served_with_it() {
    for domains in [
        "\"*.b.example\", \"a.b.example\"",
        "\"*.b.example\", \"a.b.example c.other.example\"",
    ] {
        for days in [0, 6] {
            let disk = tempfile::tempdir().unwrap();
            let store = Arc::new(CertStore::new());
            let mut desk = Desk::new(Arc::clone(&store), Arc::default(), Arc::default());
            let start = Moment(1_800_000_000);
            clock::set(start);
            desk.begin_ordering();
            desk.configure(Some(by_dns(&disk, "\"*.b.example\"")));
            order(&mut desk, start, 90);
            desk.configure(Some(by_dns(&disk, domains)));
            order(&mut desk, start, days);
            if days > 0 {
                let shown = shown(&store, "a.b.example").unwrap();
                assert!(shown.not_after < start.after(7 * DAY).system(), "its own");
            }
            clock::set(start.after(7 * DAY));
            order(&mut desk, start, 0);
            let shown = shown(&store, "a.b.example").unwrap();
            assert_eq!(shown.names, ["*.b.example"], "{domains}, {days} days");
            let others = store.facts().into_iter().flat_map(|it| it.names);
            assert_eq!(
                others.filter(|it| it == "c.other.example").count(),
                usize::from(domains.contains("other")),
            );
            assert!(!desk.is_outdated(start.after(7 * DAY)));
        }
    }
}

fn by_dns(disk: &TempDir, domains: &str) -> Acme {
    let text = format!(
        "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [{domains}]\nimport = []\n\
         directories = [\"https://ca.example/dir\"]\nstate_dir = {:?}\n\
         challenges = [\"dns-01\"]\ndns_hook = [\"/bin/true\"]",
        disk.path()
    );
    let config = crate::config::parse(&text, "t").unwrap().config;
    config.acme.unwrap()
}

/// Certificates for so many days from `start`; 0: the CA refuses.
fn order(desk: &mut Desk, start: Moment, days: u64) {
    for begun in desk.look() {
        let Start::Order(job, lock) = begun else {
            continue;
        };
        let result = match days {
            0 => Err(Failure::names("no")),
            days => {
                let key = rcgen::KeyPair::generate().unwrap();
                let mut params = rcgen::CertificateParams::new(job.names.clone()).unwrap();
                params.not_before = OffsetDateTime::from(start.before(HOUR).system());
                params.not_after = OffsetDateTime::from(start.after(days * DAY).system());
                let chain = params.self_signed(&key).unwrap().pem();
                Ok(format!("{}{chain}", key.serialize_pem()).into_bytes())
            }
        };
        desk.finish(Done::Order {
            state: job.state.clone(),
            names: job.names.clone(),
            moved: job.moved.clone(),
            folder: job.folder.clone(),
            ca: job.ca.clone(),
            result: result.map(Zeroizing::new),
            signed: false,
            lock,
        });
    }
}

/// What a client that asks for the name gets.
fn shown(store: &CertStore, name: &str) -> Option<crate::tls::Facts> {
    let all = store.facts();
    let exact = all.iter().find(|it| it.names.iter().any(|one| one == name));
    let wildcard = name
        .split_once('.')
        .map(|(_, parent)| format!("*.{parent}"));
    let others = || {
        all.iter()
            .find(|it| it.names.iter().any(|one| Some(one) == wildcard.as_ref()))
    };
    exact.or_else(others).cloned()
}

#[test]
fn trouble_that_is_over_is_not_told_any_more() {
    let mut world = World::new(90 * DAY);
    let file = world
        .disk
        .path()
        .join("acme/certificates/a.example/certificate.pem");
    let aside = world.disk.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir(&file).unwrap();
    world.pass(MINUTE);
    let met = world.now();
    world.pass(HOUR);
    let told = world.desk.status().remove(0).last_error.unwrap();
    assert!(told.reason.contains("certificate.pem"), "{told:?}");
    assert_eq!(told.at, met, "since when, not now");
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    world.pass(MINUTE);
    assert_eq!(world.desk.status().remove(0).last_error, None);
    assert!(world.serves() && world.orders == 1);
}

#[test]
fn what_is_served_meanwhile_is_told_until_when() {
    let disk = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(Arc::default(), Arc::default(), Arc::default());
    let start = Moment(1_800_000_000);
    clock::set(start);
    desk.begin_ordering();
    desk.configure(Some(by_dns(&disk, "\"a.example b.example\"")));
    order(&mut desk, start, 90);
    let regrouped = by_dns(&disk, "\"a.example c.example\"");
    desk.configure(Some(regrouped.clone()));
    order(&mut desk, start, 0);
    let told = desk.status();
    for told in [told.clone(), crate::tls::acme::on_disk(&regrouped)] {
        let [told] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!((told.state, told.until), (State::Awaited, None));
        let [other] = told.meanwhile.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!(
            (other.name.as_str(), other.until),
            ("a.example", start.after(90 * DAY))
        );
    }
    let mut numbers = String::new();
    crate::tls::acme::status::numbers(&told, 0, &mut numbers);
    let valid = [
        ("before", start.before(HOUR)),
        ("after", start.after(90 * DAY)),
    ];
    for (end, at) in valid {
        let gauge = format!("holdline_acme_certificate_not_{end}_seconds{{name=");
        let of_a = format!("{gauge}\"a.example\"}} {}\n", at.seconds());
        assert!(numbers.contains(&of_a), "{numbers}");
        assert!(
            !numbers.contains(&format!("{gauge}\"c.example\"")),
            "{numbers}"
        );
    }
}

#[test]
fn only_names_that_were_not_shown_to_be_ours_are_shown_in_another_way() {
    let mut world = World::new(90 * DAY);
    world.real = world.real.after(70 * DAY);
    let unproved = Failure::names("the CA cannot connect").unproved();
    for (failure, tried) in [
        (Failure::ca("a fault"), 0),
        (Failure::here("a full disk"), 0),
        (unproved, 1),
        (Failure::ca("a fault"), 1),
    ] {
        let job = world.job();
        world.end(job, Err(failure));
        world.real = world.real.after(HOUR);
        let job = world.job();
        assert_eq!(job.0.tried, tried);
        world.end(job, Err(Failure::ca("a fault")));
        world.real = world.real.after(HOUR);
    }
}

#[test]
fn a_ca_that_wants_to_be_left_alone_is_not_asked_when_to_renew() {
    let mut world = World::new(90 * DAY);
    let asked = |world: &mut World| {
        clock::set(world.now());
        let starts = world.desk.look().into_iter();
        starts
            .filter(|start| matches!(start, Start::Renewal { .. }))
            .collect::<Vec<_>>()
            .pop()
    };
    world.real = world.real.after(2 * HOUR);
    let Some(Start::Renewal {
        folder,
        certificate,
        ca,
        ..
    }) = asked(&mut world)
    else {
        panic!("not asked");
    };
    let limit = |world: &World| Failure {
        not_before: Some(world.now().after(6 * HOUR)),
        ..Failure::ca("a limit")
    };
    let result = Err(limit(&world));
    world.desk.finish(Done::Renewal {
        folder,
        certificate,
        result,
    });
    world.real = world.real.after(6 * HOUR - 1);
    assert!(asked(&mut world).is_none(), "by its own answer");
    let limit = limit(&world);
    let state = StateDir::new(world.disk.path());
    let now = world.now();
    let other = |health: &mut Health| health.failed(now, &limit);
    world.desk.amend_health(&ca, &state, other);
    world.real = world.real.after(2);
    assert!(asked(&mut world).is_none(), "by the answer to an order");
    world.real = world.real.after(6 * HOUR);
    assert!(asked(&mut world).is_some());
}

/// What is on disk when a process ends between the two files that an order changes, or before both.
#[test]
fn what_an_order_brought_is_known_wherever_its_process_ended() {
    for arrived in [true, false] {
        let mut world = World::new(90 * DAY);
        world.real = world.real.after(70 * DAY);
        let (job, lock) = world.job();
        let pem = world.order(&job).unwrap();
        let text = std::str::from_utf8(&pem).unwrap();
        let end = text.find("-----BEGIN CERTIFICATE").unwrap();
        let left = Unfinished {
            ca: job.ca.clone(),
            order: "https://ca.example/order/1".to_owned(),
            names: job.names.clone(),
            since: world.now(),
            key: Zeroizing::new(text[..end].to_owned()),
            asked_to_sign: true,
        };
        let state = StateDir::new(world.disk.path());
        let file = |name: &str| format!("{}/{name}", job.folder);
        state.save(&file("order.json"), &left).unwrap();
        // As if another CA had issued what was there before.
        let mut history: History = state.load(&file("history.json"));
        history.issuer = None;
        state.save(&file("history.json"), &history).unwrap();
        if arrived {
            state.write(&file("certificate.pem"), &pem).unwrap();
        }
        drop(lock);
        world.start();
        clock::set(world.now());
        let _ = world.desk.look();
        let history: History = state.load(&file("history.json"));
        let last = &history.attempts.last().unwrap().outcome;
        match arrived {
            true => {
                assert_eq!(last, &Outcome::Issued);
                assert_eq!(history.issuer.as_ref(), Some(&job.ca));
            }
            false => assert!(matches!(last, Outcome::Failed { signed: true, .. })),
        }
        assert_eq!(state.path(&file("order.json")).exists(), !arrived);
    }
}

#[test]
fn an_order_is_forgotten_when_all_that_came_of_it_is_on_disk() {
    let mut world = World::new(90 * DAY);
    world.real = world.real.after(70 * DAY);
    let job = world.job();
    let state = StateDir::new(world.disk.path());
    let file = |name: &str| format!("certificates/a.example/{name}");
    state.write(&file("order.json"), b"{}").unwrap();
    // No file can be made in the place of a folder.
    let history = state.path(&file("history.json"));
    std::fs::remove_file(&history).unwrap();
    std::fs::create_dir(&history).unwrap();
    world.end(job, Ok(()));
    assert!(state.path(&file("order.json")).exists());
    std::fs::remove_dir(&history).unwrap();
    world.pass(MINUTE);
    assert!(!state.path(&file("order.json")).exists());
    let history: History = state.load(&file("history.json"));
    assert_eq!(history.attempts.last().unwrap().outcome, Outcome::Issued);
}

#[test]
fn an_order_ends_where_it_began_when_the_state_directory_is_moved() {
    let mut world = World::new(90 * DAY);
    let begun = world.orders;
    world.desk.renew(None).unwrap();
    let old = std::mem::replace(&mut world.disk, tempfile::tempdir().unwrap());
    let mut starts = world.desk.look();
    assert_eq!(starts.len(), 1);
    let mut acme = world.desk.acme.as_deref().unwrap().clone();
    acme.state_dir = world.disk.path().to_owned();
    world.desk.configure(Some(acme));
    let Some(Start::Order(job, _)) = starts.first() else {
        panic!("no order")
    };
    assert!(job.moved.is_cancelled(), "it is told to end");
    assert_eq!(world.desk.orders(), 1, "and is waited for");
    assert!(world.desk.look().is_empty(), "before there is another");
    let history =
        |disk: &TempDir| Kept::stored(&["a.example".to_owned()], &StateDir::new(disk.path()));
    let done = world.perform(starts.remove(0));
    let Done::Order {
        state,
        names,
        moved,
        folder,
        ca,
        lock,
        ..
    } = done
    else {
        panic!("no order")
    };
    let result = Err(Failure::here("it was told to end"));
    world.desk.finish(Done::Order {
        state,
        names,
        moved,
        folder,
        ca,
        result,
        signed: false,
        lock,
    });
    let told = history(&old)
        .history
        .last_error()
        .map(|(_, reason)| reason.to_owned());
    assert_eq!(told.as_deref(), Some("it was told to end"));
    assert_eq!(history(&world.disk).history.last_error(), None);
    assert!(history(&world.disk).history.attempts.is_empty());
    world.look();
    assert_eq!(world.orders, begun + 2, "a new one there");
    assert!(history(&world.disk).certificate.is_some());
}

#[test]
fn an_order_ends_where_it_began_when_certificates_have_come_from_elsewhere_for_a_while() {
    for moves in [true, false] {
        let mut world = World::new(90 * DAY);
        world.desk.renew(None).unwrap();
        let mut starts = world.desk.look();
        let acme = world.desk.acme.as_deref().unwrap().clone();
        let old = world.desk.state().unwrap();
        let new = tempfile::tempdir().unwrap();
        let state_dir = match moves {
            true => new.path().to_owned(),
            false => acme.state_dir.clone(),
        };
        let there = Acme { state_dir, ..acme };
        world.desk.configure(None);
        assert_eq!(world.desk.orders(), 1, "it is waited for");
        if moves {
            world.desk.configure(Some(there.clone()));
            assert!(world.desk.look().is_empty(), "before there is another");
        }
        let done = world.perform(starts.remove(0));
        world.desk.finish(done);
        assert_eq!(world.desk.orders(), 0);
        let kept = |state: &StateDir| Kept::stored(&["a.example".to_owned()], state).history;
        assert_eq!(kept(&old).attempts.len(), 2);
        let last = &kept(&old).attempts.pop().unwrap().outcome;
        assert_eq!(last, &Outcome::Issued);
        world.desk.configure(Some(there));
        world.look();
        assert_eq!(world.orders, if moves { 3 } else { 2 });
    }
}

#[test]
fn an_order_that_is_not_wanted_any_more_is_no_end_of_another() {
    let disk = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(Arc::default(), Arc::default(), Arc::default());
    clock::set(Moment(1_800_000_000));
    desk.begin_ordering();
    let both = by_dns(&disk, "\"a.example\", \"b.example\"");
    desk.configure(Some(both));
    let mut starts = desk.look();
    assert_eq!((starts.len(), desk.orders()), (2, 2));
    desk.configure(Some(by_dns(&disk, "\"b.example\"")));
    assert_eq!(desk.orders(), 2, "both are waited for");
    let new = tempfile::tempdir().unwrap();
    desk.configure(Some(by_dns(&new, "\"b.example\"")));
    for left in [1, 0] {
        assert!(desk.look().is_empty(), "the other has not ended");
        let Start::Order(job, lock) = starts.remove(0) else {
            panic!("no order")
        };
        desk.finish(Done::Order {
            state: job.state.clone(),
            names: job.names.clone(),
            moved: job.moved.clone(),
            folder: job.folder.clone(),
            ca: job.ca.clone(),
            result: Err(Failure::here("it was told to end")),
            signed: false,
            lock,
        });
        assert_eq!(desk.orders(), left);
    }
    assert_eq!(desk.look().len(), 1);
}

#[test]
fn a_process_that_holds_an_order_for_ever_is_told_of() {
    let mut world = World::new(90 * DAY);
    let state = StateDir::new(world.disk.path());
    let lock = "certificates/a.example/order.lock";
    let theirs = state.try_lock(lock).unwrap().unwrap();
    world.sleep(70 * DAY);
    world.pass(10 * HOUR);
    let told = world.desk.status().remove(0);
    assert_eq!(told.next, "another instance orders it now");
    assert_eq!(told.last_error, None);
    world.pass(3 * HOUR);
    let error = world.desk.status().remove(0).last_error.unwrap();
    assert!(
        error.reason.contains(lock) && error.reason.contains("end it"),
        "{error:?}"
    );
    assert_eq!(world.orders, 1);
    drop(theirs);
    world.pass(2 * MINUTE);
    let told = world.desk.status().remove(0);
    assert_eq!((told.last_error, world.orders), (None, 2));
}

/// As from files, before certificates came from a CA; and from the state directory, which stays.
#[test]
fn what_only_this_process_can_serve_is_told_before_another_takes_its_place() {
    let disk = tempfile::tempdir().unwrap();
    let store = Arc::new(CertStore::new());
    let names = ["a.example".to_owned()];
    clock::set(Moment(1_800_000_000));
    let files = stand_in::pem(&names).unwrap();
    let path = disk.path().join("files.pem");
    let files = judge(files.as_bytes(), &path, &names, Moment::now().system()).unwrap();
    store.publish(vec![files]);
    let mut desk = Desk::new(store, Arc::default(), Arc::default());
    desk.configure(Some(by_dns(&disk, "\"a.example\"")));
    let reason = desk.secure().unwrap_err();
    assert!(
        reason.starts_with("a.example is served with ") && reason.contains("files.pem"),
        "{reason}"
    );
    desk.begin_ordering();
    order(&mut desk, Moment::now(), 90);
    assert_eq!(desk.secure(), Ok(()));
    // Grouped otherwise, it is still served with what is on disk.
    desk.configure(Some(by_dns(&disk, "\"a.example b.example\"")));
    assert!(!desk.outgoing.is_empty());
    assert_eq!(desk.secure(), Ok(()));
}

#[test]
fn what_failed_is_tried_again_when_it_is_to_be_had_in_another_way() {
    let disk = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(Arc::default(), Arc::default(), Arc::default());
    let start = Moment(1_800_000_000);
    clock::set(start);
    desk.begin_ordering();
    let first = by_dns(&disk, "\"a.example\", \"b.example\"");
    desk.configure(Some(first.clone()));
    order(&mut desk, start, 0);
    let is_due = |desk: &mut Desk| desk.look().len();
    assert_eq!(is_due(&mut desk), 0, "it has failed a moment ago");
    // What has nothing to do with it is no reason.
    let mut config = first;
    config.import = vec![disk.path().to_owned()];
    clock::set(start.after(1));
    desk.configure(Some(config.clone()));
    assert_eq!(is_due(&mut desk), 0);
    for n in 2.. {
        clock::set(start.after(n));
        config.contact.push(format!("{n}@a.example"));
        desk.configure(Some(config.clone()));
        if desk
            .status()
            .iter()
            .any(|one| one.next.contains("the limit is"))
        {
            assert!(n > 4, "a limit after {n} orders");
            break;
        }
        order(&mut desk, start, 0);
    }
    assert_eq!(is_due(&mut desk), 0, "no limit is passed by it");
}
