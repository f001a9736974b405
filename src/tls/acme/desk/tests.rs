//! The desk under a clock that the test sets: what is ordered and what is served when machines sleep,
//! are off, or are told another time.

use tempfile::TempDir;
use time::OffsetDateTime;

use super::*;
use crate::tls::acme::ca::health_file;
use crate::tls::acme::judge::judge;
use crate::tls::acme::moment::{DAY, HOUR, MINUTE, clock};
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
fn a_start_with_a_clock_of_last_year_is_told_and_over_as_soon_as_it_is_right() {
    let mut world = World::new(90 * DAY);
    world.wrong = -year();
    world.start();
    world.pass(DAY);
    let (why, wait) = world.awaited().unwrap();
    assert!(
        why.contains("check this machine's clock") && wait <= HOUR,
        "{why}, {wait} s"
    );
    // None of them came further than the CA's TLS.
    assert!((2..40).contains(&world.orders), "{} orders", world.orders);
    let before = world.orders;
    world.set_clock(0);
    assert!(world.serves() && world.awaited().is_none());
    world.pass(DAY);
    assert!(world.serves());
    assert_eq!(world.orders, before);
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
        theirs.failed(world.now(), "a limit", Some(until));
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
                "a.example: 4 certificates a week for these names at this CA; next on 2027-01-"
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
