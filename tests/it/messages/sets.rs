//! Sets: files that change together, or not at all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fsvc::client::{Client, Delivery};
use fsvc::path::{Prefix, RemotePath};
use fsvc::protocol::{Conditions, FileChange, Member};
use serde_json::Value;

use super::{ask_with, caught_up, client, refused, runtime, serve, since};
use crate::crash::count;
use crate::raw::{Raw, code, snapshot};

async fn staged(client: &Client, path: &str, content: &[u8]) -> Member {
    let size = Some(content.len() as u64);
    let source = std::io::Cursor::new(content.to_vec());
    let staged = client.stage(source, size).await.unwrap();
    Member {
        path: path.parse().unwrap(),
        staged: Some(staged.staged),
        remove: false,
        if_absent: false,
        if_version: None,
        digest: None,
        attributes: None,
    }
}

fn removed(path: &str) -> Member {
    Member {
        path: path.parse().unwrap(),
        staged: None,
        remove: true,
        if_absent: false,
        if_version: None,
        digest: None,
        attributes: None,
    }
}

fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

const NAMES: [&str; 3] = ["/set/a", "/set/b", "/set/c"];

async fn commit_number(client: &Client, number: usize) {
    // Some contents fit one piece, some are moved by a thread.
    let pad = " ".repeat([10, 100_000][number % 2]);
    let mut members = Vec::new();
    for name in NAMES {
        let content = format!("{number}{pad}");
        members.push(staged(client, name, content.as_bytes()).await);
    }
    client.commit(&members).await.unwrap();
}

async fn number_in(client: &Client, name: &str) -> usize {
    let (_, content) = client.get(&path(name), Vec::new()).await.unwrap();
    String::from_utf8(content).unwrap().trim().parse().unwrap()
}

#[test]
fn readers_see_a_set_whole_and_never_go_back() {
    let n_rounds = count("FSVC_TEST_SETS", 40);
    let server = serve();
    let (ended, n_read) = (AtomicBool::new(false), AtomicUsize::new(0));
    runtime().block_on(async {
        commit_number(&client(&server, "alice"), 1).await;
        let write = async {
            let alice = client(&server, "alice");
            for number in 2..n_rounds {
                commit_number(&alice, number).await;
            }
            ended.store(true, Ordering::SeqCst);
        };
        let read = async |name: &str, order: [usize; 3]| {
            let reader = client(&server, name);
            let mut newest = 0;
            while !ended.load(Ordering::SeqCst) {
                for at in order {
                    let number = number_in(&reader, NAMES[at]).await;
                    assert!(
                        number >= newest,
                        "{} is of {number} after {newest}",
                        NAMES[at]
                    );
                    newest = number;
                }
                n_read.fetch_add(1, Ordering::SeqCst);
            }
        };
        tokio::join!(write, read("dev", [0, 1, 2]), read("bob", [2, 0, 1]));
        assert!(n_read.load(Ordering::SeqCst) > 2);
        for name in NAMES {
            assert_eq!(number_in(&client(&server, "dev"), name).await, n_rounds - 1);
        }
    });
}

#[test]
fn a_listing_shows_all_names_of_a_set_or_none() {
    let n_rounds = count("FSVC_TEST_SETS", 40);
    let server = serve();
    let ended = AtomicBool::new(false);
    server.put("/in/first", b"x");
    runtime().block_on(async {
        let write = async {
            let alice = client(&server, "alice");
            for number in 0..n_rounds {
                let names = ["a", "m", "z"].map(|part| format!("/in/{part}-{number}"));
                let mut members = Vec::new();
                for name in &names {
                    members.push(staged(&alice, name, b"x").await);
                }
                alice.commit(&members).await.unwrap();
                let members = names.map(|name| removed(&name));
                alice.commit(&members).await.unwrap();
            }
            ended.store(true, Ordering::SeqCst);
        };
        let list = async {
            let dev = client(&server, "dev");
            let directory: Prefix = "/in/".parse().unwrap();
            while !ended.load(Ordering::SeqCst) {
                let listing = dev.list(&directory, None).await.unwrap();
                assert!([1, 4].contains(&listing.entries.len()), "{listing:?}");
            }
        };
        tokio::join!(write, list);
    });
}

#[test]
fn one_condition_that_fails_refuses_the_whole_set() {
    let server = serve();
    server.put("/there", b"old");
    let before = snapshot(&server.root());
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let version = dev.stat(&path("/there")).await.unwrap().version;
        for (what, if_absent, if_version, expected) in [
            ("absent", true, None, "exists"),
            ("another version", false, Some(999), "changed"),
        ] {
            let good = staged(&dev, "/new", b"new").await;
            let bad = Member {
                if_absent,
                if_version,
                ..staged(&dev, "/there", b"new").await
            };
            for members in [[good.clone(), bad.clone()], [bad, good]] {
                let answer = dev.commit(&members).await;
                let code = refused(answer);
                // What was staged is gone with the first refusal.
                assert!(code == expected || code == "bad_request", "{what}: {code}");
                assert_eq!(snapshot(&server.root()), before, "{what}");
            }
        }
        let good = staged(&dev, "/new", b"new").await;
        let answer = dev.commit(&[good, removed("/missing")]).await;
        assert_eq!(refused(answer), "not_found");
        assert_eq!(server.staged(), Vec::<String>::new());
        let both = Member {
            if_absent: true,
            if_version: version,
            ..staged(&dev, "/there", b"x").await
        };
        assert_eq!(refused(dev.commit(&[both]).await), "bad_request");
        assert_eq!(snapshot(&server.root()), before);
        let good = staged(&dev, "/new", b"new").await;
        let fits = Member {
            if_version: version,
            ..staged(&dev, "/there", b"new").await
        };
        let committed = dev.commit(&[good, fits]).await.unwrap();
        assert_eq!(committed.n_members, 2);
        for name in ["/new", "/there"] {
            assert_eq!(
                dev.stat(&path(name)).await.unwrap().version,
                Some(committed.sequence)
            );
        }
    });
}

#[test]
fn what_is_no_set_is_refused() {
    let server = serve();
    let mut raw = Raw::connect(&server, "dev");
    let stage = |raw: &mut Raw| {
        let answer = ask_with(raw, r#"{"id":1,"op":"stage","size":1}"#, b"x");
        answer["ok"]["staged"].as_str().unwrap().to_owned()
    };
    let id = stage(&mut raw);
    let lines = [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"path":"/a"}"#.to_owned(),
        format!(r#"{{"path":"/a","staged":"{id}","remove":true}}"#),
        r#"{"path":"/a","remove":true,"if_absent":true}"#.to_owned(),
        format!(r#"{{"path":"/../a","staged":"{id}"}}"#),
        format!(r#"{{"path":"/a/","staged":"{id}"}}"#),
        format!(r#"{{"path":"/a","staged":"{id}","more":1}}"#),
        format!(r#"{{"path":"/a","path":"/b","staged":"{id}"}}"#),
        format!("{{\"path\":\"/a\",\"staged\":\"{id}\"}}\n\n{{\"path\":\"/b\",\"remove\":true}}"),
        r#"{"path":"/a","staged":"../../etc/passwd"}"#.to_owned(),
        r#"{"path":"/a","staged":""}"#.to_owned(),
        r#"{"path":"/a","staged":null}"#.to_owned(),
        r#"{"path":"/a","staged":"00000000000000000000000000000000"}"#.to_owned(),
        format!("{{\"path\":\"/a\",\"staged\":\"{id}\"}}\n{{\"path\":\"/a\",\"remove\":true}}"),
    ];
    for line in lines {
        let answer = ask_with(&mut raw, r#"{"id":1,"op":"commit"}"#, line.as_bytes());
        assert_eq!(code(&answer), "bad_request", "{line}");
        raw.lives();
        assert!(snapshot(&server.root()).is_empty(), "{line}");
    }
    // None of these has used it up.
    let line = format!(r#"{{"path":"/a","staged":"{id}"}}"#);
    let answer = ask_with(&mut raw, r#"{"id":1,"op":"commit"}"#, line.as_bytes());
    assert_eq!(answer["ok"]["n_members"], 1, "{answer}");
    let again = ask_with(&mut raw, r#"{"id":1,"op":"commit"}"#, line.as_bytes());
    assert_eq!(code(&again), "bad_request");
}

#[test]
fn what_another_identity_staged_is_not_ours() {
    let server = serve();
    runtime().block_on(async {
        let (dev, bob) = (client(&server, "dev"), client(&server, "bob"));
        let member = staged(&dev, "/a", b"of dev").await;
        assert_eq!(
            refused(bob.commit(std::slice::from_ref(&member)).await),
            "bad_request"
        );
        assert!(snapshot(&server.root()).is_empty());
        // The owner still has it.
        dev.commit(&[member]).await.unwrap();
    });
    assert_eq!(server.get("/a"), b"of dev");
}

#[test]
fn a_set_is_one_event_also_if_it_is_large() {
    const N: usize = 300;
    let server = serve();
    server.put("/set/old", b"x");
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let mut members = vec![removed("/set/old")];
        for number in 0..N {
            members.push(staged(&dev, &format!("/set/{number:0>100}"), b"x").await);
        }
        let committed = dev.commit(&members).await.unwrap();
        let mut stream = dev.watch("/set/".parse().unwrap(), since(1)).await.unwrap();
        let seen = caught_up(&mut stream).await;
        let [Delivery::Event(message)] = &seen[..] else {
            panic!("{} deliveries", seen.len());
        };
        assert_eq!(message.event.sequence, committed.sequence);
        let changes = &message.event.changes;
        assert_eq!(changes.len(), N + 1);
        assert_eq!(
            changes[0],
            FileChange::Removed {
                path: path("/set/old")
            }
        );
        assert!(
            changes[1..]
                .iter()
                .all(|change| matches!(change, FileChange::Created(_)))
        );
    });
    server.fails(3, &["stat", "/set/old"]);
}

#[test]
fn the_command_puts_all_or_nothing() {
    let server = serve();
    let local = |name: &str| {
        let path = server.directory.path().join(name);
        std::fs::write(&path, name).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (a, b) = (local("a"), local("b"));
    let said = server.ok(&["put", "--atomic", &a, &b, "/in/", "--json"]);
    let committed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(committed["n_members"], 2);
    assert_eq!(server.get("/in/b"), b"b");
    let c = local("c");
    server.fails(3, &["put", "--atomic", "--if-absent", &c, &b, "/in/"]);
    server.fails(3, &["stat", "/in/c"]);
    let events = server.ok(&["watch", "/in/", "--since", "0", "--no-follow"]);
    assert_eq!(events.lines().count(), 2, "{events}");
    let dev = client(&server, "dev");
    let d = path("/in/d");
    let put = dev.put_bytes(&d, b"d".to_vec(), Conditions::default());
    assert_eq!(runtime().block_on(put).unwrap().version, Some(2));
}
