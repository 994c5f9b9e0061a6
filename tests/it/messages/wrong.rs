//! Requests that should not be: each gets its reason, changes nothing, and the connection lives.

#![expect(clippy::too_many_lines, reason = "tables")]

use serde_json::{Value, json};

use super::{ask_with, serve, serve_with};
use crate::harness::Server;
use crate::raw::{Raw, code, message};

fn head(server: &Server) -> Value {
    Raw::connect(server, "dev").ask(r#"{"id":1,"op":"log_stats"}"#)["ok"].clone()
}

/// Names that no topic has.
fn bad_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "a/./b",
        "//host/s",
        "\\",
        "a\\..\\b",
        "C:\\x",
        "a\u{202e}b",
        "a\u{200d}b",
        "\u{feff}a",
        "a\u{fe0f}",
        "e\u{301}",
        " a",
        "a ",
        "a.",
        "a/ b",
        ".fsvc",
        ".FSVC-tmp/x",
        "a/.fsvc-staging",
    ]
    .map(str::to_owned)
    .to_vec();
    let controls = (0..0x20).chain(0x7f..=0x9f).filter_map(char::from_u32);
    names.extend(controls.map(|c| format!("a{c}b")));
    names.push("x".repeat(256));
    names.push("xxx/".repeat(256) + "x");
    names.push(["d"; 33].join("/"));
    names.push(["d"; 500].join("/"));
    names
}

/// Names that are odd, and names.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "etc/passwd",
        "%2e%2e%2f",
        "\u{ff0e}\u{ff0e}\u{ff0f}",
        "A",
        "a",
        "\u{df}",
        "SS",
        "-rf",
        "~",
        "CON",
        "a:$DATA",
        "lost+found",
        "?",
        "[",
        "\u{130}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(255));
    names.push(["d"; 32].join("/"));
    names
}

#[test]
fn names_that_no_topic_has_are_refused_everywhere() {
    let server = serve();
    let before = head(&server);
    let mut raw = Raw::connect(&server, "dev");
    for name in bad_names() {
        let requests = [
            json!({"id": 1, "op": "subscribe", "topics": [name]}),
            json!({"id": 1, "op": "subscribe", "topics": ["good", name]}),
            json!({"id": 1, "op": "last", "topics": [name]}),
            json!({"id": 1, "op": "topics", "filter": name}),
            json!({"id": 1, "op": "topics", "after": name}),
        ];
        for request in requests {
            assert_eq!(
                code(&raw.ask(&request.to_string())),
                "bad_request",
                "{request}"
            );
        }
        for op in ["publish", "request"] {
            let request = json!({"id": 1, "op": op, "topic": name, "size": 1});
            assert_eq!(
                code(&ask_with(&mut raw, &request.to_string(), b"1")),
                "bad_request",
                "{request}"
            );
        }
        raw.lives();
    }
    for filter in ["a*", "*a", "a/**/b", "**/a", "a/***", "a/b*/c"] {
        let request = json!({"id": 1, "op": "subscribe", "topics": [filter]});
        assert_eq!(
            code(&raw.ask(&request.to_string())),
            "bad_request",
            "{filter}"
        );
    }
    raw.lives();
    let after = head(&server);
    assert_eq!(
        (&after["head"], &after["n_topics"]),
        (&before["head"], &before["n_topics"])
    );
}

#[test]
fn odd_names_are_themselves() {
    let server = serve();
    let mut raw = Raw::connect(&server, "dev");
    for name in odd_names() {
        let request = json!({"id": 1, "op": "publish", "topic": name, "size": 1}).to_string();
        assert!(
            ask_with(&mut raw, &request, b"1")["ok"]["sequence"].is_number(),
            "{name}"
        );
    }
    assert_eq!(head(&server)["n_topics"], odd_names().len());
}

#[test]
fn fields_that_are_not_what_they_should_be_are_refused() {
    let server = serve();
    let before = head(&server);
    let mut raw = Raw::connect(&server, "dev");
    let subscribe = |more: &str| format!(r#"{{"id":1,"op":"subscribe","topics":["a"],{more}}}"#);
    let watch = |more: &str| format!(r#"{{"id":1,"op":"watch","path":"/",{more}}}"#);
    let starts = [
        r#""unknown":1"#,
        r#""since":null"#,
        r#""since":-1"#,
        r#""since":1.0"#,
        r#""since":1e3"#,
        r#""since":"1""#,
        r#""since":9007199254740992"#,
        r#""since":18446744073709551616"#,
        r#""since":1,"since":1"#,
        r#""since":1,"\u0073ince":2"#,
        r#""since":0,"since_time":"2026-01-01T00:00:00Z""#,
        r#""since_time":"yesterday""#,
        r#""since_time":1"#,
        r#""since":5"#,
        r#""cursor":"Loader""#,
        r#""cursor":"""#,
        r#""cursor":"a b""#,
        r#""cursor":"a/b""#,
        r#""cursor":7"#,
        r#""group":true"#,
        r#""ack_timeout":5"#,
        r#""cursor":"c","group":1"#,
        r#""cursor":"c","group":null"#,
        r#""cursor":"c","ack_timeout":0"#,
        r#""cursor":"c","ack_timeout":43201"#,
        r#""cursor":"c","ack_timeout":1.5"#,
    ];
    for start in starts {
        for request in [subscribe(start), watch(start)] {
            assert_eq!(code(&raw.ask(&request)), "bad_request", "{request}");
        }
    }
    let many = vec!["a"; 65];
    let mut others = vec![
        json!({"id": 1, "op": "subscribe", "topics": many}).to_string(),
        json!({"id": 1, "op": "last", "topics": many}).to_string(),
    ];
    others.extend(
        [
            r#"{"id":1,"op":"subscribe"}"#,
            r#"{"id":1,"op":"subscribe","topics":[]}"#,
            r#"{"id":1,"op":"subscribe","topics":"a"}"#,
            r#"{"id":1,"op":"subscribe","topics":[1]}"#,
            r#"{"id":1,"op":"subscribe","topics":null}"#,
            r#"{"id":1,"op":"last"}"#,
            r#"{"id":1,"op":"last","topics":[]}"#,
            r#"{"id":1,"op":"topics","limit":1}"#,
            r#"{"id":1,"op":"watch"}"#,
            r#"{"id":1,"op":"watch","path":"a"}"#,
            r#"{"id":1,"op":"watch","path":"/../a"}"#,
            r#"{"id":1,"op":"watch","path":"/.fsvc/"}"#,
            r#"{"id":1,"op":"ack","cursor":"c"}"#,
            r#"{"id":1,"op":"ack","cursor":"C","sequence":1}"#,
            r#"{"id":1,"op":"ack","cursor":"c","sequence":-1}"#,
            r#"{"id":1,"op":"ack","cursor":"c","sequence":9007199254740992}"#,
            r#"{"id":1,"op":"forget"}"#,
            r#"{"id":1,"op":"forget","cursor":"C"}"#,
            r#"{"id":1,"op":"fetch"}"#,
            r#"{"id":1,"op":"fetch","sequence":"1"}"#,
            r#"{"id":1,"op":"reconcile"}"#,
            r#"{"id":1,"op":"reconcile","path":"/","after":"somewhere"}"#,
            r#"{"id":1,"op":"reconcile","path":"/","after":"gone:/../x"}"#,
            r#"{"id":1,"op":"log_verify","from":-1}"#,
            r#"{"id":1,"op":"log_verify","to":1}"#,
            r#"{"id":1,"op":"log_stats","of":"a"}"#,
        ]
        .map(str::to_owned),
    );
    for request in &others {
        assert_eq!(code(&raw.ask(request)), "bad_request", "{request}");
        raw.lives();
    }
    let with_body = [
        r#"{"id":1,"op":"publish"}"#,
        r#"{"id":1,"op":"publish","topic":"a","size":-1}"#,
        r#"{"id":1,"op":"publish","topic":"a","size":1,"dedup_id":""}"#,
        r#"{"id":1,"op":"publish","topic":"a","size":1,"dedup_id":"a\nb"}"#,
        r#"{"id":1,"op":"publish","topic":"a","size":1,"reply_to":1}"#,
        r#"{"id":1,"op":"publish","topic":"a","size":1,"identity":"spiffe://test.internal/client/bob"}"#,
        r#"{"id":1,"op":"publish","topic":"a","topic":"b","size":1}"#,
        r#"{"id":1,"op":"request","topic":"a","size":1,"timeout":0}"#,
        r#"{"id":1,"op":"request","topic":"a","size":1,"timeout":301}"#,
        r#"{"id":1,"op":"request","topic":"a","size":1,"timeout":null}"#,
        r#"{"id":1,"op":"reply","size":1}"#,
        r#"{"id":1,"op":"stage","size":1,"path":"/a"}"#,
        r#"{"id":1,"op":"commit","members":[]}"#,
    ];
    for request in with_body {
        assert_eq!(
            code(&ask_with(&mut raw, request, b"1")),
            "bad_request",
            "{request}"
        );
        raw.lives();
    }
    let after = head(&server);
    assert_eq!(
        (&after["head"], &after["n_cursors"]),
        (&before["head"], &before["n_cursors"])
    );
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn a_stream_takes_no_requests() {
    let server = serve();
    for stream in [
        r#"{"id":1,"op":"subscribe","topics":["a"]}"#,
        r#"{"id":1,"op":"watch","path":"/"}"#,
        r#"{"id":1,"op":"subscribe","topics":["a"],"cursor":"c"}"#,
    ] {
        let mut raw = Raw::connect(&server, "dev");
        assert!(raw.ask(stream)["ok"].is_object());
        assert!(raw.answer()["heartbeat"].is_object());
        raw.send(&message(r#"{"id":2,"op":"publish","topic":"a","size":0}"#));
        let answer = raw.answer();
        assert_eq!((code(&answer), answer.get("id")), ("bad_request", None));
        raw.ends();
    }
    assert_eq!(head(&server)["head"], 0);
}

#[test]
fn one_identity_has_only_so_many_streams_and_another_its_own() {
    let server = serve_with(&["--connections-per-identity-max", "8"]);
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(&server, "dev");
        assert!(raw.ask(r#"{"id":1,"op":"subscribe","topics":["a"]}"#)["ok"].is_object());
        assert!(raw.answer()["heartbeat"].is_object());
        held.push(raw);
    }
    let said = server.fails(6, &["subscribe", "a", "--no-follow"]);
    assert!(said.contains("which is the most"), "{said}");
    let other = server
        .client("bob", &["publish", "a", "1"])
        .output()
        .unwrap();
    assert!(other.status.success());
    let other = server
        .client("bob", &["subscribe", "a", "--since", "0", "--no-follow"])
        .output()
        .unwrap();
    assert_eq!(crate::harness::text(&other.stdout), "a: 1\n");
    for raw in &mut held {
        assert_eq!(raw.answer()["event"]["topic"], "a");
    }
}
