//! Who gets which form.

use http::Request;

use super::*;

fn asker(method: Method, lines: &[(&str, &str)]) -> Asker {
    let mut request = Request::builder().method(method);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    Asker::of(&request.body(()).unwrap().into_parts().0)
}

#[test]
fn browsers_loading_a_page_are_known() {
    let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = |lines: &[(&str, &str)]| asker(Method::GET, lines).navigates();
    assert!(page(&[("sec-fetch-mode", "navigate"), ("accept", firefox)]));
    assert!(page(&[("accept", firefox)]));
    assert!(page(&[("accept", "text/html")]));
    assert!(page(&[("accept", "application/json;q=0.5, text/html")]));
    assert!(!page(&[("sec-fetch-mode", "cors"), ("accept", firefox)]));
    assert!(!page(&[("accept", "*/*")]));
    assert!(!page(&[("accept", "application/json, text/html;q=0.5")]));
    assert!(!page(&[("accept", "text/html;q=0")]));
    assert!(!page(&[]));
    assert!(!asker(Method::POST, &[("sec-fetch-mode", "navigate")]).navigates());
    assert!(!asker(Method::HEAD, &[("accept", firefox)]).navigates());
}

#[tokio::test]
async fn json_for_programs_and_the_page_for_people() {
    let json = render(&Cause::Stopping, asker(Method::GET, &[]));
    assert_eq!(json.status(), 503);
    assert_eq!(json.headers()["content-type"], "application/json");
    assert_eq!(json.headers()["retry-after"], "1");
    assert_eq!(json.headers()["cache-control"], "no-store");
    let body = json.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["type"], "proxy_stopping");

    let browser = asker(Method::GET, &[("sec-fetch-mode", "navigate")]);
    let page = render(&Cause::Stopping, browser);
    assert_eq!(page.status(), 503);
    assert!(page.headers().contains_key("content-security-policy"));
    assert!(page.headers().contains_key("retry-after"));
    // A page that waits makes no sense for what waiting does not mend.
    let refused = render(&Cause::OriginRefused, browser);
    assert_eq!(refused.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn a_head_has_the_length_and_no_body() {
    let response = render(&Cause::Stopping, asker(Method::HEAD, &[]));
    let length: usize = response.headers()["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(length > 20);
    assert!(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
}

#[tokio::test]
async fn an_old_websocket_version_is_told_the_new_one() {
    let response = render(&Cause::WebSocketVersion, asker(Method::GET, &[]));
    assert_eq!(response.status(), 426);
    assert_eq!(response.headers()["sec-websocket-version"], "13");
    assert_eq!(response.headers()["upgrade"], "websocket");
}
