//! What becomes a message, and what does not.

use fsvc::client::PublishOptions;
use fsvc::digest::Digest;
use fsvc::protocol::Published;
use serde_json::{Value, json};

use super::{ask_with, caught_up, client, event, runtime, say, serve, since, subscribe, topic};
use crate::harness::{Server, text, with_input};
use crate::raw::{Raw, code, frame, message, trailer};

fn under(id: &str) -> PublishOptions {
    PublishOptions {
        dedup_id: Some(id.parse().unwrap()),
    }
}

#[test]
fn a_message_that_is_sent_again_is_taken_once() {
    let mut server = serve();
    let first = runtime().block_on(async {
        let (dev, bob) = (client(&server, "dev"), client(&server, "bob"));
        let a = topic("a");
        let first = dev.publish(&a, "x", under("order 7")).await.unwrap();
        assert!(!first.duplicate);
        let again = dev
            .publish(&a, "another text", under("order 7"))
            .await
            .unwrap();
        assert_eq!(
            again,
            Published {
                duplicate: true,
                ..first
            }
        );
        // Another identity, another topic, another id: each its own.
        for (who, on, id) in [
            (&bob, "a", "order 7"),
            (&dev, "b", "order 7"),
            (&dev, "a", "order 8"),
        ] {
            let other = who.publish(&topic(on), "x", under(id)).await.unwrap();
            assert!(!other.duplicate && other.sequence > first.sequence);
        }
        first
    });
    server.restart();
    let said = server.ok(&["publish", "a", "1", "--dedup-id", "order 7", "--json"]);
    let again: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        again,
        json!({"sequence": first.sequence, "duplicate": true})
    );
    assert_eq!(
        server
            .ok(&["subscribe", "a", "--since", "0", "--no-follow"])
            .lines()
            .count(),
        3
    );
}

#[test]
fn lines_that_are_sent_again_are_taken_once_each() {
    let server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let lines = b"1\n2\n3\n".to_vec();
        let first = dev
            .publish_lines(&topic("a"), lines.clone(), under("batch"))
            .await
            .unwrap();
        assert_eq!(first.sequences, [1, 2, 3]);
        let again = dev
            .publish_lines(&topic("a"), lines, under("batch"))
            .await
            .unwrap();
        assert_eq!(again.sequences, first.sequences);
        let mut all = subscribe(&dev, &["a"], since(0)).await;
        assert_eq!(caught_up(&mut all).await.len(), 3);
    });
}

#[test]
fn messages_of_every_size_arrive_as_they_were_sent() {
    let server = serve();
    runtime().block_on(async {
        let (dev, bob) = (client(&server, "dev"), client(&server, "bob"));
        let mut stream = subscribe(&bob, &["sizes"], since(0)).await;
        for size in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
            let content: Vec<u8> = (0..=250).cycle().take(size).collect();
            let on = topic("sizes");
            let published = dev.publish(&on, content.clone(), PublishOptions::default());
            let sequence = published.await.unwrap().sequence;
            let got = event(&mut stream).await;
            assert_eq!(got.event.sequence, sequence);
            match got.event.attachment {
                None => {
                    assert!(size <= 65_536);
                    assert_eq!(got.payload, content);
                }
                Some(attachment) => {
                    assert!(size > 65_536);
                    assert_eq!(
                        (attachment.size, attachment.digest),
                        (size as u64, Digest::of(&content))
                    );
                    let (fetched, bytes) = bob.fetch(sequence, Vec::new()).await.unwrap();
                    assert_eq!((fetched.sequence, bytes), (sequence, content));
                }
            }
        }
        // What came with its event is not fetched.
        let inline = super::refused(bob.fetch(2, Vec::new()).await);
        assert_eq!(inline, "not_found");
    });
}

#[test]
fn a_small_message_of_unknown_size_comes_with_its_event() {
    let server = serve();
    for (content, expected) in [
        (vec![b'x'; 10], false),
        (vec![b'x'; 65_536], false),
        (vec![b'x'; 65_537], true),
    ] {
        let sent = with_input(&mut server.client("dev", &["publish", "a", "-"]), &content);
        assert!(sent.status.success(), "{}", text(&sent.stderr));
        let last: Value = serde_json::from_str(&server.ok(&["last", "a", "--json"])).unwrap();
        assert_eq!(
            last["attachment"].is_object(),
            expected,
            "{} bytes",
            content.len()
        );
    }
    assert_eq!(server.ok(&["fetch", "3", "-"]).len(), 65_537);
    server.ok(&[
        "subscribe",
        "a",
        "--since",
        "0",
        "--no-follow",
        "--attachments",
        "here",
    ]);
    let saved = server.directory.path().join("here").join("3");
    assert_eq!(std::fs::read(saved).unwrap().len(), 65_537);
}

/// The last record of the log.
fn head(server: &Server) -> Value {
    let stats = server.ok(&["admin", "log", "stats", "--json"]);
    serde_json::from_str::<Value>(&stats).unwrap()["head"].clone()
}

#[test]
fn a_body_that_is_not_what_its_end_says_is_no_message() {
    let server = serve();
    let mut raw = Raw::connect(&server, "dev");
    let sized = |size: usize| format!(r#"{{"id":1,"op":"publish","topic":"a","size":{size}}}"#);
    let digest = Digest::of(b"xyz").to_string();
    let large = vec![7; 100_000];
    let cases: Vec<(&str, String, Vec<u8>, &str)> = vec![
        (
            "another digest",
            sized(3),
            [frame(b'D', b"abc"), trailer(3, &digest)].concat(),
            "digest_mismatch",
        ),
        (
            "another size",
            sized(3),
            [frame(b'D', b"xyz"), trailer(4, &digest)].concat(),
            "digest_mismatch",
        ),
        (
            "less than announced",
            sized(4),
            [frame(b'D', b"xyz"), trailer(3, &digest)].concat(),
            "digest_mismatch",
        ),
        (
            "a large one with another digest",
            sized(100_000),
            [frame(b'D', &large), trailer(100_000, &digest)].concat(),
            "digest_mismatch",
        ),
        (
            "a small one given up",
            sized(3),
            [
                frame(b'D', b"x"),
                frame(b'E', br#"{"abort":"unavailable"}"#),
            ]
            .concat(),
            "bad_request",
        ),
        (
            "a large one given up",
            sized(100_000),
            [
                frame(b'D', &large[1..]),
                frame(b'E', br#"{"abort":"unavailable"}"#),
            ]
            .concat(),
            "bad_request",
        ),
    ];
    for (what, request, bytes, expected) in cases {
        raw.send(&[message(&request), bytes].concat());
        assert_eq!(code(&raw.answer()), expected, "{what}");
        raw.lives();
        assert_eq!(server.staged(), Vec::<String>::new(), "{what}");
    }
    assert_eq!(head(&server), 0);
}

#[test]
fn a_line_that_is_no_message_stops_no_other() {
    let server = serve();
    let long = "x".repeat(65_537);
    let mut raw = Raw::connect(&server, "dev");
    let request = r#"{"id":1,"op":"publish","topic":"a","lines":true}"#;
    let answer = ask_with(&mut raw, request, format!("1\n\n{long}\n2").as_bytes());
    assert_eq!(answer["ok"]["sequences"], json!([1, 0, 0, 2]));
    assert_eq!(answer["ok"]["n_refused"], 2);
    let refused = |i: usize| {
        (
            answer["ok"]["refused"][i]["line"].clone(),
            answer["ok"]["refused"][i]["error"]["code"].clone(),
        )
    };
    assert_eq!(refused(0), (json!(2), json!("bad_request")));
    assert_eq!(refused(1), (json!(3), json!("too_large")));
    let lines: Vec<String> = (0..1025).map(|n| n.to_string()).collect();
    assert_eq!(
        code(&ask_with(&mut raw, request, lines.join("\n").as_bytes())),
        "quota"
    );
    assert_eq!(
        code(&ask_with(&mut raw, request, &vec![b'x'; (1 << 20) + 1])),
        "too_large"
    );
    raw.lives();
    assert_eq!(head(&server), 2);
    let most = lines[1..].join("\n");
    let answer = ask_with(&mut raw, request, most.as_bytes());
    assert_eq!(answer["ok"]["sequences"].as_array().unwrap().len(), 1024);
    // The command passes over empty lines, and names the long one as in its input.
    let input = format!("a\n\nb\n{long}\nc\n");
    let output = with_input(
        &mut server.client("dev", &["publish", "b", "-", "--lines"]),
        input.as_bytes(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("line 4: longer than 65536 bytes"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        server.ok(&["subscribe", "b", "--since", "0", "--no-follow"]),
        "b: a\nb: b\nb: c\n"
    );
}

#[test]
fn topics_and_last_messages_are_listed() {
    let server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        for number in 0..70 {
            say(&dev, &format!("t/{number:02}"), "old").await;
            say(&dev, &format!("t/{number:02}"), "new").await;
        }
        let mut last = Vec::new();
        let sink = |message: fsvc::client::Message| {
            last.push((message.event.sequence, message.payload));
            Ok(())
        };
        let up_to = dev.last(super::filters(&["t/*"]), sink).await.unwrap();
        let expected: Vec<_> = (1..=70).map(|n| (2 * n, b"new".to_vec())).collect();
        assert_eq!((up_to, last), (140, expected));
    });
    let topics = server.ok(&["topics", "t/**", "--json"]);
    let topics: Vec<Value> = topics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(topics.len(), 70);
    for (topic, number) in topics.iter().zip(0..) {
        assert_eq!(topic["topic"], format!("t/{number:02}"));
        assert_eq!(
            (&topic["n_messages"], &topic["size"]),
            (&json!(2), &json!(6))
        );
        assert_eq!(topic["last"], 2 * number + 2);
    }
    assert_eq!(server.ok(&["topics", "nothing/**"]), "");
}
