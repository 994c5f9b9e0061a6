//! Frames and messages that should not be: each gets its reason, changes nothing, and a good request
//! works right after.

#![expect(clippy::too_many_lines, reason = "tables")]

use fsvc::digest::Digest;
use serde_json::json;

use crate::harness::{Server, Setup};
use crate::raw::{Raw, body, code, frame, message, snapshot, trailer};

/// A server with one file, and what its tree looks like.
fn server() -> Server {
    let server = Server::start();
    server.put("/there", b"is something");
    server
}

#[test]
fn p2_malformed_frames_are_answered_and_end_the_connection() {
    let server = server();
    let before = snapshot(&server.root());
    let over = |kind: u8, size: u32| [&[kind], &size.to_be_bytes()[..]].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("kind zero", vec![0; 5]),
        ("an unknown kind", b"X\0\0\0\x01x".to_vec()),
        ("a small letter", b"m\0\0\0\x02{}".to_vec()),
        ("TLS in TLS", b"\x16\x03\x01\x02\x00\x01".to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("bare JSON", br#"{"id":1,"op":"ping"}"#.to_vec()),
        ("an empty message", frame(b'M', b"")),
        ("an empty data frame", frame(b'D', b"")),
        ("an empty end", frame(b'E', b"")),
        ("a message one byte over", over(b'M', (64 << 10) + 1)),
        ("the largest length", over(b'M', u32::MAX)),
        ("data one byte over", over(b'D', (1 << 20) + 1)),
        ("an end one byte over", over(b'E', (4 << 10) + 1)),
        ("data where a message belongs", frame(b'D', b"abc")),
        (
            "an end where a message belongs",
            trailer(3, &Digest::of(b"abc").to_string()),
        ),
        (
            "a message in a body",
            [
                message(r#"{"id":1,"op":"put","path":"/x"}"#),
                message(r#"{"id":2,"op":"ping"}"#),
            ]
            .concat(),
        ),
        (
            "an unknown kind in a body",
            [
                message(r#"{"id":1,"op":"put","path":"/x"}"#),
                b"Z\0\0\0\x01z".to_vec(),
            ]
            .concat(),
        ),
        (
            "an oversize piece in a body",
            [
                message(r#"{"id":1,"op":"put","path":"/x"}"#),
                over(b'D', u32::MAX),
            ]
            .concat(),
        ),
        (
            "a trailer that is no JSON",
            [
                message(r#"{"id":1,"op":"put","path":"/x"}"#),
                frame(b'E', b"done"),
            ]
            .concat(),
        ),
        (
            "a trailer of another hash",
            [
                message(r#"{"id":1,"op":"put","path":"/x"}"#),
                trailer(0, "sha256:00"),
            ]
            .concat(),
        ),
        (
            "a trailer with a negative size",
            [
                message(r#"{"id":1,"op":"put","path":"/x"}"#),
                frame(b'E', br#"{"size":-1,"digest":""}"#),
            ]
            .concat(),
        ),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::connect(&server, "dev");
        raw.send(&bytes);
        let answer = raw.answer();
        assert_eq!(code(&answer), "bad_frame", "{what}: {answer}");
        assert_eq!(answer.get("id"), None, "{what}");
        raw.ends();
        Raw::connect(&server, "dev").lives();
        assert_eq!(snapshot(&server.root()), before, "{what}");
        assert_eq!(server.staged(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn p6_9_a_whole_body_needs_a_digest_at_its_end() {
    let server = server();
    let before = snapshot(&server.root());
    let mut raw = Raw::connect(&server, "dev");
    raw.send(&message(r#"{"id":1,"op":"put","path":"/x"}"#));
    raw.send(&frame(b'E', br#"{"size":0}"#));
    assert_eq!(code(&raw.answer()), "bad_request");
    raw.lives();
    assert_eq!(snapshot(&server.root()), before);
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn p4_bad_messages_are_answered_and_the_connection_lives() {
    let server = server();
    let before = snapshot(&server.root());
    let mut raw = Raw::connect(&server, "dev");
    let deep = |n: usize| {
        format!(
            r#"{{"id":1,"op":"ping","x":{}{}}}"#,
            "[".repeat(n),
            "]".repeat(n)
        )
    };
    let long = format!(
        r#"{{"id":1,"op":"stat","path":"/{}"}}"#,
        "x".repeat(60 << 10)
    );
    let keys: Vec<String> = (0..5_000).map(|n| format!(r#""k{n}":1"#)).collect();
    let many = format!(r#"{{"id":1,"op":"ping",{}}}"#, keys.join(","));
    let texts = [
        "",
        " ",
        "{",
        "}",
        "[]",
        "null",
        "\"x\"",
        "1",
        "{}{}",
        r#"{"id":1,"op":"ping"} x"#,
        r#"{"id":1,"op":"ping",}"#,
        r"{'id':1,'op':'ping'}",
        r#"{"id":1,/* */"op":"ping"}"#,
        "\u{feff}{\"id\":1,\"op\":\"ping\"}",
        "NaN",
        r#"{"op":"ping"}"#,
        r#"{"id":null,"op":"ping"}"#,
        r#"{"id":-1,"op":"ping"}"#,
        r#"{"id":1.0,"op":"ping"}"#,
        r#"{"id":1e3,"op":"ping"}"#,
        r#"{"id":"1","op":"ping"}"#,
        r#"{"id":9007199254740992,"op":"ping"}"#,
        r#"{"id":18446744073709551616,"op":"ping"}"#,
        r#"{"id":1e999,"op":"ping"}"#,
        r#"{"id":-0,"op":"ping"}"#,
        r#"{"id":1}"#,
        r#"{"id":1,"op":7}"#,
        r#"{"id":1,"op":null}"#,
        r#"{"id":1,"op":["ping"]}"#,
        r#"{"id":1,"op":"ping","op":"ping"}"#,
        r#"{"id":1,"id":2,"op":"ping"}"#,
        r#"{"id":1,"op":"ping","\u006fp":"stat"}"#,
        r#"{"id":1,"op":"ping","extra":true}"#,
        r#"{"id":1,"op":"ping","version":2}"#,
        r#"{"id":1,"op":"stat"}"#,
        r#"{"id":1,"op":"stat","path":7}"#,
        r#"{"id":1,"op":"stat","path":null}"#,
        r#"{"id":1,"op":"stat","path":"/a","user":"root"}"#,
        r#"{"id":1,"op":"stat","path":"/a","path":"/b"}"#,
        r#"{"id":1,"op":"stat","path":"/a","p\u0061th":"/b"}"#,
        r#"{"id":1,"op":"stat","path":"\ud800"}"#,
        r#"{"id":1,"op":"remove","path":"/there","if_version":"1"}"#,
        r#"{"id":1,"op":"remove","path":"/there","if_version":1.5}"#,
        r#"{"id":1,"op":"remove","path":"/there","if_absent":true}"#,
        r#"{"id":1,"op":"move","from":"/there"}"#,
        r#"{"id":1,"op":"move","from":"/there","to":"/x","if_absent":1}"#,
        r#"{"id":1,"op":"list","path":"/","limit":0}"#,
        r#"{"id":1,"op":"remove","path":"/there","if_version":null}"#,
        r#"{"id":1,"op":"list","path":"/","after":null}"#,
        r#"{"id":1,"op":"can","action":"fly","on":"/a"}"#,
        r#"{"id":1,"op":"can","action":"read","on":"nowhere"}"#,
        &deep(15),
        &deep(100),
        &deep(30_000),
        &long,
        &many,
    ];
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let answer = raw.ask(text);
        assert_eq!(code(&answer), "bad_request", "{text:.80}: {answer}");
        raw.lives();
    }
    for bytes in [
        &b"{\"id\":1,\"op\":\"\xff\"}"[..],
        b"{\"id\":1,\"op\":\"\xc0\xae\"}",
        b"\0\0\0\0",
        b"{\"id\":1,\"op\":\"pi\0ng\"}",
    ] {
        raw.send(&frame(b'M', bytes));
        assert_eq!(code(&raw.answer()), "bad_request", "{bytes:?}");
        raw.lives();
    }
    for op in ["format", "", "PING", "put ", "../ping", "\u{1b}[2J"] {
        let answer = raw.ask(&json!({"id": 7, "op": op}).to_string());
        assert_eq!(
            (code(&answer), &answer["id"]),
            ("unsupported", &json!(7)),
            "{op:?}"
        );
        assert!(!answer.to_string().contains('\u{1b}'));
        raw.lives();
    }
    assert_eq!(snapshot(&server.root()), before);
}

#[test]
fn p2_a_message_of_exactly_the_limit_is_read() {
    let server = server();
    let mut raw = Raw::connect(&server, "dev");
    let padding = (64 << 10) - r#"{"id":1,"op":"ping"}"#.len();
    raw.send(&frame(
        b'M',
        format!(r#"{{"id":1,{}"op":"ping"}}"#, " ".repeat(padding)).as_bytes(),
    ));
    assert_eq!(raw.answer(), json!({"id": 1, "ok": {}}));
}

#[test]
fn p4_requests_may_be_sent_ahead_and_are_answered_in_order() {
    let server = server();
    let mut raw = Raw::connect(&server, "dev");
    let many: Vec<u8> = (0..2_000)
        .flat_map(|id| message(&json!({"id": id, "op": "ping"}).to_string()))
        .collect();
    raw.send(&many);
    for id in 0..2_000 {
        assert_eq!(raw.answer()["id"], json!(id));
    }
    for byte in message(r#"{"id":9,"op":"ping"}"#) {
        raw.send(&[byte]);
    }
    assert_eq!(raw.answer()["id"], 9);
    let mixed = [
        message(r#"{"id":1,"op":"put","path":"/a"}"#),
        body(b"one"),
        message(r#"{"id":2,"op":"get","path":"/a"}"#),
        message(r#"{"id":3,"op":"remove","path":"/a"}"#),
        message(r#"{"id":4,"op":"stat","path":"/a"}"#),
    ];
    raw.send(&mixed.concat());
    assert_eq!(raw.answer()["ok"]["size"], 3);
    assert_eq!(raw.answer()["id"], 2);
    assert_eq!(raw.read_frame(), Some((b'D', b"one".to_vec())));
    assert_eq!(raw.read_frame().unwrap().0, b'E');
    assert_eq!(raw.answer()["id"], 3);
    assert_eq!(code(&raw.answer()), "not_found");
}

#[test]
fn p6_a_body_that_is_not_what_it_says_is_refused_whole() {
    let server = server();
    let before = snapshot(&server.root());
    let mut raw = Raw::connect(&server, "dev");
    let digest = Digest::of(b"abc").to_string();
    let data = frame(b'D', b"abc");
    let large = vec![7; 100_000];
    let cases: Vec<(&str, &str, Vec<u8>, &str)> = vec![
        (
            "another digest",
            "",
            [data.clone(), trailer(3, &Digest::of(b"abd").to_string())].concat(),
            "digest_mismatch",
        ),
        (
            "a size one over",
            "",
            [data.clone(), trailer(4, &digest)].concat(),
            "digest_mismatch",
        ),
        (
            "a size one under",
            "",
            [data.clone(), trailer(2, &digest)].concat(),
            "digest_mismatch",
        ),
        (
            "shorter than announced",
            r#","size":4"#,
            body(b"abc"),
            "digest_mismatch",
        ),
        (
            "longer than announced",
            r#","size":2"#,
            body(b"abc"),
            "digest_mismatch",
        ),
        (
            "much longer than announced",
            r#","size":2"#,
            body(&large),
            "digest_mismatch",
        ),
        (
            "shorter, large",
            r#","size":100001"#,
            body(&large),
            "digest_mismatch",
        ),
        (
            "nothing, announced as something",
            r#","size":1"#,
            body(b""),
            "digest_mismatch",
        ),
        (
            "given up at once",
            "",
            frame(b'E', br#"{"abort":"unavailable"}"#),
            "bad_request",
        ),
        (
            "given up in the middle",
            "",
            [data.clone(), frame(b'E', br#"{"abort":"internal"}"#)].concat(),
            "bad_request",
        ),
        (
            "given up with a digest",
            "",
            [
                data,
                frame(
                    b'E',
                    format!(r#"{{"abort":"internal","size":3,"digest":"{digest}"}}"#).as_bytes(),
                ),
            ]
            .concat(),
            "bad_request",
        ),
        (
            "too large by announcement",
            r#","size":9007199254740991"#,
            body(b""),
            "too_large",
        ),
        (
            "two conditions at once",
            r#","if_absent":true,"if_version":1"#,
            body(b"abc"),
            "bad_request",
        ),
        (
            "a name that is taken",
            r#","if_absent":true,"path":"/there""#,
            body(b"abc"),
            "bad_request",
        ),
    ];
    for (what, fields, bytes, expected) in cases {
        raw.send(&message(&format!(
            r#"{{"id":1,"op":"put","path":"/new"{fields}}}"#
        )));
        raw.send(&bytes);
        let answer = raw.answer();
        assert_eq!(code(&answer), expected, "{what}: {answer}");
        raw.lives();
        assert_eq!(snapshot(&server.root()), before, "{what}");
        assert_eq!(server.staged(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn p6_a_cut_in_the_middle_of_a_body_leaves_nothing() {
    let server = server();
    let before = snapshot(&server.root());
    for size in [10, 200_000] {
        let whole = [
            message(r#"{"id":1,"op":"put","path":"/new"}"#),
            body(&vec![3; size]),
        ]
        .concat();
        for sixteenth in 1..16 {
            let mut raw = Raw::connect(&server, "dev");
            raw.send(&whole[..whole.len() * sixteenth / 16]);
            raw.cut();
        }
    }
    // Sessions end on their own time: the next one to be told so is the last of them.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !server.staged().is_empty() && std::time::Instant::now() < until {
        Raw::connect(&server, "dev").lives();
    }
    assert_eq!(server.staged(), Vec::<String>::new());
    assert_eq!(snapshot(&server.root()), before);
}

#[test]
fn p6_a_refused_put_is_answered_while_it_is_still_being_sent() {
    let policy = r#"
        [[grant]]
        to = "spiffe://test.internal/client/dev"
        allow = ["list", "read"]
        on = "/**"
    "#;
    let server = Server::with_policy(policy);
    let mut raw = Raw::connect(&server, "dev");
    raw.send(&message(r#"{"id":1,"op":"put","path":"/new"}"#));
    assert_eq!(code(&raw.answer()), "denied");
    // A client that listens gives up, and goes on with something else.
    raw.send(&frame(b'D', &vec![0; 1 << 20]));
    raw.send(&frame(b'E', br#"{"abort":"unavailable"}"#));
    raw.lives();
    // One that does not listen is cut.
    raw.send(&message(r#"{"id":2,"op":"put","path":"/new"}"#));
    assert_eq!(code(&raw.answer()), "denied");
    for _ in 0..40 {
        raw.send(&frame(b'D', &vec![0; 1 << 20]));
    }
    // Whether it still hears why depends on how much was on its way.
    if let Some((_, content)) = raw.read_frame() {
        assert!(String::from_utf8_lossy(&content).contains("bad_request"));
        raw.ends();
    }
    Raw::connect(&server, "dev").lives();
    assert_eq!(snapshot(&server.root()).len(), 0);
}

#[test]
fn p8_whoever_dribbles_or_falls_silent_is_told_and_cut() {
    let arguments = ["--stall-timeout", "1s", "--idle-timeout", "1s"]
        .map(str::to_owned)
        .to_vec();
    let server = Server::start_with(Setup {
        arguments,
        ..Setup::default()
    });
    for (what, bytes) in [
        ("silence", vec![]),
        ("half a header", b"M\0\0".to_vec()),
        ("half a message", b"M\0\0\0\x10{\"id\"".to_vec()),
        (
            "half a small body",
            [
                message(r#"{"id":1,"op":"put","path":"/x","size":10}"#),
                b"D\0\0\0\x0aabc".to_vec(),
            ]
            .concat(),
        ),
        (
            "half a large body",
            [
                message(r#"{"id":1,"op":"put","path":"/x"}"#),
                b"D\0\0\0\x0aabc".to_vec(),
            ]
            .concat(),
        ),
    ] {
        let mut raw = Raw::connect(&server, "dev");
        raw.send(&bytes);
        let mut n_told = 0;
        while let Some((kind, content)) = raw.read_frame() {
            n_told += 1;
            assert_eq!(kind, b'M', "{what}");
            let answer: serde_json::Value = serde_json::from_slice(&content).unwrap();
            assert_eq!(code(&answer), "busy", "{what}: {answer}");
        }
        assert_eq!(n_told, 1, "{what}");
        assert_eq!(snapshot(&server.root()).len(), 0, "{what}");
    }
}
