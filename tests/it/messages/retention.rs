//! What the log has let go of: whoever missed it is told, and whoever missed nothing is not.

use fsvc::client::Delivery;
use fsvc::protocol::{Lost, Start};

use super::{caught_up, client, runtime, say, serve_with, since, subscribe, with_cursor};
use crate::harness::Server;

/// A server that keeps 4 KiB of each topic, where "busy" has lost its beginning and "calm" nothing.
/// The last record that is lost, and the last of all.
fn server_with_a_gap() -> (Server, u64, u64) {
    let mut server = serve_with(&["--keep-size", "4KiB"]);
    let head = runtime().block_on(async {
        let alice = client(&server, "alice");
        say(&alice, "calm", "first").await;
        // Two cursors that have seen nothing of what follows.
        let dev = client(&server, "dev");
        for (topic, name) in [("busy", "away"), ("calm", "calm")] {
            let start = Start {
                since: Some(1),
                ..with_cursor(name)
            };
            let mut stream = subscribe(&dev, &[topic], start).await;
            assert_eq!(caught_up(&mut stream).await, []);
        }
        for number in 0..20 {
            say(&alice, "busy", &format!("{number:>1000}")).await;
        }
        say(&alice, "calm", "last").await
    });
    // After a restart nothing is in memory but what is in the log.
    server.signal("TERM");
    server.wait(super::LIMIT);
    server.restart();
    (server, 17, head)
}

#[track_caller]
fn check(seen: &[Delivery], lost: Option<Lost>, sequences: &[u64]) {
    let gaps: Vec<Lost> = seen
        .iter()
        .filter_map(|delivery| match delivery {
            Delivery::Lost(lost) => Some(*lost),
            _ => None,
        })
        .collect();
    let events: Vec<u64> = seen
        .iter()
        .filter_map(|delivery| match delivery {
            Delivery::Event(message) => Some(message.event.sequence),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, Vec::from_iter(lost), "{seen:?}");
    assert_eq!(events, sequences);
    if lost.is_some() {
        assert!(matches!(seen[0], Delivery::Lost(_)), "a gap is told first");
    }
}

#[test]
fn whoever_was_away_for_too_long_is_told_what_is_lost_and_then_gets_the_rest() {
    let (server, to, head) = server_with_a_gap();
    let gap = |from| Some(Lost { from, to });
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let seen = async |topics: &[&str], start: Start| {
            caught_up(&mut subscribe(&dev, topics, start).await).await
        };
        assert_eq!(head, 22);
        check(&seen(&["busy"], since(1)).await, gap(2), &[18, 19, 20, 21]);
        check(&seen(&["busy"], since(9)).await, gap(10), &[18, 19, 20, 21]);
        check(&seen(&["busy"], since(17)).await, None, &[18, 19, 20, 21]);
        check(&seen(&["busy"], since(20)).await, None, &[21]);
        let away = Start {
            since: None,
            ..with_cursor("away")
        };
        check(&seen(&["busy"], away).await, gap(2), &[18, 19, 20, 21]);
        // Whoever asks for the beginning gets what there is.
        check(&seen(&["busy"], since(0)).await, None, &[18, 19, 20, 21]);
        // Nothing of this topic is lost.
        check(&seen(&["calm"], since(1)).await, None, &[22]);
        let calm = Start {
            since: None,
            ..with_cursor("calm")
        };
        check(&seen(&["calm"], calm).await, None, &[22]);
    });
}

#[test]
fn a_gap_of_one_topic_takes_nothing_from_another() {
    let mut server = serve_with(&["--keep-size", "4KiB"]);
    runtime().block_on(async {
        let alice = client(&server, "alice");
        for number in 0..20 {
            say(&alice, "busy", &format!("{number:>1000}")).await;
            if number == 5 {
                say(&alice, "calm", "\"in the middle of what is lost\"").await;
            }
        }
    });
    server.restart();
    let lines = server.ok(&["subscribe", "**", "--since", "1", "--no-follow", "--json"]);
    let first = lines.lines().next().unwrap();
    assert_eq!(first, r#"{"lost":{"from":2,"to":17}}"#);
    assert!(lines.contains("in the middle of what is lost"), "{lines}");
    assert_eq!(lines.lines().count(), 6, "{lines}");
    let said = server.run(&["subscribe", "busy", "--since", "1", "--no-follow"]);
    let complaint = crate::harness::text(&said.stderr);
    assert!(
        complaint.contains("records 2 to 17 are no longer in the log"),
        "{complaint}"
    );
    assert_eq!(crate::harness::text(&said.stdout).lines().count(), 4);
}

#[test]
fn what_is_left_behind_a_gap_survives_a_cut_right_after_it() {
    let mut server = serve_with(&["--keep-size", "4KiB"]);
    runtime().block_on(async {
        let alice = client(&server, "alice");
        for number in 0..20 {
            say(&alice, "busy", &format!("{number:>1000}")).await;
            // The last one of each topic stays, whatever its size.
            if number < 4 {
                say(&alice, &format!("calm/{number}"), &"x".repeat(60_000)).await;
            }
        }
    });
    server.restart();
    let proxy = super::interruptions::Proxy::start(&server.address);
    let runtime = runtime();
    // The first connection ends after the gap, before what is left in it.
    for cut in (10_000..200_000).step_by(10_000) {
        proxy.cut_after(&[cut]);
        let sequences = runtime.block_on(async {
            let dev = super::client_at(&proxy.address, &server, "dev");
            let mut stream = subscribe(&dev, &["**"], since(1)).await;
            let mut sequences = std::collections::BTreeSet::new();
            while sequences.last() != Some(&24) {
                if let Delivery::Event(message) = super::next(&mut stream).await.unwrap() {
                    sequences.insert(message.event.sequence);
                }
            }
            sequences
        });
        let expected = [2, 4, 6, 8, 21, 22, 23, 24];
        assert_eq!(Vec::from_iter(sequences), expected, "cut after {cut}");
    }
}
