//! Promise 2: frames stay true, byte for byte, whole or not at all.

use serde_json::json;

use crate::kit::frame::{BINARY, CLOSE, CONTINUATION, TEXT};
use crate::kit::gateway::{Options, Protocol, ScriptedGateway};
use crate::kit::{Client, Frame, Proxy, Raw, Role, ms};

async fn echo() -> (ScriptedGateway, Proxy) {
    let gateway = ScriptedGateway::with(Options {
        protocol: Protocol::Echo,
        ..Options::default()
    })
    .await;
    let proxy = Proxy::with(&gateway, "[gateway]\nprotocol = \"generic\"").await;
    (gateway, proxy)
}

async fn session() -> (ScriptedGateway, Proxy, Raw) {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let (raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    (gateway, proxy, raw)
}

async fn back(gateway: &ScriptedGateway) {
    gateway.begin_starting().await;
    gateway.ready();
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// Every kind of frame and every way to write a length; fragments with control frames between.
fn every_kind() -> Vec<Frame> {
    let mut frames = Vec::new();
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000, 300_000] {
        frames.push(Frame::binary(bytes(length)));
        frames.push(Frame::new(TEXT, vec![b'a'; length]));
    }
    frames.push(Frame::new(TEXT, vec![0xff, 0xfe, 0xc0, 0x80]));
    frames.push(Frame::text("first ").not_final());
    frames.push(Frame::ping("in between"));
    frames.push(Frame::new(CONTINUATION, bytes(70_000)).not_final());
    frames.push(Frame::new(CONTINUATION, "").not_final());
    frames.push(Frame::pong("unsolicited"));
    frames.push(Frame::new(CONTINUATION, "last"));
    frames.push(Frame::new(BINARY, bytes(10)).not_final());
    frames.push(Frame::new(CONTINUATION, bytes(10)));
    frames
}

/// What the echo makes of them: pings come back as pongs, pongs not at all.
fn echoed(frames: &[Frame]) -> Vec<Frame> {
    let pong = |frame: &Frame| match frame.opcode {
        0x9 => Some(Frame::pong(frame.payload.clone())),
        0xA => None,
        _ => Some(frame.clone()),
    };
    frames.iter().filter_map(pong).collect()
}

#[tokio::test]
async fn every_frame_passes_as_it_is_both_ways() {
    let (gateway, proxy) = echo().await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    let sent = every_kind();
    for frame in &sent {
        raw.send(frame).await;
    }
    for (number, expected) in echoed(&sent).iter().enumerate() {
        assert_eq!(
            &raw.next().await,
            expected,
            "frame {number} on its way back"
        );
    }
    let journal = gateway.journal();
    let arrived = journal.frames();
    assert_eq!(arrived.len(), sent.len());
    for (number, (arrived, sent)) in arrived.iter().zip(&sent).enumerate() {
        assert!(arrived.masked, "frame {number} lost its mask");
        assert_eq!(
            arrived.payload, sent.payload,
            "frame {number} on its way there"
        );
        assert_eq!(
            (arrived.fin, arrived.opcode),
            (sent.fin, sent.opcode),
            "frame {number}"
        );
    }
}

#[tokio::test]
async fn frames_pass_however_they_are_cut_into_segments() {
    let (gateway, proxy) = echo().await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    let frames = [
        Frame::text("short"),
        Frame::binary(bytes(300)),
        Frame::close(4321, "done"),
    ];
    for frame in &frames[..2] {
        for byte in frame.encode_masked([9, 8, 7, 6]) {
            raw.send_bytes(&[byte]).await;
        }
    }
    assert_eq!([raw.next().await, raw.next().await], frames[..2]);
    let wire: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    gateway.conn(1).await.send_slowly(wire, 1, ms(1));
    for frame in &frames {
        assert_eq!(&raw.next().await, frame);
    }
}

#[tokio::test]
async fn a_slow_frame_arrives_as_it_comes_and_others_are_not_kept_waiting() {
    let (gateway, proxy, mut raw) = session().await;
    let other = Client::connected(Role::backend(), proxy.target()).await;
    let event = json!({"type":"event","event":"slow","payload":{"x":"y".repeat(2000)},"seq":1});
    let slow = Frame::text(event.to_string()).encode();
    let (one, two) = slow.split_at(slow.len() / 2);
    let conn = gateway.conns()[0].clone();
    conn.send_slowly(one.to_vec(), 50, ms(5));
    conn.flushed().await;
    // Its second half comes when others have been heard.
    other.request("health", json!({})).await.ok();
    conn.send_slowly(two.to_vec(), 50, ms(5));
    assert_eq!(
        raw.event("slow").await["x"].as_str().map(str::len),
        Some(2000)
    );
}

#[tokio::test]
async fn of_a_short_frame_torn_by_the_gateways_death_the_client_sees_nothing() {
    for (length, torn_at) in [(100, 1), (100, 60), (60_000, 59_000)] {
        let (gateway, _proxy, mut raw) = session().await;
        let event = json!({"type":"event","event":"torn","payload":"x".repeat(length),"seq":1});
        let wire = Frame::text(event.to_string()).encode();
        let conn = gateway.conn(1).await;
        conn.event("whole", json!({}));
        conn.send_bytes(&wire[..torn_at]);
        conn.flushed().await;
        raw.event("whole").await;
        gateway.kill().await;
        assert_eq!(
            raw.next().await.json()["event"],
            "gateway.down",
            "torn at {torn_at}"
        );
        back(&gateway).await;
        raw.request("r", "health", json!({})).await;
        assert_eq!(raw.answer("r").await["ok"], true);
    }
}

#[tokio::test]
async fn a_long_torn_frame_ends_the_connection_below_the_websocket() {
    let (gateway, _proxy, mut raw) = session().await;
    let wire = Frame::binary(bytes(200_000)).encode();
    let conn = gateway.conn(1).await;
    conn.send_bytes(&wire[..150_000]);
    conn.flushed().await;
    let early = tokio::time::timeout(ms(300), raw.frame_unhurried()).await;
    assert!(early.is_err(), "{early:?}");
    assert!(
        raw.has_partial_frame(),
        "a long frame is passed on as it comes"
    );
    gateway.kill().await;
    let (frames, _) = raw.end().await;
    assert_eq!(frames, [], "nothing can be said inside a torn frame");
}

#[tokio::test]
async fn half_a_frame_is_completed_after_a_short_hang() {
    let (gateway, _proxy, mut raw) = session().await;
    let frame = Frame::text(json!({"type":"event","event":"e","payload":{}}).to_string());
    let wire = frame.encode();
    let conn = gateway.conn(1).await;
    conn.send_bytes(&wire[..10]);
    conn.flushed().await;
    gateway.hang();
    let early = tokio::time::timeout(ms(300), raw.frame_unhurried()).await;
    assert!(early.is_err(), "{early:?}");
    gateway.resume();
    conn.send_bytes(&wire[10..]);
    assert_eq!(raw.next().await, frame);
}

#[tokio::test]
async fn nothing_but_control_frames_is_put_inside_a_fragmented_message() {
    let (gateway, _proxy, mut raw) = session().await;
    let conn = gateway.conn(1).await;
    conn.send(&Frame::text(r#"{"type":"event","#).not_final());
    conn.flushed().await;
    gateway.kill().await;
    let mut open = false;
    let last = loop {
        let Ok(frame) = raw.frame().await else {
            break None;
        };
        match frame.opcode {
            TEXT if frame.payload.starts_with(b"{\"type\":\"event\",") && !frame.fin => open = true,
            CLOSE => break Some(frame),
            _ if frame.is_control() => {}
            _ => assert!(!open, "inside the message: {frame:?}"),
        }
        if !open {
            // It was dropped as a torn one would be: that is true too.
            assert_eq!(frame.json()["event"], "gateway.down");
            return;
        }
    };
    if let Some(close) = last {
        assert_eq!(close.close_code(), Some(1012));
    }
}

#[tokio::test]
async fn a_frame_of_ours_waits_for_the_end_of_the_message_under_way() {
    let (gateway, proxy, mut raw) = session().await;
    let other = Client::connected(Role::backend(), proxy.target()).await;
    let conn = gateway.conns()[0].clone();
    let whole = json!({"type":"event","event":"parts","payload":{},"seq":1}).to_string();
    let (one, two) = whole.split_at(20);
    conn.send(&Frame::text(one).not_final());
    assert_eq!(raw.next().await.payload, one.as_bytes());
    gateway.hang();
    other.event("gateway.down", 1).await;
    let early = tokio::time::timeout(ms(300), raw.frame_unhurried()).await;
    assert!(early.is_err(), "inside the message: {early:?}");
    conn.send(&Frame::new(CONTINUATION, two.to_owned()));
    gateway.resume();
    assert_eq!(raw.next().await.payload, two.as_bytes());
    assert_eq!(raw.next().await.json()["event"], "gateway.down");
}

#[tokio::test]
async fn garbage_from_the_gateway_is_a_loss_and_not_passed_on() {
    let unmasked_is_right_for_a_server = Frame::text("x").encode_masked([1, 1, 1, 1]);
    let reserved_opcode = vec![0x83, 0x01, 0x41];
    let long_control_frame = [vec![0x89, 126, 0, 200], vec![0; 200]].concat();
    for garbage in [
        unmasked_is_right_for_a_server,
        reserved_opcode,
        long_control_frame,
    ] {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::start(&gateway).await;
        let client = Client::connected(Role::backend(), proxy.target()).await;
        gateway.conn(1).await.send_bytes(garbage.clone());
        gateway
            .wait_for("the return", |journal| journal.hellos() == 2)
            .await;
        client.hello(1).await;
        client.request("health", json!({})).await.ok();
        client.record().assert_sound();
        assert!(
            client
                .record()
                .disconnects
                .iter()
                .all(|end| end.code == 1012),
            "{garbage:x?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_which_way() {
    let too_long = Frame::binary(bytes(70_000)).encode_masked([1, 2, 3, 4]);
    let cases: [(&str, Vec<u8>, u16); 5] = [
        ("not masked", Frame::text("x").encode(), 1002),
        ("reserved opcode", vec![0x83, 0x80, 1, 2, 3, 4], 1002),
        ("fragmented ping", vec![0x09, 0x80, 1, 2, 3, 4], 1002),
        (
            "continuation of nothing",
            vec![0x80, 0x80, 1, 2, 3, 4],
            1002,
        ),
        ("larger than limits.frame", too_long, 1009),
    ];
    for (what, wire, code) in cases {
        let gateway = ScriptedGateway::start().await;
        let proxy = Proxy::with(&gateway, "[limits]\nframe = \"65KiB\"").await;
        let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
        raw.send_bytes(&wire).await;
        assert_eq!(raw.closed().await.0, code, "{what}");
        gateway
            .wait_for("its end", |journal| journal.closes().len() == 1)
            .await;
        let journal = gateway.journal();
        let passed = journal
            .frames()
            .iter()
            .filter(|f| f.opcode == BINARY)
            .count();
        assert_eq!(passed, 0, "{what}: passed on");
    }
}

#[tokio::test]
async fn before_its_hello_a_client_may_only_send_small_frames() {
    let gateway = ScriptedGateway::start().await;
    let proxy = Proxy::start(&gateway).await;
    let mut raw = Raw::open(&proxy.target(), "/", &[]).await.unwrap();
    let long = Frame::text("x".repeat(70_000)).encode_masked([1, 2, 3, 4]);
    raw.send_bytes(&long).await;
    assert_eq!(raw.closed().await.0, 1009);

    let (mut raw, _) = Raw::connected(&proxy.target(), &Role::backend()).await;
    raw.request(
        "r",
        "config.set",
        json!({"name": "big", "filler": "x".repeat(70_000)}),
    )
    .await;
    assert_eq!(raw.answer("r").await["ok"], true);
}
