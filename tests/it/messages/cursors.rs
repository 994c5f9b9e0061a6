//! Cursors: where a reader goes on, whatever became of its connection, its server, or itself.

use fsvc::protocol::Start;

use super::{
    LIMIT, caught_up, client, cursor, end, event, refused, runtime, say, serve, subscribe, texts,
    with_cursor,
};
use crate::harness::Server;
use crate::raw::{Raw, code};

const WORDS: [&str; 5] = ["one", "two", "three", "four", "five"];

async fn say_all(server: &Server) {
    let alice = client(server, "alice");
    for word in WORDS {
        say(&alice, "a", word).await;
    }
}

/// What is left of the cursor's stream, told to one that looks in and acknowledges nothing.
async fn left(server: &Server, name: &str) -> Vec<String> {
    let start = Start {
        since: None,
        ..with_cursor(name)
    };
    let mut stream = subscribe(&client(server, "dev"), &["a"], start).await;
    let seen = caught_up(&mut stream).await;
    texts_of(&seen)
}

fn texts_of(seen: &[fsvc::client::Delivery]) -> Vec<String> {
    let text = |delivery: &fsvc::client::Delivery| match delivery {
        fsvc::client::Delivery::Event(message) => {
            String::from_utf8(message.payload.clone()).unwrap()
        }
        other => format!("{other:?}"),
    };
    seen.iter().map(text).collect()
}

#[test]
fn what_is_acknowledged_is_done_with_also_after_a_clean_restart() {
    let mut server = serve();
    runtime().block_on(async {
        say_all(&server).await;
        let dev = client(&server, "dev");
        let mut stream = subscribe(&dev, &["a"], with_cursor("loader")).await;
        assert_eq!(texts(&mut stream, 5).await, WORDS);
        dev.ack(&cursor("loader"), 3).await.unwrap();
        // An older acknowledgement takes nothing back.
        dev.ack(&cursor("loader"), 1).await.unwrap();
        assert_eq!(left(&server, "loader").await, WORDS[3..]);
    });
    server.signal("TERM");
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    server.restart();
    runtime().block_on(async {
        assert_eq!(left(&server, "loader").await, WORDS[3..]);
    });
}

#[test]
fn a_kill_repeats_at_most_and_skips_nothing() {
    for n_acknowledged in [0, 1, 4] {
        let mut server = serve();
        runtime().block_on(async {
            let dev = client(&server, "dev");
            // The cursor is new, and begins with what comes.
            let start = Start {
                since: None,
                ..with_cursor("loader")
            };
            let mut stream = subscribe(&dev, &["a"], start).await;
            say_all(&server).await;
            assert_eq!(texts(&mut stream, 5).await, WORDS);
            if n_acknowledged > 0 {
                dev.ack(&cursor("loader"), n_acknowledged).await.unwrap();
            }
        });
        server.restart();
        let left = runtime().block_on(left(&server, "loader"));
        let n_left = left.len();
        assert!(
            n_left >= WORDS.len() - usize::try_from(n_acknowledged).unwrap(),
            "{left:?}"
        );
        assert_eq!(left, WORDS[WORDS.len() - n_left..]);
    }
}

#[test]
fn what_is_not_acknowledged_in_time_comes_again() {
    let server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        say(&dev, "a", "one").await;
        say(&dev, "a", "two").await;
        let start = Start {
            ack_timeout: Some(1),
            ..with_cursor("loader")
        };
        let mut stream = subscribe(&dev, &["a"], start).await;
        for (text, delivery) in [("one", None), ("two", None)] {
            let message = event(&mut stream).await;
            assert_eq!(
                (&message.payload[..], message.event.delivery),
                (text.as_bytes(), delivery)
            );
        }
        dev.ack(&cursor("loader"), 1).await.unwrap();
        for delivery in [2, 3] {
            let message = event(&mut stream).await;
            assert_eq!(
                (message.event.sequence, message.event.delivery),
                (2, Some(delivery))
            );
        }
        dev.ack(&cursor("loader"), 2).await.unwrap();
        say(&dev, "a", "three").await;
        let message = event(&mut stream).await;
        assert_eq!((message.event.sequence, message.event.delivery), (3, None));
    });
}

#[test]
fn a_second_reader_takes_the_cursor_and_the_first_one_is_told() {
    let server = serve();
    runtime().block_on(async {
        say_all(&server).await;
        let (dev, other) = (client(&server, "dev"), client(&server, "dev"));
        let mut first = subscribe(&dev, &["a"], with_cursor("loader")).await;
        assert_eq!(texts(&mut first, 5).await, WORDS);
        dev.ack(&cursor("loader"), 2).await.unwrap();
        let mut second = subscribe(&other, &["a"], with_cursor("loader")).await;
        assert_eq!(end(&mut first).await.code().unwrap().to_string(), "exists");
        assert_eq!(texts(&mut second, 3).await, WORDS[2..]);
    });
}

#[test]
fn a_cursor_belongs_to_its_identity() {
    let server = serve();
    runtime().block_on(async {
        say_all(&server).await;
        let (dev, bob) = (client(&server, "dev"), client(&server, "bob"));
        let name = cursor("loader");
        let mut stream = subscribe(&dev, &["a"], with_cursor("loader")).await;
        texts(&mut stream, 5).await;
        assert_eq!(refused(bob.ack(&name, 5).await), "not_found");
        assert_eq!(refused(bob.forget(&name).await), "not_found");
        let mut others = subscribe(&bob, &["a"], with_cursor("loader")).await;
        assert_eq!(texts(&mut others, 5).await, WORDS);
        bob.ack(&name, 5).await.unwrap();
        bob.forget(&name).await.unwrap();
        assert_eq!(left(&server, "loader").await, WORDS);
    });
}

#[test]
fn a_forgotten_cursor_ends_its_readers_and_is_not_there_after_a_restart() {
    let mut server = serve();
    runtime().block_on(async {
        say_all(&server).await;
        let dev = client(&server, "dev");
        let mut stream = subscribe(&dev, &["a"], with_cursor("loader")).await;
        texts(&mut stream, 5).await;
        dev.ack(&cursor("loader"), 5).await.unwrap();
    });
    server.ok(&["forget", "loader"]);
    server.fails(3, &["forget", "loader"]);
    server.fails(3, &["ack", "loader", "1"]);
    server.restart();
    server.fails(3, &["forget", "loader"]);
    let again = server.ok(&[
        "subscribe",
        "a",
        "--since",
        "0",
        "--cursor",
        "loader",
        "--count",
        "1",
    ]);
    assert_eq!(again, "a: one\n");
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let mut stream = subscribe(&dev, &["a"], with_cursor("loader")).await;
        assert_eq!(event(&mut stream).await.payload, b"two");
        dev.forget(&cursor("loader")).await.unwrap();
        assert_eq!(
            end(&mut stream).await.code().unwrap().to_string(),
            "not_found"
        );
    });
}

#[test]
fn nothing_is_acknowledged_that_was_not_given() {
    let server = serve();
    runtime().block_on(async {
        say_all(&server).await;
        let dev = client(&server, "dev");
        let mut stream = subscribe(&dev, &["a"], with_cursor("loader")).await;
        texts(&mut stream, 5).await;
        for sequence in [6, 7, 1 << 40] {
            let answer = dev.ack(&cursor("loader"), sequence).await;
            assert_eq!(refused(answer), "bad_request", "{sequence}");
        }
        say(&dev, "a", "six").await;
        assert_eq!(event(&mut stream).await.payload, b"six");
        dev.ack(&cursor("loader"), 6).await.unwrap();
    });
}

#[test]
fn an_identity_has_only_so_many_cursors() {
    let server = serve();
    let read = |name: &str, number: usize| {
        let mut raw = Raw::connect(&server, name);
        let cursor = format!(r#"{{"id":1,"op":"subscribe","topics":["a"],"cursor":"c{number}"}}"#);
        let answer = raw.ask(&cursor);
        raw.cut();
        answer
    };
    for number in 0..256 {
        assert!(read("dev", number)["ok"].is_object(), "{number}");
    }
    assert_eq!(code(&read("dev", 256)), "quota");
    // One that is there can still be read, and another identity has its own.
    assert!(read("dev", 7)["ok"].is_object());
    assert!(read("bob", 256)["ok"].is_object());
    server.ok(&["forget", "c7"]);
    assert!(read("dev", 256)["ok"].is_object());
}

#[test]
fn the_command_acknowledges_what_it_printed_and_no_more() {
    let server = serve();
    runtime().block_on(say_all(&server));
    let read = |n: &str| {
        server.ok(&[
            "subscribe",
            "a",
            "--cursor",
            "cli",
            "--since",
            "0",
            "--count",
            n,
        ])
    };
    assert_eq!(read("2"), "a: one\na: two\n");
    assert_eq!(read("1"), "a: three\n");
    let topics = server.ok(&["topics", "--json"]);
    let topic: serde_json::Value = serde_json::from_str(&topics).unwrap();
    assert_eq!(
        topic["cursors"],
        serde_json::json!([{"cursor": "cli", "lag": 2}])
    );
    let rest = server.ok(&["subscribe", "a", "--since", "cli", "--no-follow"]);
    assert_eq!(rest, "a: four\na: five\n");
}
