//! Somebody who is in, and about whom the service is asked again.

use futures_util::future::{Either, join_all, select};

use super::*;
use crate::observe::labels::GrantEnd;

const SOON: Duration = Duration::from_millis(20);
const NO: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
const TROUBLE: &str = "HTTP/1.1 503 Oops\r\ncontent-length: 0\r\n\r\n";

struct World {
    service: Service,
    config: config::ForwardAuth,
    forward: Arc<ForwardAuth>,
}

impl World {
    async fn saying(answer: &str) -> Self {
        let service = Service::saying(answer).await;
        let mut config = service.config();
        config.recheck = Some(SOON);
        Self {
            service,
            config,
            forward: Arc::new(ForwardAuth::new()),
        }
    }

    /// Lets somebody in.
    async fn entered(&self) -> Recheck {
        let client = Client::new();
        let admitted = yes(client.ask(&self.forward, &self.config).await);
        self.recheck(&client, &admitted.identity)
    }

    fn recheck(&self, client: &Client, identity: &Identity) -> Recheck {
        let question = client.question();
        Recheck::new(&self.forward, &self.config, &question, identity).unwrap()
    }

    /// Whoever it is stays while the service is asked this often more.
    async fn stays(&self, recheck: &Recheck, asked: usize) {
        let often = self.service.is_asked_often(self.service.count() + asked);
        let lost = Box::pin(recheck.lost());
        if let Either::Left((lost, _)) = select(lost, Box::pin(often)).await {
            panic!("{lost:?}");
        }
    }
}

async fn lost(recheck: &Recheck) -> GrantEnd {
    tokio::time::timeout(LONG, recheck.lost()).await.unwrap()
}

#[tokio::test]
async fn a_yes_that_is_withdrawn_ends_it_and_is_no_longer_remembered() {
    for no in [
        NO,
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n",
    ] {
        let world = World::saying(YES).await;
        let somebody = world.entered().await;
        world.stays(&somebody, 3).await;
        world.service.now_says(no);
        assert_eq!(lost(&somebody).await, GrantEnd::Withdrawn, "{no}");
        // Remembered for ten seconds, but for the no.
        super::no(Client::new().ask(&world.forward, &world.config).await);
    }
}

#[tokio::test]
async fn under_another_name_it_is_somebody_else() {
    let world = World::saying(YES).await;
    let somebody = world.entered().await;
    world.service.now_says(&YES.replace("nick", "mara"));
    assert_eq!(lost(&somebody).await, GrantEnd::Withdrawn);
}

#[tokio::test]
async fn without_an_answer_it_stays_until_the_limit() {
    // Time for more than one question, on a slow machine too.
    const LIMIT: Duration = Duration::from_secs(3);
    let troubles = [
        TROUBLE,
        "HTTP/1.1 429 Slow Down\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "no HTTP at all\r\n\r\n",
        "",
    ];
    let each = troubles.map(async |trouble| {
        let mut world = World::saying(YES).await;
        world.config.without_answer = LIMIT;
        let since = Instant::now();
        let somebody = world.entered().await;
        world.service.now_says(trouble);
        let asked = world.service.count();
        assert_eq!(lost(&somebody).await, GrantEnd::Unconfirmed, "{trouble}");
        assert!(since.elapsed() >= LIMIT, "{:?}", since.elapsed());
        assert!(world.service.count() >= asked + 2, "tried more than once");
    });
    join_all(each).await;
}

#[tokio::test]
async fn a_service_that_hangs_holds_nobody_for_longer_than_the_limit() {
    let mut world = World::saying(YES).await;
    let client = Client::new();
    let admitted = yes(client.ask(&world.forward, &world.config).await);
    world.config.timeout = SOON * 5;
    world.config.without_answer = SOON;
    let somebody = world.recheck(&client, &admitted.identity);
    let answers = u32::try_from(world.service.go.available_permits()).unwrap();
    world
        .service
        .go
        .acquire_many(answers)
        .await
        .unwrap()
        .forget();
    assert_eq!(lost(&somebody).await, GrantEnd::Unconfirmed);
}

#[tokio::test]
async fn a_service_that_comes_back_in_time_has_changed_nothing() {
    let mut world = World::saying(YES).await;
    world.config.without_answer = LONG;
    let somebody = world.entered().await;
    world.service.now_says(TROUBLE);
    world.stays(&somebody, 4).await;
    world.service.now_says(YES);
    world.stays(&somebody, 4).await;
    world.service.now_says(NO);
    assert_eq!(lost(&somebody).await, GrantEnd::Withdrawn);
}

#[tokio::test]
async fn a_reload_counts_for_who_is_in() {
    let mut world = World::saying(YES).await;
    world.config.recheck = None;
    let somebody = world.entered().await;
    world.service.now_says(NO);
    let mut waits = Box::pin(somebody.lost());
    assert!(futures_util::poll!(&mut waits).is_pending());
    let now = config::ForwardAuth {
        recheck: Some(SOON),
        ..world.config.clone()
    };
    world.forward.turn(Some(&now));
    let ended = tokio::time::timeout(LONG, waits).await.unwrap();
    assert_eq!(ended, GrantEnd::Withdrawn);
}

impl World {
    /// With a service that answers when it is let.
    async fn held() -> Self {
        let service = Service::held(YES).await;
        let mut config = service.config();
        config.recheck = Some(SOON);
        Self {
            service,
            config,
            forward: Arc::new(ForwardAuth::new()),
        }
    }
}

#[tokio::test]
async fn a_flood_of_newcomers_throws_nobody_out() {
    let world = World::held().await;
    let identity = yes(asked_once(YES).await).identity;
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..2 * AT_ONCE {
        let mut client = Client::new();
        let cookie = HeaderValue::try_from(format!("_proxy={number}")).unwrap();
        client.headers.insert(header::COOKIE, cookie);
        let (config, forward) = (world.config.clone(), Arc::clone(&world.forward));
        flood.spawn(async move { client.ask(&forward, &config).await });
    }
    world.service.is_asked_often(AT_ONCE).await;
    let somebody = world.recheck(&Client::new(), &identity);
    let asked = world.service.is_asked_often(AT_ONCE + 1);
    select(Box::pin(somebody.lost()), Box::pin(asked)).await;
    assert!(world.service.last().contains("_proxy=secret"));
    assert_eq!(world.service.count(), AT_ONCE + 1);
}

#[tokio::test]
async fn those_who_are_in_do_not_keep_newcomers_waiting() {
    let world = World::held().await;
    let identity = yes(asked_once(YES).await).identity;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..3 * AGAIN_AT_ONCE {
        let mut client = Client::new();
        let cookie = HeaderValue::try_from(format!("_proxy={number}")).unwrap();
        client.headers.insert(header::COOKIE, cookie);
        let recheck = world.recheck(&client, &identity);
        waiting.spawn(async move { recheck.lost().await });
    }
    world.service.is_asked_often(AGAIN_AT_ONCE).await;
    let newcomer = Client::new();
    let asking = newcomer.ask(&world.forward, &world.config);
    let asked = world.service.is_asked_often(AGAIN_AT_ONCE + 1);
    select(Box::pin(asking), Box::pin(asked)).await;
    assert!(world.service.last().contains("_proxy=secret"));
    assert_eq!(world.service.count(), AGAIN_AT_ONCE + 1);
}

#[tokio::test]
async fn whoever_waits_for_a_turn_stays_while_the_service_answers_others() {
    const WAVE: Duration = Duration::from_secs(2);
    const WAVES: usize = 5;
    let mut world = World::held().await;
    let limit = Duration::from_secs(7);
    (world.config.timeout, world.config.without_answer) = (limit, limit);
    let identity = Identity {
        user: "nick@example.com".into(),
        credential: Credential::Forward(super::super::Service::of(&world.config)),
    };
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..WAVES * AGAIN_AT_ONCE {
        let mut client = Client::new();
        let cookie = HeaderValue::try_from(format!("_proxy={number}")).unwrap();
        client.headers.insert(header::COOKIE, cookie);
        let recheck = world.recheck(&client, &identity);
        waiting.spawn(async move { recheck.lost().await });
    }
    // It takes its time, but for none as long as it may.
    for wave in 1..=WAVES {
        world.service.is_asked_often(wave * AGAIN_AT_ONCE).await;
        tokio::time::sleep(WAVE).await;
        world.service.go.add_permits(AGAIN_AT_ONCE);
    }
    world
        .service
        .is_asked_often(WAVES * AGAIN_AT_ONCE + 1)
        .await;
    assert!(waiting.try_join_next().is_none());
}

#[tokio::test]
async fn what_is_asked_again_is_what_was_asked() {
    let world = World::saying(YES).await;
    let somebody = world.entered().await;
    let first = world.service.last();
    world.stays(&somebody, 2).await;
    assert_eq!(world.service.last(), first);
    assert!(first.contains("_proxy=secret"), "{first}");
}
