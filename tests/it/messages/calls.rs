//! Call and answer: a message that waits for its reply, and gets one, or is told that none came.

use std::time::Duration;

use fsvc::client::Delivery;
use fsvc::protocol::Start;
use serde_json::Value;

use super::{caught_up, client, event, refused, runtime, say, serve, since, subscribe, topic};
use crate::harness::{text, with_input};

const WAIT: Duration = Duration::from_secs(20);

#[test]
fn a_request_gets_the_reply_of_another_identity_and_only_one() {
    let server = serve();
    runtime().block_on(async {
        let (alice, bob) = (client(&server, "alice"), client(&server, "bob"));
        let mut jobs = subscribe(&bob, &["rpc/**"], Start::default()).await;
        let answer = async {
            let asked = event(&mut jobs).await;
            assert!(asked.event.reply_wanted);
            assert_eq!(asked.payload, b"2+2");
            let sequence = asked.event.sequence;
            bob.reply(sequence, "4").await.unwrap();
            // Nobody waits any more.
            assert_eq!(refused(bob.reply(sequence, "5").await), "not_found");
            sequence
        };
        let on = topic("rpc/sum");
        let (reply, asked) = tokio::join!(alice.request(&on, "2+2", WAIT), answer);
        let reply = reply.unwrap();
        assert_eq!(reply.payload, b"4");
        assert_eq!(reply.event.reply_to, Some(asked));
        assert!(reply.event.identity.ends_with("/client/bob"), "{reply:?}");
        // An empty reply is one, too.
        let answer = async {
            let asked = event(&mut jobs).await.event.sequence;
            bob.reply(asked, "").await.unwrap();
        };
        let (reply, ()) = tokio::join!(alice.request(&on, "", WAIT), answer);
        assert_eq!(reply.unwrap().payload, b"");
    });
}

#[test]
fn replies_are_for_the_one_who_asked() {
    let server = serve();
    runtime().block_on(async {
        let (alice, bob) = (client(&server, "alice"), client(&server, "bob"));
        let mut jobs = subscribe(&bob, &["**"], Start::default()).await;
        let answer = async {
            let asked = event(&mut jobs).await.event.sequence;
            bob.reply(asked, "secret").await.unwrap().sequence
        };
        let on = topic("rpc/sum");
        let (reply, replied) = tokio::join!(alice.request(&on, "?", WAIT), answer);
        assert_eq!(reply.unwrap().event.sequence, replied);
        let after = say(&alice, "other", "next").await;
        assert_eq!(event(&mut jobs).await.event.sequence, after);
        let mut all = subscribe(&client(&server, "dev"), &["**"], since(0)).await;
        let seen = caught_up(&mut all).await;
        let sequences: Vec<u64> = seen
            .iter()
            .map(|delivery| match delivery {
                Delivery::Event(message) => message.event.sequence,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(
            !sequences.contains(&replied) && sequences.contains(&after),
            "{sequences:?}"
        );
    });
    assert!(!server.ok(&["last", "**"]).contains("secret"));
    let topics = server.ok(&["topics"]);
    assert_eq!(topics.lines().count(), 2, "{topics}");
}

#[test]
fn nobody_replies_to_what_did_not_ask() {
    let server = serve();
    let plain = runtime().block_on(say(&client(&server, "alice"), "a", "no question"));
    server.put("/file", b"x");
    for sequence in [plain, plain + 1, plain + 2, 1 << 40] {
        let said = server.fails(3, &["reply", &sequence.to_string(), "1"]);
        assert!(said.contains("nobody waits"), "{said}");
    }
    let stats: Value =
        serde_json::from_str(&server.ok(&["admin", "log", "stats", "--json"])).unwrap();
    assert_eq!(stats["head"], plain + 1, "nothing was appended");
}

#[test]
fn without_a_reply_in_time_the_request_says_so() {
    let server = serve();
    let arguments = ["request", "rpc/nobody", "1", "--timeout", "1s"];
    let said = server.fails(6, &arguments);
    assert!(
        said.contains("nobody replied on rpc/nobody within 1s"),
        "{said}"
    );
    // Too late.
    server.fails(3, &["reply", "1", "1"]);
    runtime().block_on(async {
        let dev = client(&server, "dev");
        for seconds in [301, 100_000] {
            let asked = dev
                .request(&topic("a"), "?", Duration::from_secs(seconds))
                .await;
            assert_eq!(refused(asked.map(drop)), "bad_request");
        }
        let large = vec![b'x'; 65_537];
        let asked = dev.request(&topic("a"), large, WAIT).await;
        assert_eq!(refused(asked.map(drop)), "too_large");
    });
    server.fails(2, &["request", "a", "not json"]);
}

#[test]
fn the_commands_ask_and_answer() {
    let server = serve();
    let ask = server
        .client(
            "alice",
            &["request", "rpc/sum", "[1,2,3]", "--timeout", "20s"],
        )
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let printed = server.ok(&[
        "subscribe",
        "rpc/*",
        "--since",
        "0",
        "--count",
        "1",
        "--json",
    ]);
    let asked: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(asked["payload"], serde_json::json!([1, 2, 3]));
    assert_eq!(asked["reply_wanted"], true);
    let sequence = asked["sequence"].to_string();
    let replied = with_input(&mut server.client("bob", &["reply", &sequence, "-"]), b"6");
    assert!(replied.status.success(), "{}", text(&replied.stderr));
    let answer = ask.wait_with_output().unwrap();
    assert_eq!(
        (answer.status.code(), text(&answer.stdout)),
        (Some(0), "6\n".to_owned())
    );
}
