//! Watching files: what happened, in order, to whom it concerns, and never before it is there.

use fsvc::client::{Client, Delivery, Subscription};
use fsvc::digest::Digest;
use fsvc::path::RemotePath;
use fsvc::protocol::{Conditions, Event, FileChange, Start};
use serde_json::Value;

use crate::crash::count;
use crate::harness::text;
use crate::messages::{caught_up, client, event, runtime, serve, since, with_cursor};

fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

async fn watch(client: &Client, prefix: &str, start: Start) -> Subscription {
    client.watch(prefix.parse().unwrap(), start).await.unwrap()
}

async fn put(client: &Client, name: &str, content: &str) -> u64 {
    let (path, content) = (path(name), content.as_bytes().to_vec());
    let put = client.put_bytes(&path, content, Conditions::default());
    put.await.unwrap().version.unwrap()
}

/// The changes of an event, shortly.
fn short(event: &Event) -> Vec<String> {
    let change = |change: &FileChange| match change {
        FileChange::Created(file) => format!("created {} {}", file.path, file.size),
        FileChange::Replaced(file) => format!("replaced {} {}", file.path, file.size),
        FileChange::Removed { path } => format!("removed {path}"),
        FileChange::Moved { from, file } => format!("moved {from} {} {}", file.path, file.size),
    };
    event.changes.iter().map(change).collect()
}

fn all_short(seen: &[Delivery]) -> Vec<String> {
    let one = |delivery: &Delivery| match delivery {
        Delivery::Event(message) => short(&message.event),
        other => vec![format!("{other:?}")],
    };
    seen.iter().flat_map(one).collect()
}

#[test]
fn every_kind_of_change_is_told_with_what_is_known_of_it() {
    let server = serve();
    runtime().block_on(async {
        let (dev, alice) = (client(&server, "dev"), client(&server, "alice"));
        put(&alice, "/before", "not told").await;
        let mut stream = watch(&dev, "/", Start::default()).await;
        let created = put(&alice, "/a", "one").await;
        let replaced = put(&alice, "/a", "two!").await;
        let none = Conditions::default();
        let moved = alice.rename(&path("/a"), &path("/b"), none).await.unwrap();
        let copied = alice.copy(&path("/b"), &path("/c"), none).await.unwrap();
        let over = alice.rename(&path("/b"), &path("/c"), none).await.unwrap();
        let removed = alice.remove(&path("/c"), None).await.unwrap();
        let expected = [
            (created, "created /a 3"),
            (replaced, "replaced /a 4"),
            (moved.version.unwrap(), "moved /a /b 4"),
            (copied.version.unwrap(), "created /c 4"),
            (over.version.unwrap(), "moved /b /c 4"),
            (removed.sequence, "removed /c"),
        ];
        for (version, text) in expected {
            let event = event(&mut stream).await.event;
            assert_eq!(
                (event.sequence, short(&event)),
                (version, vec![text.to_owned()])
            );
            assert!(event.identity.ends_with("/client/alice"));
            match &event.changes[0] {
                FileChange::Created(file)
                | FileChange::Replaced(file)
                | FileChange::Moved { file, .. } => {
                    let content: &[u8] = if version == created { b"one" } else { b"two!" };
                    assert_eq!(file.digest, Some(Digest::of(content)));
                    assert!(!file.found);
                }
                FileChange::Removed { .. } => {}
            }
        }
    });
}

#[test]
fn a_prefix_ends_at_a_slash() {
    let server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        for name in ["/a/x", "/a/b/y", "/ab", "/ab/z", "/b/a"] {
            let name = path(name);
            let put = dev.put_bytes(&name, b"1".to_vec(), Conditions::default());
            // A name cannot be a file and a directory: the first one has it.
            let _ = put.await;
        }
        put(&dev, "/f", "1").await;
        put(&dev, "/fg", "1").await;
        let seen = async |prefix: &str| {
            all_short(&caught_up(&mut watch(&dev, prefix, since(0)).await).await)
        };
        let in_a = ["created /a/x 1", "created /a/b/y 1"];
        assert_eq!(seen("/a").await, in_a);
        assert_eq!(seen("/a/").await, in_a);
        assert_eq!(seen("/a/b").await, in_a[1..]);
        assert_eq!(seen("/f").await, ["created /f 1"]);
        assert_eq!(seen("/g").await, [""; 0]);
        // A move over the edge is what each side sees of it.
        let from = dev.stat(&path("/f")).await.unwrap().version.unwrap();
        dev.rename(&path("/f"), &path("/a/f"), Conditions::default())
            .await
            .unwrap();
        let mut outside = watch(&dev, "/f", since(from + 1)).await;
        assert_eq!(all_short(&caught_up(&mut outside).await), ["removed /f"]);
        let mut inside = watch(&dev, "/a/", since(from + 1)).await;
        assert_eq!(all_short(&caught_up(&mut inside).await), ["created /a/f 1"]);
    });
}

#[test]
fn from_the_beginning_the_whole_present_state_is_told() {
    let server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        for number in 0..10 {
            put(&dev, &format!("/d{}/f{number}", number % 3), "x").await;
        }
        put(&dev, "/d0/f0", "again").await;
        dev.remove(&path("/d1/f1"), None).await.unwrap();
    });
    let events = server.ok(&["watch", "--since", "0", "--no-follow", "--json"]);
    let mut present = std::collections::BTreeMap::new();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        for change in event["changes"].as_array().unwrap() {
            let name = change["path"].as_str().unwrap().to_owned();
            match change["change"].as_str().unwrap() {
                "removed" => present.remove(&name),
                _ => present.insert(name, change["size"].as_u64().unwrap()),
            };
        }
    }
    assert_eq!(present.len(), 9);
    assert_eq!(present["/d0/f0"], 5);
    for (name, size) in present {
        let stat: Value = serde_json::from_str(&server.ok(&["stat", &name, "--json"])).unwrap();
        assert_eq!(stat["size"], size, "{name}");
    }
}

#[test]
fn no_event_comes_before_its_file() {
    let n_writes = count("FSVC_TEST_WATCHED", 60);
    let server = serve();
    runtime().block_on(async {
        let reader = client(&server, "dev");
        let mut stream = watch(&reader, "/", Start::default()).await;
        let write = async {
            let alice = client(&server, "alice");
            for number in 0..n_writes {
                // Each name is written once, so that its version is that of its event.
                let pad = " ".repeat([3, 90_000][number % 2]);
                put(&alice, &format!("/f{number}"), &format!("{number}{pad}")).await;
            }
        };
        let check = async {
            for number in 0..n_writes {
                let event = event(&mut stream).await.event;
                let (info, content) = reader
                    .get(&path(&format!("/f{number}")), Vec::new())
                    .await
                    .unwrap();
                assert_eq!(info.version, Some(event.sequence));
                assert_eq!(text(&content).trim(), number.to_string());
            }
        };
        tokio::join!(write, check);
    });
}

#[test]
fn a_watch_begins_where_it_says() {
    let server = serve();
    server.put("/a", b"1");
    server.put("/b", b"22");
    let watched = |more: &[&str]| {
        let arguments = [&["watch", "/", "--no-follow", "--json"], more].concat();
        let lines = server.ok(&arguments);
        let sequence = |line: &str| {
            serde_json::from_str::<Value>(line).unwrap()["sequence"]
                .as_u64()
                .unwrap()
        };
        lines.lines().map(sequence).collect::<Vec<u64>>()
    };
    assert_eq!(watched(&[]), [0; 0]);
    assert_eq!(watched(&["--since", "0"]), [1, 2]);
    assert_eq!(watched(&["--since", "1"]), [2]);
    assert_eq!(watched(&["--since", "2"]), [0; 0]);
    assert_eq!(watched(&["--since", "1h"]), [1, 2]);
    assert_eq!(watched(&["--since", "2020-01-01T00:00:00Z"]), [1, 2]);
    assert_eq!(watched(&["--since", "2099-01-01T00:00:00Z"]), [0; 0]);
    let second = server.ok(&["watch", "--since", "1", "--count", "1", "--json"]);
    let second: Value = serde_json::from_str(&second).unwrap();
    let time = second["time"].as_str().unwrap();
    assert_eq!(watched(&["--since", time]), [2]);
    server.fails(1, &["watch", "--since", "3", "--no-follow"]);
    server.fails(2, &["watch", "--since", "yesterday?", "--no-follow"]);
    let people = server.ok(&["watch", "/", "--since", "0", "--count", "1"]);
    assert!(
        people.contains("created /a (1 bytes) by spiffe://test.internal/client/dev"),
        "{people}"
    );
}

#[test]
fn a_cursor_watches_on_where_it_stopped() {
    let server = serve();
    server.put("/in/a", b"1");
    server.put("/in/b", b"1");
    let next = || {
        server.ok(&[
            "watch", "/in/", "--cursor", "loader", "--since", "0", "--count", "1", "--json",
        ])
    };
    let path_of =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["changes"][0]["path"].clone();
    assert_eq!(path_of(&next()), "/in/a");
    assert_eq!(path_of(&next()), "/in/b");
    server.put("/in/c", b"1");
    assert_eq!(path_of(&next()), "/in/c");
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let start = Start {
            group: true,
            ..with_cursor("workers")
        };
        let mut group = watch(&dev, "/in/", start).await;
        for sequence in 1..=3 {
            assert_eq!(event(&mut group).await.event.sequence, sequence);
            dev.ack(&"workers".parse().unwrap(), sequence)
                .await
                .unwrap();
        }
    });
}

#[test]
fn what_another_program_did_is_told_after_a_reconciliation() {
    let server = serve();
    server.put("/in/known", b"1");
    server.put("/in/gone", b"1");
    let root = server.root();
    std::fs::write(root.join("in/found"), b"from outside").unwrap();
    std::fs::write(root.join("in/known"), b"changed").unwrap();
    std::fs::remove_file(root.join("in/gone")).unwrap();
    let said: Value = serde_json::from_str(&server.ok(&["reconcile", "/in/", "--json"])).unwrap();
    assert_eq!(
        (&said["n_found"], &said["n_gone"]),
        (&2.into(), &1.into()),
        "{said}"
    );
    let lines = server.ok(&["watch", "/in/", "--since", "2", "--no-follow"]);
    let mut what: Vec<&str> = lines
        .lines()
        .map(|line| line.splitn(3, ' ').nth(2).unwrap())
        .collect();
    what.sort_unstable();
    let by = "by spiffe://test.internal/client/dev";
    let expected = [
        format!("created /in/found (12 bytes, found) {by}"),
        format!("removed /in/gone {by}"),
        format!("replaced /in/known (7 bytes, found) {by}"),
    ];
    assert_eq!(what, expected);
    let again: Value = serde_json::from_str(&server.ok(&["reconcile", "--json"])).unwrap();
    assert_eq!(
        (&again["n_found"], &again["n_gone"]),
        (&0.into(), &0.into()),
        "{again}"
    );
    assert_eq!(server.get("/in/known"), b"changed");
    let verified = server.ok(&["admin", "log", "verify", "--json"]);
    assert!(verified.contains("\"n_checked\":5"), "{verified}");
}
