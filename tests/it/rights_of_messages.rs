//! Rights on topics, on events and on the log: without one nothing is done, shown, or told.

use std::io::Read;
use std::time::{Duration, Instant};

use fsvc::client::{Client, Delivery, PublishOptions};
use fsvc::protocol::{Conditions, Member, Start};
use serde_json::Value;

use crate::harness::{Server, text, with_input};
use crate::messages::{
    LIMIT, caught_up, client, end, event, filters, refused, runtime, say, since, subscribe, topic,
    with_cursor,
};
use crate::raw::snapshot;

fn grant(name: &str, allow: &[&str], on: &[&str]) -> String {
    format!(
        "[[grant]]\nto = \"spiffe://test.internal/client/{name}\"\nallow = {allow:?}\non = {on:?}\n"
    )
}

const FILES: [&str; 5] = ["list", "read", "create", "replace", "delete"];

/// alice may do everything.
fn alice() -> String {
    [
        grant("alice", &[&FILES[..], &["admin"]].concat(), &["/**"]),
        grant("alice", &["publish", "subscribe"], &["topic:**"]),
    ]
    .concat()
}

fn server(grants: &[String]) -> Server {
    Server::with_policy(&format!("{}{}", alice(), grants.concat()))
}

/// Gives the server another policy; waits until it has said what it thinks of it.
fn replace_policy(server: &Server, policy: &str, said: &str) {
    std::fs::write(server.directory.path().join("policy.toml"), policy).unwrap();
    let n_before = server.log().matches(said).count();
    server.signal("HUP");
    let until = Instant::now() + LIMIT;
    while server.log().matches(said).count() == n_before {
        assert!(Instant::now() < until, "{}", server.log());
        std::thread::yield_now();
    }
}

const HOLDS: &str = "another policy holds now";

fn stats(server: &Server) -> Value {
    let output = server
        .client("alice", &["admin", "log", "stats", "--json"])
        .output()
        .unwrap();
    let mut stats: Value = serde_json::from_slice(&output.stdout).unwrap();
    for moving in ["time", "file_size"] {
        stats.as_object_mut().unwrap().remove(moving);
    }
    stats
}

#[test]
fn without_publish_nothing_is_said() {
    let server = server(&[
        grant("dev", &["publish"], &["topic:mine/*"]),
        grant("dev", &["subscribe"], &["topic:**"]),
    ]);
    let before = stats(&server);
    for topic in ["a", "mine", "mine/a/b", "minex/a"] {
        for arguments in [
            &["publish", topic, "1"][..],
            &["publish", topic, "-", "--lines"],
            &["publish", topic, "-"],
            &["request", topic, "1", "--timeout", "1s"],
        ] {
            let size = if arguments.contains(&"--lines") {
                10
            } else {
                100_000
            };
            let output = with_input(&mut server.client("dev", arguments), &vec![b'1'; size]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{arguments:?}: {said}");
            assert!(
                said.contains(&format!("may not publish topic:{topic}")),
                "{said}"
            );
        }
    }
    assert_eq!(stats(&server), before);
    assert_eq!(server.staged(), Vec::<String>::new());
    server.ok(&["publish", "mine/a", "1"]);
}

#[test]
fn without_subscribe_nothing_is_read() {
    let server = server(&[
        grant("dev", &["publish"], &["topic:**"]),
        grant("dev", &["subscribe"], &["topic:open/a"]),
    ]);
    runtime().block_on(async {
        let alice = client(&server, "alice");
        for on in ["open/a", "open/b", "secret"] {
            say(&alice, on, &format!("of {on}")).await;
        }
        let secret = topic("secret");
        let large = alice.publish(&secret, vec![7; 70_000], PublishOptions::default());
        let large = large.await.unwrap().sequence;
        let dev = client(&server, "dev");
        let before = stats(&server);
        for on in ["secret", "open/b", "secret/**", "other/*"] {
            let read = dev.subscribe(filters(&[on]), since(0)).await;
            assert_eq!(refused(read.map(drop)), "denied", "{on}");
            let read = dev.subscribe(filters(&[on]), with_cursor("c")).await;
            assert_eq!(refused(read.map(drop)), "denied", "{on}");
            // One filter that opens nothing opens nothing for the others.
            let read = dev.subscribe(filters(&["open/a", on]), since(0)).await;
            assert_eq!(refused(read.map(drop)), "denied", "{on}");
            assert_eq!(
                refused(dev.last(filters(&[on]), |_| Ok(())).await),
                "denied",
                "{on}"
            );
        }
        assert_eq!(stats(&server), before, "no cursor was made");
        // A filter over many gives what each topic allows.
        for filter in ["**", "open/*", "*/a"] {
            let mut stream = subscribe(&dev, &[filter], since(0)).await;
            let seen = caught_up(&mut stream).await;
            let [Delivery::Event(message)] = &seen[..] else {
                panic!("{filter}: {seen:?}")
            };
            assert_eq!(message.payload, b"of open/a");
        }
        // Whether a message is there is not told either.
        let missing = dev
            .fetch(1 << 30, Vec::new())
            .await
            .unwrap_err()
            .to_string();
        let hidden = dev.fetch(large, Vec::new()).await.unwrap_err();
        assert_eq!(hidden.code().unwrap().to_string(), "not_found");
        assert_eq!(
            hidden.to_string().replace(&large.to_string(), "N"),
            missing.replace(&(1_u64 << 30).to_string(), "N")
        );
    });
    assert_eq!(server.ok(&["last", "**"]), "open/a: of open/a\n");
    let topics = server.ok(&["topics", "--json"]);
    assert!(
        topics.lines().count() == 1 && topics.contains("\"open/a\""),
        "{topics}"
    );
}

#[test]
fn without_subscribe_nobody_replies() {
    let server = server(&[
        grant("dev", &["publish"], &["topic:**"]),
        grant("bob", &["subscribe"], &["topic:rpc"]),
    ]);
    runtime().block_on(async {
        let (alice, bob, dev) = (
            client(&server, "alice"),
            client(&server, "bob"),
            client(&server, "dev"),
        );
        let mut jobs = subscribe(&bob, &["rpc"], Start::default()).await;
        let on = topic("rpc");
        let answer = async {
            let asked = event(&mut jobs).await.event.sequence;
            let before = stats(&server);
            assert_eq!(refused(dev.reply(asked, "forged").await), "not_found");
            assert_eq!(stats(&server), before);
            // Who may read the question may answer it, without publish.
            bob.reply(asked, "true").await.unwrap();
        };
        let (reply, ()) = tokio::join!(alice.request(&on, "?", Duration::from_secs(20)), answer);
        assert_eq!(reply.unwrap().payload, b"true");
        assert_eq!(
            refused(bob.publish(&on, "x", PublishOptions::default()).await),
            "denied"
        );
    });
}

#[test]
fn a_watch_shows_only_what_may_be_read() {
    let server = server(&[
        grant("dev", &["read"], &["/open/**"]),
        grant("bob", &["list"], &["/**"]),
    ]);
    runtime().block_on(async {
        let (alice, dev, bob) = (
            client(&server, "alice"),
            client(&server, "dev"),
            client(&server, "bob"),
        );
        let mut stream = dev
            .watch("/".parse().unwrap(), Start::default())
            .await
            .unwrap();
        let path = |text: &str| text.parse::<fsvc::path::RemotePath>().unwrap();
        let none = Conditions::default();
        let put = async |name: &str| {
            alice
                .put_bytes(&path(name), b"1".to_vec(), none)
                .await
                .unwrap()
        };
        put("/secret/a").await;
        put("/open/b").await;
        put("/openly").await;
        alice
            .rename(&path("/secret/a"), &path("/open/a"), none)
            .await
            .unwrap();
        alice
            .rename(&path("/open/a"), &path("/secret/plan"), none)
            .await
            .unwrap();
        alice
            .copy(&path("/secret/plan"), &path("/open/c"), none)
            .await
            .unwrap();
        alice.remove(&path("/secret/plan"), None).await.unwrap();
        // Of a set only the part that may be seen.
        let mut members = Vec::new();
        for name in ["/secret/x", "/open/x"] {
            members.push(member(&alice, name).await);
        }
        alice.commit(&members).await.unwrap();
        alice.remove(&path("/open/b"), None).await.unwrap();
        let mut texts = Vec::new();
        for _ in 0..6 {
            texts.push(serde_json::to_string(&event(&mut stream).await.event.changes).unwrap());
        }
        let told: Vec<(Value, Value, usize)> = texts
            .iter()
            .map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap())
            .map(|changes| {
                (
                    changes[0]["change"].clone(),
                    changes[0]["path"].clone(),
                    changes.len(),
                )
            })
            .collect();
        let expected = [
            ("created", "/open/b"),
            ("created", "/open/a"),
            ("removed", "/open/a"),
            ("created", "/open/c"),
            ("created", "/open/x"),
            ("removed", "/open/b"),
        ];
        assert_eq!(
            told,
            expected.map(|(change, path)| (change.into(), path.into(), 1))
        );
        assert!(!texts.concat().contains("secret"), "{texts:?}");
        for prefix in ["/secret/", "/secret/x", "/openly"] {
            let watched = dev.watch(prefix.parse().unwrap(), since(0)).await;
            assert_eq!(refused(watched.map(drop)), "denied", "{prefix}");
        }
        let watched = bob.watch("/".parse().unwrap(), since(0)).await;
        assert_eq!(refused(watched.map(drop)), "denied", "list does not read");
    });
}

async fn member(client: &Client, name: &str) -> Member {
    let staged = client.stage(&b"set"[..], Some(3)).await.unwrap();
    Member {
        path: name.parse().unwrap(),
        staged: Some(staged.staged),
        remove: false,
        if_absent: false,
        if_version: None,
        digest: None,
        attributes: None,
    }
}

#[test]
fn a_set_with_one_forbidden_member_changes_nothing() {
    let server = server(&[
        grant("dev", &["create"], &["/in/**"]),
        grant("dev", &["replace"], &["/fixed"]),
    ]);
    for name in ["/in/there", "/fixed", "/other"] {
        let put = with_input(&mut server.client("alice", &["put", "-", name]), b"old");
        assert!(put.status.success());
    }
    let before = (snapshot(&server.root()), stats(&server));
    let remove = |name: &str| Member {
        path: name.parse().unwrap(),
        staged: None,
        remove: true,
        if_absent: false,
        if_version: None,
        digest: None,
        attributes: None,
    };
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let good = async || member(&dev, "/in/new").await;
        for bad in ["/out/new", "/in/there", "/other"] {
            let bad = member(&dev, bad).await;
            let path = bad.path.clone();
            let answer = dev.commit(&[good().await, bad]).await;
            assert_eq!(refused(answer), "denied", "{path}");
        }
        for name in ["/in/there", "/fixed"] {
            let answer = dev.commit(&[good().await, remove(name)]).await;
            assert_eq!(refused(answer), "denied", "{name}");
        }
        assert_eq!((snapshot(&server.root()), stats(&server)), before);
        let members = [good().await, member(&dev, "/fixed").await];
        dev.commit(&members).await.unwrap();
    });
}

#[test]
fn whoever_may_write_nothing_stages_nothing() {
    let server = server(&[
        grant("dev", &["list", "read", "delete"], &["/**"]),
        grant("bob", &["replace"], &["/one"]),
    ]);
    runtime().block_on(async {
        let staged = client(&server, "dev").stage(&b"x"[..], Some(1)).await;
        assert_eq!(refused(staged), "denied");
        let staged = client(&server, "dev")
            .stage(std::io::repeat(7).take(100_000), None)
            .await;
        assert_eq!(refused(staged), "denied");
        assert_eq!(server.staged(), Vec::<String>::new());
        client(&server, "bob")
            .stage(&b"x"[..], Some(1))
            .await
            .unwrap();
    });
}

#[test]
fn without_admin_the_log_is_not_looked_after() {
    let server = server(&[
        grant("dev", &FILES, &["/**"]),
        grant("bob", &["admin"], &["/in/**"]),
    ]);
    std::fs::create_dir(server.root().join("in")).unwrap();
    std::fs::write(server.root().join("in/found"), b"x").unwrap();
    std::fs::write(server.root().join("found"), b"x").unwrap();
    let before = stats(&server);
    let denied = |who: &str, arguments: &[&str]| {
        let output = server.client(who, arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(4),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(
            text(&output.stderr).contains("may not admin"),
            "{}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty());
    };
    for arguments in [
        &["reconcile"][..],
        &["reconcile", "/in/"],
        &["admin", "log", "stats"],
        &["admin", "log", "verify"],
    ] {
        denied("dev", arguments);
    }
    // A right on a part is none on the whole.
    for arguments in [
        &["reconcile"][..],
        &["reconcile", "/in"],
        &["admin", "log", "stats"],
        &["admin", "log", "verify"],
    ] {
        if arguments != ["reconcile", "/in"] {
            denied("bob", arguments);
        }
    }
    assert_eq!(stats(&server), before);
    let output = server
        .client("bob", &["reconcile", "/in/", "--json"])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["n_found"], 1, "{found}");
    assert_eq!(stats(&server)["n_files"], 1);
}

#[test]
fn a_right_that_is_taken_away_ends_what_runs_on_it() {
    let wide = format!(
        "{}{}{}",
        alice(),
        grant("dev", &["subscribe"], &["topic:a/**"]),
        grant("dev", &["read"], &["/a/**"])
    );
    let server = Server::with_policy(&wide);
    let runtime = runtime();
    let (dev, alice_client) = (client(&server, "dev"), client(&server, "alice"));
    let mut streams = runtime.block_on(async {
        vec![
            subscribe(&dev, &["a/*"], Start::default()).await,
            subscribe(&dev, &["a/b"], with_cursor("c")).await,
            subscribe(
                &dev,
                &["a/b"],
                Start {
                    group: true,
                    ..with_cursor("g")
                },
            )
            .await,
            dev.watch("/a/".parse().unwrap(), Start::default())
                .await
                .unwrap(),
        ]
    });
    runtime.block_on(async {
        for stream in &mut streams {
            assert_eq!(caught_up(stream).await, []);
        }
    });
    // A broken policy changes nothing.
    replace_policy(&server, "[[grant]]\nto = 7", "nothing was read anew");
    runtime.block_on(async {
        say(&alice_client, "a/b", "still there").await;
        for stream in &mut streams[..3] {
            assert_eq!(event(stream).await.payload, b"still there");
        }
    });
    replace_policy(&server, &alice(), HOLDS);
    let began = Instant::now();
    runtime.block_on(async {
        say(&alice_client, "a/b", "too late").await;
        for stream in &mut streams {
            let error = end(stream).await;
            assert_eq!(error.code().unwrap().to_string(), "denied", "{error}");
        }
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        let again = dev.subscribe(filters(&["a/*"]), Start::default()).await;
        assert_eq!(refused(again.map(drop)), "denied");
    });
}

#[test]
fn a_policy_that_narrows_a_subscription_stops_what_it_takes_away() {
    let dev_on = |topics: &[&str], paths: &[&str]| {
        [
            alice(),
            grant("dev", &["subscribe"], topics),
            grant("dev", &["read"], paths),
        ]
        .concat()
    };
    let server = Server::with_policy(&dev_on(&["topic:**"], &["/**"]));
    let runtime = runtime();
    let (dev, alice) = (client(&server, "dev"), client(&server, "alice"));
    let (mut topics, mut files) = runtime.block_on(async {
        let files = dev
            .watch("/".parse().unwrap(), Start::default())
            .await
            .unwrap();
        (subscribe(&dev, &["**"], Start::default()).await, files)
    });
    let put = async |name: &str| {
        let path = name.parse().unwrap();
        let put = alice.put_bytes(&path, b"1".to_vec(), Conditions::default());
        put.await.unwrap().version.unwrap()
    };
    runtime.block_on(async {
        say(&alice, "secret", "1").await;
        assert_eq!(event(&mut topics).await.payload, b"1");
        let version = put("/secret/a").await;
        assert_eq!(event(&mut files).await.event.sequence, version);
    });
    replace_policy(&server, &dev_on(&["topic:open"], &["/open/**"]), HOLDS);
    runtime.block_on(async {
        say(&alice, "secret", "2").await;
        put("/secret/b").await;
        let after = (say(&alice, "open", "3").await, put("/open/a").await);
        assert_eq!(event(&mut topics).await.event.sequence, after.0);
        assert_eq!(event(&mut files).await.event.sequence, after.1);
    });
    // And one that widens it again opens it again, from there on.
    replace_policy(&server, &dev_on(&["topic:**"], &["/**"]), HOLDS);
    runtime.block_on(async {
        let sequence = say(&alice, "secret", "4").await;
        assert_eq!(event(&mut topics).await.event.sequence, sequence);
    });
}
