//! The main job, as a user does it.

use serde_json::Value;

use crate::harness::{Server, text, with_input};

#[test]
fn a_file_goes_up_and_comes_back_the_same() {
    let server = Server::start();
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for (name, size) in [
        ("empty", 0),
        ("one", 1),
        ("piece", 65_536),
        ("more", 65_537),
        ("large", content.len()),
    ] {
        let local = server.directory.path().join(name);
        std::fs::write(&local, &content[..size]).unwrap();
        let remote = format!("/in/{name}");
        server.ok(&["put", name, &remote]);
        assert_eq!(server.get(&remote), &content[..size], "{name}");
        let back = format!("{name}.back");
        server.ok(&["get", &remote, &back]);
        assert_eq!(
            std::fs::read(server.directory.path().join(&back)).unwrap(),
            &content[..size]
        );
        assert_eq!(
            std::fs::read(server.root().join("in").join(name)).unwrap(),
            &content[..size]
        );
    }
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn a_stream_of_unknown_length_is_taken_whole() {
    let server = Server::start();
    for size in [0, 10, 200_000] {
        let content = vec![7; size];
        server.put("/stream", &content);
        assert_eq!(server.get("/stream"), content);
    }
}

#[test]
fn json_output_is_one_object_a_line_with_stable_fields() {
    let server = Server::start();
    let put: Value = {
        let output = with_input(
            &mut server.client("dev", &["put", "--json", "-", "/a/b"]),
            b"abc",
        );
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(put["path"], "/a/b");
    assert_eq!(put["size"], 3);
    assert_eq!(put["version"], 1);
    let digest = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    assert_eq!(put["digest"], digest);

    let stat: Value = serde_json::from_str(&server.ok(&["stat", "/a/b", "--json"])).unwrap();
    assert_eq!(stat, put);
    let listed = server.ok(&["ls", "/", "--json"]);
    let directory: Value = serde_json::from_str(listed.trim()).unwrap();
    assert_eq!(
        directory,
        serde_json::json!({"kind": "directory", "path": "/a/"})
    );
    let who: Value = serde_json::from_str(&server.ok(&["whoami", "--json"])).unwrap();
    assert_eq!(who["identity"], "spiffe://test.internal/client/dev");
    let verdict: Value =
        serde_json::from_str(&server.ok(&["can", "read", "/a/b", "--json"])).unwrap();
    assert_eq!(verdict["allowed"], true);
    let ping: Value = serde_json::from_str(&server.ok(&["ping", "--json"])).unwrap();
    assert!(ping["round_trip_us"].is_u64());

    let output = server.run(&["stat", "/no", "--json"]);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "not_found");
}

#[test]
fn exit_codes_say_what_happened() {
    let server = Server::start();
    server.put("/a", b"1");
    server.fails(3, &["get", "/no"]);
    server.fails(3, &["rm", "/no"]);
    server.fails(3, &["put", "--if-absent", "log", "/a"]);
    server.fails(3, &["put", "--if-version", "9", "log", "/a"]);
    server.fails(2, &["get", "no-slash"]);
    server.fails(2, &["put", "log"]);
    server.fails(2, &["nonsense"]);
    server.fails(1, &["put", "no-such-local-file", "/b"]);
    let stranger = server.client("nobody", &["ping"]).output().unwrap();
    assert_eq!(
        stranger.status.code(),
        Some(5),
        "{}",
        text(&stranger.stderr)
    );
    let elsewhere = crate::harness::fsvc()
        .args([
            "ping",
            "--server",
            "127.0.0.1:1",
            "--as",
            "dev",
            "--tls-dir",
        ])
        .arg(server.certs())
        .output()
        .unwrap();
    assert_eq!(
        elsewhere.status.code(),
        Some(5),
        "{}",
        text(&elsewhere.stderr)
    );
}

#[test]
fn names_can_be_changed_copied_and_removed() {
    let server = Server::start();
    server.put("/a/one", b"1");
    server.ok(&["mv", "/a/one", "/b/two"]);
    server.fails(3, &["stat", "/a/one"]);
    assert_eq!(server.ok(&["ls", "/"]), "b/\n");
    server.ok(&["cp", "/b/two", "/c/"]);
    assert_eq!(server.get("/c/two"), b"1");
    server.ok(&["rm", "/b/two", "/c/two"]);
    assert_eq!(server.ok(&["ls", "/"]), "");
    assert!(
        std::fs::read_dir(server.root())
            .unwrap()
            .all(|entry| entry.unwrap().file_name() == ".fsvc")
    );
}

#[test]
fn what_was_put_survives_a_restart_with_its_version() {
    let mut server = Server::start();
    server.put("/a", b"1");
    server.put("/a", b"22");
    let before = server.ok(&["stat", "/a", "--json"]);
    server.restart();
    assert_eq!(server.ok(&["stat", "/a", "--json"]), before);
    assert_eq!(server.get("/a"), b"22");
}

#[test]
fn a_file_dropped_into_the_tree_is_served_without_a_version() {
    let server = Server::start();
    std::fs::create_dir(server.root().join("drop")).unwrap();
    std::fs::write(server.root().join("drop/by-hand"), b"hello").unwrap();
    assert_eq!(server.get("/drop/by-hand"), b"hello");
    let stat: Value =
        serde_json::from_str(&server.ok(&["stat", "/drop/by-hand", "--json"])).unwrap();
    assert_eq!(stat.get("version"), None);
    server.fails(3, &["put", "--if-absent", "log", "/drop/by-hand"]);
    server.ok(&["mv", "/drop/by-hand", "/moved"]);
    assert_eq!(server.get("/moved"), b"hello");
    server.ok(&["rm", "/moved"]);
    server.fails(3, &["get", "/moved"]);
}

#[test]
fn what_is_refused_leaves_no_directory() {
    let server = Server::start();
    std::fs::write(server.directory.path().join("f"), "f").unwrap();
    server.ok(&["put", "f", "/there"]);
    let tree = server.directory.path().join("t");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::write(tree.join("a/b/new"), "new").unwrap();
    std::fs::write(tree.join("a/there"), "old").unwrap();
    server.ok(&["put", "f", "/set/a/there"]);
    for refused in [
        &["put", "f", "/new/dir/x", "--if-version", "7"][..],
        &["append", "f", "/new/dir/x", "--if-size", "3"],
        &["mv", "/there", "/new/dir/x", "--if-version", "99"],
        &[
            "put",
            "-r",
            "--atomic",
            "t",
            "/set",
            "--if-version",
            "/set/a/there=99",
        ],
        &["put", "f", "/there/new/x"],
    ] {
        let output = server.client("dev", refused).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{refused:?}");
        let listed = server.ok(&["ls", "-r", "/"]);
        let mut names = std::fs::read_dir(server.root()).unwrap();
        assert!(names.all(|entry| entry.unwrap().file_name() != "new"));
        assert!(std::fs::metadata(server.root().join("set/a/b")).is_err());
        assert!(listed.contains("/there"), "{listed}");
    }
}
