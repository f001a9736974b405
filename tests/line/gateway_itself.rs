//! The scripted gateway behaves as the real one was seen to behave.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::kit::gateway::{ScriptedGateway, TOKEN};
use crate::kit::within;

type Socket = WebSocketStream<TcpStream>;

async fn dial(gateway: &ScriptedGateway) -> Result<Socket, tungstenite::Error> {
    let tcp = TcpStream::connect(gateway.addr()).await?;
    Ok(client_async(format!("ws://{}/", gateway.addr()), tcp)
        .await?
        .0)
}

async fn next(socket: &mut Socket) -> Message {
    within("a message", socket.next())
        .await
        .expect("open")
        .expect("no error")
}

async fn next_json(socket: &mut Socket) -> Value {
    serde_json::from_str(next(socket).await.to_text().unwrap()).unwrap()
}

async fn say(socket: &mut Socket, value: &Value) {
    socket.send(Message::text(value.to_string())).await.unwrap();
}

fn connect() -> Value {
    json!({"type":"req","id":"1","method":"connect","params":{
        "client":{"id":"gateway-client","mode":"backend"},
        "scopes":["operator.admin"],"auth":{"token":TOKEN}}})
}

#[tokio::test]
async fn a_connect_gets_hello_and_sigterm_says_shutdown_then_1012() {
    let gateway = ScriptedGateway::start().await;
    let mut socket = dial(&gateway).await.unwrap();
    assert_eq!(next_json(&mut socket).await["event"], "connect.challenge");
    say(&mut socket, &connect()).await;
    let hello = next(&mut socket).await.into_text().unwrap();
    assert!(hello.len() > 15_000, "{}", hello.len());
    let hello: Value = serde_json::from_str(&hello).unwrap();
    assert_eq!(
        hello["payload"]["auth"]["scopes"],
        json!(["operator.admin"])
    );

    gateway.sigterm_like().await;
    let shutdown = next_json(&mut socket).await;
    assert_eq!(
        (&shutdown["event"], &shutdown["seq"]),
        (&json!("shutdown"), &json!(1))
    );
    let Message::Close(Some(close)) = next(&mut socket).await else {
        panic!("no close")
    };
    assert_eq!(
        (u16::from(close.code), close.reason.as_str()),
        (1012, "service restart")
    );
    let refused = TcpStream::connect(gateway.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn while_starting_a_connect_is_answered_startup_sidecars_and_1013() {
    let gateway = ScriptedGateway::start().await;
    gateway.kill().await;
    gateway.begin_starting().await;
    let mut socket = dial(&gateway).await.unwrap();
    next(&mut socket).await;
    say(&mut socket, &connect()).await;
    let answer = next_json(&mut socket).await;
    assert_eq!(answer["error"]["details"]["reason"], "startup-sidecars");
    let Message::Close(Some(close)) = next(&mut socket).await else {
        panic!("no close")
    };
    assert_eq!(u16::from(close.code), 1013);
}

#[tokio::test]
async fn a_hung_gateway_answers_after_it_is_resumed() {
    let gateway = ScriptedGateway::start().await;
    let mut socket = dial(&gateway).await.unwrap();
    next(&mut socket).await;
    gateway.hang();
    say(&mut socket, &connect()).await;
    let silence = tokio::time::timeout(Duration::from_millis(100), socket.next()).await;
    assert!(silence.is_err());
    gateway.resume();
    assert_eq!(next_json(&mut socket).await["ok"], true);
}

#[tokio::test]
async fn the_33rd_unauthenticated_socket_is_refused_with_503() {
    let gateway = ScriptedGateway::start().await;
    let mut sockets = Vec::new();
    for _ in 0..32 {
        sockets.push(dial(&gateway).await.unwrap());
    }
    let Err(tungstenite::Error::Http(refusal)) = dial(&gateway).await else {
        panic!("accepted")
    };
    assert_eq!(refusal.status(), 503);
    drop(sockets.pop());
    gateway
        .wait_for("the end of one", |journal| journal.closes().len() == 1)
        .await;
    dial(&gateway).await.unwrap();
}

#[tokio::test]
async fn killing_it_resets_its_connections() {
    let gateway = ScriptedGateway::start().await;
    let mut socket = dial(&gateway).await.unwrap();
    next(&mut socket).await;
    gateway.kill().await;
    let Some(Err(tungstenite::Error::Io(error))) = socket.next().await else {
        panic!("no error")
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
