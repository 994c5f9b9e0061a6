//! Bytes behind those of a file (P5.15), as a raw client sends them: sizes, rights, ends, repeats.

use fsvc::digest::Digest;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, text, with_input};
use crate::raw::{Raw, body, code, frame, message, trailer};

/// Appends through a raw connection, and says what came of it.
fn append(raw: &mut Raw, path: &str, if_size: usize, content: &[u8]) -> Value {
    let request = json!({"id": 1, "op": "append", "path": path, "if_size": if_size});
    raw.send(&[message(&request.to_string()), body(content)].concat());
    raw.answer()
}

#[test]
fn p5_15_bytes_go_behind_those_of_a_file() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let mut expected = Vec::new();
    let mut last = 0;
    for size in [3, 0, 70_000, 1, 300_000] {
        let more = vec![u8::try_from(size % 250).unwrap(); size];
        let answer = append(&mut raw, "/a", expected.len(), &more);
        expected.extend(more);
        let file = &answer["ok"];
        assert_eq!(file["path"], "/a", "{answer}");
        assert_eq!(file["size"], expected.len());
        assert_eq!(file["digest"], Digest::of(&expected).to_string());
        let version = file["version"].as_u64().unwrap();
        assert!(version > last);
        last = version;
        assert!(server.get("/a") == expected);
    }
    raw.lives();
    assert!(server.staged().is_empty());
}

#[test]
fn p5_15_another_size_is_changed_and_says_both() {
    let server = Server::start();
    server.put("/a", b"abc");
    let mut raw = Raw::connect(&server, "dev");
    for (path, if_size, found) in [("/a", 0, 3), ("/a", 2, 3), ("/a", 77, 3), ("/none", 5, 0)] {
        let answer = append(&mut raw, path, if_size, b"more");
        assert_eq!(code(&answer), "changed", "{path} {if_size}");
        let message = answer["error"]["message"].as_str().unwrap();
        let both = format!("has {found} bytes, not {if_size}");
        assert!(message.contains(&both), "{message}");
    }
    raw.lives();
    assert_eq!(server.get("/a"), b"abc");
    server.fails(3, &["stat", "/none"]);
    assert!(server.staged().is_empty());
}

#[test]
fn p5_15_the_rights_are_those_of_a_put() {
    let grant = |allow: &str, on: &str| {
        let to = "spiffe://test.internal/client/dev";
        format!("[[grant]]\nto = \"{to}\"\nallow = [{allow}]\non = \"{on}\"\n\n")
    };
    let all = "[[grant]]\nto = \"spiffe://test.internal/client/bob\"\nallow = [\"create\", \"read\"]\non = \"/**\"\n";
    let policy = grant("\"create\"", "/create/**")
        + &grant("\"replace\"", "/replace/**")
        + &grant("\"read\", \"list\"", "/none/**")
        + all;
    let server = Server::with_policy(&policy);
    for path in ["/create/there", "/replace/there", "/none/there"] {
        let output = with_input(&mut server.client("bob", &["put", "-", path]), b"abc");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let mut raw = Raw::connect(&server, "dev");
    for (path, if_size, is_allowed) in [
        ("/create/new", 0, true),
        ("/create/there", 3, false),
        ("/create/there", 9, false),
        ("/replace/there", 3, true),
        ("/replace/new", 0, false),
        ("/none/there", 3, false),
        ("/none/there", 9, false),
        ("/none/new", 0, false),
    ] {
        let answer = append(&mut raw, path, if_size, b"de");
        if is_allowed {
            assert_eq!(answer["ok"]["size"], if_size + 2, "{path}: {answer}");
        } else {
            assert_eq!(code(&answer), "denied", "{path}");
        }
    }
    raw.lives();
    let read = |path: &str| std::fs::read(server.root().join(path)).ok();
    assert_eq!(read("create/there").unwrap(), b"abc");
    assert_eq!(read("none/there").unwrap(), b"abc");
    assert_eq!(read("replace/there").unwrap(), b"abcde");
    assert_eq!(read("create/new").unwrap(), b"de");
    assert!(read("replace/new").is_none() && read("none/new").is_none());
}

#[test]
fn p5_15_a_body_that_is_not_what_it_says_appends_nothing() {
    let server = Server::start();
    server.put("/a", b"abc");
    let mut raw = Raw::connect(&server, "dev");
    let request = |size: u64| {
        message(
            &json!({"id": 1, "op": "append", "path": "/a", "if_size": 3, "size": size}).to_string(),
        )
    };
    let digest = |content: &[u8]| Digest::of(content).to_string();
    let data = frame(b'D', b"de");
    for (bytes, expected) in [
        (trailer(2, &digest(b"xx")), "digest_mismatch"),
        // The digest of the whole is not that of the body.
        (trailer(2, &digest(b"abcde")), "digest_mismatch"),
        (trailer(3, &digest(b"de")), "digest_mismatch"),
        (frame(b'E', b"{\"abort\":\"unavailable\"}"), "bad_request"),
        (frame(b'E', b"{\"size\":2}"), "bad_request"),
    ] {
        raw.send(&[request(2), data.clone(), bytes].concat());
        assert_eq!(code(&raw.answer()), expected);
    }
    raw.send(&[request(3), body(b"de")].concat());
    assert_eq!(code(&raw.answer()), "digest_mismatch");
    raw.lives();
    raw.send(&[request(2), data].concat());
    raw.cut();
    let mut raw = Raw::connect(&server, "dev");
    raw.lives();
    assert_eq!(server.get("/a"), b"abc");
}

#[test]
fn p5_15_the_whole_may_not_be_too_large() {
    let server = Server::start_with(Setup {
        arguments: vec!["--size-max".to_owned(), "100000".to_owned()],
        ..Setup::default()
    });
    server.put("/a", &vec![1; 99_998]);
    let mut raw = Raw::connect(&server, "dev");
    // Announced, and found out.
    let request = r#"{"id":1,"op":"append","path":"/a","if_size":99998,"size":3}"#;
    raw.send(&[message(request), body(b"abc")].concat());
    assert_eq!(code(&raw.answer()), "too_large");
    let request = r#"{"id":1,"op":"append","path":"/a","if_size":99998,"size":9007199254740991}"#;
    raw.send(&[message(request), body(b"abc")].concat());
    assert_eq!(code(&raw.answer()), "too_large");
    assert_eq!(code(&append(&mut raw, "/a", 99_998, b"abc")), "too_large");
    assert_eq!(append(&mut raw, "/a", 99_998, b"ab")["ok"]["size"], 100_000);
    raw.lives();
    assert!(server.staged().is_empty());
}

#[test]
fn p5_16_a_repeated_append_is_behind_the_file_once() {
    let server = Server::start();
    server.put("/a", b"abc");
    let request = |path: &str| {
        json!({"id": 1, "op": "append", "path": path, "if_size": 3, "request_id": "again"})
            .to_string()
    };
    let mut raw = Raw::connect(&server, "dev");
    let send = |raw: &mut Raw, path: &str| {
        raw.send(&[message(&request(path)), body(b"de")].concat());
        raw.answer()
    };
    let first = send(&mut raw, "/a");
    assert_eq!(first["ok"]["size"], 5);
    assert_eq!(send(&mut raw, "/a"), first);
    assert_eq!(append(&mut raw, "/a", 5, b"f")["ok"]["size"], 6);
    // Answered as then, also when the file has changed since.
    assert_eq!(send(&mut raw, "/a"), first);
    assert_eq!(code(&send(&mut raw, "/b")), "bad_request");
    raw.lives();
    assert_eq!(server.get("/a"), b"abcdef");
    assert!(server.staged().is_empty());
}

#[test]
fn p5_15_a_file_of_another_program_is_not_appended_to_before_it_is_recorded() {
    let server = Server::with_policy(&crate::harness::everything());
    std::fs::write(server.root().join("foreign"), b"abc").unwrap();
    let mut raw = Raw::connect(&server, "dev");
    let answer = append(&mut raw, "/foreign", 3, b"de");
    assert_eq!(code(&answer), "bad_request");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("reconcile"), "{message}");
    assert_eq!(server.get("/foreign"), b"abc");
    server.ok(&["reconcile", "/"]);
    assert_eq!(append(&mut raw, "/foreign", 3, b"de")["ok"]["size"], 5);
    assert_eq!(server.get("/foreign"), b"abcde");
}

#[test]
fn append_on_the_command_line() {
    let server = Server::start();
    let local = server.directory.path().join("more");
    let more = local.to_str().unwrap();
    std::fs::write(&local, b"one\n").unwrap();
    server.ok(&["append", more, "/log"]);
    server.ok(&["append", more, "/log", "--if-size", "4"]);
    let said = server.fails(3, &["append", more, "/log", "--if-size", "4"]);
    assert!(said.contains("has 8 bytes, not 4"), "{said}");
    // More than is kept in memory.
    let large = vec![7; 5 << 20];
    std::fs::write(&local, &large).unwrap();
    server.ok(&["append", more, "/log"]);
    let got = server.get("/log");
    assert!(got[..8] == *b"one\none\n" && got[8..] == large);
    server.fails(1, &["append", "missing", "/log"]);
}
