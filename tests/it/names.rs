//! Names that should not be, and things in the tree that are not files.

#![expect(clippy::too_many_lines, reason = "tables")]

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Server, text};
use crate::raw::{Raw, body, code, message, snapshot};

#[test]
fn p9_names_that_cannot_be_are_refused_by_every_op() {
    let server = Server::start();
    server.put("/there", b"is something");
    let before = snapshot(server.directory.path());
    let deep = "/d".repeat(33);
    let (wide, long) = (format!("/{}", "x".repeat(256)), "/xxxx".repeat(300));
    let names = [
        "",
        "/",
        "//",
        ".",
        "..",
        "./x",
        "../x",
        "x",
        "/.",
        "/..",
        "/../x",
        "/a/../../x",
        "/a/..",
        "/a/./b",
        "/a//b",
        "//a",
        "/a/",
        "/there/",
        "C:\\x",
        "/a\\..\\b",
        "\\\\host\\share",
        "/a\0b",
        "/a\nb",
        "/a\rb",
        "/a\tb",
        "/a\u{1b}[2J",
        "/a\u{7f}",
        "/a\u{85}b",
        "/a\u{202e}b",
        "/a\u{200d}b",
        "/a\u{feff}",
        "/e\u{301}",
        "/.fsvc",
        "/.fsvc/log.redb",
        "/.fsvc/staging/x",
        "/.FSVC/lock",
        "/a/.fsvc-tmp",
        "/a ",
        "/ a",
        "/a.",
        "/a /b",
        &deep,
        &wide,
        &long,
    ];
    let mut raw = Raw::connect(&server, "dev");
    for name in names {
        let requests = [
            json!({"id": 1, "op": "get", "path": name}),
            json!({"id": 1, "op": "stat", "path": name}),
            json!({"id": 1, "op": "remove", "path": name}),
            json!({"id": 1, "op": "move", "from": "/there", "to": name}),
            json!({"id": 1, "op": "move", "from": name, "to": "/other"}),
            json!({"id": 1, "op": "copy", "from": "/there", "to": name}),
        ];
        for request in requests {
            let answer = raw.ask(&request.to_string());
            assert_eq!(code(&answer), "bad_request", "{request}: {answer}");
            assert!(
                !answer.to_string().chars().any(char::is_control),
                "{answer}"
            );
        }
        raw.send(&message(
            &json!({"id": 2, "op": "put", "path": name}).to_string(),
        ));
        raw.send(&body(b"abc"));
        assert_eq!(code(&raw.answer()), "bad_request", "{name:?}");
        raw.lives();
    }
    assert_eq!(snapshot(server.directory.path()), before);
}

#[test]
fn p9_names_that_look_odd_are_names() {
    let server = Server::start();
    let deep = "/d".repeat(32);
    let wide = format!("/{}", "x".repeat(255));
    let names = [
        "/-rf",
        "/~",
        "/~root/x",
        "/*",
        "/a?[b]",
        "/%2e%2e%2f",
        "/%00",
        "/CON",
        "/a:b",
        "/$HOME",
        "/a b",
        "/ü",
        "/日本",
        "/A",
        "/a",
        "/lost+found",
        "/...x",
        "/.hidden",
        "/a'b\"c",
        "/x;y|z&",
        &deep,
        &wide,
    ];
    let mut raw = Raw::connect(&server, "dev");
    for (number, name) in names.iter().enumerate() {
        if *name == "/a" || *name == "/~" {
            continue;
        }
        let content = format!("content {number}");
        raw.send(&message(
            &json!({"id": 1, "op": "put", "path": name}).to_string(),
        ));
        raw.send(&body(content.as_bytes()));
        assert_eq!(raw.answer()["ok"]["path"], **name, "{name}");
        assert_eq!(
            std::fs::read(server.root().join(&name[1..])).unwrap(),
            content.as_bytes()
        );
        assert!(
            raw.ask(&json!({"id": 2, "op": "remove", "path": name}).to_string())["ok"].is_object()
        );
    }
}

#[test]
fn p9_files_and_directories_do_not_take_each_others_names() {
    let server = Server::start();
    server.put("/a", b"1");
    server.put("/d/e/f", b"2");
    let before = snapshot(&server.root());
    let mut raw = Raw::connect(&server, "dev");
    let mut refused = |request: Value, expected: &str| {
        let put = request["op"] == "put";
        raw.send(&message(&request.to_string()));
        if put {
            raw.send(&body(b"abc"));
        }
        let answer = raw.answer();
        assert_eq!(code(&answer), expected, "{request}: {answer}");
        raw.lives();
    };
    refused(json!({"id": 1, "op": "put", "path": "/a/b"}), "exists");
    refused(json!({"id": 1, "op": "put", "path": "/a/b/c/d"}), "exists");
    refused(json!({"id": 1, "op": "put", "path": "/d"}), "exists");
    refused(json!({"id": 1, "op": "put", "path": "/d/e"}), "exists");
    refused(
        json!({"id": 1, "op": "move", "from": "/a", "to": "/a/b"}),
        "exists",
    );
    refused(
        json!({"id": 1, "op": "move", "from": "/a", "to": "/a"}),
        "bad_request",
    );
    refused(
        json!({"id": 1, "op": "move", "from": "/a", "to": "/d"}),
        "exists",
    );
    refused(
        json!({"id": 1, "op": "copy", "from": "/a", "to": "/d/e"}),
        "exists",
    );
    refused(
        json!({"id": 1, "op": "copy", "from": "/a", "to": "/a"}),
        "bad_request",
    );
    refused(
        json!({"id": 1, "op": "copy", "from": "/no", "to": "/x"}),
        "not_found",
    );
    refused(json!({"id": 1, "op": "get", "path": "/d"}), "exists");
    refused(json!({"id": 1, "op": "list", "path": "/no"}), "not_found");
    refused(json!({"id": 1, "op": "list", "path": "/a"}), "bad_request");
    refused(
        json!({"id": 1, "op": "list", "path": "/d/", "after": 7}),
        "bad_request",
    );
    assert_eq!(snapshot(&server.root()), before);
}

#[test]
fn p9_links_and_devices_in_the_tree_are_never_followed() {
    let server = Server::start();
    let outside = server.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), b"secret").unwrap();
    let root = server.root();
    symlink(outside.join("secret"), root.join("link")).unwrap();
    symlink(&outside, root.join("way-out")).unwrap();
    symlink("/proc/self/root/etc", root.join("proc")).unwrap();
    symlink("..", root.join("up")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(root.join("fifo"))
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let before = snapshot(server.directory.path());
    for path in [
        "/link",
        "/way-out/secret",
        "/proc/passwd",
        "/up/outside/secret",
        "/fifo",
        "/socket",
        "/link/",
        "/fifo/x",
    ] {
        for arguments in [
            &["get", path, "-"][..],
            &["stat", path],
            &["rm", path],
            &["cp", path, "/copy"],
            &["mv", path, "/moved"],
            &["put", "log", path],
        ] {
            let output = server.run(arguments);
            assert!(!output.status.success(), "{arguments:?} went through");
            assert!(!text(&output.stdout).contains("secret"), "{arguments:?}");
        }
    }
    assert_eq!(snapshot(server.directory.path()), before);
    assert_eq!(server.ok(&["ls", "/"]), "");
}

#[test]
fn p9_a_directory_is_listed_page_by_page_in_order() {
    let server = Server::start();
    let directory = server.root().join("many");
    std::fs::create_dir(&directory).unwrap();
    let mut expected: Vec<String> = (0..3_000)
        .map(|n| format!("{}-{n}", "n".repeat(n % 90)))
        .collect();
    for name in &expected {
        std::fs::write(directory.join(name), b"x").unwrap();
    }
    for bytes in [&b"new\nline"[..], b"esc\x1b[31m", b"\xff\xfe", b"trailing "] {
        std::fs::write(directory.join(std::ffi::OsStr::from_bytes(bytes)), b"x").unwrap();
    }
    expected.sort();
    let output = server.run(&["ls", "/many"]);
    assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), expected);
    let said = text(&output.stderr);
    assert!(said.contains("cannot be spelled"), "{said}");
    assert!(!said.contains('\u{1b}') && !text(&output.stdout).contains('\u{1b}'));

    let mut raw = Raw::connect(&server, "dev");
    for after in ["zzzz", "../../etc", "\u{0}", &"x".repeat(5_000)] {
        let answer =
            raw.ask(&json!({"id": 1, "op": "list", "path": "/many", "after": after}).to_string());
        assert!(
            answer["ok"]["entries"].is_array() || code(&answer) == "bad_request",
            "{answer:.200}"
        );
        raw.lives();
    }
}
