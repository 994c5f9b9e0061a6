//! Trees beside readers and writers: sets seen by a watcher, folders that change while they are sent,
//! and a folder that is kept on the server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Server, text};
use crate::trees::{counts, files, fill, is_there, run};

fn events(server: &Server, directory: &str) -> Vec<Value> {
    let lines = server.ok(&["watch", directory, "--since", "0", "--no-follow", "--json"]);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_set_is_one_event_and_refused_as_a_whole() {
    let server = Server::start();
    let names: Vec<String> = (0..300).map(|n| format!("d{}/{n}", n % 3)).collect();
    let all: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), name.as_str()))
        .collect();
    let source = fill(&server, "source", &all);
    fs::write(Path::new(&source).join("large"), vec![b'l'; 600_000]).unwrap();
    let (code, summary) = run(&server, &["put", "-r", &source, "/t", "--atomic"]);
    assert_eq!((code, &summary["n_moved"]), (0, &json!(301)), "{summary}");
    let version = summary["sequence"].as_u64().unwrap();
    let seen = events(&server, "/t");
    assert_eq!(seen.len(), 1, "{} events", seen.len());
    assert_eq!(seen[0]["changes"].as_array().unwrap().len(), 301);
    assert_eq!(files(server.root().join("t")), files(&source));

    // One condition that does not hold, and nothing of it is to be seen.
    fs::write(Path::new(&source).join("d0/0"), "new").unwrap();
    let wrong = format!("/t/large={}", version + 5);
    for refused in [&["--if-absent"][..], &["--if-version", &wrong]] {
        let said = server.fails(
            3,
            &[&["put", "-r", &source, "/t", "--atomic"], refused].concat(),
        );
        assert!(said.contains("/t/"), "{said}");
    }
    assert_eq!(events(&server, "/t").len(), 1);
    assert_eq!(server.get("/t/d0/0"), b"d0/0");
    assert!(server.staged().is_empty(), "{:?}", server.staged());
    let right = format!("/t/large={version}");
    let arguments = [
        "put",
        "-r",
        &source,
        "/t",
        "--atomic",
        "--if-version",
        &right,
    ];
    assert_eq!(run(&server, &arguments).0, 0);
    assert_eq!(server.get("/t/d0/0"), b"new");

    // A file that cannot be sent stops all of them.
    let made = Command::new("mkfifo")
        .arg(Path::new(&source).join("pipe"))
        .status();
    assert!(made.unwrap().success());
    let said = server.fails(1, &["put", "-r", &source, "/u", "--atomic"]);
    assert!(
        said.contains("pipe: a pipe") && said.contains("nothing was changed"),
        "{said}"
    );
    assert!(!is_there(&server.root().join("u")));
    counts(
        &server,
        &[
            "put",
            "-r",
            &source,
            "/u",
            "--atomic",
            "--dry-run",
            "--exclude",
            "pipe",
        ],
        [301, 0, 0],
    );
    assert!(!is_there(&server.root().join("u")));
}

#[test]
fn a_set_that_is_too_large_is_refused_before_it_is_sent() {
    let server = Server::start();
    let names: Vec<String> = (0..10_001).map(|n| format!("{n}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let source = fill(&server, "source", &all);
    let said = server.fails(1, &["put", "-r", &source, "/t", "--atomic"]);
    assert!(said.contains("a set has at most 10000 files"), "{said}");
    assert!(!is_there(&server.root().join("t")));
}

/// A running `sync --watch`; ends with the test.
struct Watching {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Watching {
    fn start(server: &Server, more: &[&str]) -> Self {
        let arguments = [&["sync", "source", "fsvc:/t", "--watch", "--json"], more].concat();
        let mut command = server.client("dev", &arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut watching = Self {
            child,
            lines: Box::new(lines.map_while(Result::ok)),
        };
        watching.round();
        watching
    }

    /// Waits until a round is over; what it counted.
    fn round(&mut self) -> Value {
        loop {
            let line = self.lines.next().expect("the watch goes on");
            let said: Value = serde_json::from_str(&line).unwrap();
            if said.get("summary").is_some() {
                return said["summary"].clone();
            }
        }
    }

    /// Waits for rounds until the server has what the folder has.
    fn settle(&mut self, server: &Server, source: &str) {
        while files(server.root().join("t")) != files(source) {
            self.round();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_watched_folder_is_kept_on_the_server_as_it_changes() {
    let mut server = Server::start();
    let source = fill(
        &server,
        "source",
        &[("a", "one"), ("d/b", "two"), ("d/e/f", "three")],
    );
    let at = |name: &str| Path::new(&source).join(name);
    let mut watching = Watching::start(&server, &["--delete"]);
    assert_eq!(files(server.root().join("t")), files(&source));
    fs::write(at("d/new"), "new").unwrap();
    watching.settle(&server, &source);
    fs::write(at("a"), "changed").unwrap();
    fs::remove_file(at("d/b")).unwrap();
    watching.settle(&server, &source);
    // Directories that come with what is in them, and that go.
    let moved = fill(&server, "elsewhere", &[("x/y", "1"), ("x/z/w", "2")]);
    fs::rename(&moved, at("moved")).unwrap();
    fs::remove_dir_all(at("d/e")).unwrap();
    watching.settle(&server, &source);
    fs::rename(at("moved/x"), at("d/x")).unwrap();
    watching.settle(&server, &source);
    assert_eq!(server.get("/t/d/x/z/w"), b"2");

    // A server that goes away and comes back elsewhere is not found again; one that stays away is
    // waited for, and the signal ends the wait.
    server.kill();
    fs::write(at("late"), "late").unwrap();
    let pid = watching.child.id().to_string();
    loop {
        let line = watching.lines.next().expect("the watch goes on");
        if line.contains("retry") {
            break;
        }
    }
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

#[test]
fn without_delete_a_watched_folder_takes_nothing_away() {
    let server = Server::start();
    let source = fill(&server, "source", &[("a", "one"), ("b", "two")]);
    let mut watching = Watching::start(&server, &[]);
    fs::remove_file(Path::new(&source).join("a")).unwrap();
    fs::write(Path::new(&source).join("c"), "three").unwrap();
    while !is_there(&server.root().join("t/c")) {
        watching.round();
    }
    assert_eq!(files(server.root().join("t")).len(), 3);
}

/// Ends the writer, also when the test fails.
struct StopWriting<'a>(&'a AtomicBool);

impl Drop for StopWriting<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_folder_that_is_written_to_meanwhile_gives_whole_files_or_none() {
    let server = Server::start();
    let source = fill(&server, "source", &[]);
    let block = 200_000;
    let write = |round: u8| {
        for name in ["small", "large"] {
            let size = if name == "small" { 50_000 } else { block };
            fs::write(Path::new(&source).join(name), vec![round; size]).unwrap();
        }
    };
    write(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopWriting(&stop);
        scope.spawn(|| {
            let mut round = 0_u8;
            while !stop.load(Ordering::Relaxed) {
                round = round.wrapping_add(1);
                write(round);
            }
        });
        for _ in 0..10 {
            let output = server.run(&["put", "-r", &source, "/t"]);
            let said = text(&output.stderr);
            let is_known =
                output.status.success() || said.contains("it was changed while it was read");
            assert!(is_known, "{said}");
        }
    });
    for (name, content) in files(server.root().join("t")) {
        assert!(
            content.iter().all(|byte| *byte == content[0]),
            "{name} is mixed"
        );
    }
}

#[test]
fn links_in_the_destination_are_neither_followed_nor_replaced() {
    let server = Server::start();
    let all = [("a", "new"), ("d/b", "new"), ("e/f/g", "new"), ("h", "new")];
    let source = fill(&server, "source", &all);
    counts(&server, &["put", "-r", &source, "/t"], [4, 0, 0]);
    let outside = fill(&server, "outside", &[("victim", "old"), ("b", "old")]);
    let back = fill(&server, "back", &[("e/x", "x")]);
    let at = |name: &str| Path::new(&back).join(name);
    symlink(Path::new(&outside).join("victim"), at("a")).unwrap();
    symlink(&outside, at("d")).unwrap();
    symlink("../outside", at("e/f")).unwrap();
    let before = files(&outside);
    for arguments in [
        &["get", "-r", "/t", "back"][..],
        &["sync", "fsvc:/t", "back", "--delete"],
    ] {
        let said = server.fails(1, arguments);
        for name in ["a: ", "d: ", "e/f: "] {
            let expected = format!("fsvc: {name}a symbolic link has the name here");
            assert!(said.contains(&expected), "{expected}: {said}");
        }
        assert_eq!(files(&outside), before);
        assert_eq!(fs::read(at("h")).unwrap(), b"new");
        for link in ["a", "d", "e/f"] {
            assert!(at(link).is_symlink(), "{link}");
        }
    }
}
