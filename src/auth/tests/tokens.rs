//! Access tokens in requests.

use http::{HeaderMap, HeaderValue};

use super::kit::*;
use crate::auth::{Credential, TokenCheck, make_token};

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    [(http::header::AUTHORIZATION, value)].into_iter().collect()
}

fn with_token() -> (World, String) {
    let mut world = world();
    let token = make_token().unwrap().to_string();
    world.auth.token = true;
    world.auth.tokens = vec![
        access("laptop", NICK, &token),
        access("other", MARA, "hl_other"),
    ];
    (world, token)
}

#[test]
fn a_token_of_the_config_comes_in_as_its_user() {
    let (mut world, token) = with_token();
    let address = ip("192.0.2.7");
    let check = world.desk.by_token(&world.auth, &bearer(&token), address);
    let TokenCheck::Good(identity) = check else {
        panic!("{check:?}")
    };
    assert_eq!(&*identity.user, NICK);
    let Credential::Token(name) = &identity.credential else {
        panic!("{identity:?}")
    };
    assert_eq!(&*name.name, "laptop");
    assert!(world.desk.stands(&world.auth, &identity));
    // Another token under the same name is another token.
    world.auth.tokens[0] = access("laptop", NICK, "hl_new");
    assert!(!world.desk.stands(&world.auth, &identity));
    let again = world.desk.by_token(&world.auth, &bearer(&token), address);
    assert_eq!(again, TokenCheck::Wrong);
}

#[test]
fn what_is_not_ours_is_the_gateways_business() {
    let (mut world, token) = with_token();
    let address = ip("192.0.2.7");
    for headers in [HeaderMap::new(), bearer("sk-something"), bearer("")] {
        let check = world.desk.by_token(&world.auth, &headers, address);
        assert_eq!(check, TokenCheck::None);
    }
    world.auth.token = false;
    let check = world.desk.by_token(&world.auth, &bearer(&token), address);
    assert_eq!(check, TokenCheck::None);
}

#[tokio::test(start_paused = true)]
async fn wrong_tokens_are_limited_and_a_good_one_is_always_good() {
    let (world, token) = with_token();
    let (bad, good) = (ip("2001:db8::1"), ip("2001:db8:0:1::1"));
    let mut wrong = 0;
    let check = |token: &str, address| world.desk.by_token(&world.auth, &bearer(token), address);
    for number in 0..1_000 {
        wrong += u32::from(check(&format!("hl_{number}"), bad) == TokenCheck::Wrong);
    }
    assert_eq!(wrong, 11);
    // The whole network of the address waits.
    let neighbour = check("hl_x", ip("2001:db8::2"));
    assert!(
        matches!(neighbour, TokenCheck::TooMany { .. }),
        "{neighbour:?}"
    );
    assert_eq!(check("hl_x", good), TokenCheck::Wrong);
    assert!(matches!(check(&token, bad), TokenCheck::Good(_)));
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(check("hl_x", bad), TokenCheck::Wrong);
}
