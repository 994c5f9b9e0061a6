//! What a hostile reviewer found: each of these failed when it was written.

use std::time::{Duration, Instant};

use fsvc::client::Delivery;
use fsvc::protocol::Start;
use serde_json::json;

use crate::harness::{Server, text};
use crate::messages::{
    ask_with, caught_up, client, runtime, say, serve, serve_with, subscribe, with_cursor,
};
use crate::raw::{Raw, message};

fn events(seen: &[Delivery]) -> Vec<String> {
    let text = |delivery: &Delivery| match delivery {
        Delivery::Event(message) => String::from_utf8(message.payload.clone()).unwrap(),
        other => format!("{other:?}"),
    };
    seen.iter().map(text).collect()
}

/// P13.1: a cursor stands where it stands; `since_time` is for one that is not there yet.
#[test]
fn a_time_to_begin_at_moves_no_cursor_that_is_there() {
    let server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        drop(subscribe(&dev, &["a"], with_cursor("loader")).await);
        say(&dev, "a", "old").await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let time = jiff::Timestamp::now();
        say(&dev, "a", "new").await;
        let start = Start {
            since: None,
            since_time: Some(time),
            ..with_cursor("loader")
        };
        let mut stream = subscribe(&dev, &["a"], start).await;
        let seen = caught_up(&mut stream).await;
        dev.ack(&"loader".parse().unwrap(), 2).await.unwrap();
        assert_eq!(events(&seen), ["old", "new"], "the cursor skipped");
    });
}

/// An answer of `topics` that does not fit a message: names that JSON doubles.
#[test]
fn topics_of_any_length_are_listed() {
    let server = serve();
    let mut raw = Raw::connect(&server, "alice");
    for n in 0..40 {
        let segment = "\"".repeat(250);
        let topic = format!("x/{n:02}/{segment}/{segment}/{segment}/{segment}");
        let request = json!({"id": 1, "op": "publish", "topic": topic, "size": 1});
        let answer = ask_with(&mut raw, &request.to_string(), b"1");
        assert!(answer["ok"].is_object(), "{answer}");
    }
    // Somebody else lists.
    let mut other = Raw::connect(&server, "bob");
    other.send(&message(r#"{"id":1,"op":"topics"}"#));
    let answer = other.try_frame();
    let log = server.log();
    let panic = log.lines().find(|line| line.contains("panicked"));
    assert!(answer.is_some() && panic.is_none(), "{answer:?} {panic:?}");
}

/// The same by many cursors of one's own.
#[test]
fn topics_are_listed_with_any_number_of_cursors() {
    let server = serve();
    for n in 0..200 {
        let mut raw = Raw::connect(&server, "dev");
        let name = format!("{n:0>64}");
        let request = json!({"id": 1, "op": "subscribe", "topics": ["**"], "cursor": name});
        assert!(raw.ask(&request.to_string())["ok"].is_object());
        raw.cut();
    }
    let mut raw = Raw::connect(&server, "dev");
    for n in 0..5 {
        let request = json!({"id": 1, "op": "publish", "topic": format!("t{n}"), "size": 1});
        assert!(ask_with(&mut raw, &request.to_string(), b"1")["ok"].is_object());
    }
    raw.send(&message(r#"{"id":1,"op":"topics"}"#));
    let answer = raw.try_frame();
    let log = server.log();
    let panic = log.lines().find(|line| line.contains("panicked"));
    assert!(answer.is_some() && panic.is_none(), "{panic:?}");
}

/// What is lost is told until somebody has had the chance to hear it: at least once.
#[test]
fn a_reader_that_dies_takes_no_news_of_a_gap_with_it() {
    let server = serve_with(&["--keep-size", "4KiB"]);
    runtime().block_on(async {
        let dev = client(&server, "dev");
        drop(subscribe(&dev, &["a"], with_cursor("loader")).await);
        for n in 0..20 {
            say(&dev, "a", &format!("{n:>1000}")).await;
        }
    });
    // The memory of the newest records hides what is gone: a reader that was away comes later.
    let mut server = server;
    server.signal("TERM");
    server.wait(Duration::from_secs(30));
    server.restart();
    // The reader asks, and dies before it reads a byte of the stream.
    let mut raw = Raw::connect(&server, "dev");
    let request = json!({"id": 1, "op": "subscribe", "topics": ["a"], "cursor": "loader"});
    assert!(raw.ask(&request.to_string())["ok"].is_object());
    std::thread::sleep(Duration::from_millis(500));
    raw.cut();
    let seen = runtime().block_on(async {
        let dev = client(&server, "dev");
        let start = Start {
            since: None,
            ..with_cursor("loader")
        };
        let mut stream = subscribe(&dev, &["a"], start).await;
        caught_up(&mut stream).await
    });
    let n_lost = seen
        .iter()
        .filter(|d| matches!(d, Delivery::Lost(_)))
        .count();
    assert_eq!(
        n_lost,
        1,
        "{} events, no lost: {:?}",
        seen.len(),
        events(&seen).len()
    );
}

/// A bounded reader of a cursor that somebody else acknowledges must end.
#[test]
fn who_does_not_acknowledge_has_to_follow() {
    let server = serve();
    let mut raw = Raw::connect(&server, "dev");
    let lines = "1\n".repeat(1024);
    for _ in 0..2 {
        let request = r#"{"id":1,"op":"publish","topic":"a","lines":true}"#;
        assert!(ask_with(&mut raw, request, lines.as_bytes())["ok"].is_object());
    }
    let arguments = [
        "subscribe",
        "a",
        "--since",
        "0",
        "--cursor",
        "c",
        "--no-ack",
        "--no-follow",
    ];
    server.fails(2, &arguments);
}

/// One damaged message, and nobody sees any topic.
#[test]
fn a_damaged_last_message_hides_no_other_topic() {
    let mut server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        for on in ["a", "b", "c"] {
            say(&dev, on, "hello there, this is long enough to be hit").await;
        }
    });
    server.signal("TERM");
    server.wait(Duration::from_secs(30));
    let file = std::fs::read_dir(server.root().join(".fsvc")).unwrap();
    let file = file
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "redb"));
    crate::bit_rot::spoil(&file.expect("the log"), 2);
    server.restart();
    let topics = server.run(&["topics"]);
    let last = server.run(&["last", "**"]);
    assert!(
        topics.status.success() && last.status.success(),
        "topics: {:?} {} / last: {:?} {} {}",
        topics.status.code(),
        text(&topics.stderr),
        last.status.code(),
        text(&last.stdout),
        text(&last.stderr),
    );
}

/// A name that its reader may not list is not told by a refusal.
#[test]
fn a_refusal_names_no_file_that_may_not_be_listed() {
    let policy = r#"
        [[grant]]
        to = "spiffe://test.internal/client/dev"
        allow = ["list", "read", "create", "replace", "delete"]
        on = "/**"
        [[grant]]
        to = "spiffe://test.internal/client/alice"
        allow = "create"
        on = "/inbox/*"
    "#;
    let server = Server::with_policy(policy);
    server.put("/inbox/d/secret-plan.txt", b"x");
    let mut raw = Raw::connect(&server, "alice");
    let request = r#"{"id":1,"op":"put","path":"/inbox/d","size":1}"#;
    let answer = ask_with(&mut raw, request, b"1");
    assert!(!answer.to_string().contains("secret-plan"), "{answer}");
    // The same by a set.
    let staged = ask_with(&mut raw, r#"{"id":1,"op":"stage","size":1}"#, b"1");
    let staged = staged["ok"]["staged"].as_str().unwrap().to_owned();
    let list = json!({"path": "/inbox/d", "staged": staged}).to_string();
    let answer = ask_with(&mut raw, r#"{"id":1,"op":"commit"}"#, list.as_bytes());
    assert!(!answer.to_string().contains("secret-plan"), "{answer}");
}

/// A server that drains does not wait for a reply that nobody sends.
#[test]
fn a_call_with_another_request_behind_it_holds_up_no_drain() {
    let mut server = serve();
    let mut raw = Raw::connect(&server, "dev");
    let call = r#"{"id":1,"op":"request","topic":"rpc/x","size":1,"timeout":300}"#;
    let ping = r#"{"id":2,"op":"ping"}"#;
    raw.send(&[message(call), crate::raw::body(b"1"), message(ping)].concat());
    std::thread::sleep(Duration::from_millis(500));
    server.signal("TERM");
    let began = Instant::now();
    server.wait(Duration::from_secs(60));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "the drain took {took:?}");
}
