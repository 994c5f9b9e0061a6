//! Trees: put -r, get -r, ls -r, rm -r and sync, by the real binary.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Server, Setup, everything, text, with_input};

/// Writes files into a folder of the server's own directory, and says where.
pub fn fill(server: &Server, folder: &str, files: &[(&str, &str)]) -> String {
    let folder = server.directory.path().join(folder);
    fs::create_dir_all(&folder).unwrap();
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

/// Every file below a folder; a link is what it names.
pub fn files(folder: impl AsRef<Path>) -> BTreeMap<String, Vec<u8>> {
    let (folder, mut found) = (folder.as_ref(), BTreeMap::new());
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
            if name == ".fsvc" {
            } else if path.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                let target = target.to_str().unwrap().to_owned();
                found.insert(name.to_owned(), format!("-> {target}").into_bytes());
            } else if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                found.insert(name.to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Whether anything has the name, a link included.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn names(folder: impl AsRef<Path>) -> Vec<String> {
    files(folder).into_keys().collect()
}

/// Runs a command to its summary, and its exit code.
pub fn run(server: &Server, arguments: &[&str]) -> (i32, Value) {
    let output = server.run(&[arguments, &["--json"]].concat());
    let stdout = text(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    let summary: Value = serde_json::from_str(last)
        .unwrap_or_else(|_| panic!("{arguments:?}: {stdout}{}", text(&output.stderr)));
    (output.status.code().unwrap(), summary["summary"].clone())
}

/// Runs a command that must do so much: moved, the same, deleted.
#[track_caller]
pub fn counts(server: &Server, arguments: &[&str], expected: [u64; 3]) {
    let (code, summary) = run(server, arguments);
    let found = ["n_moved", "n_same", "n_deleted"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!((code, found), (0, expected), "{arguments:?}: {summary}");
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    text(&output.stdout).trim() == "0"
}

const SMALL: [(&str, &str); 6] = [
    ("a", "in a"),
    ("b/c", "in b/c"),
    ("b/d/e", "in b/d/e"),
    ("b.c", ""),
    ("ü/日本", "not ASCII"),
    ("z/z", "last"),
];

#[test]
fn a_tree_goes_there_and_back_and_a_second_run_moves_nothing() {
    let server = Server::start();
    let source = fill(&server, "source", &SMALL);
    // Larger than what is packed with others, and than one piece.
    fs::write(Path::new(&source).join("b/large"), vec![b'l'; 700_000]).unwrap();
    counts(&server, &["put", "-r", &source, "/t"], [7, 0, 0]);
    assert_eq!(files(server.root().join("t")), files(&source));
    counts(&server, &["put", "-r", &source, "/t/"], [0, 7, 0]);
    counts(&server, &["get", "-r", "/t", "back/again"], [7, 0, 0]);
    let back = server.directory.path().join("back/again");
    assert_eq!(files(&back), files(&source));
    counts(&server, &["get", "-r", "/t", "back/again"], [0, 7, 0]);
    assert!(server.staged().is_empty());

    // What was cut short goes on where it stopped.
    fs::remove_file(back.join("b/c")).unwrap();
    fs::remove_dir_all(back.join("z")).unwrap();
    counts(&server, &["get", "-r", "/t", "back/again"], [2, 5, 0]);
    let listed = server.ok(&["ls", "-r", "/t"]);
    let expected = [
        "/t/a",
        "/t/b/c",
        "/t/b/d/e",
        "/t/b/large",
        "/t/b.c",
        "/t/z/z",
        "/t/ü/日本",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn many_files_in_many_directories_are_packed() {
    let server = Server::start();
    let contents: Vec<(String, String)> = (0..1_500)
        .map(|n| (format!("d{}/f{n}", n % 7), "x".repeat(n % 3_000)))
        .collect();
    let all: Vec<(&str, &str)> = contents
        .iter()
        .map(|(n, c)| (n.as_str(), c.as_str()))
        .collect();
    let source = fill(&server, "source", &all);
    counts(&server, &["put", "-r", &source, "/t"], [1_500, 0, 0]);
    assert_eq!(files(server.root().join("t")), files(&source));
    counts(
        &server,
        &["get", "-r", "/t", "back", "--jobs", "1"],
        [1_500, 0, 0],
    );
    let back = server.directory.path().join("back");
    assert_eq!(files(&back), files(&source));
    // One in a hundred is changed: these travel, no others.
    for (name, _) in contents.iter().step_by(100) {
        fs::write(Path::new(&source).join(name), "changed").unwrap();
    }
    counts(&server, &["sync", &source, "fsvc:/t"], [15, 1_485, 0]);
    counts(&server, &["sync", &source, "fsvc:/t"], [0, 1_500, 0]);
    assert_eq!(files(server.root().join("t")), files(&source));
    counts(&server, &["sync", "fsvc:/t", "back"], [15, 1_485, 0]);
    assert_eq!(files(&back), files(&source));
    counts(&server, &["rm", "-r", "/t"], [0, 0, 1_500]);
    assert_eq!(server.ok(&["ls", "-r"]), "");
}

#[test]
fn a_change_that_leaves_size_and_time_alone_is_seen() {
    let server = Server::start();
    let source = fill(&server, "source", &[("a", "one"), ("b", "two")]);
    counts(&server, &["put", "-r", &source, "/t"], [2, 0, 0]);
    counts(&server, &["put", "-r", &source, "/t"], [0, 2, 0]);
    let path = Path::new(&source).join("a");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "eno").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(before).unwrap();
    counts(&server, &["put", "-r", &source, "/t"], [1, 1, 0]);
    assert_eq!(server.get("/t/a"), b"eno");
}

#[test]
fn a_file_that_another_program_put_there_is_compared_by_time() {
    let server = Server::start();
    let source = fill(&server, "source", &[("a", "one")]);
    // The server knows neither its digest nor what its writer gave.
    fs::create_dir(server.root().join("t")).unwrap();
    fs::write(server.root().join("t/a"), "one").unwrap();
    counts(&server, &["put", "-r", &source, "/t"], [1, 0, 0]);
    counts(&server, &["put", "-r", &source, "/t"], [0, 1, 0]);
    fs::write(server.root().join("t/b"), "foreign").unwrap();
    counts(&server, &["get", "-r", "/t", "back"], [2, 0, 0]);
    assert_eq!(
        fs::read(server.directory.path().join("back/b")).unwrap(),
        b"foreign"
    );
}

#[test]
fn times_are_kept_and_modes_if_asked_for() {
    let server = Server::start();
    let source = fill(&server, "source", &[("run", "#!"), ("plain", "p")]);
    let run = Path::new(&source).join("run");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o4751)).unwrap();
    let when = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let file = fs::File::options().write(true).open(&run).unwrap();
    file.set_modified(when).unwrap();
    counts(&server, &["put", "-r", &source, "/t"], [2, 0, 0]);
    let known: Value = serde_json::from_str(&server.ok(&["stat", "/t/run", "--json"])).unwrap();
    assert_eq!(known["attributes"]["mode"], json!(0o751));
    counts(&server, &["get", "-r", "/t", "usual"], [2, 0, 0]);
    counts(
        &server,
        &["get", "-r", "/t", "kept", "--keep-modes"],
        [2, 0, 0],
    );
    let at = |name: &str| fs::metadata(server.directory.path().join(name)).unwrap();
    assert_eq!(
        at("usual/run").mode() & 0o7111,
        0,
        "nothing can be executed"
    );
    assert_eq!(
        at("kept/run").mode() & 0o7777,
        0o751,
        "never with set-user-id"
    );
    for name in ["usual/run", "kept/run"] {
        assert_eq!(at(name).modified().unwrap(), when, "{name}");
    }
}

#[test]
fn links_are_passed_over_and_what_is_no_file_is_refused() {
    let server = Server::start();
    let source = fill(&server, "source", &[("a", "one"), ("d/b", "two")]);
    let at = |name: &str| Path::new(&source).join(name);
    symlink("/etc/passwd", at("link")).unwrap();
    symlink(at("d"), at("directory-link")).unwrap();
    let made = Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    fs::write(at("e\u{301}"), "not NFC").unwrap();
    fs::write(at("new\nline\u{1b}[2J"), "controls").unwrap();
    fs::write(at("d/.fsvc-x"), "the server's").unwrap();
    let odd = std::os::unix::ffi::OsStringExt::from_vec(b"\xff".to_vec());
    fs::write(
        Path::new(&source).join::<std::ffi::OsString>(odd),
        "not text",
    )
    .unwrap();
    let (code, summary) = run(&server, &["put", "-r", &source, "/t"]);
    let counted = ["n_moved", "n_passed", "n_failed"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!((code, counted), (1, [2, 2, 5]), "{summary}");
    assert_eq!(names(server.root().join("t")), ["a", "d/b"]);
    let said = server.fails(1, &["put", "-r", &source, "/t"]);
    for expected in [
        "passed over link: a symbolic link",
        "pipe: a pipe, a socket or a device",
        "normalisation form C",
        "new\\nline\\u{1b}[2J: the name holds the character U+000A",
        "d/.fsvc-x: names that begin with .fsvc belong to the server",
        "is not UTF-8",
        "0 files (0 B) moved, 2 the same, 2 passed over, 5 failed",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains('\u{1b}'));
}

#[test]
fn what_cannot_be_read_is_told_and_the_others_go_on() {
    let server = Server::start();
    let source = fill(
        &server,
        "source",
        &[("a", "one"), ("d/b", "two"), ("e", "no")],
    );
    let at = |name: &str| Path::new(&source).join(name);
    counts(&server, &["put", "-r", &source, "/t"], [3, 0, 0]);
    if is_root() {
        // Root reads everything: a folder that is none stands in for one that cannot be read.
        let said = server.fails(1, &["put", "-r", at("a").to_str().unwrap(), "/t"]);
        assert!(said.contains("Not a directory"), "{said}");
        return;
    }
    fs::write(at("e"), "new").unwrap();
    fs::remove_file(at("a")).unwrap();
    fs::set_permissions(at("e"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o0)).unwrap();
    let (code, summary) = run(&server, &["sync", &source, "fsvc:/t", "--delete"]);
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o755)).unwrap();
    // What is in the directory is not known: nothing is deleted, not even what is surely gone.
    assert_eq!((code, &summary["n_deleted"]), (1, &json!(0)), "{summary}");
    assert_eq!(names(server.root().join("t")), ["a", "d/b", "e"]);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_changes_nothing() {
    let server = Server::start();
    let source = fill(&server, "source", &[("a", "one"), ("d/b", "two")]);
    counts(&server, &["put", "-r", &source, "/t"], [2, 0, 0]);
    fs::write(Path::new(&source).join("c"), "three").unwrap();
    fs::remove_file(Path::new(&source).join("a")).unwrap();
    let before = files(server.root());
    let arguments = ["sync", &source, "fsvc:/t", "--delete", "--dry-run"];
    let plan = server.ok(&[&arguments[..], &["--json"]].concat());
    let lines: Vec<Value> = plan
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines[0],
        json!({"plan": {"action": "delete", "path": "a", "size": 3}})
    );
    assert_eq!(
        lines[1],
        json!({"plan": {"action": "send", "path": "c", "size": 5}})
    );
    assert_eq!(lines[2]["summary"]["dry_run"], json!(true));
    assert_eq!(
        server.ok(&arguments),
        "delete a (3 bytes)\nsend   c (5 bytes)\n"
    );
    server.ok(&["sync", "fsvc:/t", "nowhere", "--dry-run"]);
    server.ok(&["get", "-r", "/t", "nowhere", "--dry-run"]);
    assert_eq!(
        server.ok(&["rm", "-r", "/t", "--dry-run"]).lines().count(),
        2
    );
    assert!(!is_there(&server.directory.path().join("nowhere")));
    assert_eq!(files(server.root()), before);
}

#[test]
fn nothing_is_deleted_unless_asked_and_never_more_than_allowed() {
    let server = Server::start();
    let many: Vec<String> = (0..10).map(|n| format!("d/{n}")).collect();
    let all: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "x")).collect();
    let source = fill(&server, "source", &all);
    counts(&server, &["sync", &source, "fsvc:/t"], [10, 0, 0]);
    counts(&server, &["sync", "fsvc:/t", "back"], [10, 0, 0]);
    for name in &many[..5] {
        fs::remove_file(Path::new(&source).join(name)).unwrap();
    }
    counts(&server, &["sync", &source, "fsvc:/t"], [0, 5, 0]);
    let tight = ["sync", &source, "fsvc:/t", "--delete", "--max-delete", "4"];
    let said = server.fails(1, &tight);
    assert!(
        said.contains("5 files would be deleted, --max-delete allows 4"),
        "{said}"
    );
    assert_eq!(files(server.root().join("t")).len(), 10);
    counts(
        &server,
        &["sync", &source, "fsvc:/t", "--delete"],
        [0, 5, 5],
    );
    assert_eq!(files(server.root().join("t")), files(&source));

    let back = server.directory.path().join("back");
    fs::create_dir_all(back.join("own/deep")).unwrap();
    fs::write(back.join("own/deep/file"), "mine").unwrap();
    counts(&server, &["sync", "fsvc:/t", "back"], [0, 5, 0]);
    let said = server.fails(
        1,
        &["sync", "fsvc:/t", "back", "--delete", "--max-delete", "0"],
    );
    assert!(
        said.contains("6 files would be deleted, --max-delete allows 0"),
        "{said}"
    );
    assert_eq!(files(&back).len(), 11);
    counts(&server, &["sync", "fsvc:/t", "back", "--delete"], [0, 5, 6]);
    assert_eq!(files(&back), files(&source));
    assert!(
        !is_there(&back.join("own")),
        "an empty directory goes with its last file"
    );
    // A side that is not there is not an empty one.
    let said = server.fails(3, &["sync", "fsvc:/wrong", "back", "--delete"]);
    assert!(said.contains("/wrong"), "{said}");
    server.fails(1, &["sync", "./wrong", "fsvc:/t", "--delete"]);
    assert_eq!(
        (files(&back).len(), files(server.root().join("t")).len()),
        (5, 5)
    );
}

#[test]
fn a_file_in_the_place_of_a_directory_goes_only_with_leave() {
    let server = Server::start();
    let source = fill(&server, "source", &[("a", "file"), ("b/c", "in b")]);
    let other = fill(&server, "other", &[("a/x", "in a"), ("b", "file")]);
    counts(&server, &["sync", &source, "fsvc:/t"], [2, 0, 0]);
    let said = server.fails(1, &["sync", &other, "fsvc:/t"]);
    assert!(
        said.contains("a: it is a file on the server and a directory here"),
        "{said}"
    );
    assert!(
        said.contains("b: it is a file here and a directory on the server"),
        "{said}"
    );
    assert_eq!(files(server.root().join("t")), files(&source));
    counts(&server, &["sync", &other, "fsvc:/t", "--delete"], [2, 0, 2]);
    assert_eq!(files(server.root().join("t")), files(&other));
    let said = server.fails(1, &["sync", "fsvc:/t", &source]);
    assert!(
        said.contains("a: it is a file here and a directory on the server"),
        "{said}"
    );
    counts(
        &server,
        &["sync", "fsvc:/t", &source, "--delete"],
        [2, 0, 2],
    );
    assert_eq!(files(&source), files(&other));
}

#[test]
fn filters_choose_on_both_sides() {
    let server = Server::start();
    let all = [
        ("a.rs", "1"),
        ("b.tmp", "2"),
        ("src/c.rs", "3"),
        ("target/d.rs", "4"),
        ("e", "5"),
    ];
    let source = fill(&server, "source", &all);
    let put = |remote: &str, filters: &[&str]| {
        let (code, summary) = run(
            &server,
            &[&["put", "-r", &source, remote], filters].concat(),
        );
        assert_eq!(code, 0, "{summary}");
        names(server.root().join(remote.trim_start_matches('/')))
    };
    assert_eq!(
        put("/1", &["--include", "*.rs"]),
        ["a.rs", "src/c.rs", "target/d.rs"]
    );
    assert_eq!(
        put("/2", &["--exclude", "target/", "--include", "*.rs"]),
        ["a.rs", "src/c.rs"]
    );
    assert_eq!(
        put("/3", &["--include", "*.rs", "--exclude", "target/"]).len(),
        3
    );
    assert_eq!(
        put("/4", &["--exclude", "/src/**", "--exclude", "*.tmp"]),
        ["a.rs", "e", "target/d.rs"]
    );
    counts(&server, &["put", "-r", &source, "/t"], [5, 0, 0]);
    assert_eq!(
        server.ok(&["ls", "-r", "/t", "--include", "/src/**"]),
        "/t/src/c.rs\n"
    );
    counts(
        &server,
        &["get", "-r", "/t", "back", "--exclude", "*.rs"],
        [2, 0, 0],
    );
    counts(
        &server,
        &["rm", "-r", "/t", "--include", "*.tmp"],
        [0, 0, 1],
    );
    // What is left out is not deleted either.
    fs::remove_file(Path::new(&source).join("e")).unwrap();
    fs::remove_file(Path::new(&source).join("a.rs")).unwrap();
    let arguments = ["sync", &source, "fsvc:/t", "--delete", "--exclude", "*.rs"];
    counts(&server, &arguments, [1, 0, 1]);
    assert_eq!(
        names(server.root().join("t")),
        ["a.rs", "b.tmp", "src/c.rs", "target/d.rs"]
    );
    server.fails(2, &["put", "-r", &source, "/t", "--include", "[a"]);
    server.fails(2, &["ls", "/t", "--include", "*.rs"]);
}

#[test]
fn without_a_right_nothing_is_changed_and_each_file_is_named() {
    let grant = |name: &str, allow: &str, on: &str| {
        format!(
            "[[grant]]\nto = \"spiffe://test.internal/client/{name}\"\nallow = [{allow}]\non = \"{on}\"\n"
        )
    };
    let policy = everything().replace("client/*", "client/alice")
        + &grant("dev", r#""list", "create""#, "/t/**")
        + &grant("dev", r#""list", "read""#, "/open/**");
    let server = Server::with_policy(&policy);
    let source = fill(&server, "source", &[("a", "one"), ("d/b", "two")]);
    counts(&server, &["put", "-r", &source, "/t"], [2, 0, 0]);
    fs::write(Path::new(&source).join("a"), "other").unwrap();
    fs::write(Path::new(&source).join("new"), "new").unwrap();
    fs::remove_file(Path::new(&source).join("d/b")).unwrap();
    let arguments = ["sync", &source, "fsvc:/t", "--delete", "--json"];
    let output = server.run(&arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let denied: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["error"].clone())
        .filter(|error| error["code"] == "denied")
        .map(|error| error["path"].clone())
        .collect();
    assert_eq!(denied, [json!("a"), json!("d/b")], "{said}");
    assert_eq!(names(server.root().join("t")), ["a", "d/b", "new"]);
    assert_eq!(fs::read(server.root().join("t/a")).unwrap(), b"one");
    server.fails(4, &["get", "-r", "/closed", "back"]);
    server.fails(1, &["rm", "-r", "/t"]);
    server.fails(1, &["put", "-r", &source, "/open"]);
    let (code, summary) = run(&server, &["get", "-r", "/t", "back"]);
    assert_eq!((code, &summary["n_failed"]), (1, &json!(3)), "{summary}");
    assert_eq!(names(server.root()), ["t/a", "t/d/b", "t/new"]);
    assert_eq!(
        names(server.directory.path().join("back")),
        Vec::<String>::new()
    );
}

#[test]
fn what_may_not_be_listed_is_not_taken_for_empty() {
    let grant = "[[grant]]\nto = \"spiffe://test.internal/client/dev\"\n";
    let policy = everything().replace("client/*", "client/alice")
        + &format!(
            "{grant}allow = [\"list\", \"read\"]\non = [\"/t/\", \"/t/*\", \"/t/open/**\"]\n"
        );
    let server = Server::with_policy(&policy);
    for name in ["a", "open/b", "closed/c"] {
        let mut put = server.client("alice", &["put", "-", &format!("/t/{name}")]);
        assert!(with_input(&mut put, b"there").status.success());
    }
    let local = fill(
        &server,
        "local",
        &[
            ("a", "old"),
            ("gone", "here alone"),
            ("open/gone", "here alone"),
            ("closed/d", "here alone"),
        ],
    );
    let (code, summary) = run(&server, &["sync", "fsvc:/t", &local, "--delete"]);
    // What is in the directory is not known: nothing is deleted anywhere.
    assert_eq!((code, &summary["n_deleted"]), (1, &json!(0)), "{summary}");
    assert_eq!(
        names(&local),
        ["a", "closed/d", "gone", "open/b", "open/gone"]
    );
    assert_eq!(fs::read(Path::new(&local).join("a")).unwrap(), b"there");
}

#[test]
fn names_that_differ_by_case_or_form_are_kept_apart_where_the_disk_does() {
    let server = Server::start();
    let twins = [
        ("Readme", "1"),
        ("readme", "2"),
        ("D/x", "3"),
        ("d/x", "4"),
        ("ﬁ", "5"),
        ("fi", "6"),
    ];
    let source = fill(&server, "source", &twins);
    counts(&server, &["put", "-r", &source, "/t"], [6, 0, 0]);
    counts(&server, &["get", "-r", "/t", "back"], [6, 0, 0]);
    assert_eq!(files(server.directory.path().join("back")), files(&source));
}

#[test]
fn what_a_killed_run_has_left_is_taken_away_by_the_next() {
    let server = Server::start();
    let source = fill(&server, "source", &[("d/a", "one")]);
    counts(&server, &["put", "-r", &source, "/t"], [1, 0, 0]);
    let back = server.directory.path().join("back");
    fs::create_dir_all(back.join("d")).unwrap();
    fs::write(back.join("d/.fsvc-tree-1-1.part"), "half").unwrap();
    fs::write(back.join("d/.fsvc-abc.part"), "of a single get").unwrap();
    counts(&server, &["get", "-r", "/t", "back"], [1, 0, 0]);
    assert_eq!(names(&back), ["d/.fsvc-abc.part", "d/a"]);
}

#[test]
fn a_damaged_cache_of_digests_is_thrown_away() {
    let server = Server::start();
    let source = fill(&server, "source", &[("a", "one")]);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3_600);
    let file = fs::File::options()
        .write(true)
        .open(Path::new(&source).join("a"));
    file.unwrap().set_modified(old).unwrap();
    counts(&server, &["put", "-r", &source, "/t"], [1, 0, 0]);
    counts(&server, &["put", "-r", &source, "/t"], [0, 1, 0]);
    let cache = server.directory.path().join("cache/fsvc/digests");
    let kept: Vec<_> = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    for bad in [&b""[..], b"rubbish", &[0xff; 4_096]] {
        fs::write(&kept[0], bad).unwrap();
        counts(&server, &["put", "-r", &source, "/t"], [0, 1, 0]);
    }
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "in the way").unwrap();
    counts(&server, &["put", "-r", &source, "/t"], [0, 1, 0]);
}

#[test]
fn usage_that_could_be_mistaken_is_refused() {
    let server = Server::start_with(Setup::default());
    let source = fill(&server, "source", &[("a", "one")]);
    for arguments in [
        &["sync", &source, "/t"][..],
        &["sync", "fsvc:/a", "fsvc:/b"],
        &["sync", "fsvc:relative", "./x"],
        &["sync", "fsvc:/t", "./x", "--watch"],
        &["sync", &source, "fsvc:/t", "--max-delete", "3"],
        &["put", "-r", &source, &source, "/t"],
        &["put", "-r", &source, "/t", "--if-version", "3"],
        &["put", "-r", &source, "/t", "--atomic", "--if-version", "3"],
        &[
            "put",
            "-r",
            &source,
            "/t",
            "--atomic",
            "--if-version",
            "/t/b=3",
        ],
        &["get", "-r", "/"],
        &["get", "/t/a", "--keep-modes"],
        &["get", "/t/a", "--dry-run"],
        &["rm", "/t/a", "--dry-run"],
        &["rm", "-r", "/"],
    ] {
        server.fails(2, arguments);
    }
    assert!(files(server.root()).is_empty());
    counts(&server, &["put", "-r", &source, "/t"], [1, 0, 0]);
    counts(&server, &["rm", "-r", "/", "--all"], [0, 0, 1]);
}
