//! What other programs do in the tree, and how it becomes records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use fsvc::digest::Digest;
use fsvc::path::{Prefix, RemotePath};
use fsvc::protocol::Conditions;
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::Value;

use crate::crash::client;
use crate::faults::agree;
use crate::harness::{Server, everything};
use crate::store_faults::Mount;

fn server() -> Server {
    Server::with_policy(&everything())
}

/// Files looked at, found, gone.
#[track_caller]
fn reconcile(server: &Server, prefix: &str) -> (u64, u64, u64) {
    let output = server.ok(&["reconcile", prefix, "--json"]);
    let total: Value = serde_json::from_str(&output).unwrap();
    let count = |name: &str| total[name].as_u64().unwrap();
    (count("n_files"), count("n_found"), count("n_gone"))
}

/// A second run has nothing to do, and log, index and tree agree.
#[track_caller]
fn is_settled(mut server: Server, n_files: u64) {
    assert_eq!(reconcile(&server, "/"), (n_files, 0, 0));
    server.signal("TERM");
    server.wait(Duration::from_secs(10));
    agree(&server.root(), "after a reconciliation");
}

/// Every change after a record, one a line: `created /a found`.
#[track_caller]
fn changes(server: &Server, since: &str) -> Vec<String> {
    let lines = server.ok(&["watch", "/", "--since", since, "--no-follow", "--json"]);
    let mut changes = Vec::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        for change in event["changes"].as_array().unwrap() {
            let name = |field: &str| change[field].as_str().unwrap_or_default().to_owned();
            let found = if change["found"] == true {
                " found"
            } else {
                ""
            };
            if change["found"] == true {
                let path = server.root().join(name("path").trim_start_matches('/'));
                let content = fs::read(path).unwrap_or_default();
                assert_eq!(change["digest"], Digest::of(&content).to_string(), "{line}");
            }
            changes.push(format!("{} {}{found}", name("change"), name("path")));
        }
    }
    changes
}

fn stat(server: &Server, path: &str) -> Value {
    serde_json::from_str(&server.ok(&["stat", path, "--json"])).unwrap()
}

#[test]
fn what_was_added_changed_and_removed_by_hand_becomes_events() {
    let server = server();
    let root = server.root();
    for name in [
        "/kept", "/changed", "/removed", "/renamed", "/d/1", "/d/e/2",
    ] {
        server.put(name, b"put");
    }
    fs::create_dir_all(root.join("new/deep")).unwrap();
    fs::write(root.join("new/deep/added"), "added").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("changed"), "changed by hand").unwrap();
    fs::remove_file(root.join("removed")).unwrap();
    fs::rename(root.join("renamed"), root.join("moved")).unwrap();
    fs::remove_dir_all(root.join("d")).unwrap();
    assert_eq!(reconcile(&server, "/"), (5, 4, 4));
    let expected = [
        "removed /d/1",
        "removed /d/e/2",
        "removed /removed",
        "removed /renamed",
        "replaced /changed found",
        "created /empty found",
        "created /moved found",
        "created /new/deep/added found",
    ];
    assert_eq!(changes(&server, "6"), expected);
    let added = stat(&server, "/new/deep/added");
    assert_eq!(added["digest"], Digest::of(b"added").to_string());
    assert_eq!(added["version"], 14);
    assert_eq!(stat(&server, "/kept")["version"], 1);
    // What was found can be changed under conditions like any other file.
    server.put("/new/deep/added", b"put");
    server.ok(&["rm", "/empty"]);
    server.ok(&["mv", "/moved", "/again"]);
    is_settled(server, 4);
}

#[test]
fn a_directory_is_reconciled_alone() {
    let server = server();
    let root = server.root();
    for directory in ["a", "ab", "b"] {
        fs::create_dir(root.join(directory)).unwrap();
        fs::write(root.join(directory).join("x"), "x").unwrap();
    }
    server.put("/a/gone", b"x");
    server.put("/b/gone", b"x");
    fs::remove_file(root.join("a/gone")).unwrap();
    fs::remove_file(root.join("b/gone")).unwrap();
    assert_eq!(reconcile(&server, "/a/"), (1, 1, 1));
    assert_eq!(
        changes(&server, "2"),
        ["removed /a/gone", "created /a/x found"]
    );
    assert_eq!(reconcile(&server, "/"), (3, 2, 1));
    is_settled(server, 3);
}

#[test]
fn what_is_no_file_and_what_has_no_name_is_passed_over() {
    let server = server();
    let root = server.root();
    server.put("/file", b"x");
    symlink("file", root.join("link")).unwrap();
    symlink("/etc", root.join("directory-link")).unwrap();
    mkfifoat(CWD, root.join("fifo"), Mode::RUSR).unwrap();
    let unnameable: [&[u8]; 3] = [b"a\xffb", b"a\nb", b"\xe2\x80\xae"];
    for name in unnameable {
        fs::write(root.join(Path::new(std::ffi::OsStr::from_bytes(name))), "x").unwrap();
    }
    fs::create_dir(root.join(Path::new(std::ffi::OsStr::from_bytes(b"d\xff")))).unwrap();
    assert_eq!(reconcile(&server, "/"), (1, 0, 0));
    assert_eq!(changes(&server, "1"), [""; 0]);
    assert!(root.join("link").is_symlink());
    is_settled(server, 1);
}

/// The names that were of files are of directories, links and pipes now, and the other way round.
#[test]
fn a_name_that_became_something_else_is_no_longer_the_file() {
    let server = server();
    let root = server.root();
    for name in ["/a", "/b", "/c", "/d/x", "/e/f/x"] {
        server.put(name, b"put");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(root.join("e"), elsewhere.path().join("e")).unwrap();
    symlink(elsewhere.path().join("e"), root.join("e")).unwrap();
    for name in ["a", "b", "c"] {
        fs::remove_file(root.join(name)).unwrap();
    }
    fs::create_dir(root.join("a")).unwrap();
    fs::write(root.join("a/x"), "x").unwrap();
    symlink("a/x", root.join("b")).unwrap();
    mkfifoat(CWD, root.join("c"), Mode::RUSR).unwrap();
    fs::remove_dir_all(root.join("d")).unwrap();
    fs::write(root.join("d"), "d").unwrap();
    assert_eq!(reconcile(&server, "/"), (2, 2, 5));
    let expected = [
        "removed /a",
        "removed /b",
        "removed /c",
        "removed /d/x",
        "removed /e/f/x",
        "created /a/x found",
        "created /d found",
    ];
    assert_eq!(changes(&server, "5"), expected);
    assert!(root.join("b").is_symlink());
    assert!(elsewhere.path().join("e/f/x").is_file());
    assert_eq!(fs::read(root.join("a/x")).unwrap(), b"x");
    is_settled(server, 2);
}

#[test]
fn another_file_system_in_the_tree_is_passed_over() {
    let server = server();
    let root = server.root();
    server.put("/a/x", b"x");
    let Some(_mount) = Mount::tmpfs(&root.join("m"), "1m") else {
        eprintln!("not permitted to mount a tmpfs: nothing was tested");
        return;
    };
    fs::write(root.join("m/x"), "x").unwrap();
    fs::write(root.join("n"), "x").unwrap();
    assert_eq!(reconcile(&server, "/"), (2, 1, 0));
    assert_eq!(reconcile(&server, "/"), (2, 0, 0));
}

#[test]
fn more_than_a_page_is_reconciled_whole() {
    const N_FILES: u64 = 2_300;
    let server = server();
    let root = server.root();
    let mut expected = BTreeSet::new();
    for n in 0..N_FILES {
        // Names that are before and after a directory's own, with and without a slash.
        let directory = root
            .join(format!("d{}", n % 7))
            .join(["a", "a-", "a0"][usize::try_from(n % 3).unwrap()]);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(n.to_string()), n.to_string()).unwrap();
        let name = directory.join(n.to_string());
        let name = name.strip_prefix(&root).unwrap().display().to_string();
        expected.insert(format!("created /{name} found"));
    }
    assert_eq!(reconcile(&server, "/"), (N_FILES, N_FILES, 0));
    let seen: BTreeSet<String> = changes(&server, "0").into_iter().collect();
    assert_eq!(seen, expected);
    assert_eq!(reconcile(&server, "/"), (N_FILES, 0, 0));
    for n in 0..7 {
        fs::remove_dir_all(root.join(format!("d{n}"))).unwrap();
    }
    assert_eq!(reconcile(&server, "/"), (0, 0, N_FILES));
    is_settled(server, 0);
}

/// Puts, removes and moves while the tree is reconciled again and again.
#[test]
fn racing_changes_are_not_taken_for_another_programs() {
    const N_ROUNDS: u64 = 30;
    let server = server();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let versions = runtime.block_on(async {
        let (writer, reconciler) = (client(&server), client(&server));
        let working = tokio::spawn(async move {
            let mut versions: BTreeMap<String, u64> = BTreeMap::new();
            for round in 0..N_ROUNDS {
                for name in ["/d/a", "/d/b", "/e/c"] {
                    let path: RemotePath = name.parse().unwrap();
                    let content = format!("{name} {round}").into_bytes();
                    let put = writer.put_bytes(&path, content, Conditions::default());
                    versions.insert(name.to_owned(), put.await.unwrap().version.unwrap());
                }
                let (from, to) = ("/e/c".parse().unwrap(), "/f/g".parse().unwrap());
                let free = Conditions::default();
                writer.rename(&from, &to, free).await.unwrap();
                writer.remove(&to, None).await.unwrap();
                versions.remove("/e/c");
            }
            versions
        });
        let mut n_runs = 0;
        while !working.is_finished() {
            let mut after = None;
            loop {
                let page = reconciler.reconcile(&Prefix::root(), after).await.unwrap();
                assert_eq!(
                    page.n_gone, 0,
                    "a file that was being changed was taken for gone"
                );
                assert_eq!(page.n_found, 0, "a put was taken for another program's");
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            n_runs += 1;
        }
        assert!(n_runs > 5, "only {n_runs} reconciliations raced");
        working.await.unwrap()
    });
    assert_eq!(versions.len(), 2);
    for (name, version) in versions {
        assert_eq!(stat(&server, &name)["version"], version, "{name}");
        let last = format!("{name} {}", N_ROUNDS - 1);
        assert_eq!(server.get(&name), last.as_bytes());
    }
    assert!(
        changes(&server, "0")
            .iter()
            .all(|line| !line.contains("found"))
    );
    is_settled(server, 2);
}

/// Another program and clients write the same names.
#[test]
fn of_a_put_and_another_programs_file_the_last_one_stands() {
    const N_ROUNDS: u64 = 40;
    let server = server();
    let root = server.root();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (writer, reconciler) = (client(&server), client(&server));
        let working = tokio::spawn(async move {
            let path: RemotePath = "/d/put".parse().unwrap();
            for round in 0..N_ROUNDS {
                fs::create_dir_all(root.join("d")).unwrap();
                fs::write(root.join("d/other"), format!("other {round}")).unwrap();
                fs::write(root.join("d/put"), "by hand").unwrap();
                let content = format!("put {round}").into_bytes();
                let put = writer.put_bytes(&path, content.clone(), Conditions::default());
                let put = put.await.unwrap();
                // Nothing that was found before takes the place of what was put after it.
                let (file, found) = writer.get(&path, Vec::new()).await.unwrap();
                assert_eq!((file.version, found), (put.version, content));
            }
        });
        while !working.is_finished() {
            let mut after = None;
            loop {
                let page = reconciler.reconcile(&Prefix::root(), after).await.unwrap();
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        working.await.unwrap();
    });
    reconcile(&server, "/");
    let last = format!("other {}", N_ROUNDS - 1);
    assert_eq!(server.get("/d/other"), last.as_bytes());
    assert_eq!(
        server.get("/d/put"),
        format!("put {}", N_ROUNDS - 1).as_bytes()
    );
    is_settled(server, 2);
}
