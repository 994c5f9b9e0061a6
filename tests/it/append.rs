//! Bytes behind those of a file, ranges of it, and waiting for it.

use std::thread;

use crate::harness::{Server, everything, text, with_input};

#[test]
fn p5_15_an_append_makes_a_new_version_in_one_step() {
    let server = Server::start();
    let append = |input: &[u8], arguments: &[&str]| {
        let all = [&["append", "-", "/log"], arguments].concat();
        with_input(&mut server.client("dev", &all), input)
    };
    assert!(append(b"one\n", &[]).status.success());
    assert!(append(b"two\n", &["--if-size", "4"]).status.success());
    assert_eq!(server.get("/log"), b"one\ntwo\n");
    let refused = append(b"lost\n", &["--if-size", "4"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        text(&refused.stderr).contains("has 8 bytes, not 4"),
        "{}",
        text(&refused.stderr)
    );
    std::fs::write(server.directory.path().join("more"), vec![b'x'; 300_000]).unwrap();
    server.ok(&["append", "more", "/log"]);
    let content = server.get("/log");
    assert_eq!(content.len(), 300_008);
    let stat = server.ok(&["stat", "/log", "--json"]);
    let digest = fsvc::digest::Digest::of(&content).to_string();
    assert!(stat.contains(&digest), "{stat}");
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn p5_15_appends_that_race_lose_nothing() {
    let server = Server::start();
    thread::scope(|scope| {
        for number in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let line = format!("line {number}\n");
                for _ in 0..200 {
                    let mut append = server.client("dev", &["append", "-", "/log"]);
                    let output = with_input(&mut append, line.as_bytes());
                    match output.status.code() {
                        Some(0) => return,
                        Some(3) => {}
                        code => panic!("{code:?}: {}", text(&output.stderr)),
                    }
                }
                panic!("never the first");
            });
        }
    });
    let content = text(&server.get("/log"));
    let mut lines: Vec<&str> = content.lines().collect();
    lines.sort_unstable();
    let expected: Vec<String> = (0..8).map(|number| format!("line {number}")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn p5_15_who_may_only_create_cannot_append_to_what_is_there() {
    let grant = |name: &str, allow: &str| {
        format!(
            "[[grant]]\nto = \"spiffe://test.internal/client/{name}\"\nallow = [{allow}]\non = \"/in/**\"\n"
        )
    };
    let policy = grant("alice", "\"create\"")
        + &grant("bob", "\"replace\"")
        + &everything().replace("client/*", "client/dev");
    let server = Server::with_policy(&policy);
    server.put("/in/there", b"old");
    let append = |who: &str, name: &str, size: &str| {
        let mut append = server.client(who, &["append", "-", name, "--if-size", size]);
        with_input(&mut append, b"more").status.code()
    };
    assert_eq!(append("alice", "/in/there", "3"), Some(4));
    assert_eq!(server.get("/in/there"), b"old");
    assert_eq!(append("alice", "/in/new", "0"), Some(0));
    assert_eq!(append("bob", "/in/there", "3"), Some(0));
    assert_eq!(append("bob", "/in/other", "0"), Some(4));
    assert_eq!(append("alice", "/out/x", "0"), Some(4));
    assert_eq!(server.get("/in/there"), b"oldmore");
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn p5_3_ranges_are_what_they_say() {
    let server = Server::start();
    let content: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    server.put("/f", &content);
    let size = content.len();
    for (range, from, to) in [
        ("0-0", 0, 1),
        ("5-9", 5, 10),
        ("100-", 100, size),
        ("-1", size - 1, size),
        ("-999999999", 0, size),
        ("0-999999999", 0, size),
        ("200000-", size, size),
        ("70000-150000", 70_000, 150_001),
    ] {
        let output = server.run(&["get", "/f", "-", "--range", range]);
        assert!(output.status.success(), "{range}: {}", text(&output.stderr));
        assert!(output.stdout == content[from..to], "{range}");
    }
    let error = server.fails(1, &["get", "/f", "-", "--range", "200001-"]);
    assert!(
        error.contains("has 200000 bytes: none is at 200001"),
        "{error}"
    );
    for range in ["", "-", "9-5", "x-", "1-2-3", "-0x"] {
        server.fails(2, &["get", "/f", "-", "--range", range]);
    }
    server.ok(&["get", "/f", "part", "--range", "1-3"]);
    let part = std::fs::read(server.directory.path().join("part")).unwrap();
    assert_eq!(part, content[1..4]);
}

#[test]
fn p5_3_a_version_is_that_version_or_nothing() {
    let server = Server::start();
    server.put("/f", b"first");
    let first = version(&server);
    assert_eq!(server.ok(&["get", "/f", "-", "--version", &first]), "first");
    server.put("/f", b"second");
    let error = server.fails(3, &["get", "/f", "-", "--version", &first]);
    assert!(error.contains(&format!("not {first}")), "{error}");
    server.fails(
        3,
        &["get", "/f", "-", "--range", "0-1", "--version", &first],
    );
    server.fails(3, &["get", "/f", "there", "--version", &first]);
    std::fs::metadata(server.directory.path().join("there")).unwrap_err();
}

fn version(server: &Server) -> String {
    let stat: serde_json::Value =
        serde_json::from_str(&server.ok(&["stat", "/f", "--json"])).unwrap();
    stat["version"].to_string()
}

#[test]
fn a_get_that_waits_has_the_file_when_it_comes() {
    let server = Server::start();
    let waiting = |arguments: &[&str]| {
        let all = [&["get", "/f", "-", "--wait", "--timeout", "30s"], arguments].concat();
        let mut get = server.client("dev", &all);
        get.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let first = waiting(&[]);
    server.put("/other", b"not this one");
    server.put("/f", b"here");
    assert_eq!(first.wait_with_output().unwrap().stdout, b"here");
    let next = (version(&server).parse::<u64>().unwrap() + 1).to_string();
    let second = waiting(&["--min-version", &next]);
    server.put("/f", b"newer");
    assert_eq!(second.wait_with_output().unwrap().stdout, b"newer");
    let error = server.fails(3, &["get", "/none", "-", "--wait", "--timeout", "1s"]);
    assert!(error.contains("did not come within 1s"), "{error}");
}
